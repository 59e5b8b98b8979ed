"""Validation errors → sentences that name the value, what it is, and what is allowed.

They are read by a model that will fix its call, and by the author of a contract. A sentence begins with the value's
name in quotation marks, in lower case after it, and has no full stop, so that sentences can be joined.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from praxis_mcp.diagnostics import dotted
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_MAX_SHOWN_VALUE = 60
_MOST_CHOICES = 20
_MOST_GUESSES = 200
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_COUNTED = {
    "minLength": ("at least", "character", "characters"),
    "maxLength": ("at most", "character", "characters"),
    "minItems": ("at least", "item", "items"),
    "maxItems": ("at most", "item", "items"),
    "minContains": ("at least", "matching item", "matching items"),
    "maxContains": ("at most", "matching item", "matching items"),
    "minProperties": ("at least", "property", "properties"),
    "maxProperties": ("at most", "property", "properties"),
}
_BOUNDS = {
    "minimum": "must be at least {0}",
    "maximum": "must be at most {0}",
    "exclusiveMinimum": "must be greater than {0}",
    "exclusiveMaximum": "must be less than {0}",
    "multipleOf": "must be a multiple of {0}",
    "pattern": "must match the pattern {0}",
    "format": "must be a valid {0}",
    "const": "must be {0}",
}


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`` (did you mean "text"?)``, with its leading space, or nothing."""
    return as_question(closest(name, choices))


def closest(name: str, choices: Iterable[str]) -> str:
    """The choice that a misspelled name most likely means, or nothing."""
    if len(name) > 2 * _MAX_SHOWN_VALUE:
        return ""  # nobody mistypes that, and each comparison takes time that grows with the product of both lengths
    close = difflib.get_close_matches(name, list(islice(choices, _MOST_GUESSES)), n=1)
    return close[0] if close else ""


def as_question(meant: str) -> str:
    """See `did_you_mean`, of what `closest` found."""
    return f' (did you mean "{meant}"?)' if meant else ""


def quoted(name: str) -> str:
    """A name in quotation marks, on one line, the end of a very long one left out."""
    text = json.dumps(name[: 2 * _MAX_SHOWN_VALUE], ensure_ascii=False)
    # A lone surrogate, which JSON can carry as an escape, would make the answer itself impossible to encode.
    return text.encode("utf-8", "backslashreplace").decode()


def listing(choices: Iterable[Any]) -> str:
    """Choices as JSON, comma-separated, at most twenty of them."""
    values = list(choices)
    shown = ", ".join(shape(value) for value in values[:_MOST_CHOICES])
    return f"{shown} and {len(values) - _MOST_CHOICES} more" if len(values) > _MOST_CHOICES else shown


def shape(value: Any) -> str:
    """A short scalar as JSON; of anything longer, its type and size."""
    if isinstance(value, str):
        return quoted(value) if len(value) <= _MAX_SHOWN_VALUE else f"text of {len(value)} characters"
    if isinstance(value, Mapping):
        return f"an object with {counted(len(value), 'property', 'properties')}"
    if isinstance(value, Sequence):
        return f"an array of {counted(len(value), 'item', 'items')}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * _MAX_SHOWN_VALUE:
        return "a very large whole number"
    if isinstance(value, int | float | None):
        return json.dumps(value)
    return f"a {type(value).__name__}"


def allowed_types(types: str | Iterable[str]) -> str:
    """``text or null`` for ``["string", "null"]``."""
    names = [types] if isinstance(types, str) else list(types)
    return " or ".join(_TYPES.get(name, name) for name in names)


