"""Contracts that are built in code: what is wrong with them, found by the checks that a file's contract goes through.

`ToolContract` has them made when it is constructed; `model_copy`, as always with pydantic, checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from praxis_mcp.contracts.model import EngineType, engine_names, spec_type
from praxis_mcp.contracts.problems import quoted, shape
from praxis_mcp.contracts.reading.checks import check_contract
from praxis_mcp.contracts.reading.dialects import Reading
from praxis_mcp.contracts.reading.documents import Document
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.reading.parameters import Parameters, read_parameters
from praxis_mcp.contracts.reading.translation import report, validated
from praxis_mcp.contracts.specs import AnyEngineSpec
from praxis_mcp.contracts.vocabulary import KEYWORDS
from praxis_mcp.errors import ContractError

if TYPE_CHECKING:
    from praxis_mcp.contracts.model import ToolContract

_SHOWN = 5
"""Errors that the exception's own message shows; its diagnostics hold all of them."""


def build(data: Any, validate: Callable[[Any], ToolContract]) -> ToolContract:
    """A contract from its fields, checked.

    Args:
        data: the fields, as they were given.
        validate: makes the model of them.

    Raises:
        ContractError: something is wrong; its diagnostics name the fields. Warnings are left out.
    """
    fields = dict(data) if isinstance(data, dict) else data
    findings = Findings(None, Document(fields))
    if isinstance(fields, dict):
        _read_spec(fields, findings)
        _read_parameters(fields, findings)
    if not findings.has_errors:
        try:
            contract = validate(fields)
        except ValidationError as exc:
            report(exc, findings, _place)
        else:
            _check_keywords(contract, findings)
            check_contract(contract, _reading_of(contract), findings)
            if not findings.has_errors:
                return contract
    name = fields.get("name") if isinstance(fields, dict) else None
    # pydantic's error is not chained: its text repeats values, which may be secrets.
    raise _error(name if isinstance(name, str) else "", findings) from None


def _read_spec(fields: dict[str, Any], findings: Findings) -> None:
    """Replace the specification, where it is a mapping, by the engine's own type. Of an engine that does not exist
    nothing more can be checked: pydantic would try every type."""
    engine = fields.get("engine")
    names = engine_names()
    if engine is not None and engine not in names:
        hint = findings.hint(engine, names) if isinstance(engine, str) else ""
        findings.error(("engine",), f"{shape(engine)} is not an engine{hint}.", f"Write one of {', '.join(names)}.")
        return
    spec = fields.get("engine_spec")
    if engine is not None and isinstance(spec, Mapping):
        expected = spec_type(EngineType(engine), has_image="image" in spec)
        fields["engine_spec"] = validated(expected, dict(spec), findings) or spec
    elif "engine_spec" in fields and not isinstance(spec, AnyEngineSpec):
        # pydantic would name each of the types that it tried.
        findings.error(
            ("engine_spec",), f"The engine's specification is a mapping, not {shape(spec)}.", "Write image and command."
        )


def _read_parameters(fields: dict[str, Any], findings: Findings) -> None:
    """Parameters that are written as in a contract's file, by name, or as one JSON Schema of an object."""
    written = fields.get("parameters")
    if not isinstance(written, Mapping):
        return
    if (place := _key_that_is_no_text(written)) is not None:
        findings.error(
            ("parameters", *map(str, place[:-1])), f"A name here is text, not {shape(place[-1])}.", "Write it as text."
        )
        return
    read = read_parameters(written, ("parameters",), findings)
    fields["parameters"] = tuple(read.parameters)
    keywords = fields.get("input_keywords", {})
    if isinstance(keywords, Mapping):  # anything else is pydantic's to refuse
        fields["input_keywords"] = {**read.keywords, **keywords}


def _key_that_is_no_text(value: Mapping[Any, Any]) -> tuple[Any, ...] | None:
    """The way to the first key in it that no file could have: there, all of them are text."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    seen: set[int] = set()
    for place, item in waiting:
        if id(item) in seen or not isinstance(item, Mapping | list | tuple):
            continue
        seen.add(id(item))
        for key, inner in item.items() if isinstance(item, Mapping) else enumerate(item):
            if isinstance(item, Mapping) and not isinstance(key, str):
                return (*place, key)
            waiting.append(((*place, key), inner))
    return None


def _check_keywords(contract: ToolContract, findings: Findings) -> None:
    for parameter in contract.parameters:
        for key in parameter.keywords:
            if key not in KEYWORDS and not key.startswith("x-"):
                findings.error(
                    ("parameters", parameter.name, key),
                    f"{quoted(key)} is not a keyword of JSON Schema{findings.hint(key, KEYWORDS)}.",
                    "Use one of JSON Schema 2020-12, or begin its name with x-.",
                )


def _place(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A field of the specification is named as in a contract's file, where it stands beside the others."""
    return loc[1:] if len(loc) > 1 and loc[0] == "engine_spec" else loc


def _reading_of(contract: ToolContract) -> Reading:
    return Reading(
        engine=contract.engine,
        spec=contract.engine_spec,
        parameters=Parameters(
            parameters=list(contract.parameters),
            places={item.name: ("parameters", item.name) for item in contract.parameters},
            keywords=contract.input_keywords,
            root=("input_keywords",),
        ),
        example_places=[("examples", index) for index in range(len(contract.examples))],
    )


def _error(name: str, findings: Findings) -> ContractError:
    found = [item for item in findings.diagnostics if item.is_error]
    said = [
        " ".join(part for part in (f"{item.field}:" if item.field else "", item.message, item.remedy) if part)
        for item in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        said.append(f"There are {len(found) - _SHOWN} more errors.")
    return ContractError(
        f"The contract{f' {quoted(name)}' if name else ''} cannot be used. {' '.join(said)}", diagnostics=found
    )
