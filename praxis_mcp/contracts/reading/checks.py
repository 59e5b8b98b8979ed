"""What can be wrong with a contract that is well-formed: its schemas, defaults, bindings and examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from praxis_mcp.contracts.model import EngineType, ToolContract
from praxis_mcp.contracts.problems import sentence, shape
from praxis_mcp.contracts.reading.bindings import check_bindings, misplaced
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.reading.http_checks import check_places
from praxis_mcp.contracts.reading.placeholder_checks import check_placeholders
from praxis_mcp.contracts.reading.spellings import Reading
from praxis_mcp.contracts.schemas.patterns import unusable_patterns
from praxis_mcp.contracts.schemas.schema import input_schema, is_of_type, types_of, validate_arguments, why_not_sendable
from praxis_mcp.contracts.schemas.validators import (
    PATTERN_REMEDY,
    CheckFailed,
    compile_schema,
    find_errors,
    schema_errors,
)
from praxis_mcp.contracts.specs import CommandSpec, HttpEngineSpec, LocalEngineSpec
from praxis_mcp.contracts.variables import all_variable_names, is_of_the_host
from praxis_mcp.contracts.vocabulary import find_odd_texts, references, resolves, schemas_inside
from praxis_mcp.diagnostics import Keys
from praxis_mcp.errors import ArgumentError, ContractError
from praxis_mcp.support.text import size_in_words, unseen

MAX_TOOL_NAME = 64
"""Characters of a tool's name, with the prefix that some clients add, above which they refuse it."""
_LEAST_MEMORY = 1024 * 1024
_USABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_contract(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    """Report everything that would go wrong later; errors and warnings go to `findings`."""
    _check_face(contract, reading, findings)
    _check_comments(reading, findings)
    _check_retry(contract, reading, findings)
    _check_wording(contract, reading, findings)
    if reading.spec is not None:
        _check_memory(contract, reading, findings)
        check_placeholders(contract, reading, findings)
        _check_passthrough(contract, reading, findings)
    if contract.engine is EngineType.REMOTE_MCP:
        _refuse_bindings(contract, reading, findings)
    elif isinstance(contract.engine_spec, HttpEngineSpec):
        check_places(contract, reading.parameters.places, findings)
    else:
        check_bindings(contract, reading.parameters.places, findings)
        for name, field, problem in misplaced(contract):
            where = (field,) if name is None else (*reading.parameters.places[name], field)
            findings.error(where, problem, "Choose another place, such as a folder of its own directly below /.")
    try:
        usable = _check_input_schema(contract, reading, findings)
        if contract.output_schema is not None:
            _check_schema(contract.output_schema, ("output_schema",), findings)
        if usable:
            _check_enums(contract, reading, findings)
            _check_defaults(contract, reading, findings)
            if not findings.has_errors:
                _check_examples(contract, reading, findings)
    except RecursionError:
        findings.error((), "A schema in the contract is nested too deeply to be checked.", "Make it flatter.")


def _check_face(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    if not (contract.description or "").strip():
        findings.warning(
            ("description",),
            "The tool has no description, and a model cannot tell when to use it.",
            "Write description: with what the tool does, and when.",
            "no-description",
        )
    if len(contract.name) > MAX_TOOL_NAME:
        findings.warning(
            ("name",),
            f"The name has {len(contract.name)} characters; clients put a prefix before it and refuse more than 64.",
            "Choose a shorter name.",
            "long-name",
        )
    for parameter in contract.parameters:
        where = reading.parameters.places[parameter.name]
        if not _USABLE_NAME.fullmatch(parameter.name):
            findings.warning(
                where,
                f"Some clients refuse tools with a parameter named {shape(parameter.name)}.",
                "Use 1 to 64 characters out of A-Z a-z 0-9 _ . -",
                "parameter-name",
            )
        if parameter.required and parameter.has_default:
            findings.warning(
                (*where, "default"),
                f'"{parameter.name}" is required, so its default is never used.',
                "Remove the default, or write required: false.",
            )


def _check_comments(reading: Reading, findings: Findings) -> None:
    """``description: A color, as #rrggbb.`` is ``A color, as``: in YAML the rest is a comment."""
    # A parameter that is named so has its type there, and what follows that is a comment indeed.
    parameters = set(reading.parameters.places.values())
    for keys in findings.document.commented:
        if keys and keys[-1] in ("title", "description") and keys not in parameters:
            findings.warning(
                keys,
                f"The {keys[-1]} ends before the #, where a YAML comment begins.",
                "Put it in quotation marks; before a comment that is meant as one, write two spaces.",
                "cut-text",
            )


def _check_retry(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    """The arguments of a task that may be run again are kept on disk until it has ended."""
    if contract.retry != "safe":
        return
    for parameter in contract.parameters:
        for keys, schema in schemas_inside(parameter.keywords):
            if schema.get("writeOnly") is True or schema.get("format") == "password":
                findings.error(
                    (*reading.parameters.places[parameter.name], *keys),
                    "retry: safe keeps arguments until the task has ended, and this one must not be kept.",
                    "Remove retry: safe, or give the tool the value as a secret: env: {NAME: {secret: NAME}}.",
                )


def _check_memory(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    """``memory_limit: 64`` is bytes."""
    spec = contract.engine_spec
    if isinstance(spec, CommandSpec) and spec.memory_limit is not None and spec.memory_limit < _LEAST_MEMORY:
        findings.warning(
            (*reading.spec_place, "memory_limit"),
            f"The memory limit is {size_in_words(spec.memory_limit)}, in which no program runs.",
            "Write it with its unit, such as 64Mi.",
        )


def _check_passthrough(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    """What describes this machine does not reach an image, where it would only be wrong."""
    spec = contract.engine_spec
    if not isinstance(spec, CommandSpec) or isinstance(spec, LocalEngineSpec):
        return
    of_arguments = {name for parameter in contract.parameters for name in all_variable_names(parameter)}
    for index, name in enumerate(spec.env_passthrough):
        if is_of_the_host(name) and name not in of_arguments:
            findings.warning(
                (*reading.spec_place, "env_passthrough", index),
                f"{name} describes this machine, and is not passed into an image: the image has its own.",
                f"Remove it, or write the value that the image needs: env: {{{name}: …}}.",
            )


def _check_wording(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    """What a model reads of the tool, and a reviewer of its contract does not see."""
    for key, text in (("title", contract.title), ("description", contract.description)):
        if odd := unseen(text or ""):
            findings.warning((key,), _odd(key, odd), _ODD_REMEDY, _ODD_CODE)
    for found in find_odd_texts(input_schema(contract)):
        place = reading.parameters.root
        match found.keys:
            case ("required", *_):
                continue  # a parameter's name again
            case ("properties", str(name), *inside):
                place = (*reading.parameters.places.get(name, ()), *inside)
        findings.warning(place, _odd(found.what, found.characters), _ODD_REMEDY, _ODD_CODE)
    for found in find_odd_texts(contract.output_schema or {}):
        findings.warning(("output_schema", *found.keys), _odd(found.what, found.characters), _ODD_REMEDY, _ODD_CODE)


_ODD_CODE = "hidden-text"
_ODD_REMEDY = "Remove them; what is meant to be read can be written in letters."


def _odd(what: str, characters: tuple[str, ...]) -> str:
    shown = ", ".join(characters[:5]) + (" and others" if len(characters) > 5 else "")
    return f"The {what} holds characters that cannot be seen, or that steer a terminal: {shown}."


def _refuse_bindings(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    for parameter in contract.parameters:
        if "bind" in parameter.model_fields_set:
            findings.unknown(
                (*reading.parameters.places[parameter.name], "bind"),
                "A remote tool gets its arguments as they are: there is nothing to bind.",
                "Remove bind.",
            )


def _check_input_schema(contract: ToolContract, reading: Reading, findings: Findings) -> bool:
    """Whether the schema can be used for the checks that follow."""
    schema = input_schema(contract)
    before = len(findings.diagnostics)

    def place(path: Keys) -> Keys:
        if len(path) >= 2 and path[0] == "properties":
            return (*reading.parameters.places.get(str(path[1]), ()), *path[2:])
        return (*reading.parameters.root, *path)

    # Root keywords and each parameter by itself: what is plain in most parameters need not be checked with the rest.
    for name, part in schema["properties"].items():
        for error in schema_errors(part):
            path: Keys = ("properties", name, *error.absolute_path)
            findings.error(place(path), *_schema_problem(error))
    keywords = contract.input_keywords
    if keywords:
        for error in schema_errors(keywords):
            findings.error(place(tuple(error.absolute_path)), *_schema_problem(error))
    _check_patterns(schema, place, findings)
    for reference in {*references(schema), *references(keywords)}:
        if not resolves(reference, schema):
            findings.error(reading.parameters.root, *_dangling(reference))
    return len(findings.diagnostics) == before


def _check_schema(schema: dict[str, Any], keys: Keys, findings: Findings) -> None:
    for error in schema_errors(schema):
        findings.error((*keys, *error.absolute_path), *_schema_problem(error))
    _check_patterns(schema, lambda path: (*keys, *path), findings)
    for reference in set(references(schema)):
        if not resolves(reference, schema):
            findings.error(keys, *_dangling(reference))
    obstacle = None if findings.has_errors else why_not_sendable(schema)
    if obstacle is not None:
        findings.warning(
            keys,
            f"Some clients cannot read {obstacle}, and would lose every tool for it, so they are sent an open schema.",
            "Write it so that JavaScript reads it too, or leave it out; output is checked against the schema as it is.",
        )


def _check_patterns(schema: Mapping[str, Any], place: Callable[[Keys], Keys], findings: Findings) -> None:
    for path, reason in unusable_patterns(schema):
        findings.error(place(path), f"{reason}.", PATTERN_REMEDY)


def _schema_problem(error: Any) -> tuple[str, str]:
    key = error.absolute_path[-1] if error.absolute_path else ""
    remedy = "See https://json-schema.org/draft/2020-12."
    if key == "items" and isinstance(error.instance, list):
        remedy = "Write prefixItems: for the schema of each place, as JSON Schema has done since 2020-12."
    elif key in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(error.instance, bool):
        remedy = f"Write the number itself: {key}: 0, in place of the older {str(key)[9:].lower()} and true."
    elif key == "required":
        remedy = "Write required: [NAME] in the object that has the property."
    return f'In JSON Schema, "{key}" cannot be {shape(error.instance)}.', remedy


def _dangling(reference: str) -> tuple[str, str]:
    return (
        f"The reference {shape(reference)} leads nowhere.",
        "Write the definition under $defs next to properties, and refer to it as #/$defs/NAME.",
    )


def _check_enums(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    for parameter in contract.parameters:
        choices = parameter.keywords.get("enum")
        types = types_of(parameter)
        for index, choice in enumerate(choices if isinstance(choices, list) and types else ()):
            if not any(is_of_type(choice, kind) for kind in types):
                findings.error(
                    (*reading.parameters.places[parameter.name], "enum", index),
                    f"{shape(choice)} is allowed by enum, but not by type: {' or '.join(types)}.",
                    "Fix the type or the value.",
                )


def _check_defaults(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    defaults = {parameter.name: parameter.default for parameter in contract.parameters if parameter.has_default}
    if not defaults:
        return
    schema = input_schema(contract)
    inside = {
        key: value for key, value in contract.input_keywords.items() if key.startswith("$") or key == "definitions"
    }
    validator = compile_schema({**inside, "properties": schema["properties"]}, contract.name)
    try:
        errors = find_errors(validator, defaults, contract.name)
    except CheckFailed as exc:
        findings.error(reading.parameters.root, f"A default {exc}.", "Make it simpler.")
        return
    except ContractError as exc:
        findings.error(reading.parameters.root, exc.message, exc.remedy or "")
        return
    for error in errors:
        name = str(error.absolute_path[0])
        findings.error(
            (*reading.parameters.places[name], "default"),
            f"The default does not fit: {sentence(error)}.",
            "Fix the default, or what the parameter allows.",
        )


def _check_examples(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    for example, where in zip(contract.examples, reading.example_places, strict=True):
        try:
            validate_arguments(contract, example.arguments)
        except ArgumentError as exc:
            if example.expect_exit != 0:
                continue
            for problem in exc.problems:
                findings.warning(where, f"The example cannot be called: {problem}.", "Fix its arguments.")
        except ContractError as exc:
            findings.error(reading.parameters.root, exc.message, exc.remedy or "")
            return
