"""``python -m praxis_mcp.cli``: the same as ``praxis-mcp``."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()] and not __file__.startswith(os.path.join(os.getcwd(), "")):  # noqa: PTH109, PTH118
    # `-m` looks for modules in the directory that it is started in first: a project, whose files are not part of ours.
    del sys.path[0]

from praxis_mcp.cli import main

main()
