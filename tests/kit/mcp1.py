"""The MCP SDK of version 1, in an environment of its own, because only one version can be installed in ours."""

from pathlib import Path

from tests.kit.environments import python_with

PACKAGE = "mcp==1.26.0"
SCRIPTS = Path(__file__).parent
"""Where its clients lie. Python puts a script's folder first on its path, so no folder there may be named as a package
that the script imports: below tests/serving lie `mcp` and `http`."""


def python() -> Path:
    """A Python that imports `mcp` 1.x.

    Raises:
        PackageUnavailable: it cannot be installed.
    """
    return python_with(PACKAGE)
