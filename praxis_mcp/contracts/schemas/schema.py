"""A contract's schemas: parameters → JSON Schema 2020-12, arguments and output checked, and what clients are sent.

A client compiles every output schema of a ``tools/list`` before it looks at any tool, so that one which it cannot
compile costs it all of them. The TypeScript SDK (1.32, `Client.cacheToolMetadata`) does it by Ajv, whose own rules go
beyond JSON Schema's; what `why_not_sendable` looks for is what Ajv 8 throws at for a schema that the metaschema allows.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from praxis_mcp.contracts.model import Derived, ToolContract, ToolParameter
from praxis_mcp.contracts.problems import did_you_mean, listing, quoted, sentence, shape
from praxis_mcp.contracts.schemas.patterns import UnusablePattern, compile_pattern
from praxis_mcp.contracts.schemas.validators import MOST_PROBLEMS, CheckFailed, compile_schema, find_errors
from praxis_mcp.contracts.vocabulary import resolves, schemas_inside, without_booleans
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


_SHOWN = ("type", "title", "description")
_UNKNOWN_TO_US = ("dependencies", "additionalItems")
_OF_OTHERS = ("id", "formatMinimum", "formatMaximum", "formatExclusiveMinimum", "formatExclusiveMaximum")

# ECMA-262, with its flag u, which Ajv sets.
_ESCAPE = r"\\(?:[dDwWsSnrtfv^$\\.*+?()\[\]{}|/]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[pP]\{(?:L|Lu|Ll|N|Nd|P|S|Z)\})"
_TOKEN = re.compile(
    rf"(?P<atom>{_ESCAPE}|\[\^?(?:{_ESCAPE}|\\-|[^\[\]\\])+\]|[^\\\[\](){{}}*+?|^$])"
    r"|(?P<end>\))|(?P<repeat>(?:[*+?]|\{\d+(?:,\d*)?\})\??)|(?P<other>[\^$|]|\\[bB]|\((?:\?:)?)"
)


def input_schema(contract: ToolContract) -> dict[str, Any]:
    """The tool's `inputSchema`: an object schema that names every parameter and allows nothing else.

    Its root is always ``type: object``, because one tool without it makes the whole ``tools/list`` fail for every
    client of the older protocol revisions; and it holds no boolean where others expect an object (see
    `without_booleans`). Built once a contract: do not change what is returned.
    """
    return _compiled(contract).input_schema


def validate_arguments(contract: ToolContract, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, checked, defaults applied.

    Models often send the right value in the wrong type. What can be meant in one way only is taken so; everything
    else is refused:

    - where text is the only type allowed, a number or a boolean becomes its JSON text (``5`` → ``"5"``);
    - where text is not allowed, text that is the JSON of a value of an allowed type becomes that value
      (``"5"`` → ``5``, ``"true"`` → ``true``, ``"[1, 2]"`` → ``[1, 2]``);
    - where a whole number is wanted, ``3.0`` becomes ``3``;
    - null for an optional parameter that does not allow null counts as not given.

    Raises:
        ArgumentError: they do not fit; one sentence for each problem.
        ContractError: the contract's own schema is invalid (contracts that were loaded from a file are checked then).
    """
    schema = _compiled(contract)
    known = {parameter.name: parameter for parameter in contract.parameters}
    given: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in arguments.items():
        parameter = known.get(name)
        if parameter is None:
            if len(problems) >= MOST_PROBLEMS:
                continue  # a guess takes time, and a caller can send a hundred thousand names
            hint = did_you_mean(name, known) or (f"; known are {listing(known)}" if known else "; this tool takes none")
            problems.append(f"{quoted(name)} is unknown{hint}")
        elif value is not None or parameter.required or _allows(parameter, "null"):
            given[name] = read_value(parameter, value)
    unusable = [f'"{name}" {reason}' for name, value in given.items() if (reason := _why_no_json(value))]
    problems += unusable
    try:
        if not unusable:  # jsonschema itself fails on some of them
            problems += [sentence(error) for error in find_errors(schema.input_validator, given, contract.name)]
    except CheckFailed as exc:
        problems.append(f"one of the arguments {exc}")
    if problems:
        raise ArgumentError(
            f"{contract.name} cannot take these arguments: {'; '.join(problems)}.",
            problems=problems,
            remedy="Correct them and call again.",
        )
    for parameter in contract.parameters:
        if parameter.has_default and parameter.name not in given:
            given[parameter.name] = copy.deepcopy(parameter.default)
    return given


