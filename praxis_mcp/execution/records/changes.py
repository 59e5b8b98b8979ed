"""What is kept of the files that a run changed, as the store has it: one compressed piece a run, which is read by
``praxis-mcp runs diff`` and by the page of a run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from praxis_mcp.engines.file_states import FileChange, FileState
from praxis_mcp.execution.records.row import StoredRun, storable
from praxis_mcp.support.text import counted
from praxis_mcp.support.unified import DiffLine, unified
from praxis_mcp.support.workers import compute

MAX_CHANGES_BYTES = 8 * 1024 * 1024
"""Bytes of one such piece when it is unpacked: what is kept of a run is far less, escaped as JSON too."""

Kind = Literal["created", "removed", "changed", "mode", "unknown"]


@dataclass(frozen=True, slots=True)
class StoredState:
    """As `praxis_mcp.engines.changes.FileState`."""

    kind: str
    size: int
    mode: int
    text: str | None = None
    sha256: str | None = None
    left_out: str = ""

    def as_json(self) -> dict[str, Any]:
        """For scripts; the mode as ``0644``."""
        facts: dict[str, Any] = {"kind": self.kind, "size": self.size, "mode": f"{self.mode:04o}"}
        for name in ("text", "sha256", "left_out"):
            if value := getattr(self, name):
                facts[name] = value
        return facts if self.text != "" else {**facts, "text": ""}

    @property
    def in_words(self) -> str:
        """What is known of it."""
        reason = f" ({self.left_out})" if self.left_out else ""
        digest = f", SHA-256 {self.sha256}" if self.sha256 is not None else ""
        return f"{self.kind} of {counted(self.size, 'byte')}{reason}{digest}"


@dataclass(frozen=True, slots=True)
class StoredChange:
    """What a record says of one changed file.

    Attributes:
        path: on the machine of the server that ran it.
        before: None where there was none, or nothing is kept.
        after: None where there is none any more, or nothing is kept.
        is_described: whether more than the path is kept.
    """

    path: str
    before: StoredState | None = None
    after: StoredState | None = None
    is_described: bool = True

    @property
    def kind(self) -> Kind:
        """What became of it; ``mode`` where nothing but its permissions changed, ``unknown`` where only its path is
        kept."""
        before, after = self.before, self.after
        if not self.is_described:
            return "unknown"
        if before is None:
            return "created"
        if after is None:
            return "removed"
        known = before.text is not None or before.sha256 is not None
        same = (before.kind, before.size, before.text, before.sha256) == (
            after.kind,
            after.size,
            after.text,
            after.sha256,
        )
        return "mode" if known and same and before.mode != after.mode else "changed"

    @property
    def has_texts(self) -> bool:
        """Whether all of it is kept that a difference needs."""
        states = [state for state in (self.before, self.after) if state is not None]
        return bool(states) and all(state.text is not None for state in states)

    @property
    def in_words(self) -> str:
        """What became of it, but for the difference."""
        before, after = self.before, self.after
        if not self.is_described:
            return "changed; only its path is kept"
        words = ["changed" if self.kind == "mode" else self.kind]
        if before is not None and after is not None and before.mode != after.mode:
            words.append(f"mode {before.mode:04o} to {after.mode:04o}")
        if self.kind != "mode" and not self.has_texts:
            words.append(" to ".join(state.in_words for state in (before, after) if state is not None))
        elif before is not None and after is not None and before.kind != after.kind:
            words.append(f"{before.kind} to {after.kind}")
        return ", ".join(words)

    def lines(self) -> list[DiffLine]:
        """The difference, where it is kept."""
        if not self.has_texts:
            return []
        return unified(*(state.text or "" if state is not None else "" for state in (self.before, self.after)))

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        before, after = self.before, self.after
        return {
            "path": self.path,
            "change": self.kind,
            "before": before.as_json() if before is not None else None,
            "after": after.as_json() if after is not None else None,
        }


def pack_changes(changes: Sequence[FileChange]) -> bytes:
    """Changes as the store takes them; of those beyond its bound, which long names can reach, nothing."""
    found: list[str] = []
    size = 2
    for item in changes:
        facts = {"path": storable(str(item.path)), "before": _packed(item.before), "after": _packed(item.after)}
        text = json.dumps(facts)
        size += len(text) + 1
        if size > MAX_CHANGES_BYTES:
            break
        found.append(text)
    return zlib.compress(f"[{','.join(found)}]".encode(), 1)


async def packed_changes(changes: Sequence[FileChange]) -> bytes | None:
    """The same, of many in a thread; None where there are none."""
    return await compute(pack_changes, changes, size=size_of_changes(changes)) if changes else None


def size_of_changes(changes: Sequence[FileChange]) -> int:
    """About how many bytes are packed."""
    states = (state for item in changes for state in (item.before, item.after) if state is not None)
    return sum(200 + len(state.text or "") for state in states)


def changes_of(run: StoredRun) -> list[StoredChange]:
    """What a run changed, sorted by path; of those of which nothing else is kept, the path.

    Args:
        run: as the database's `find` gave it.

    Raises:
        ValueError: somebody has changed it in the database so that it cannot be read.
    """
    found = _unpacked(run.changes) if run.changes is not None else []
    described = {item.path for item in found}  # where secrets are masked in names, several may have one
    paths: list[str] = run.as_json()["changed_files"]
    found += [StoredChange(path, is_described=False) for path in paths if path not in described]
    return sorted(found, key=lambda item: item.path)


def _packed(state: FileState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {name: value for name in _FIELDS if (value := getattr(state, name)) not in (None, "") or name == "text"}


_FIELDS = ("kind", "size", "mode", "text", "sha256", "left_out")


def _unpacked(data: bytes) -> list[StoredChange]:
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(data, MAX_CHANGES_BYTES)
        if unpacking.unconsumed_tail:
            raise ValueError("it is too large")
        return [
            StoredChange(str(item["path"]), _state(item["before"]), _state(item["after"])) for item in json.loads(text)
        ]
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ValueError(f"what is kept of the changed files is damaged: {exc}") from exc


def _state(value: Any) -> StoredState | None:
    if value is None:
        return None
    text, sha256 = value.get("text"), value.get("sha256")
    return StoredState(
        str(value["kind"]),
        int(value["size"]),
        int(value["mode"]) & 0o7777,
        str(text) if text is not None else None,
        str(sha256) if sha256 is not None else None,
        str(value.get("left_out", "")),
    )
