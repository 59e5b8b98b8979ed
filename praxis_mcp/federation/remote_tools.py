"""What another server says of a tool → what can be republished, so that one bad tool never costs a client the list; and
which of these tools were approved, as they were then: a file that people may review and keep under version control."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.model import NAME_PATTERN
from praxis_mcp.contracts.schemas.patterns import MalformedPattern, PatternBudget, UnusablePattern, compile_pattern
from praxis_mcp.contracts.schemas.validators import schema_errors
from praxis_mcp.contracts.vocabulary import (
    find_odd_texts,
    is_plainly_valid,
    schemas_inside,
    with_visible_texts,
    without_booleans,
)
from praxis_mcp.errors import SettingsError
from praxis_mcp.support.files import Stamp, replace_text, stamp_of
from praxis_mcp.support.text import all_finite, printable, visible
from praxis_mcp.upstreams.loops import MOST_HOPS, read_via, server_id

LARGEST_SCHEMA = 64 * 1024
"""Characters of JSON of one schema."""
DEEPEST_SCHEMA = 40
"""Levels of one schema."""
UPSTREAM_BYTES = 64 * 1024 * 1024
"""Bytes that the compiled patterns of all tools of one upstream may take, see `contracts.schemas.patterns.estimate`."""
MOST_NOTES = 20
"""Notes of one tool."""
LONGEST_DESCRIPTION = 16 * 1024
_DATA = frozenset({"const", "enum", "default", "examples"})
_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"})
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class RemoteTool:
    """A tool of an upstream as it is republished.

    Attributes:
        name: its name here.
        upstream: name of the upstream.
        remote_name: its name there.
        title, description, annotations: what it says of itself, as far as it is well-formed, with what cannot be seen
            in it by number.
        input_schema, output_schema: its schemas, adapted; no output schema where there is no usable one.
        via: servers that it came through before, its own one first.
        fingerprint: SHA-256 of all that a model reads of it, as it came.
        notes: what had to be adapted, one phrase each.
    """

    name: str
    upstream: str
    remote_name: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    title: str | None = None
    description: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    via: tuple[str, ...] = ()
    fingerprint: str = ""
    notes: tuple[str, ...] = ()


class Unusable(Exception):
    """A tool that cannot be republished; says why."""


def fingerprint(raw: Mapping[str, Any]) -> str:
    """SHA-256 of what a model reads of a tool: a change of any of it may change what the model does."""
    read = {key: raw.get(key) for key in ("name", "title", "description", "inputSchema", "outputSchema", "annotations")}
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def adapt(
    raw: Mapping[str, Any], upstream: str, name: str, description: str | None, patterns: PatternBudget | None = None
) -> RemoteTool:
    """The tool under a name of ours, all that clients would refuse taken out of it.

    Args:
        raw: the tool as its server lists it.
        upstream: name of that server.
        name: the name here.
        description: the description here; None keeps its own.
        patterns: what the patterns of all the upstream's tools may take; those of this one take `SCHEMA_BYTES` at most.

    Raises:
        Unusable: its name cannot be used, its schemas name what cannot be seen, or it came in a circle.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise Unusable(f"{name[:140]!r} is not a name that MCP allows; rename it")
    meta = raw.get("_meta")
    via = read_via(meta if isinstance(meta, dict) else None)
    if server_id() in via:
        raise Unusable("it is a tool of this server, come back in a circle")
    if len(via) >= MOST_HOPS:
        raise Unusable(f"it came through {len(via)} servers already")
    notes: list[str] = []
    of_tool = _Patterns(patterns or PatternBudget(UPSTREAM_BYTES))
    title, own = raw.get("title"), raw.get("description")
    _refuse_hidden(raw)
    found = raw.get("annotations")
    hints = found if isinstance(found, dict) else {}
    text = description if description is not None else own if isinstance(own, str) else None
    return RemoteTool(
        name=name,
        upstream=upstream,
        remote_name=raw["name"],
        input_schema=_input_schema(raw.get("inputSchema"), notes, of_tool),
        output_schema=_output_schema(raw.get("outputSchema"), notes, of_tool),
        title=printable(title) if isinstance(title, str) else None,
        description=visible(text[:LONGEST_DESCRIPTION]) if text else None,
        annotations={key: hints[key] for key in _HINTS if isinstance(hints.get(key), bool)},
        via=via,
        fingerprint=fingerprint(raw),
        notes=tuple(notes),
    )


def _refuse_hidden(raw: Mapping[str, Any]) -> None:
    """Descriptions show by number what cannot be seen in them. A name or a value cannot be changed: a model would read
    in it what nobody can approve."""
    for part in ("inputSchema", "outputSchema"):
        schema = raw.get(part)
        if isinstance(schema, dict) and not _too_much(schema):
            odd = next((item for item in find_odd_texts(schema) if not item.describes), None)
            if odd is not None:
                shown = ", ".join(odd.characters[:5])
                raise Unusable(f"a name or value in its {part} holds characters that cannot be seen: {shown}")


def _input_schema(schema: Any, notes: list[str], patterns: _Patterns) -> dict[str, Any]:
    if not isinstance(schema, dict) or _too_much(schema):
        notes.append("its input schema is missing, not an object, too large or too deep, and is shown open")
        return {"type": "object"}
    cleaned = with_visible_texts(without_booleans(_cleaned(schema, notes)))
    if cleaned.get("type") != "object":
        notes.append("the root of its input schema is not type: object, and was made so")
        cleaned["type"] = "object"
    names = cleaned.get("properties")
    if not _is_valid(cleaned, patterns):
        notes.append("its input schema is not a valid JSON Schema; only the names of its parameters are shown")
        open_properties = {str(name): {} for name in names} if isinstance(names, dict) else {}
        cleaned = {"type": "object", "properties": open_properties}
    _drop_malformed_patterns(cleaned, notes, patterns)
    return cleaned


