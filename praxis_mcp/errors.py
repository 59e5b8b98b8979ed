"""Every exception that praxis-mcp raises on purpose.

::

    PraxisError
    ├── SettingsError            a setting is wrong; the server does not start
    ├── ContractError            a contract is wrong; carries diagnostics with file, line, field and remedy
    ├── UnknownToolError         no contract has that name
    ├── ArgumentError            the caller's arguments do not fit the contract; the caller can fix the call
    ├── OutputMisfit             a tool ended well, but its output is not what its contract declares
    ├── RunNotFoundError         no run record has that id (any more)
    ├── RecordsUnavailable       the store of run records cannot be read or written
    └── ExecutionError           the tool could not be run, or its run could not be finished
        ├── EngineUnavailable    an engine is missing, down or out of reach
        ├── ImageError           an image is missing, unreachable or unusable
        ├── CommandNotFound      the image or host has no such command
        ├── LimitUnsupported     no available engine can enforce what the contract demands
        ├── ExecutionTimeout     the engine did not get the tool started before the deadline
        ├── RunCancelled         somebody else than the caller ended the run
        ├── RemoteError          another MCP server answered a request with a protocol error
        └── QueueFull            too many calls are running and waiting already

All of them are names of `praxis_mcp` itself. An engine may raise a subclass of its own, which is caught by these.

A command that fails, runs into its deadline or out of memory is *not* an error: it is an `ExecutionResult` that
says so, with all the output there was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from praxis_mcp.diagnostics import Diagnostic


class PraxisError(Exception):
    """Base of all errors here.

    Args:
        message: what is wrong and where, in one sentence.
        remedy: how to fix it, in one sentence or command; shown after the message.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class SettingsError(PraxisError):
    """A setting (file, environment variable or flag) is wrong."""


class ContractError(PraxisError):
    """A contract cannot be used; `diagnostics` say why, each with its place and remedy."""

    def __init__(self, message: str, *, diagnostics: Sequence[Diagnostic] = (), remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.diagnostics = tuple(diagnostics)


class UnknownToolError(PraxisError):
    """No contract in the catalog has that name."""


class ArgumentError(PraxisError):
    """Arguments do not fit the contract. `problems` holds one sentence for each."""

    def __init__(self, message: str, *, problems: Sequence[str] = (), remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.problems = tuple(problems)


class OutputMisfit(PraxisError):
    """A tool ended well, but what it wrote is not what its contract declares."""


class RunNotFoundError(PraxisError):
    """No record of that run is kept (any more)."""


class RecordsUnavailable(PraxisError):
    """The store of run records cannot be read or written. No call fails of it."""


class ExecutionError(PraxisError):
    """A tool could not be run, or its run could not be finished.

    Args:
        message: what is wrong, naming the tool or engine.
        exit_code: the exit code, where the tool got that far.
        output: the end of what the tool wrote, where it got that far.
        remedy: how to fix it.
    """

    def __init__(
        self,
        message: str,
        exit_code: int | None = None,
        output: str | None = None,
        *,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code
        self.output = output


class EngineUnavailable(ExecutionError):
    """An engine cannot be used: what is missing, what was found, how to fix it."""


class ImageError(ExecutionError):
    """An image is missing, cannot be pulled, or cannot be run."""


class CommandNotFound(ExecutionError):
    """The command does not exist, or is not executable, where the tool runs."""


class LimitUnsupported(ExecutionError):
    """A contract demands something that the engine cannot enforce; refused rather than ignored."""


class ExecutionTimeout(ExecutionError):
    """The engine did not get the tool started before the call's deadline (a hung daemon, an endless pull)."""


class RunCancelled(ExecutionError):
    """Somebody else than the caller ended the run: an operator, in the console."""


class RemoteError(ExecutionError):
    """Another MCP server answered with a protocol error: its JSON-RPC `code`, and its `data`."""

    def __init__(self, message: str, code: int, data: object = None, *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.data = data


class QueueFull(ExecutionError):
    """Too many calls are running and waiting; the caller may try again later."""
