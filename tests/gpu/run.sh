#!/usr/bin/env bash
# Everything that only a GPU can show, in ten minutes, from the repository's root: kernels against
# their references, whole models, the demo model's answers, speed, and a peer on the same card.
# Needs target/gpu/pack.tar.gz (make gpu), NVIDIA's driver and python3; torch and transformers for
# the peer. Writes $OUT/results.jsonl and $OUT/log.txt; prints a short table last.
#
#   tests/gpu/run.sh [PART ...]      parts: see below; all of them without a name
#   GPU_SECONDS=570                  for all parts together: later ones are left out
#   GPU_DEVICE=cuda:0  GPU_PYTHON=python3
#   HEARTH_GPU_DRY=1                 tries this script out on a CPU, with shapes of no meaning;
#                                    HEARTH_BIN=FILE takes a binary instead of the pack's
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
begin=$SECONDS
seconds=${GPU_SECONDS:-570}
dry=${HEARTH_GPU_DRY:-}
out=${OUT:-target/gpu/out}
python=${GPU_PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
results=$out/results.jsonl
log=$out/log.txt
: > "$results"
: > "$log"

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
if [ -e target/gpu/pack.tar.gz ]; then
    tar -xzf target/gpu/pack.tar.gz -C "$unpacked" || exit 1
elif [ -z "${HEARTH_BIN:-}" ]; then
    echo "target/gpu/pack.tar.gz is missing: make gpu" >&2
    exit 66
fi
if [ ! -e "$unpacked/data" ]; then
    mkdir "$unpacked/data"
    for name in eval reference; do
        zstd -dqc "tests/data/$name.jsonl.zst" > "$unpacked/data/$name.jsonl" || exit 1
    done
fi
export HEARTH_GPU_DATA=$unpacked/data
hearth=${HEARTH_BIN:-$unpacked/hearth}
HEARTH_COMMIT=${HEARTH_COMMIT:-$(cat "$unpacked/commit" 2>/dev/null || echo unknown)}
export HEARTH_COMMIT

# NVRTC and cuBLASLt come as Python packages where there is no toolkit.
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>>"$log")
for folder in "$packages"/nvidia/*/lib; do
    [ -d "$folder" ] && LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH

# The test program looks for its data where it was built.
if [ -e "$unpacked/built_in" ]; then
    built_in=$(cat "$unpacked/built_in")
    if [ ! -e "$built_in" ]; then
        mkdir -p "$(dirname "$built_in")" && ln -s "$PWD" "$built_in"
    fi
fi

if [ -n "$dry" ]; then
    device=cpu shape=tiny context=16 steps=4 batches=1,2 prompts=32,64 load=32,8,16 mixed=64
    cache=auto peer=--tiny
else
    device=${GPU_DEVICE:-cuda:0} shape=llama-3.1-8b context=1024 steps=64
    batches=1,8,32,128,256 prompts=2048,8192 load=1000,1000,512 mixed=8192 cache=fp8 peer=
fi

# part NAME LIMIT COMMAND ...: runs it within its time and what is left of all, and notes how it
# ended. One that fails stops no other.
wanted=("$@")
failures=0
part() {
    local name=$1 limit=$2 rc from left=$((seconds - SECONDS + begin))
    shift 2
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then
        return
    fi
    if [ "$left" -lt 5 ]; then
        echo "{\"part\": \"$name\", \"left_out\": \"no time\"}" >> "$results"
        failures=$((failures + 1))
        return
    fi
    [ "$limit" -gt "$left" ] && limit=$left
    echo "== $name: $*" | tee -a "$log"
    from=$(date +%s.%N)
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee -a "$log"
    rc=${PIPESTATUS[0]}
    [ "$rc" = 0 ] || failures=$((failures + 1))
    printf '{"part": "%s", "rc": %d, "seconds": %.1f}\n' "$name" "$rc" \
        "$(awk -v a="$from" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')" >> "$results"
}

# Whole models on the card; that none ran is a failure too.
models() {
    local text
    text=$("$unpacked/release/deps/cuda" --ignored --test-threads=4 --show-output 2>&1)
    local rc=$?
    echo "$text"
    [ $rc = 0 ] && ! grep -q "ok. 0 passed" <<< "$text"
}
export -f models
export unpacked

bench() { # bench NAME LIMIT FLAGS ...
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$hearth" bench engine --device "$device" --shape "$shape" \
        --json "$results" "$@"
}

if [ -z "$dry" ]; then
    part card 20 nvidia-smi
    part kernels 150 "$hearth" doctor --gpu --listen 127.0.0.1:0 --device "$device"
    part models 90 bash -c models
fi
check() { # check NAME WHAT DTYPE
    part "$1" 60 "$python" tests/gpu/check.py "$hearth" "$2" --device "$device" --dtype "$3" \
        --json "$results"
}
check reference_float32 reference float32
check reference_bf16 reference bfloat16
check eval_bf16 eval bfloat16
decode=(--batch "$batches" --context "$context" --steps "$steps")
bench bf16 90 --dtype bf16 "${decode[@]}" --prompts "$prompts"
bench fp8 70 --dtype fp8 "${decode[@]}" --prompts "$prompts"
bench int4 70 --dtype int4 "${decode[@]}" --prompts "$prompts"
bench load_fp8 120 --dtype fp8 --cache-dtype "$cache" --throughput "$load"
part peer 160 "$python" tests/gpu/peer.py --device "$device" --json "$results" --seconds 140 $peer
bench mixed_bf16 60 --dtype bf16 --context "$context" --mixed "$mixed"
bench q4_k 60 --dtype q4_k "${decode[@]}"

"$python" tests/gpu/table.py "$results"
echo "$failures parts failed; $((SECONDS - begin)) s; all of it: $results and $log"
[ "$failures" = 0 ]
