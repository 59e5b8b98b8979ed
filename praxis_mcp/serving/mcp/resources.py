"""What is kept of runs, as MCP resources: listed, described by templates, and read in parts. Their addresses are
``praxis://runs/{id}``, ``…/stdout``, ``…/stderr`` and ``…/artifacts/{name}``."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

import anyio.to_thread
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from praxis_mcp.engines.outcomes import describe_end
from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.serving.access import ANYONE, Caller
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.media import clean, decode_text, mime_of_file
from praxis_mcp.support.rooted import open_kept

MOST_LISTED = 100
"""Runs that ``resources/list`` names, the newest."""
DEFAULT_READ = 256 * 1024
"""Bytes that one read gives unless it asks for another number."""
MIN_READ = 4
"""Bytes that one read gives at least: any character fits, so that a reader always gets on."""
MAX_READ = 8 * 1024 * 1024
"""Bytes that one read gives at most."""
FINISHED_TTL_MS = 3_600_000
"""What an ended run wrote never changes."""

Contents = TextResourceContents | BlobResourceContents


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes from `offset` of something that has `size` of them."""

    data: bytes
    offset: int
    size: int


class RunResources:
    """Serves the run records of one process, and of those that share its store."""

    def __init__(self, records: RunRecords, root: str) -> None:
        """Args: root: the project, whose runs by other servers are listed, too."""
        self._records = records
        self._root = root

    async def list(self, caller: Caller = ANYONE) -> ListResourcesResult:
        """The newest runs of a caller, each by its summary, which names the rest."""
        entries = await self._records.newest(caller.name, self._root, MOST_LISTED)
        return ListResourcesResult(
            resources=[
                Resource(
                    uri=run_uri(record.run_id),
                    name=f"{record.tool}-{record.run_id[:8]}",
                    title=f"{record.tool}, {record.started:%Y-%m-%d %H:%M:%S} UTC",
                    description=f"A run of {record.tool} on {record.engine}: {_state(record)}.",
                    mime_type="application/json",
                )
                for record in entries
                if caller.sees(record.tool)
            ]
        )

    def templates(self) -> ListResourceTemplatesResult:
        """Every kind of address."""
        about = {
            "run": "Summary of a run: how it ended, how long it took, what it left.",
            "stdout": "What a run wrote to standard output; offset and limit are bytes.",
            "stderr": "What a run wrote to standard error; offset and limit are bytes.",
            "artifact": "A file that a run left as a result.",
        }
        return ListResourceTemplatesResult(
            resource_templates=[
                ResourceTemplate(uri_template=TEMPLATES[kind], name=kind, description=text)
                for kind, text in about.items()
            ]
        )

    async def read(self, uri: str, dialect: Dialect, caller: Caller = ANYONE) -> ReadResourceResult:
        """One resource, or a part of it. Text where the bytes are text, else base64. What another caller's run left
        does not exist for this one.

        Raises:
            MCPError: there is none of that address.
        """
        try:
            address = parse_uri(uri)
        except ValueError as exc:
            raise MCPError(INVALID_PARAMS, f"{uri[:200]} cannot be read: {exc}.") from exc
        if address is None:
            raise _not_found(uri, dialect, "Addresses begin with praxis://runs/{run_id}.")
        try:
            record = await self._records.find(address.run_id, caller.name)
            if not caller.sees(record.tool):
                raise RunNotFoundError("It is of a tool that is not served here.")
            contents = await self._contents(record, address)
        except RunNotFoundError as exc:
            raise _not_found(uri, dialect, str(exc)) from exc
        except RecordsUnavailable as exc:
            raise MCPError(INTERNAL_ERROR, "The store of runs cannot be read now. Try again later.") from exc
        if contents is None:
            raise _not_found(uri, dialect, f"{run_uri(record.run_id)} names what that run left.")
        if record.is_running:
            return ReadResourceResult(contents=contents, ttl_ms=0)
        return ReadResourceResult(contents=contents, ttl_ms=FINISHED_TTL_MS)

    async def _contents(self, record: RunRecord, address: RunAddress) -> list[Contents] | None:
        limit = max(MIN_READ, min(address.limit or DEFAULT_READ, MAX_READ))
        if address.stream is not None:
            data = await record.read(address.stream, address.offset, limit)
            part = _Part(data, address.offset, record.size(address.stream))
            return _with_rest(address, part, "application/octet-stream")
        if address.artifact is None:
            text = json.dumps(_summary(record), indent=1, ensure_ascii=False)
            return [TextResourceContents(uri=address.base, mime_type="application/json", text=clean(text))]
        artifact = next((item for item in record.artifacts if item.name == address.artifact), None)
        data = await read_file(artifact.file, address.offset, limit) if artifact else None
        if artifact is None or data is None:
            return None
        head = data if address.offset == 0 else await read_file(artifact.file, 0, DEFAULT_READ) or b""
        part = _Part(data, address.offset, artifact.size)
        return _with_rest(address, part, mime_of_file(clean(artifact.name), head))


