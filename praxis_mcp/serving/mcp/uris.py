"""Addresses of what is kept of runs: ``praxis://runs/{id}``, ``…/stdout``, ``…/stderr``, ``…/artifacts/{name}``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

from praxis_mcp.engines.output import StreamName

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