def _output_schema(schema: Any, notes: list[str], patterns: _Patterns) -> dict[str, Any] | None:
    if schema is None:
        return None
    if not isinstance(schema, dict) or _too_much(schema):
        notes.append("its output schema is not an object, too large or too deep, and is left out")
        return None
    cleaned = with_visible_texts(without_booleans(_cleaned(schema, notes)))
    if not _is_valid(cleaned, patterns):
        notes.append("its output schema is not a valid JSON Schema, and is left out")
        return None
    _drop_malformed_patterns(cleaned, notes, patterns)
    return cleaned


def _is_valid(schema: dict[str, Any], patterns: _Patterns) -> bool:
    # Python's re never sees these patterns: some need minutes, or more stack than there is, only to be compiled.
    try:
        if not all_finite(schema):
            return False
        wrong = not is_plainly_valid(schema) and next(schema_errors(schema), None) is not None
        return not wrong and not any(
            patterns.refuse(name) for _, part in schemas_inside(schema) for name in part.get("patternProperties", ())
        )
    except (OverflowError, RecursionError):
        return False  # a number or a level too many for the checker


def _drop_malformed_patterns(schema: dict[str, Any], notes: list[str], patterns: _Patterns) -> None:
    """Take out what no client could compile, or only at our and its own expense. One that only we cannot match, as a
    look-ahead, stays."""
    for _, part in list(schemas_inside(schema)):
        pattern = part.get("pattern")
        if not isinstance(part, dict) or not isinstance(pattern, str):
            continue
        reason = patterns.refuse(pattern)
        if reason is not None:
            if len(notes) < MOST_NOTES:
                notes.append(f"the pattern {pattern[:80]!r} {reason}, and was taken out")
            del part["pattern"]


class _Patterns:
    """The patterns of one tool: which of them are regular expressions, decided within its bounds and its upstream's."""

    def __init__(self, upstream: PatternBudget) -> None:
        self._budgets = (PatternBudget(), upstream)

    def refuse(self, pattern: str) -> str | None:
        """Why it is taken out; None where it stays."""
        if not all(budget.allows(pattern) for budget in self._budgets):
            return "takes too much memory, by itself or with the others"
        try:
            compile_pattern(pattern)
        except MalformedPattern:
            return "is not a regular expression"
        except UnusablePattern:
            pass
        return None


def _too_much(schema: Any) -> bool:
    return _depth(schema) > DEEPEST_SCHEMA or len(json.dumps(schema)) > LARGEST_SCHEMA


def _depth(value: Any) -> int:
    """Levels of a value, counted without recursion, and no further than matters."""
    level, deep = [value], 0
    while level and deep <= DEEPEST_SCHEMA:
        deep += 1
        level = [part for item in level for part in _parts(item)]
    return deep


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _cleaned(schema: Any, notes: list[str]) -> Any:
    """A copy without references that leave the document, which nobody may fetch, without ``x-mcp-header``: what travels
    as a header to the upstream is between it and us; and without keywords that are null, as some libraries write one
    that is not there."""
    if isinstance(schema, list):
        return [_cleaned(item, notes) for item in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
            notes.append(f"a reference in its schema leaves the document ({value[:80]}), and is shown open")
        elif key in _DATA:
            cleaned[key] = value
        elif key in _MAPS and isinstance(value, dict):
            cleaned[key] = {name: {} if part is None else _cleaned(part, notes) for name, part in value.items()}
        elif key != "x-mcp-header" and value is not None:
            cleaned[key] = _cleaned(value, notes)
    return cleaned


_VERSION = 1


class Approvals:
    """The file of approvals: upstream → the tool's name there → fingerprint. No file approves nothing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp: Stamp = None
        self._approved: Mapping[str, Mapping[str, str]] = {}

    def refresh(self) -> bool:
        """Read the file, if it has changed; returns whether it had. Blocks for a moment.

        Raises:
            SettingsError: it cannot be read.
        """
        stamp = stamp_of(self.file)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._approved = _read(self.file) if stamp is not None else {}
        return True

    def approves(self, tool: RemoteTool) -> bool:
        """Whether the tool was approved as it is."""
        return self._approved.get(tool.upstream, {}).get(tool.remote_name) == tool.fingerprint

    def approved_before(self, tool: RemoteTool) -> bool:
        """Whether the tool was approved as it is, or as it was."""
        return tool.remote_name in self._approved.get(tool.upstream, {})

    def approve(self, tools: Iterable[RemoteTool]) -> None:
        """Write these tools, as they are, to the file, in addition to what is there.

        Raises:
            SettingsError: it cannot be read or written.
        """
        self.refresh()
        approved = {upstream: dict(names) for upstream, names in self._approved.items()}
        for tool in tools:
            approved.setdefault(tool.upstream, {})[tool.remote_name] = tool.fingerprint
        text = json.dumps({"version": _VERSION, "approved": approved}, indent=2, sort_keys=True) + "\n"
        try:
            replace_text(self.file, text)
        except OSError as exc:
            raise SettingsError(f"The approvals cannot be written to {self.file}: {exc.strerror}.") from exc
        self.refresh()


def _read(file: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value["version"] != _VERSION:
            raise ValueError(f"version {value['version']} is not known")
        return {
            str(name): {str(tool): str(mark) for tool, mark in found.items()}
            for name, found in value["approved"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SettingsError(
            f"The approvals of upstream tools cannot be read from {file}: {exc}.",
            remedy="Fix the file, or delete it and run praxis-mcp upstreams approve.",
        ) from exc