def sentence(error: ValidationError, root: str = "") -> str:
    """One sentence for one error.

    Args:
        error: what jsonschema found.
        root: name of the value as a whole; empty where its members are the subject, as with arguments.
    """
    keyword = str(error.validator)
    wanted: Any = error.validator_value
    value: Any = error.instance
    name = _name(error, root)
    if keyword == "required" and isinstance(value, Mapping):
        missing = next((key for key in wanted if error.message.startswith(f"{key!r} ")), "a property")
        return f"{_member(error, root, missing)} is required and was not given"
    if keyword in ("additionalProperties", "unevaluatedProperties") and isinstance(value, Mapping):
        return _unknown(error, root, value)
    head = name if _is_secret(error.schema) else f"{name} is {shape(value)}, and"
    if keyword == "type":
        return f"{head} must be {allowed_types(wanted)}"
    if keyword == "enum":
        return f"{head} must be one of {listing(wanted)}"
    if keyword in _COUNTED:
        bound, one, many = _COUNTED[keyword]
        return f"{head} must have {bound} {counted(wanted, one, many)}"
    if keyword in _BOUNDS:
        text = wanted if keyword == "format" else json.dumps(wanted, ensure_ascii=False, default=str)
        return f"{head} {_BOUNDS[keyword].format(text)}"
    if keyword == "uniqueItems":
        return f"{name} holds the same item twice, and must not"
    if keyword in ("anyOf", "oneOf"):
        return _no_form_fits(error, head)
    if keyword == "not" and wanted == {}:
        return f"{head} is not allowed there"
    if keyword == "dependentRequired" and isinstance(value, Mapping):
        pairs = [(key, each) for key, names in wanted.items() if key in value for each in names if each not in value]
        given, missing = next(pair for pair in pairs if f"{pair[1]!r} is a dependency of {pair[0]!r}" == error.message)
        return f"{_member(error, root, given)} was given, and needs {_member(error, root, missing)} with it"
    if keyword in ("not", "contains", "propertyNames"):
        return f"{head} must satisfy {keyword}: {_short_json(wanted)}"
    return f"{head} is not allowed there"


def _unknown(error: ValidationError, root: str, value: Mapping[str, Any]) -> str:
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    properties = schema.get("properties", {})
    known = list(properties)
    unknown = [key for key in value if key not in properties]
    if len(unknown) == 1:
        return f"{_member(error, root, unknown[0])} is unknown{did_you_mean(unknown[0], known) or _known(known)}"
    hints = [f"{quoted(key)}{did_you_mean(key, known)}" for key in unknown[:_MOST_CHOICES]]
    place = f" in {_name(error, root)}" if root or error.absolute_path else ""
    return f"{', '.join(hints)}{place} are unknown{_known(known)}"


def _known(known: Sequence[str]) -> str:
    return f"; known are {listing(known)}" if known else "; there are none to give"


def _no_form_fits(error: ValidationError, head: str) -> str:
    forms: Any = error.validator_value
    if not error.context:
        return f"{head} fits more than one of the {len(forms)} allowed forms"
    types: list[Any] = [form.get("type") for form in forms if isinstance(form, Mapping)]
    wrong_type = [part.validator == "type" and not part.relative_path for part in error.context]
    if len(types) == len(forms) and all(types) and all(wrong_type):
        return f"{head} must be {' or '.join(allowed_types(kind) for kind in types)}"
    # The form that the value went furthest into is the one that was meant.
    closest = max(error.context, key=lambda part: (part.validator != "type", len(part.relative_path)))
    return f"{head} fits none of the {len(forms)} allowed forms; in the closest, {sentence(closest)}"


def _is_secret(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (schema.get("writeOnly") is True or schema.get("format") == "password")


def _name(error: ValidationError, root: str) -> str:
    path = dotted(error.absolute_path)
    if root:
        return f"{root} at {path}" if path else root
    return quoted(path) if path else "the whole of the arguments"


def _member(error: ValidationError, root: str, key: str) -> str:
    path = dotted([*error.absolute_path, key])
    return f"{quoted(path)} in {root}" if root else quoted(path)


def _short_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 2 * _MAX_SHOWN_VALUE else text[: 2 * _MAX_SHOWN_VALUE] + "…"
