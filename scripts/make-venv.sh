#!/bin/sh
# Makes a virtual environment with a new enough Python: scripts/make-venv.sh .venv. By uv where that is there (a second),
# else by Python's own venv, with pip.
# PYTHON=/path/to/python names the interpreter; otherwise python3 and then python3.13, 3.12 and 3.11 are tried.
set -eu

venv=${1:-.venv}
floor="3.11"
new_enough="import sys; sys.exit(sys.version_info < (3, 11))"

say() { printf '%s\n' "$*" >&2; }

# A name on the PATH may be a shim that runs nothing, so each candidate is run.
usable() { command -v "$1" >/dev/null 2>&1 && "$1" -c "$new_enough" >/dev/null 2>&1; }

version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "does not run"; }

need_pip() {
    if command -v uv >/dev/null 2>&1; then return; fi
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null 2>&1 || {
        say "error: $venv has no pip, and its Python has no ensurepip. Remove it (rm -r $venv) and run make again."
        exit 1
    }
}

if [ -e "$venv/bin/python" ]; then
    if ! usable "$venv/bin/python"; then
        say "error: $venv holds Python $(version_of "$venv/bin/python"), and $floor or newer is needed." \
            "Remove it (rm -r $venv) and run make again."
        exit 1
    fi
    need_pip
    exit 0
fi

above=$(dirname "$venv")
if [ -d "$above" ] && ! [ -w "$above" ]; then
    say "error: $venv cannot be made: this user may not write to $(cd "$above" && pwd). Copy the tree, or name a place of" \
        "your own: make VENV=\"\$HOME/praxis-venv\" …"
    exit 1
fi

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done

if command -v uv >/dev/null 2>&1; then
    say "Making $venv with uv (${python:-"a Python that it fetches"})"
    uv venv --quiet --seed --python "${python:-">=$floor"}" "$venv"
elif [ -n "$python" ] && "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    say "Making $venv with $(command -v "$python") ($(version_of "$python"))"
    "$python" -m venv "$venv"
elif [ -n "$python" ]; then
    say "error: $(command -v "$python") ($(version_of "$python")) cannot make virtual environments: venv or ensurepip" \
        "is missing. On Debian and Ubuntu: apt install python3-venv. Or install uv and run make again."
    exit 1
else
    say "error: Python $floor or newer is needed."
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null 2>&1; then
            say "  found $(command -v "$candidate"): $(version_of "$candidate")"
        else
            say "  $candidate: not on the PATH"
        fi
    done
    say "Install one (on Debian 12, Ubuntu 24.04 or newer: apt install python3 python3-venv), name one by" \
        "PYTHON=/path/to/python3, or install uv, which brings its own; then run make again."
    exit 1
fi
need_pip
