# SPDX-License-Identifier: Apache-2.0
# Sourced by ./check and ./demo: where slow things are cached, shared by all presets and clones.
herald_cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/herald
mkdir -p "$herald_cache/ccache"
export CCACHE_DIR="$herald_cache/ccache"
export CCACHE_BASEDIR="$PWD"
export CCACHE_NOHASHDIR=1
export CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-8G}
export CCACHE_COMPILERCHECK=content

# build_preset PRESET [TARGET...]: configures when needed and builds; prints the tail of the log on failure.
build_preset() {
    local preset=$1 log began=$SECONDS
    shift
    mkdir -p build
    log=build/$preset.log
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" -j "$(nproc)" ${1:+--target "$@"}; } >"$log" 2>&1; then
        grep -nE 'error|Error|FAILED' "$log" | head -n 20 >&2 || true
        tail -n 30 "$log" >&2
        echo "The build of preset '$preset' failed; the whole log is $log." >&2
        return 1
    fi
    echo "built $preset in $((SECONDS - began)) s"
}
