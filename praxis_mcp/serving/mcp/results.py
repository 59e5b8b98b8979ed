"""`ExecutionResult` → `CallToolResult`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_types import CallToolResult, ContentBlock
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.schemas.schema import check_output
from praxis_mcp.engines.artifacts import BOUNDS
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import OutputMisfit, PraxisError
from praxis_mcp.execution.result_checks import check_value, structured_output
from praxis_mcp.federation.addresses import RUN_KEY
from praxis_mcp.serving.mcp.blocks import (
    artifact_blocks,
    failed_content,
    link_block,
    not_finite_note,
    remote_blocks,
    stdout_blocks,
    stream_text,
    text_block,
    whole_link,
)
from praxis_mcp.serving.mcp.dialect import Dialect, content_for
from praxis_mcp.serving.mcp.failures import describe_error, describe_failure, last_part
from praxis_mcp.serving.mcp.media import clean
from praxis_mcp.serving.mcp.resources import stream_uri
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.workers import compute, size_of_json

META_KEY = RUN_KEY
MOST_CHANGED_FILES = 20
MOST_LEFT_OUT = 20
_NOTE_BYTES = 2 * 1024


def refusal(text: str) -> CallToolResult:
    """The result of a call that was not carried out: an error that the model may fix, so no protocol error."""
    return CallToolResult(content=[text_block(text)], is_error=True)


def error_result(error: PraxisError) -> CallToolResult:
    """The result of a call that was refused or could not be carried out."""
    return refusal(describe_error(error))


async def preview(settings: Settings, contract: ToolContract, answer: ExecutionResult | PraxisError) -> dict[str, Any]:
    """The answer to a call as a client of today gets it, of the newest revision that begins with a handshake: the JSON
    of its `CallToolResult`."""
    writer = ResultWriter(settings, Dialect(HANDSHAKE_PROTOCOL_VERSIONS[-1]))
    try:
        written = error_result(answer) if isinstance(answer, PraxisError) else await writer.write(contract, answer)
    except PraxisError as exc:
        written = error_result(exc)
    return written.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """Writes results for one client.

    Attributes:
        settings: bounds of what is shown, and the root that changed files are named from.
        dialect: what the client can take.
    """

    settings: Settings
    dialect: Dialect

    async def write(self, contract: ToolContract, result: ExecutionResult) -> CallToolResult:
        """The result of a run, failed or not, for a model.

        Raises:
            ContractError: the contract's output schema is invalid.
        """
        size = _size_of_value(contract, result)
        problem, structured = await compute(self._structured, contract, result, size=size)
        blocks = [
            *(self._unusable(result, problem) if problem else await self._output(contract, result)),
            *await artifact_blocks(result.artifacts, result.run_id, self.dialect),
            *_left_out(result.artifacts_left_out),
            *self._changed_files(result.changed_files),
        ]
        return CallToolResult(
            content=blocks,
            structured_content=structured,
            is_error=bool(problem) or not result.success,
            _meta=meta_of(result),  # pyright: ignore[reportCallIssue]
        )

    def _structured(self, contract: ToolContract, result: ExecutionResult) -> tuple[str, Any]:
        """What is wrong with what a run that succeeded wrote, empty where nothing is; and the structured content."""
        value, schema = result.remote.structured if result.remote else None, contract.output_schema
        if not result.success:
            fits = value is None or not check_output(contract, value)
            return "", failed_content(value, schema, self.dialect, fits=fits)
        try:
            if value is not None:
                check_value(contract, value)
            elif contract.output == "json":
                value = structured_output(contract, result)
            else:
                return "", None
        except OutputMisfit as exc:
            return str(exc), None
        return "", content_for(value, schema, self.dialect)

    async def _output(self, contract: ToolContract, result: ExecutionResult) -> list[ContentBlock]:
        """What a run wrote or answered."""
        limit = contract.max_output or self.settings.calls.max_output
        stdout, run_id, remote = result.stdout, result.run_id, result.remote
        if not result.success:
            described = text_block(describe_failure(contract, result))
            if remote is None:
                return [described, *self._whole_streams(result)]
            blocks = await self._answered(result, limit) or [described]
            return [*blocks, *await compute(not_finite_note, remote.structured, size=size_of_json(remote.structured))]
        if remote is not None and (remote.structured is not None or contract.output != "json"):
            return await self._answered(result, limit)
        if contract.output == "json":
            text = stream_text(stdout, run_id, "stdout", limit) or ""
            return [text_block(text.strip()), *whole_link(stdout, run_id, "stdout", limit, self.dialect)]
        return await stdout_blocks(stdout, run_id, limit, self.dialect) or self._nothing_written(result)

    async def _answered(self, result: ExecutionResult, limit: int) -> list[ContentBlock]:
        size = size_of_json(result.remote.blocks) if result.remote is not None else 0
        return await compute(remote_blocks, result, limit, self.dialect, size=size)

    def _unusable(self, result: ExecutionResult, problem: str) -> list[ContentBlock]:
        parts = [problem]
        shown = stream_text(result.stdout, result.run_id, "stdout", _NOTE_BYTES)
        if shown and shown.strip():
            parts.append(f"Standard output:\n{shown.strip()}")
        errors = last_part(result.stderr, _NOTE_BYTES)
        if errors:
            parts.append(f"Standard error:\n{errors}")
        return [text_block("\n\n".join(parts)), *self._whole_streams(result)]

    def _nothing_written(self, result: ExecutionResult) -> list[ContentBlock]:
        errors = last_part(result.stderr, _NOTE_BYTES)
        if errors:
            return [text_block(f"Nothing on standard output. Standard error:\n{errors}")]
        return [] if result.artifacts else [text_block("Done, exit code 0; nothing was written.")]

    def _whole_streams(self, result: ExecutionResult) -> list[ContentBlock]:
        names: tuple[StreamName, ...] = ("stdout", "stderr")
        sizes = {name: getattr(result, name).total for name in names}
        return [
            link_block(stream_uri(result.run_id, name), name, self.dialect, None, sizes[name])
            for name in names
            if sizes[name] > _NOTE_BYTES
        ]

    def _changed_files(self, files: tuple[Path, ...]) -> list[ContentBlock]:
        if not files:
            return []
        shown = [self._from_root(file) for file in files[:MOST_CHANGED_FILES]]
        more = f" and {len(files) - len(shown)} more" if len(files) > len(shown) else ""
        return [text_block(f"Changed files: {', '.join(shown)}{more}")]

    def _from_root(self, file: Path) -> str:
        root = self.settings.root
        return clean(str(file.relative_to(root) if file.is_relative_to(root) else file))


def _size_of_value(contract: ToolContract, result: ExecutionResult) -> int:
    """About how much JSON is to be read and checked."""
    if result.remote is not None and result.remote.structured is not None:
        return size_of_json(result.remote.structured)
    return result.stdout.total if result.success and contract.output == "json" else 0


def _left_out(names: tuple[str, ...]) -> list[ContentBlock]:
    if not names:
        return []
    more = f" and {len(names) - MOST_LEFT_OUT} more" if len(names) > MOST_LEFT_OUT else ""
    shown = ", ".join(clean(name) for name in names[:MOST_LEFT_OUT])
    return [text_block(f"Left out of the artifacts, {BOUNDS}: {shown}{more}")]


def meta_of(result: ExecutionResult) -> dict[str, Any]:
    """The `_meta` of a result: which run it is of, and what another server said with its answer."""
    about = {
        "runId": result.run_id,
        "engine": result.engine,
        "isolation": result.isolation,
        "exitCode": result.exit_code,
        "durationMs": round(result.duration * 1000, 3),
        "image": result.image,
    }
    run = {key: value for key, value in about.items() if value is not None}
    return {**(result.remote.meta if result.remote else {}), META_KEY: run}
