"""praxis_mcp as a library: a directory of tools, a contract built in code, an engine by itself, and errors.

    python examples/library.py

It needs no container engine: its tools are commands of this machine, run in a sandbox where one can be made.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio

import praxis_mcp
from praxis_mcp import ArgumentError, ContractError, ExecutionError, LocalExecutionEngine, Settings, ToolContract

GREET = """
name: greet
description: Greets somebody.
engine: local
command: [sh, -c, 'echo "Hello, $WHO"']
parameters:
  who: {type: string, minLength: 1}
"""


async def use_a_directory(directory: Path) -> None:
    """What a server serves, called without a server."""
    async with praxis_mcp.open_toolbox(Settings(tools=(directory,))) as toolbox:
        for finding in toolbox.catalog.diagnostics:
            print(finding)
        print("tools:", [entry.name for entry in toolbox.catalog.entries()])
        result = await toolbox.call("greet", {"who": "Ada"})
        print(result.success, result.output.strip())

        try:
            await toolbox.call("greet", {"whom": "Ada"})
        except ArgumentError as error:
            print("wrong arguments:", "; ".join(error.problems))


def build_a_contract() -> ToolContract:
    """The fields of a contract's file; parameters are written as there."""
    return ToolContract.create_local_tool(
        "count",
        ["sh", "-c", 'printf %s "$TEXT" | wc -c'],
        description="Counts the bytes of a text.",
        parameters={"text": {"type": "string"}},
        timeout=10,
    )


async def use_an_engine(contract: ToolContract) -> None:
    """One engine, chosen by you."""
    async with LocalExecutionEngine() as engine:
        try:
            result = await engine.execute(contract, {"text": "four"})
        except ExecutionError as error:  # the engine could not run it; a command that fails is a result
            print("not run:", error)
        else:
            print(result.exit_code, result.output.strip())


def see_what_is_wrong() -> None:
    """A contract is checked when it is built."""
    try:
        ToolContract.create_local_tool("t", ["true"], parameters={"n": {"type": "integer", "default": "many"}})
    except ContractError as error:
        print("wrong contract:", error.diagnostics[0].field)


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "greet.contract.yaml").write_text(GREET)
        await use_a_directory(Path(name))
    await use_an_engine(build_a_contract())
    see_what_is_wrong()


if __name__ == "__main__":
    anyio.run(main)
