#!/usr/bin/env bash
# Builds the binary to ship, target/dist/hearth: compiled by what ran how often (deploy/profile),
# with the GPU kernels in it.
#
#   deploy/build.sh            (make release)
#   deploy/build.sh train      writes the profile anew: half an hour                 (make profile)
#
# The profile knows functions by name and shape: one that was changed since is compiled without it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
host=$(rustc -vV | sed -n 's/^host: //p')
compiler=$(rustc -V | cut -d' ' -f2)
profile=deploy/profile/$compiler-$host.profdata.gz
built=$target/$host/dist/hearth

# The flags are for what runs, not for what builds it: so the target is named. Names of functions
# hang on that too.
build() { # flags of the compiler beside those that are set
    local flags
    read -ra flags <<<"${RUSTFLAGS:-}"
    flags+=("$@")
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf %s "${flags[*]}") \
        cargo build --profile dist --locked -p gateway --target "$host"
}

train() {
    local counts=$target/profile/counts llvm tool
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for tool in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$llvm"; do
        command -v "$tool" >/dev/null && break
        tool=
    done
    if [ -z "$tool" ]; then
        echo "llvm-profdata is missing: rustup component add llvm-tools, or: apt-get install llvm-$llvm" >&2
        exit 69
    fi
    build "-Cprofile-generate=$counts"
    cargo build --release --locked -p benches
    rm -rf "$counts"
    # Not many streams at once: counting, it may be too slow for so many.
    "$target/release/bench" gateway --case whole --case paced --case flood --rounds 1 --hearth "$built"
    "$target/release/bench" overhead --no-record --rounds 1 --hearth "$built"
    # Of the kernels a machine runs a few of many, by its instructions and by the model's weights:
    # their loops are written as they are to run.
    mkdir -p "$(dirname "$profile")"
    "$tool" merge --sparse --no-function='^(kernels\.|_ZN7kernels|_ZN.*7kernels3cpu)' \
        -o "$target/profile/hearth.profdata" "$counts"
    gzip -9 -n <"$target/profile/hearth.profdata" >"$profile"
}

release() {
    local flags=()
    if [ -e "$profile" ]; then
        # Another profile has another name, or cargo would take what it built by the last one.
        local unpacked
        unpacked=$target/profile/$(cksum <"$profile" | cut -d' ' -f1).profdata
        mkdir -p "$target/profile"
        # A file that was written anew would have everything compiled anew.
        [ -e "$unpacked" ] || { gzip -dc "$profile" >"$unpacked.new" && mv "$unpacked.new" "$unpacked"; }
        flags=("-Cprofile-use=$unpacked")
    else
        echo "no $profile: built without; 'make profile' makes one" >&2
    fi
    # Kernels first, by the binary itself, which then takes them in.
    build "${flags[@]}"
    VIRTUAL_ENV=$root/tests/.venv "$built" kernels build --out "$target/cubins"
    HEARTH_CUBINS=$target/cubins build "${flags[@]}"
    mkdir -p "$target/dist"
    cp "$built" "$target/dist/hearth"
}

case "${1:-release}" in
    train | release) "${1:-release}" ;;
    *) echo "usage: deploy/build.sh [train]" >&2; exit 64 ;;
esac
