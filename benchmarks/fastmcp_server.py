"""The same tool by FastMCP, as its users write one: a function that runs the command.

Started by a Python that has FastMCP (``pip install fastmcp`` in an environment of its own, since it pins what it uses);
see `benchmarks.calls`.
"""

import subprocess

from fastmcp import FastMCP  # pyright: ignore[reportMissingImports]

server = FastMCP("peer")


@server.tool
def noop(text: str = "", count: int = 1) -> str:
    """Do nothing."""
    done = subprocess.run(["/bin/true"], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


if __name__ == "__main__":
    server.run(show_banner=False)
