"""A file → a `ToolContract`, or diagnostics that say in which line it is wrong and how to fix it.

In one direction: what is written (`documents`) → its normal form, by the model's own names (`dialects`, which asks
`parameters`, which asks `vocabulary`) → models (`translation`) → checks of the whole (`checks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.discovery import MAX_BYTES, read_bytes
from praxis_mcp.contracts.model import OF_A_DOCUMENT, EngineType, ToolContract, spec_type
from praxis_mcp.contracts.problems import shape
from praxis_mcp.contracts.reading.checks import check_contract
from praxis_mcp.contracts.reading.dialects import is_older, read_contract
from praxis_mcp.contracts.reading.documents import DocumentError, read_document
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.reading.translation import validated
from praxis_mcp.contracts.specs import AnyEngineSpec
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.settings.agent_files import is_agent_configuration

_COMMAND = {"command": ["unknown"]}
_IN_IMAGE = {**_COMMAND, "image": "unknown"}
_STAND_INS: dict[EngineType, dict[str, Any]] = {
    EngineType.DAGGER: _IN_IMAGE,
    EngineType.DOCKER: _IN_IMAGE,
    EngineType.SANDBOX: _IN_IMAGE,
    EngineType.LOCAL: _COMMAND,
    EngineType.REMOTE_MCP: {"address": "http://unknown.invalid"},
}


@dataclass(frozen=True, slots=True)
class LoadedContract:
    """What came of one file.

    Attributes:
        contract: None where there is an error among the diagnostics.
        diagnostics: errors and warnings, by line.
    """

    contract: ToolContract | None
    diagnostics: tuple[Diagnostic, ...]


def load_contract(path: Path) -> LoadedContract:
    """Read one contract. Nothing that a file holds raises: it becomes a diagnostic."""
    try:
        data = read_bytes(path)
    except OSError as exc:
        return _unreadable(path, f"The file cannot be read: {exc.strerror or exc}.")
    return load_bytes(data, path)


def load_bytes(data: bytes, path: Path, *, check: bool = True) -> LoadedContract:
    """As `load_contract`, for the bytes that were read from `path`. `check`: see `load_text`."""
    if len(data) > MAX_BYTES:
        return _unreadable(path, f"The file is larger than {MAX_BYTES // 1024} KiB.", "Is it a contract?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        return _unreadable(path, "The file is not UTF-8 text.", "Save it in UTF-8.", line)
    return load_text(text, path, check=check)


def load_text(text: str, path: Path | None = None, *, check: bool = True) -> LoadedContract:
    """Read one contract from text.

    Args:
        text: YAML, or JSON if `path` ends so.
        path: where the text is from; the contract's `source`, made absolute.
        check: also look for what would go wrong later (schemas, bindings, defaults, examples); a text that was
            loaded before need not be checked again.
    """
    try:
        document = read_document(text, is_json=path is not None and path.suffix.lower() == ".json")
    except DocumentError as exc:
        finding = Diagnostic(message=exc.message, remedy=exc.remedy, path=path, line=exc.line, column=exc.column)
        return LoadedContract(None, (finding,))
    findings = Findings(path, document, lenient=is_older(document.data))
    contract = _build(findings, check=check)
    # A key that is missing has no line: it comes first, with what concerns the whole.
    found = tuple(sorted(findings.diagnostics, key=lambda item: (item.line, item.column)))
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
    contract = validated(ToolContract, fields, findings, context=OF_A_DOCUMENT)
    if check and contract is not None:
        check_contract(contract, reading, findings)
    return contract


def _stand_in(engine: EngineType) -> AnyEngineSpec:
    return spec_type(engine, has_image=True).model_validate(_STAND_INS.get(engine, _IN_IMAGE))


def _unreadable(path: Path, message: str, remedy: str = "", line: int = 0) -> LoadedContract:
    return LoadedContract(None, (Diagnostic(message=message, remedy=remedy, path=path, line=line),))
