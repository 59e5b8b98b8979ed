"""Failed runs and refused calls → text that a model can act on: what happened, what was written, what to change."""

from __future__ import annotations

import re
import signal

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec
from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.outcomes import describe_failed_run
from praxis_mcp.engines.output import Captured
from praxis_mcp.errors import ArgumentError, ContractError, ExecutionError, PraxisError
from praxis_mcp.serving.mcp.media import decode_text
from praxis_mcp.support.praxis_init import EXIT_NOT_FOUND, EXIT_SIGNAL_BASE
from praxis_mcp.support.text import counted

STDERR_LINES = 30
STDERR_BYTES = 6 * 1024
STDOUT_BYTES = 3 * 1024
"""How much of the end of each stream a failed run shows; the whole is linked."""

_LINE_END = re.compile(r"\r\n|\r|\n")
"""Where a terminal ends a line; ``str.splitlines`` would put a line feed where the tool wrote U+2028 or a form feed."""


def describe_failure(contract: ToolContract, result: ExecutionResult) -> str:
    """How a run ended that did not succeed: why, the end of its output, and a hint where one is known."""
    parts = [describe_failed_run(contract, result)]
    errors = last_part(result.stderr, STDERR_BYTES, STDERR_LINES)
    if errors:
        parts.append(f"Standard error{_ending(result.stderr, errors)}:\n{errors}")
    output = last_part(result.stdout, STDOUT_BYTES)
    if output:
        parts.append(f"Standard output{_ending(result.stdout, output)}:\n{output}")
    if not errors and not output and (result.stdout.total or result.stderr.total):
        parts.append(f"It wrote {counted(result.stdout.total, 'byte')} of binary output.")
    elif not result.stdout.total and not result.stderr.total:
        parts.append("It wrote nothing.")
    hint = _hint(contract, result, f"{errors}\n{output}")
    if hint:
        parts.append(f"Hint: {hint}")
    return "\n\n".join(parts)


def failure_sentences(contract: ToolContract, result: ExecutionResult) -> tuple[str, str]:
    """Why a run did not succeed, and what to change (empty where that is not known), without its output."""
    written = "\n".join((last_part(result.stderr, STDERR_BYTES, STDERR_LINES), last_part(result.stdout, STDOUT_BYTES)))
    return describe_failed_run(contract, result), _hint(contract, result, written)


def describe_error(error: PraxisError) -> str:
    """Why a call was refused, or could not be carried out, and how to fix it."""
    lines = [error.message]
    if isinstance(error, ArgumentError) and len(error.problems) > 1:
        lines = ["These arguments do not fit:", *(f"- {problem}" for problem in error.problems)]
    if isinstance(error, ContractError):
        lines += [f"- {diagnostic.message} {diagnostic.remedy}".rstrip() for diagnostic in error.diagnostics]
    if error.remedy:
        lines.append(error.remedy)
    if isinstance(error, ExecutionError) and error.output:
        lines.append(f"The end of its output:\n{error.output[-STDERR_BYTES:]}")
    return "\n".join(lines)


def last_part(captured: Captured, size: int, lines: int | None = None) -> str:
    """The end of a stream as text, surrounding blank lines aside; empty where there is none, or it is binary."""
    data = captured.data
    text = decode_text(data[-size:], begun=len(data) > size)
    if not text:
        return ""
    kept = _LINE_END.split(text.strip("\r\n"))
    if len(data) > size and len(kept) > 1:
        kept = kept[1:]  # the first is likely the end of a line only
    return "\n".join(kept[-lines:] if lines else kept)


def _ending(captured: Captured, shown: str) -> str:
    return " (its end)" if captured.total > len(shown.encode()) + 2 else ""


def _hint(contract: ToolContract, result: ExecutionResult, written: str) -> str:
    spec = contract.engine_spec
    if result.timed_out:
        return f"ask for less in one call, or have the contract's timeout ({spec.timeout:g} s) raised."
    if result.out_of_memory:
        return "ask for less in one call, or have the contract's memory_limit raised."
    if "Read-only file system" in written and (hint := _read_only_hint(contract, result)):
        return hint
    if "Invalid cross-device link" in written and result.engine == "dagger":
        return (
            "on Dagger a directory that came with a mount cannot be renamed; mv and shutil.move, which copy it, work, "
            "and so does another engine."
        )
    for sign, hint in _SIGNS.items():
        if sign in written:
            return hint
    if isinstance(spec, CommandSpec):
        if spec.network is Network.NONE and any(sign in written for sign in _NO_NETWORK):
            return "this tool has no network (network: none in its contract)."
        if spec.pids_limit and any(sign in written for sign in _NO_PROCESS):
            return f"it may have {spec.pids_limit} processes at once (pids_limit in its contract)."
    if result.exit_code == EXIT_SIGNAL_BASE + signal.SIGKILL:
        return "SIGKILL often means that memory ran out."
    if result.exit_code == EXIT_NOT_FOUND and isinstance(spec, DaggerEngineSpec):
        return f"a command that the tool uses is missing from its image ({spec.image})."
    return ""


def _read_only_hint(contract: ToolContract, result: ExecutionResult) -> str:
    """What a tool may write to, which depends on where it ran; empty where that is not known."""
    spec = contract.engine_spec
    if result.remote is not None or not isinstance(spec, CommandSpec):
        return ""
    if not isinstance(spec, DaggerEngineSpec):
        if result.isolation == "process":
            return "the host has the file system of that path mounted read-only."
        return (
            "the host's file system is read-only for the tool except for mounts with :rw; it may write to its working "
            "directory, its HOME and /tmp, which are gone with the call, and to its artifact directory."
        )
    # Dagger has no switch for it.
    if spec.read_only is False or result.engine == "dagger":
        return (
            "the tool may write to its own file system, which is gone with the call, and to mounts with :rw; the path "
            "that it tried to write is in a mount without :rw, or holds the project's contracts or settings."
        )
    return (
        "the tool's file system is read-only except for /tmp, its cache_dirs, its artifact directory and mounts with "
        ":rw; the path that it tried to write is not among them. With read_only: false in its contract it may write "
        "anywhere but to mounts."
    )


_SIGNS = {
    "No space left on device": "a disk or the tool's /tmp is full; ask for less, or have space freed on the host.",
    "Disk quota exceeded": "a disk quota is used up; have space freed on the host.",
    "Too many open files": "it opened more files than it may; ask for fewer in one call.",
}
_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Could not resolve host",
    "getaddrinfo",
    "nodename nor servname",
    "bad address",
)
_NO_PROCESS = ("Resource temporarily unavailable", "can't fork", "Cannot fork", "can't start new thread")
