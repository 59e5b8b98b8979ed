"""A form made from a tool's JSON schema, and the arguments that somebody has written into it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from praxis_mcp.errors import ArgumentError
from praxis_mcp.execution.records.record import is_private
from praxis_mcp.support.text import NOT_FINITE, all_finite, unseen

ARGUMENT = "a."
"""Names of fields that hold arguments begin with it."""
SHORT = 200
"""Characters of a text up to which one line is offered for it."""
_YES_OR_NO = (True, False)


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter as a part of a form.

    Attributes:
        name: of the parameter.
        kind: ``line``, ``text``, ``secret``, ``number``, ``choice`` or ``json``.
        description: of the parameter.
        is_required: whether it must be given.
        value: what is in it at first.
        choices: of ``choice``: each as JSON, and in words.
        is_whole: of ``number``: whether it is an integer.
        is_private: whether nobody may see what is written into it; it is not shown again either.
    """

    name: str
    kind: str
    description: str = ""
    is_required: bool = False
    value: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    is_whole: bool = False
    is_private: bool = False


def fields_of(schema: Mapping[str, Any], given: Mapping[str, str] | None = None) -> list[Field]:
    """The form of a tool.

    Args:
        schema: of its input.
        given: what somebody has written before, by name; secrets are not shown again.
    """
    return [_field(name, part, is_required, given) for name, part, is_required in parameters_of(schema)]


def parameters_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name and schema of each parameter of a tool, and whether it is required. The schema may be another server's, and
    what is in it anything."""
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, Mapping):
        for name, part in properties.items():
            yield str(name), part, isinstance(required, list) and name in required


def read_arguments(fields: list[Field], given: Mapping[str, str]) -> dict[str, Any]:
    """What was written into a form, as arguments. What was left empty is left out, unless it is required.

    Raises:
        ArgumentError: something is not what it has to be; the tool's own schema is not checked.
    """
    arguments: dict[str, Any] = {}
    for field in fields:
        text = given.get(field.name, "")
        if text or (field.is_required and field.kind in ("line", "text", "secret")):
            arguments[field.name] = _read(field, text)
        elif field.is_required:
            raise ArgumentError(f"{field.name} is required.")
    return arguments


def _field(name: str, part: Any, is_required: bool, given: Mapping[str, str] | None) -> Field:
    if not isinstance(part, Mapping):
        return Field(name, "json", is_required=is_required, value=(given or {}).get(name, ""))
    description = str(part.get("description", ""))
    kind = part.get("type")
    default = part.get("default")
    if private := is_private(part):
        value, default = "", None
    else:
        value = given.get(name, "") if given is not None else _written(kind, default)
    choices = part.get("enum") if isinstance(part.get("enum"), list) else _YES_OR_NO if kind == "boolean" else None
    if choices is not None:
        shown = tuple((json.dumps(item), item if isinstance(item, str) else json.dumps(item)) for item in choices)
        chosen = value if given is not None or default is None else json.dumps(default)
        return Field(name, "choice", description, is_required, chosen, shown, is_private=private)
    if kind in ("integer", "number"):
        return Field(name, "number", description, is_required, value, (), kind == "integer", private)
    if kind != "string":
        return Field(name, "json", description, is_required, value, is_private=private)
    if private:
        return Field(name, "secret", description, is_required, is_private=True)
    longest = part.get("maxLength")
    is_short = "format" in part or "pattern" in part or (isinstance(longest, int) and longest <= SHORT)
    return Field(name, "line" if is_short else "text", description, is_required, value)


def _written(kind: Any, value: Any) -> str:
    if value is None:
        return ""
    if kind == "string" and isinstance(value, str):
        return "" if unseen(value) else value  # left empty, the field stands for the tool's own default
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if unseen(text) else text


def _read(field: Field, text: str) -> Any:
    if field.kind in ("line", "text", "secret"):
        return text.replace("\r\n", "\n")  # as browsers send the ends of lines (HTML, "constructing the entry list")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        what = "a number" if field.kind == "number" else "JSON"
        raise ArgumentError(f"{field.name} has to be {what}.") from exc
    if field.kind == "number" and not _is_number(value, field.is_whole):
        raise ArgumentError(f"{field.name} has to be {'an integer' if field.is_whole else 'a number'}.")
    if not all_finite(value):
        raise ArgumentError(f"{field.name} {NOT_FINITE}.")
    return value


def _is_number(value: Any, is_whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or (math.isfinite(value) and not is_whole)
