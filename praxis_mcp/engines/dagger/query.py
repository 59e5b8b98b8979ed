"""GraphQL operations for Dagger, built as values. Every argument becomes a variable: no value is ever part of a
query's text, so nothing needs escaping, and equal shapes give equal texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TYPES = (
    "Query",
    "Container",
    "Host",
    "Directory",
    "File",
    "Changeset",
    "CacheVolume",
    "Secret",
    "Socket",
    "EnvVariable",
)
"""The types of Dagger's API that this engine speaks of."""


@dataclass(frozen=True, slots=True)
class Field:
    """One selected field.

    Attributes:
        name: as in the schema.
        arguments: by name.
        fields: what is selected of its value; none for a scalar.
        alias: the name in the answer, where it differs.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    alias: str = ""


def chain(steps: Iterable[Field], *selected: Field) -> Field:
    """The steps nested into each other, the last one selecting `selected`."""
    nested = selected
    for step in reversed(list(steps)):
        nested = (Field(step.name, step.arguments, nested, step.alias),)
    return nested[0]


def value_at(answer: Mapping[str, Any], *steps: str) -> Any:
    """What an answer holds at the end of a path of names."""
    value: Any = answer
    for step in steps:
        value = value[step]
    return value


@dataclass(frozen=True, slots=True)
class Operation:
    """A query with its variables, ready to send. The variables may hold secrets: they are not in its `repr`."""

    text: str
    variables: Mapping[str, Any] = field(repr=False)


_REFERENCE = "kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } }"
INTROSPECTION = Operation(
    # Of all types: asking for single ones by `__type` takes the engine (v0.21.8) two seconds each, this 0.2.
    f"{{ __schema {{ types {{ name fields {{ name args {{ name type {{ {_REFERENCE} }} }} "
    f"type {{ {_REFERENCE} }} }} }} }} }}",
    {},
)
"""The query whose answer makes a `Schema`."""


class Schema:
    """What a session's API calls the types of its arguments and fields.

    Versions differ in them: the same id is ``ContainerID!`` here and ``ID!`` there.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        """`answer`: what `INTROSPECTION` gave."""
        self._arguments: dict[tuple[str, str, str], str] = {}
        self._results: dict[tuple[str, str], str] = {}
        for described in answer["__schema"]["types"]:
            if described["name"] not in TYPES:
                continue
            for entry in described["fields"] or ():
                self._results[described["name"], entry["name"]] = _innermost(entry["type"])
                for argument in entry["args"]:
                    key = (described["name"], entry["name"], argument["name"])
                    self._arguments[key] = _spelled(argument["type"])

    def has(self, type_name: str, field_name: str, argument: str = "") -> bool:
        """Whether this API knows a field, or an argument of it."""
        if argument:
            return (type_name, field_name, argument) in self._arguments
        return (type_name, field_name) in self._results

    def operation(self, *roots: Field) -> Operation:
        """The query that asks for these fields.

        Raises:
            LookupError: this API has no such field or argument; says which.
        """
        return _Writer(self).write(roots)

    def argument_type(self, type_name: str, field_name: str, argument: str) -> str:
        """How the API spells an argument's type."""
        try:
            return self._arguments[type_name, field_name, argument]
        except KeyError:
            raise LookupError(f"{type_name}.{field_name}({argument}:)") from None

    def result_type(self, type_name: str, field_name: str) -> str:
        """The named type of a field's value, lists and non-nulls aside."""
        try:
            return self._results[type_name, field_name]
        except KeyError:
            raise LookupError(f"{type_name}.{field_name}") from None


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._declared: list[str] = []
        self._variables: dict[str, Any] = {}

    def write(self, roots: Sequence[Field]) -> Operation:
        body = self._selection("Query", roots)
        declared = f" ({', '.join(self._declared)})" if self._declared else ""
        return Operation(f"query{declared} {body}", self._variables)

    def _selection(self, type_name: str, fields: Sequence[Field]) -> str:
        return "{ " + " ".join(self._field(type_name, item) for item in fields) + " }"

    def _field(self, type_name: str, item: Field) -> str:
        result = self._schema.result_type(type_name, item.name)
        words: list[str] = []
        for name, value in item.arguments.items():
            variable = f"v{len(self._variables)}"
            self._declared.append(f"${variable}: {self._schema.argument_type(type_name, item.name, name)}")
            self._variables[variable] = value
            words.append(f"{name}: ${variable}")
        text = f"{item.alias}: {item.name}" if item.alias else item.name
        if words:
            text += f"({', '.join(words)})"
        return f"{text} {self._selection(result, item.fields)}" if item.fields else text


def _innermost(described: Mapping[str, Any]) -> str:
    while described.get("ofType"):
        described = described["ofType"]
    return str(described["name"])


def _spelled(described: Mapping[str, Any]) -> str:
    if described["kind"] == "NON_NULL":
        return f"{_spelled(described['ofType'])}!"
    if described["kind"] == "LIST":
        return f"[{_spelled(described['ofType'])}]"
    return str(described["name"])
