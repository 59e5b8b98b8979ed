"""A file → a `ToolContract`, or diagnostics that say in which line it is wrong and how to fix it.

In one direction: what is written (`documents`), with what contracts share (`defaults`) → its normal form, by the
model's own names (`spellings`, which asks `parameters`, which asks `vocabulary`) → models
(`findings`) → checks of the whole (`checks`).

A contract that is built in code goes through the same checks: `ToolContract` has them made when it is constructed
(`build_contract`); `model_copy`, as always with pydantic, checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from praxis_mcp.contracts.discovery import MAX_BYTES, DefaultsFile, DefaultsFinder, read_bytes
from praxis_mcp.contracts.model import OF_A_DOCUMENT, EngineType, ToolContract, engine_names, spec_type
from praxis_mcp.contracts.problems import quoted, shape
from praxis_mcp.contracts.reading.checks import check_contract
from praxis_mcp.contracts.reading.defaults import DefaultsError, with_defaults
from praxis_mcp.contracts.reading.documents import Document, DocumentError, read_document
from praxis_mcp.contracts.reading.findings import Findings, report_errors, validate_fields
from praxis_mcp.contracts.reading.parameters import Parameters, read_parameters
from praxis_mcp.contracts.reading.spellings import Reading, is_older, read_contract
from praxis_mcp.contracts.specs import AnyEngineSpec
from praxis_mcp.contracts.vocabulary import KEYWORDS
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import ContractError
from praxis_mcp.settings.files import is_agent_configuration

_COMMAND = {"command": ["unknown"]}
_IN_IMAGE = {**_COMMAND, "image": "unknown"}
_STAND_INS: dict[EngineType, dict[str, Any]] = {
    EngineType.DAGGER: _IN_IMAGE,
    EngineType.DOCKER: _IN_IMAGE,
    EngineType.SANDBOX: _IN_IMAGE,
    EngineType.KUBERNETES: _IN_IMAGE,
    EngineType.LOCAL: _COMMAND,
    EngineType.REMOTE_MCP: {"address": "http://unknown.invalid"},
    EngineType.HTTP: {"url": "http://unknown.invalid"},
}


_SHOWN = 5
"""Errors that the exception's own message shows; its diagnostics hold all of them."""


@dataclass(frozen=True, slots=True)
class LoadedContract:
    """What came of one file.

    Attributes:
        contract: None where there is an error among the diagnostics.
        diagnostics: errors and warnings, by line.
    """

    contract: ToolContract | None
    diagnostics: tuple[Diagnostic, ...]


def load_contract(path: Path, within: Path | None = None) -> LoadedContract:
    """Read one contract. Nothing that a file holds raises: it becomes a diagnostic.

    Args:
        path: its file.
        within: the directory of contracts that it is in: what ``_defaults.yaml`` files from there down to the
            contract's own directory hold counts for it; None is its own directory alone.
    """
    try:
        data = read_bytes(path)
    except OSError as exc:
        return _unreadable(path, f"The file cannot be read: {exc.strerror or exc}.")
    return load_bytes(data, path, defaults=DefaultsFinder((within,) if within is not None else ()).of(str(path)))


def load_bytes(data: bytes, path: Path, *, check: bool = True, defaults: Sequence[DefaultsFile] = ()) -> LoadedContract:
    """As `load_contract`, for the bytes that were read from `path`. `check`, `defaults`: see `load_text`."""
    if len(data) > MAX_BYTES:
        return _unreadable(path, f"The file is larger than {MAX_BYTES // 1024} KiB.", "Is it a contract?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        return _unreadable(path, "The file is not UTF-8 text.", "Save it in UTF-8.", line)
    return load_text(text, path, check=check, defaults=defaults)


def load_text(
    text: str, path: Path | None = None, *, check: bool = True, defaults: Sequence[DefaultsFile] = ()
) -> LoadedContract:
    """Read one contract from text.

    Args:
        text: YAML, or JSON if `path` ends so.
        path: where the text is from; the contract's `source`, made absolute.
        check: also look for what would go wrong later (schemas, bindings, defaults, examples); a text that was
            loaded before need not be checked again.
        defaults: what it shares with others, the nearest last.
    """
    try:
        document = read_document(text, is_json=path is not None and path.suffix.lower() == ".json")
    except DocumentError as exc:
        finding = Diagnostic(message=exc.message, remedy=exc.remedy, path=path, line=exc.line, column=exc.column)
        return LoadedContract(None, (finding,))
    try:
        document = with_defaults(document, defaults)
    except DefaultsError as exc:
        return LoadedContract(None, (exc.finding,))
    findings = Findings(path, document, lenient=is_older(document.data))
    contract = _build(findings, check=check)
    # A key that is missing has no line: it comes first, with what concerns the whole.
    found = tuple(sorted(findings.to_show(), key=lambda item: (item.path != path, item.line, item.column)))
    return LoadedContract(None if findings.has_errors else contract, found)


def _build(findings: Findings, *, check: bool) -> ToolContract | None:
    data = findings.document.data
    if not isinstance(data, Mapping):
        findings.error((), f"A contract is a mapping, not {shape(data)}.", "Write name: my_tool, and so on.")
        return None
    if is_agent_configuration(data) and "name" not in data:
        findings.error(
            (),
            "This is the configuration of an agent of the older Praxis SDK, not a contract.",
            "Write each of its tools that has an engineSpec to a file of its own, tools/NAME/contract.yaml.",
        )
        return None
    reading = read_contract(data, findings)
    if "name" not in reading.fields:
        findings.error(("name",), "This is missing.", "Write name: my_tool.")
    if reading.engine is None:
        return None
    fields: dict[str, Any] = {
        # What is missing or wrong has been reported; something in its place lets the rest be checked too.
        "name": "unnamed",
        **reading.fields,
        "engine": reading.engine,
        "engine_spec": reading.spec or _stand_in(reading.engine),
        "parameters": tuple(reading.parameters.parameters),
        "input_keywords": reading.parameters.keywords,
        "source": findings.path.absolute() if findings.path else None,
        "is_older": findings.lenient,
    }
    contract = validate_fields(ToolContract, fields, findings, context=OF_A_DOCUMENT)
    if check and contract is not None:
        check_contract(contract, reading, findings)
    return contract


def _stand_in(engine: EngineType) -> AnyEngineSpec:
    return spec_type(engine, has_image=True).model_validate(_STAND_INS.get(engine, _IN_IMAGE))


def _unreadable(path: Path, message: str, remedy: str = "", line: int = 0) -> LoadedContract:
    return LoadedContract(None, (Diagnostic(message=message, remedy=remedy, path=path, line=line),))


if TYPE_CHECKING:
    from praxis_mcp.contracts.model import ToolContract


def build_contract(data: Any, validate: Callable[[Any], ToolContract]) -> ToolContract:
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
            report_errors(exc, findings, _place)
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
        expected = spec_type(EngineType(engine), has_image="image" in spec or "build" in spec)
        fields["engine_spec"] = validate_fields(expected, dict(spec), findings) or spec
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
    """A field of the specification is named as in a contract's file, where it stands next to the others."""
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
    sentences = [
        " ".join(part for part in (f"{item.field}:" if item.field else "", item.message, item.remedy) if part)
        for item in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        sentences.append(f"There are {len(found) - _SHOWN} more errors.")
    return ContractError(
        f"The contract{f' {quoted(name)}' if name else ''} cannot be used. {' '.join(sentences)}", diagnostics=found
    )
