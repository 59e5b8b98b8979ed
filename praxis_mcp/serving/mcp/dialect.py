"""What a client of one protocol revision can receive: kinds of content, error codes, structured content and
its schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp_types import INVALID_PARAMS
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS, is_version_at_least

from praxis_mcp.contracts.schemas.schema import make_sendable

RESOURCE_NOT_FOUND = -32002
"""Specification 2025-11-25 and before, server/resources, "Error Handling"; retired by 2026-07-28."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The protocol revision of one request, as questions about what may be sent.

    An older client refuses a whole result for one content type that it does not know, and a whole ``tools/list`` for
    one schema whose root is not an object.
    """

    version: str

    @property
    def modern(self) -> bool:
        """2026-07-28 and later: structured content and output schemas may have any JSON type at their root."""
        return self.version in MODERN_PROTOCOL_VERSIONS

    @property
    def knows_audio(self) -> bool:
        """2025-03-26 brought audio content."""
        return is_version_at_least(self.version, "2025-03-26")

    @property
    def knows_links(self) -> bool:
        """2025-06-18 brought resource links in results."""
        return is_version_at_least(self.version, "2025-06-18")

    @property
    def resource_not_found(self) -> int:
        """The code of the error for a resource that does not exist."""
        return INVALID_PARAMS if self.modern else RESOURCE_NOT_FOUND


_DATA = frozenset({"const", "enum", "default", "examples"})
_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})


def opens_session(revision: str | None) -> bool:
    """Whether a client of that revision, None where it names none, begins a session: those before 2026-07-28 do."""
    return revision is None or revision in HANDSHAKE_PROTOCOL_VERSIONS


def schema_for(schema: dict[str, Any] | None, dialect: Dialect) -> dict[str, Any] | None:
    """The output schema of a tool, as this client gets it and can compile it."""
    if schema is None:
        return None
    schema = make_sendable(schema)
    if not _is_wrapped(schema, dialect):
        return schema
    inner = {key: value for key, value in schema.items() if key != "$schema"}
    # References inside a schema with an $id start at that schema, wherever it is.
    moved = inner if "$id" in inner else _moved(inner)
    wrapped = {"type": "object", "properties": {"result": moved}, "required": ["result"]}
    return {"$schema": schema["$schema"], **wrapped} if "$schema" in schema else wrapped


def content_for(value: Any, schema: dict[str, Any] | None, dialect: Dialect) -> Any:
    """The structured content of a result, as this client gets it.

    Args:
        value: what the tool wrote.
        schema: the tool's own output schema, if it has one.
        dialect: the client's.
    """
    wrapped = _is_wrapped(schema, dialect) if schema is not None else _must_be_object(value, dialect)
    return {"result": value} if wrapped else value


def _is_wrapped(schema: dict[str, Any], dialect: Dialect) -> bool:
    return not dialect.modern and schema.get("type") != "object"


def _must_be_object(value: Any, dialect: Dialect) -> bool:
    return not dialect.modern and not isinstance(value, dict)


def _moved(schema: Any) -> Any:
    """A schema whose references to its own root hold after it was moved to ``/properties/result``."""
    if isinstance(schema, list):
        return [_moved(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            moved[key] = "#/properties/result" + value[1:]
        elif key in _MAPS and isinstance(value, dict):
            moved[key] = {name: _moved(part) for name, part in value.items()}
        else:
            moved[key] = value if key in _DATA else _moved(value)
    return moved
