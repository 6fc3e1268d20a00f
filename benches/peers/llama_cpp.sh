#!/usr/bin/env bash
# Builds llama.cpp's benchmarks for this CPU from the sources inside PyPI's llama-cpp-python:
#   benches/peers/llama_cpp.sh DIR      -> DIR/bin/{llama-bench,llama-batched-bench,ggml_mul_mat}
set -euo pipefail
version=0.3.36
dir=$(mkdir -p "$1" && cd "$1" && pwd)
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check cmake ninja scikit-build-core
export PATH="$dir/venv/bin:$PATH"
pip download --quiet --no-deps --no-binary :all: --no-build-isolation \
    "llama-cpp-python==$version" -d "$dir"
tar -xf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir"
cmake -S "$dir/llama_cpp_python-$version/vendor/llama.cpp" -B "$dir" -G Ninja \
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=ON >/dev/null
ninja -C "$dir" llama-bench llama-batched-bench
source=$dir/llama_cpp_python-$version/vendor/llama.cpp
gcc -O2 -D_GNU_SOURCE -I"$source/ggml/include" "$(dirname "$0")/ggml_mul_mat.c" -L"$dir/bin" \
    -lggml -lggml-cpu -lggml-base -o "$dir/bin/ggml_mul_mat"
