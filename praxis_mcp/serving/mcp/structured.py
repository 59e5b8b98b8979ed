"""Structured content and its schema, which must agree in every protocol era.

From 2026-07-28 on both may have any JSON type at their root. Before, both are objects: anything else travels as
``{"result": …}``, and its schema is wrapped in the same way. One schema whose root is not ``type: object`` would make
an older client drop the whole ``tools/list``.
"""

from __future__ import annotations

from typing import Any

from praxis_mcp.contracts.schemas.strict import sendable
from praxis_mcp.serving.mcp.dialect import Dialect

_DATA = frozenset({"const", "enum", "default", "examples"})
_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})


def schema_for(schema: dict[str, Any] | None, dialect: Dialect) -> dict[str, Any] | None:
    """The output schema of a tool, as this client gets it and can compile it."""
    if schema is None:
        return None
    schema = sendable(schema)
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
