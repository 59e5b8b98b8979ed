#!/bin/sh
# Installs into a virtual environment and shows what it does: scripts/install.sh .venv --editable '.[all]'
# By uv where that is there, which takes seconds, else by pip. Modules are compiled when they are first imported.
set -eu

venv=$1
shift

if command -v uv >/dev/null 2>&1; then
    # Else a checkout whose C sources changed would count as installed.
    exec uv pip install --python "$venv/bin/python" --reinstall-package praxis-mcp "$@"
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

case " $* " in
*" --group "*) # (PEP 735) needs pip 25.1
    "$venv/bin/python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' ||
        pip install --quiet --no-compile --upgrade 'pip>=25.1'
    ;;
esac

terminal=0
if [ -t 1 ]; then terminal=1; fi
{
    pip install --no-compile --progress-bar off "$@" && echo "exit 0" || echo "exit $?"
} | awk -v terminal="$terminal" '
    function show(text) { if (terminal) printf "\r\033[K  %s", text; else print "  " text; fflush() }
    /^exit [0-9]+$/ { code = $2; next }
    /^Collecting / { count++; show(sprintf("%d packages: %s", count, $2)) }
    /^ *(Building|Preparing|Getting requirements)/ { sub(/^ */, ""); sub(/: started$/, ""); if (!/: finished/) show($0) }
    /^Installing collected/ { show(sprintf("installing %d packages", count + 1)) }
    END { if (terminal) printf "\r\033[K"; exit code }
'
