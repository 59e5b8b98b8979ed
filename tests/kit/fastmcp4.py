"""FastMCP 4, whose client speaks the tasks extension, in an environment of its own: it brings seventy packages."""

from pathlib import Path

from tests.kit.environments import python_with

PACKAGE = "fastmcp[tasks]==4.1.4"
SCRIPT = Path(__file__).parent / "fastmcp4_client.py"


def python() -> Path:
    """A Python that imports `fastmcp` 4.

    Raises:
        PackageUnavailable: it cannot be installed.
    """
    return python_with(PACKAGE)
