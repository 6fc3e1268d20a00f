#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs on a machine that has a GPU but no Rust and no network:
# target/gpu/pack.tar.gz with the release binary, kernels compiled in, and the test program that
# puts whole models on a card. The rest of the tree travels as it is.
#
#   tests/gpu/pack.sh           (make gpu)
#   GPU_ARCHS=sm_80,sm_90a      architectures of the kernels [sm_90a: H100, H200]
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
archs=${GPU_ARCHS:-sm_90a}
out=$root/target/gpu
# Together with the tree below what such machines take at once.
pack_bytes_max=$((28 << 20))
together_bytes_max=$((64 << 20))

# Kernels first, by the release binary itself, which then takes them in.
export VIRTUAL_ENV=$root/tests/.venv
cubins=$(realpath -m "$target/cubins-gpu")
cargo build --release --locked -p gateway
"$target/release/hearth" kernels build --arch "$archs" --out "$cubins"
export HEARTH_CUBINS=$cubins
cargo build --release --locked -p gateway

staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
strip -o "$staged/hearth" "$target/release/hearth"
program=$(
    cargo test --release --locked --no-run --message-format=json -p engine --test cuda |
    python3 -c '
import json, sys
for line in sys.stdin:
    found = json.loads(line)
    if found.get("executable") and found["target"]["name"] == "cuda":
        print(found["executable"])
'
)
# It unpacks its models beside the folders that cargo would have put it into.
mkdir -p "$staged/release/deps"
strip -o "$staged/release/deps/cuda" "$program"
# The test program looks for its data in the folder it was built in.
echo "$root" > "$staged/built_in"
mkdir -p "$staged/data"
for name in eval reference; do
    zstd -dqc "tests/data/$name.jsonl.zst" > "$staged/data/$name.jsonl"
done
echo "${HEARTH_COMMIT:-$(git describe --always --dirty --abbrev=12)}" > "$staged/commit"

mkdir -p "$out"
tar -C "$staged" --sort=name --owner=0 --group=0 -cf - . | gzip -9 > "$out/pack.tar.gz"
pack=$(stat -c %s "$out/pack.tar.gz")
tree=$(git ls-files -z --cached --others --exclude-standard |
    xargs -0 stat -c %s 2>/dev/null | awk '{ all += $1 } END { print all }')
mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }
echo "target/gpu/pack.tar.gz: $(mib "$pack"); with the tree $(mib $((pack + tree)))"
if [ "$pack" -gt $pack_bytes_max ] || [ $((pack + tree)) -gt $together_bytes_max ]; then
    echo "that is too large: at most $(mib $pack_bytes_max), $(mib $together_bytes_max)" >&2
    exit 1
fi
echo "on the machine with the GPU, in the repository's root, with target/gpu carried along:"
echo "    tests/gpu/run.sh"
