"""What the mounts of a contract in an older spelling come to on this machine, for `praxis-mcp validate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from praxis_mcp.contracts.discovery import read_bytes
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.documents import Document, DocumentError, read_document
from praxis_mcp.contracts.reading.spellings import OLDER_SPEC_KEYS
from praxis_mcp.contracts.specs import CommandSpec
from praxis_mcp.diagnostics import Diagnostic, Keys, Severity, dotted
from praxis_mcp.errors import PraxisError
from praxis_mcp.plans.build import check_mounts, draft_blueprint, find_misplaced
from praxis_mcp.settings.model import Settings


def find_mount_findings(contract: ToolContract, settings: Settings) -> list[Diagnostic]:
    """Warnings: mounts for which every call would be refused, and those that are read-only though the older SDK had
    all of them writable. Looks at files, so it may block; makes nothing."""
    spec = contract.engine_spec
    if not contract.is_older or not isinstance(spec, CommandSpec) or not spec.mounts:
        return []
    document = _document(contract)
    data = document.data if document is not None and isinstance(document.data, dict) else {}
    place: Keys = (next((key for key in OLDER_SPEC_KEYS if key in data), OLDER_SPEC_KEYS[0]), "mounts")
    found = []
    for keys, message, remedy in _problems(contract, spec, settings):
        where = (*place, *keys)
        line, column = document.place(where) if document is not None else (0, 0)
        found.append(Diagnostic(message, remedy, dotted(where), Severity.WARNING, contract.source, line, column))
    return found


def _problems(contract: ToolContract, spec: CommandSpec, settings: Settings) -> Iterator[tuple[Keys, str, str]]:
    try:
        blueprint = draft_blueprint(contract, settings)
    except PraxisError as exc:
        yield (), _refused(exc), exc.remedy or ""
        return
    is_refused = False
    for source, mount in zip(spec.mounts, blueprint.mounts, strict=True):
        try:
            checked = check_mounts(replace(blueprint, mounts=(mount,), working_dir=None), settings)
        except PraxisError as exc:
            yield (source,), _refused(exc), exc.remedy or ""
            is_refused = True
            continue
        kept = next((item.kept for item in checked.mounts if item.kept), "")
        if kept:
            yield (
                (source,),
                f"{mount.source} is read-only for the tool, because it {kept}.",
                f'Let the tool write elsewhere, and write "{source}": {mount.target}:ro.',
            )
    # What would lie in a mount that is not there has no place for that reason alone.
    misplaced = None if is_refused else find_misplaced(blueprint, settings)
    if misplaced is not None:
        yield (), _refused(misplaced), misplaced.remedy or ""


def _refused(exc: PraxisError) -> str:
    return f"Every call would be refused: {exc.message}"


def _document(contract: ToolContract) -> Document | None:
    if contract.source is None:
        return None
    try:
        text = read_bytes(contract.source).decode("utf-8-sig")
        return read_document(text, is_json=contract.source.suffix.lower() == ".json")
    except (OSError, UnicodeDecodeError, DocumentError):  # it has changed since it was loaded
        return None
