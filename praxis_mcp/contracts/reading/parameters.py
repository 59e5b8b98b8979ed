"""A contract's parameters, in each of the ways they are written, and the types and schemas in them → JSON Schema.

- a mapping of names to definitions (``text: {type: string}``, ``text: string``);
- a list of definitions that have a ``name``;
- a JSON Schema object (``type: object`` with ``properties``).

In the first two a parameter of our own spelling is required unless it has a default or says ``required: false``; in
the older spellings it is optional unless it says ``required: true``. In a JSON Schema object the list under
``required`` decides.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from praxis_mcp.contracts.model import ToolParameter
from praxis_mcp.contracts.problems import quoted, shape
from praxis_mcp.contracts.reading.documents import FALSE_WORDS, TRUE_WORDS
from praxis_mcp.contracts.reading.findings import Findings, validate_fields
from praxis_mcp.contracts.schemas.schema import read_value
from praxis_mcp.contracts.values import Binding
from praxis_mcp.contracts.vocabulary import (
    ANY_TYPE,
    KEYWORDS,
    LIST_OF_SCHEMAS,
    MAP_OF_SCHEMAS,
    ONE_SCHEMA,
    SHORT_KEYWORDS,
    TYPE_ALIASES,
)
from praxis_mcp.diagnostics import Keys

_OWN_KEYS = ("name", "type", "description", "required", "default", "bind")
_OPEN_BY = frozenset({"anyOf", "oneOf", "allOf", "$ref", "$dynamicRef", "const", "not"})


_MEANT_FORMATS = {
    "date": "date", "datetime": "date-time", "date-time": "date-time", "time": "time", "uri": "uri", "url": "uri",
    "email": "email", "uuid": "uuid", "ipv4": "ipv4", "ipv6": "ipv6", "hostname": "hostname", "password": "password",
}  # fmt: skip

_FORMATS = (
    "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
    "uri-reference", "iri", "iri-reference", "uri-template", "uuid", "json-pointer", "relative-json-pointer", "regex",
)  # fmt: skip
"""The formats of JSON Schema 2020-12 (validation, section 7.3)."""
# OpenAPI's registry, of which some are a letter away from one of the above.
_KNOWN_FORMATS = frozenset({
    *_FORMATS, "password", "byte", "binary", "char", "int32", "int64", "uint32", "uint64", "float", "double", "decimal",
    "time-local", "date-time-local", "base64url", "html", "commonmark", "media-range", "http-date",
})  # fmt: skip


@dataclass(slots=True)
class Parameters:
    """What was read.

    Attributes:
        parameters: in the order they are written.
        places: where each is defined, by name.
        keywords: keywords at the root of a JSON Schema object.
        root: where the whole stands.
    """

    parameters: list[ToolParameter] = field(default_factory=list)
    places: dict[str, Keys] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)
    root: Keys = ()


_Written = tuple[str, Any, Keys, bool | None]
"""A parameter's name, its definition, where that stands, and whether it is required if the definition does not say;
None: unless it has a default."""


def read_parameters(value: Any, keys: Keys, findings: Findings) -> Parameters:
    """Parameters from what stands at `keys`; everything wrong goes to `findings`."""
    result = Parameters(root=keys)
    in_schema = isinstance(value, Mapping) and _is_json_schema(value)
    if in_schema:
        result.keywords = _root_keywords(value, keys, findings)
    for name, definition, where, required in _properties(value, keys) if in_schema else _named(value, keys, findings):
        if name in result.places:
            findings.error(where, f'The parameter "{name}" is declared twice.', "Remove one of them.")
            continue
        fields = _fields(name, definition, where, findings, required=required, in_schema=in_schema)
        if fields is None:
            continue
        result.places[name] = where
        parameter = validate_fields(ToolParameter, fields, findings, where)
        if parameter is not None:
            result.parameters.append(_as_written(parameter, where, findings))
    return result


def _is_json_schema(value: Mapping[str, Any]) -> bool:
    known = all(key in KEYWORDS or key.startswith(("$", "x-")) for key in value)
    return value.get("type") == "object" and known and isinstance(value.get("properties", {}), Mapping)


def _named(value: Any, keys: Keys, findings: Findings) -> Iterator[_Written]:
    """A mapping of names, or a list of definitions that have one."""
    required = False if findings.lenient else None
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield name, item, (*keys, name), required
    elif isinstance(value, list):
        for index, item in enumerate(value):
            where = (*keys, index)
            if not isinstance(item, Mapping) or item.get("name") is None:
                findings.error(where, "A parameter in a list has a name.", "Write - name: text.")
                continue
            name = item["name"] if isinstance(item["name"], str) else findings.document.written.get((*where, "name"))
            if name is None:
                findings.error((*where, "name"), f"A parameter's name is text, not {shape(item['name'])}.")
                continue
            yield name, {key: part for key, part in item.items() if key != "name"}, where, required
    elif value is not None:
        findings.error(
            keys,
            f"Parameters are a mapping or a list, not {shape(value)}.",
            "Write parameters: {text: {type: string}}.",
        )


def _properties(schema: Mapping[str, Any], keys: Keys) -> Iterator[_Written]:
    required = schema.get("required")
    names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    for name, item in schema.get("properties", {}).items():
        yield name, item, (*keys, "properties", name), name in names


def _root_keywords(schema: Mapping[str, Any], keys: Keys, findings: Findings) -> dict[str, Any]:
    required = schema.get("required")
    properties = schema.get("properties", {})
    if required is not None and not isinstance(required, list):
        findings.error((*keys, "required"), "required is a list of parameter names here.", "Write required: [text].")
    for index, name in enumerate(required if isinstance(required, list) else ()):
        if not isinstance(name, str) or name not in properties:
            hint = findings.hint(name, properties) if isinstance(name, str) else ""
            findings.error(
                (*keys, "required", index),
                f"{shape(name)} is required, but not among the properties{hint}.",
                "Add it to properties, or remove it from required.",
            )
    keywords: dict[str, Any] = {}
    for key, item in schema.items():
        where = (*keys, key)
        if key == "additionalProperties":
            if item is not False:
                findings.warning(
                    where,
                    "Arguments that are not declared reach no tool, so they are refused all the same.",
                    "Declare every argument under properties, and write additionalProperties: false.",
                )
        elif key not in ("type", "properties", "required"):
            keywords[key] = map_keyword(key, item, where, findings)
    return keywords


def _fields(
    name: str, definition: Any, keys: Keys, findings: Findings, *, required: bool | None, in_schema: bool
) -> dict[str, Any] | None:
    """A definition in normal form: the fields of a `ToolParameter`; None where it cannot be meant as a definition."""
    if definition is None or (definition is True and in_schema):
        definition = {}
    elif isinstance(definition, str):
        definition = {"type": definition}
    if not isinstance(definition, Mapping):
        findings.error(
            keys, f'"{name}" is defined by a mapping or a type, not {shape(definition)}.', f"Write {name}: string."
        )
        return None
    fields: dict[str, Any] = {"name": name}
    keywords: dict[str, Any] = {}
    for key, value in definition.items():
        where = (*keys, key)
        if key == "type":
            fields["type"] = map_type(value, where, findings)
        elif key == "description":
            fields["description"] = "" if value is None else findings.text(value, where)
        elif key == "default":
            fields["default"] = value
        elif key == "bind":
            fields["bind"] = validate_fields(Binding, {} if value is None else value, findings, where) or Binding()
        elif key == "required" and not isinstance(value, list):
            required = _flag(value, where, findings)
        else:
            _add_keyword(key, value, where, findings, keywords)
    if "type" not in fields and (in_schema or _OPEN_BY & set(keywords)):
        fields["type"] = None
    fields["required"] = ("default" not in fields) if required is None else required
    fields["keywords"] = keywords
    return fields


def _add_keyword(key: str, value: Any, keys: Keys, findings: Findings, keywords: dict[str, Any]) -> None:
    keyword = SHORT_KEYWORDS.get(key, key)
    if keyword not in KEYWORDS and not keyword.startswith("x-"):
        hint = findings.hint(key, (*_OWN_KEYS, *SHORT_KEYWORDS, *KEYWORDS))
        findings.unknown(keys, f'"{key}" is not a key of a parameter{hint}.', "Use a keyword of JSON Schema 2020-12.")
    elif keyword in keywords:
        findings.error(keys, f"{keyword} is written twice, as {key} too.", "Remove one of them.")
    else:
        keywords[keyword] = map_keyword(keyword, value, keys, findings)


def _as_written(parameter: ToolParameter, keys: Keys, findings: Findings) -> ToolParameter:
    """Where only text is allowed, ``yes`` and ``1.10`` in an enum or a default are the text that was written; a
    default in another type than the declared one is read as an argument would be."""
    changes: dict[str, Any] = {}
    choices = parameter.keywords.get("enum")
    if isinstance(choices, list) and parameter.type == "string":
        fixed = [_meant(choice, (*keys, "enum", index), findings) for index, choice in enumerate(choices)]
        changes["keywords"] = {**parameter.keywords, "enum": fixed}
    elif isinstance(choices, list):
        for index, choice in enumerate(choices):
            word = findings.document.written.get((*keys, "enum", index), "")
            if isinstance(choice, bool) and word.lower() not in ("true", "false"):
                findings.warning(
                    (*keys, "enum", index),
                    f"YAML reads {word} as {str(choice).lower()}.",
                    f'Write "{word}" in quotation marks if text is meant, else {str(choice).lower()}.',
                )
    if parameter.has_default and parameter.default is not None:
        where = (*keys, "default")
        if parameter.type == "string":
            default = _meant(parameter.default, where, findings)
        else:
            default = read_value(parameter, parameter.default)
            if type(default) is not type(parameter.default):
                findings.warning(
                    where, f"The default is {shape(parameter.default)}; {shape(default)} is taken.", "Write it so."
                )
        changes["default"] = default
    return parameter.model_copy(update=changes) if changes else parameter


def _meant(value: Any, keys: Keys, findings: Findings) -> Any:
    word = findings.document.written.get(keys)
    if isinstance(value, bool | int | float) and word is not None:
        findings.warning(
            keys, f"YAML reads {word} as {shape(value)}, but text is allowed here only.", f'Write "{word}".'
        )
        return word
    return value


def _flag(value: Any, keys: Keys, findings: Findings) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUE_WORDS | FALSE_WORDS:
        return value in TRUE_WORDS
    findings.error(keys, f"required is true or false, not {shape(value)}.", "Write required: true or required: false.")
    return False


def map_type(value: Any, keys: Keys, findings: Findings) -> str | list[str] | None:
    """A type as JSON Schema names it; None where it is open. What cannot be mapped is reported."""
    if isinstance(value, list) and value:
        mapped = [map_type(item, (*keys, index), findings) for index, item in enumerate(value)]
        return None if None in mapped else list(dict.fromkeys(item for item in mapped if isinstance(item, str)))
    if value is None and findings.document.written.get(keys, "~") == "null":
        return "null"  # `type: [string, null]`: YAML reads the word as an empty value
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, str) and word in TYPE_ALIASES:
        return TYPE_ALIASES[word]
    if isinstance(word, str) and word in ANY_TYPE:
        return None
    hint = ""
    remedy = "Write string, integer, number, boolean, array, object or null."
    if isinstance(word, str) and word in _MEANT_FORMATS:
        remedy = f"Write type: string and format: {_MEANT_FORMATS[word]}."
    elif isinstance(word, str) and ("[" in word or "<" in word):
        remedy = "Write type: array and items: {type: …}."
    elif isinstance(word, str):
        hint = findings.hint(word, (*TYPE_ALIASES, *ANY_TYPE))
    findings.error(keys, f"{shape(value)} is not a type{hint}.", remedy)
    return None


def map_schema(schema: Any, keys: Keys, findings: Findings) -> Any:
    """A schema with the types in it, and in every schema inside it, as JSON Schema names them.

    References that leave the document are reported.
    """
    if not isinstance(schema, Mapping):
        return schema
    mapped: dict[str, Any] = {}
    for key, value in schema.items():
        where = (*keys, key)
        if key == "type":
            kind = map_type(value, where, findings)
            if kind is not None:
                mapped[key] = kind
        else:
            mapped[key] = map_keyword(key, value, where, findings)
    return mapped


def map_keyword(key: str, value: Any, keys: Keys, findings: Findings) -> Any:
    """The value of a keyword, with the schemas inside it mapped as `map_schema` does."""
    if key in ONE_SCHEMA:
        return map_schema(value, keys, findings)
    if key in LIST_OF_SCHEMAS and isinstance(value, list):
        return [map_schema(item, (*keys, index), findings) for index, item in enumerate(value)]
    if key in MAP_OF_SCHEMAS and isinstance(value, Mapping):
        return {name: map_schema(item, (*keys, name), findings) for name, item in value.items()}
    if key in ("$ref", "$dynamicRef") and not (isinstance(value, str) and value.startswith("#")):
        findings.error(
            keys,
            f"The reference {shape(value)} leaves the contract, and nothing is fetched.",
            "Write the definition into the contract, under $defs, and refer to it as #/$defs/NAME.",
        )
    if key == "format" and isinstance(value, str) and value not in _KNOWN_FORMATS:
        meant = _MEANT_FORMATS.get(value) or next(iter(difflib.get_close_matches(value, _FORMATS, n=1)), None)
        if meant is not None:
            findings.warning(
                keys,
                f'{quoted(value)} is not a format of JSON Schema (did you mean "{meant}"?), and nothing checks it.',
                f"Write format: {meant}.",
            )
    return value