def is_compiled(contract: ToolContract) -> bool:
    """Whether the contract's schemas were compiled; else the first check does it, which takes up to half a second."""
    return _compiled(contract).is_compiled


def compile_schemas(contract: ToolContract) -> None:
    """Compile the contract's schemas, for the checks to come; meant for a thread.

    Raises:
        ContractError: one of them is invalid.
    """
    compiled = _compiled(contract)
    _ = compiled.input_validator, compiled.output_validator
    compiled.is_compiled = True


def output_validator(contract: ToolContract) -> Validator | None:
    """The compiled validator of the contract's `output_schema`; None where it has none.

    Raises:
        ContractError: the contract's own schema is invalid.
    """
    return _compiled(contract).output_validator


def check_output(contract: ToolContract, value: Any) -> list[str]:
    """What is wrong with a tool's output: one sentence for each problem, none where there is no `output_schema`.

    Raises:
        ContractError: the contract's own schema is invalid.
    """
    validator = output_validator(contract)
    if validator is None:
        return []
    try:
        return [sentence(error, root="the output") for error in find_errors(validator, value, contract.name)]
    except CheckFailed as exc:
        return [f"the output {exc}"]


def parameter_schema(parameter: ToolParameter) -> dict[str, Any]:
    """The JSON Schema of one parameter."""
    schema: dict[str, Any] = {}
    if parameter.type is not None:
        schema["type"] = parameter.type if isinstance(parameter.type, str) else list(parameter.type)
    if parameter.description:
        schema["description"] = parameter.description
    schema |= parameter.keywords
    if parameter.has_default:
        schema["default"] = parameter.default
    return schema


def read_value(parameter: ToolParameter, value: Any) -> Any:
    """The value in the type that the parameter declares, where it can be meant in one way only (see
    `validate_arguments`); else as it is."""
    if parameter.type is None:
        return value
    if types_of(parameter) == ("string",):
        is_plain = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
        return _json_text(value) if is_plain else value
    if isinstance(value, str) and not _allows(parameter, "string"):
        value = _parsed(parameter, value)
    if isinstance(value, float) and value.is_integer() and not _allows(parameter, "number"):
        return int(value)
    return value


def types_of(parameter: ToolParameter) -> tuple[str, ...]:
    """The parameter's types; none where its type is open."""
    if parameter.type is None:
        return ()
    return (parameter.type,) if isinstance(parameter.type, str) else parameter.type


def is_of_type(value: Any, kind: str) -> bool:
    """Whether a value has a type, by the rules of JSON Schema: ``3.0`` is an integer."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "null":
            return value is None
        case _:
            return False


class _Compiled:
    """What is derived from one contract, each part when it is first asked for."""

    def __init__(self, contract: ToolContract) -> None:
        # The contract itself is not kept, for it would never be freed, see `Derived`.
        self._name = contract.name
        self.is_compiled = False
        self._output_schema = contract.output_schema
        self.input_schema: dict[str, Any] = {
            **without_booleans(contract.input_keywords),
            "type": "object",
            "properties": {
                parameter.name: without_booleans(parameter_schema(parameter)) for parameter in contract.parameters
            },
        }
        required = [parameter.name for parameter in contract.parameters if parameter.required]
        if required:
            self.input_schema["required"] = required
        self.input_schema["additionalProperties"] = False

    @cached_property
    def input_validator(self) -> Validator:
        # Unknown names have been reported already, with a better message.
        schema = {key: value for key, value in self.input_schema.items() if key != "additionalProperties"}
        return compile_schema(schema, f"The input schema of {self._name}")

    @cached_property
    def output_validator(self) -> Validator | None:
        if self._output_schema is None:
            return None
        return compile_schema(self._output_schema, f"The output_schema of {self._name}")


_derived: Derived[ToolContract, _Compiled] = Derived()


def _compiled(contract: ToolContract) -> _Compiled:
    return _derived.get(contract, lambda: _Compiled(contract))


def _allows(parameter: ToolParameter, kind: str) -> bool:
    """Whether the parameter's type admits a kind of value; a parameter without a type admits all."""
    return parameter.type is None or kind in types_of(parameter)


