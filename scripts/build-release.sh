#!/usr/bin/env bash
# Builds the release of the last commit: scripts/build-release.sh dist
#
# The wheel has praxis-init for both architectures, compiled by zig, and suits every platform: the binaries are data for
# Linux containers of either architecture, whatever runs Python. The versions of what builds are fixed, and times are
# those of the commit, so that the same commit gives the same bytes on any machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
builders=(hatchling==1.33.0 ziglang==0.16.0)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '%s\n' "$*" >&2; }

mkdir "$work/tree"
git archive HEAD | tar -x -C "$work/tree"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH PRAXIS_NATIVE_COMPILER=zig PRAXIS_NATIVE_MACHINES=all PRAXIS_REQUIRE_NATIVE=1

say "Fetching what builds: ${builders[*]}"
scripts/make-venv.sh "$work/venv"
scripts/install.sh "$work/venv" "${builders[@]}" >&2
say "Compiling praxis-init and packing (a minute or two, the first time)"
(cd "$work/tree" && "$work/venv/bin/python" -m hatchling build --target wheel --target sdist --directory "$work/dist") >&2
mv "$work"/dist/* "$out/"
(cd "$out" && sha256sum praxis_mcp-*)
