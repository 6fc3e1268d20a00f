#!/usr/bin/env bash
# Builds one target with coverage counters and runs it for some seconds: fuzz/run.sh chat 60
# Stable Rust, libFuzzer as the crate libfuzzer-sys brings it, no sanitizer (what it fuzzes has no
# unsafe code). What was found so far is kept between runs. An input that fails is kept as
# TARGET-crash-* in the build's folder; the program takes it as its only argument.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# != 2 ] || [ ! -f "fuzz/src/bin/$1.rs" ]; then
    echo "usage: fuzz/run.sh TARGET SECONDS, where TARGET is one of:" \
        "$(basename -as .rs fuzz/src/bin/*.rs | tr '\n' ' ')" >&2
    exit 64
fi
target=$1 seconds=$2
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
# With --target the flags are for the target alone, not for build scripts.
machine=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Ccodegen-units=1"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$flag"
done
RUSTFLAGS="$flags" cargo build --quiet --locked --manifest-path fuzz/Cargo.toml \
    --target "$machine" --target-dir "$build" --bin "$target"
found="$build/corpus/$target" seeds="$build/seeds/$target"
mkdir -p "$found" "$seeds"
# Targets that need files on a disk leave them here.
export TMPDIR=$build
# The last folder is the one that the target writes its seeds into.
exec "$build/$machine/debug/$target" -max_total_time="$seconds" -max_len=4096 \
    -rss_limit_mb=2048 -timeout=10 -artifact_prefix="$build/$target-" -print_final_stats=1 \
    "$found" "$seeds"