def _json_text(value: Any) -> Any:
    try:
        return json.dumps(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return value


def _parsed(parameter: ToolParameter, text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return value if any(is_of_type(value, kind) for kind in types_of(parameter)) else text


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _why_no_json(value: Any) -> str | None:
    """Values that a client in Python can send, but no JSON text can hold: not a number, infinities."""
    if isinstance(value, str):
        return None
    try:
        json.dumps(value, allow_nan=False)
    except TypeError:
        return "is not a JSON value"
    except ValueError:
        return "holds a number that is not finite, or has too many digits"
    except RecursionError:
        return "is nested too deeply"
    return None


def make_sendable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as clients can compile it: itself, or an open one of its type where there is something in it that
    some cannot. Answers are still checked against the whole."""
    if why_not_sendable(schema) is None:
        return schema
    return {key: schema[key] for key in _SHOWN if key in schema}


def why_not_sendable(schema: Mapping[str, Any]) -> str | None:
    """What some clients cannot compile in a valid output schema, as a subject for "cannot be read"; None: nothing."""
    return next(_obstacles(schema), None)


def _obstacles(schema: Mapping[str, Any]) -> Iterator[str]:
    anchors: Counter[Any] = Counter()
    references: list[str] = []
    moved = False
    for keys, part in schemas_inside(schema):
        yield from (f'the keyword "{key}"' for key in (*_OF_OTHERS, *_UNKNOWN_TO_US) if key in part)
        if part.get("enum") == []:
            yield "an empty enum"
        if "nullable" in part and ("type" not in part or part["nullable"] is not True):
            yield 'the keyword "nullable"'
        patterns = [part["pattern"]] if "pattern" in part else []
        for pattern in (*patterns, *part.get("patternProperties", ())):
            if not is_portable(pattern):
                yield f"the pattern {quoted(str(pattern))}"
        anchors.update(part[key] for key in ("$anchor", "$dynamicAnchor") if isinstance(part.get(key), str))
        references += [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        moved = moved or (keys != () and "$id" in part)
    yield from (f'the anchor "{name}", which is there twice' for name, times in anchors.items() if times > 1)
    for reference in references:
        if moved or not _leads_somewhere(reference, schema, anchors):
            yield f"the reference {shape(reference)}"


def _leads_somewhere(reference: str, schema: Mapping[str, Any], anchors: Mapping[Any, int]) -> bool:
    try:
        fragment = unquote(reference.removeprefix("#"), errors="strict")
    except UnicodeDecodeError:
        return False
    if not reference.startswith("#") or "%" in fragment:
        return False
    return resolves("#" + fragment, schema) if fragment.startswith("/") or not fragment else anchors[fragment] == 1


def is_portable(pattern: Any) -> bool:
    """Whether a pattern is a regular expression for Rust's engine and for ECMA-262 with its flag u, as far as can
    be seen without compiling it there: what is unusual counts as not."""
    if not isinstance(pattern, str):
        return False
    place, repeatable = 0, False
    while place < len(pattern):
        token = _TOKEN.match(pattern, place)
        if token is None or (token.lastgroup == "repeat" and not repeatable):
            return False
        place, repeatable = token.end(), token.lastgroup in ("atom", "end")
    try:
        compile_pattern(pattern)
    except UnusablePattern:
        return False
    return True
