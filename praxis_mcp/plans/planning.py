"""Plans, and what `praxis-mcp validate` finds about them, made from the event loop: what looks at files, or asks a
keyring, does so in a worker thread, bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec
from praxis_mcp.diagnostics import Diagnostic, Keys, Severity, dotted
from praxis_mcp.errors import ExecutionTimeout, PraxisError
from praxis_mcp.plans.build import (
    build_blueprint,
    build_plan,
    check_mounts,
    draft_blueprint,
    find_misplaced,
    find_problems,
    needs_io,
)
from praxis_mcp.plans.builds import check_build
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.settings.model import Settings

if TYPE_CHECKING:
    from praxis_mcp.contracts.reading.documents import Document

PLANNING_TIMEOUT = 15.0
"""Seconds that looking at the files and secrets of one contract may take: a network file system can hang for ever."""

T = TypeVar("T")


async def plan_call(
    contract: ToolContract,
    arguments: Mapping[str, Any],
    settings: Settings,
    run_id: str = "",
    caller: str = "",
    *,
    create: bool = False,
) -> Plan:
    """As `build_plan`, but never blocks the event loop.

    Raises:
        ExecutionTimeout: a file or the keyring did not answer; and whatever `build_plan` raises.
    """
    make = partial(build_plan, contract, arguments, settings, run_id, caller, create=create)
    return await _in_thread(make, contract.name) if needs_io(contract) else make()


async def plan_image(contract: ToolContract, settings: Settings) -> Blueprint:
    """As `build_blueprint`, with the name of an image that is built (`check_build`); never blocks the event loop.

    Raises:
        ExecutionTimeout: a file system did not answer; and whatever `build_blueprint` and `check_build` raise.
    """
    blueprint = build_blueprint(contract, settings)
    if blueprint.build is None:
        return blueprint
    return await _in_thread(partial(check_build, blueprint, settings), contract.name)


async def check_again(plan: Plan, settings: Settings) -> Plan:
    """The plan with its mounts checked once more, see `check_mounts`; for a call that has waited.

    Raises:
        ExecutionTimeout: a file system did not answer; and whatever `check_mounts` raises.
    """
    fixed = plan.blueprint
    if not fixed.mounts and fixed.working_dir is None:
        return plan
    checked = await _in_thread(partial(check_mounts, fixed, settings, create=True), fixed.tool)
    return plan if checked is fixed else replace(plan, blueprint=checked)


async def find_all_problems(contract: ToolContract, settings: Settings) -> list[PraxisError]:
    """As `find_problems`, but never blocks the event loop.

    Raises:
        ExecutionTimeout: a file system did not answer.
    """
    return await _in_thread(partial(find_problems, contract, settings), contract.name)


async def find_mount_warnings(contract: ToolContract, settings: Settings) -> list[Diagnostic]:
    """As `warnings_about_mounts`, but never blocks the event loop.

    Raises:
        ExecutionTimeout: a file system did not answer.
    """
    find = partial(warnings_about_mounts, contract, settings)
    return await _in_thread(find, contract.name) if needs_io(contract) else find()


async def _in_thread(work: Callable[[], T], tool: str) -> T:
    try:
        with anyio.fail_after(PLANNING_TIMEOUT):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except TimeoutError as exc:
        raise ExecutionTimeout(
            f"Looking at the mounts and secrets of {tool} took longer than {PLANNING_TIMEOUT:g} s.",
            remedy="See whether a network file system, or the keyring, hangs.",
        ) from exc


def warnings_about_mounts(contract: ToolContract, settings: Settings) -> list[Diagnostic]:
    """Warnings of `praxis-mcp validate` about what an image is built from, where every call would be refused for it;
    and about a contract in an older spelling: mounts for which every call would be refused, and those that are
    read-only though the older SDK had all of them writable. Looks at files, so it may block; makes nothing."""
    spec = contract.engine_spec
    if isinstance(spec, DaggerEngineSpec) and spec.build is not None and not contract.is_older:
        return list(_warnings_about_build(contract, settings))
    if not contract.is_older or not isinstance(spec, CommandSpec) or not spec.mounts:
        return []
    # With YAML, which no call needs.
    from praxis_mcp.contracts.reading.spellings import OLDER_SPEC_KEYS

    document = _document(contract)
    data = document.data if document is not None and isinstance(document.data, dict) else {}
    place: Keys = (next((key for key in OLDER_SPEC_KEYS if key in data), OLDER_SPEC_KEYS[0]), "mounts")
    found = []
    for keys, message, remedy in _problems(contract, spec, settings):
        where = (*place, *keys)
        line, column = document.place(where) if document is not None else (0, 0)
        found.append(Diagnostic(message, remedy, dotted(where), Severity.WARNING, contract.source, line, column))
    return found


def _warnings_about_build(contract: ToolContract, settings: Settings) -> Iterator[Diagnostic]:
    try:
        check_build(draft_blueprint(contract, settings), settings)
    except PraxisError as exc:
        document = _document(contract)
        line, column = document.place(("build",)) if document is not None else (0, 0)
        yield Diagnostic(_refused(exc), exc.remedy or "", "build", Severity.WARNING, contract.source, line, column)


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
    from praxis_mcp.contracts.discovery import read_bytes
    from praxis_mcp.contracts.reading.documents import DocumentError, read_document

    if contract.source is None:
        return None
    try:
        text = read_bytes(contract.source).decode("utf-8-sig")
        return read_document(text, is_json=contract.source.suffix.lower() == ".json")
    except (OSError, UnicodeDecodeError, DocumentError):  # it has changed since it was loaded
        return None