def _with_rest(address: RunAddress, part: _Part, mime: str) -> list[Contents]:
    data = part.data
    cut = part.offset + len(data) < part.size
    text = decode_text(data, cut=cut, begun=part.offset > 0)
    if text is None:
        encoded = base64.b64encode(data).decode("ascii")
        contents: list[Contents] = [BlobResourceContents(uri=address.base, mime_type=mime, blob=encoded)]
    else:
        if cut:
            data = data[: len(data) - _incomplete(data)]
        kind = "text/plain" if mime == "application/octet-stream" else mime
        contents = [TextResourceContents(uri=address.base, mime_type=kind, text=text)]
    following = part.offset + len(data)
    if cut and data:
        rest = address.at(following)
        note = f"[… {part.size - following} of {part.size} bytes remain; read on at {rest} …]"
        contents.append(TextResourceContents(uri=rest, mime_type="text/plain", text=note))
    return contents


def _incomplete(data: bytes) -> int:
    """How many of the last bytes are the beginning of a character that ends after them (RFC 3629)."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if needed > back else 0
    return 0


def _summary(record: RunRecord) -> dict[str, object]:
    artifacts = [
        {"name": item.name, "size": item.size, "uri": artifact_uri(record.run_id, item.name)}
        for item in record.artifacts
    ]
    streams = {} if record.is_running else {name: stream_uri(record.run_id, name) for name in ("stdout", "stderr")}
    return {**record.summary(), **streams, "artifacts": artifacts}


def _state(record: RunRecord) -> str:
    if record.result is None:
        return "running" if record.is_running else "failed"
    return describe_end(record.result)


def _not_found(uri: str, dialect: Dialect, why: str) -> MCPError:
    return MCPError(dialect.resource_not_found, f"There is no resource {uri[:200]}. {why}", {"uri": uri[:200]})


PREFIX = "praxis://runs/"
TEMPLATES = {
    "run": PREFIX + "{run_id}",
    "stdout": PREFIX + "{run_id}/stdout{?offset,limit}",
    "stderr": PREFIX + "{run_id}/stderr{?offset,limit}",
    "artifact": PREFIX + "{run_id}/artifacts/{+name}{?offset,limit}",
}
"""By kind, as RFC 6570 writes them."""

_RUN_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


def run_uri(run_id: str) -> str:
    """The address of a run's summary."""
    return PREFIX + run_id


def stream_uri(run_id: str, stream: StreamName) -> str:
    """The address of one whole stream of a run."""
    return f"{PREFIX}{run_id}/{stream}"


def artifact_uri(run_id: str, name: str) -> str:
    """The address of an artifact; its name may hold any byte that a path can."""
    return f"{PREFIX}{run_id}/artifacts/{quote(os.fsencode(name), safe='/')}"


@dataclass(frozen=True, slots=True)
class RunAddress:
    """What an address names.

    Attributes:
        base: the address without its range.
        run_id: the run.
        stream: the stream, if it names one.
        artifact: the artifact, if it names one; neither means the run's summary.
        offset: byte from which to read.
        limit: bytes to read, or None.
    """

    base: str
    run_id: str
    stream: StreamName | None = None
    artifact: str | None = None
    offset: int = 0
    limit: int | None = None

    def at(self, offset: int) -> str:
        """The address of the same thing from another byte on."""
        return f"{self.base}?offset={offset}" + (f"&limit={self.limit}" if self.limit is not None else "")


def parse_uri(uri: str) -> RunAddress | None:
    """What a ``praxis://runs/…`` address names; None where it is not such an address.

    Raises:
        ValueError: its range is malformed; the message says how.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme != "praxis" or parts.netloc != "runs":
        return None
    run_id, _, rest = parts.path.removeprefix("/").partition("/")
    if not _RUN_ID.fullmatch(run_id):
        return None
    base = uri.partition("?")[0].partition("#")[0]
    offset, limit = _range(parts.query)
    match rest.partition("/"):
        case ("", "", ""):
            return RunAddress(base, run_id)
        case ("stdout" | "stderr" as stream, "", ""):
            return RunAddress(base, run_id, stream=stream, offset=offset, limit=limit)
        case ("artifacts", "/", name) if name:
            artifact = os.fsdecode(unquote_to_bytes(name))
            return RunAddress(base, run_id, artifact=artifact, offset=offset, limit=limit)
        case _:
            return None


def _range(query: str) -> tuple[int, int | None]:
    values: dict[str, int] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in ("offset", "limit"):
            raise ValueError(f'"{key[:40]}" is not part of such an address; offset and limit are')
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise ValueError(f"{key} is a number of bytes")
        values[key] = int(text)
    if values.get("limit") == 0:
        raise ValueError("limit is at least 1")
    return values.get("offset", 0), values.get("limit")


async def read_file(path: Path, offset: int, limit: int) -> bytes | None:
    """Bytes of a kept file; None where it is not a plain file, or is no longer kept."""
    return await anyio.to_thread.run_sync(_read_file, path, offset, limit)


def _read_file(path: Path, offset: int, limit: int) -> bytes | None:
    try:
        # A tool may have left a link to any file of the host where an artifact is expected, or a pipe.
        stream = open_kept(path)
    except OSError:
        return None
    with stream:
        stream.seek(offset)
        return stream.read(limit)
