"""``reload: approved``: a contract is served only as the user approved it, whether it was there at the start or came
later. The approvals are kept below the user's configuration (`praxis_mcp.settings.trust`), where no tool can write."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.contracts.catalog.entries import CatalogEntry
from praxis_mcp.contracts.catalog.powers import gained, powers_of
from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.settings.trust import Approval, TrustStore, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack(Diagnostic):
    """A contract waits for the user's approval.

    Attributes:
        tool: its name.
    """

    tool: str


class ContractApprovals:
    """Which contracts were approved, and what they could do then. Every method blocks for a moment."""

    def __init__(self, store: TrustStore | None = None) -> None:
        self._store = store or TrustStore("contracts")

    @property
    def directory(self) -> Path | None:
        """Where the approvals are kept."""
        return self._store.directory

    def why_held(self, entry: CatalogEntry) -> tuple[str, ...]:
        """Why a contract may not be served as it is; empty where it may. One that changed since it was approved may, if
        it can do no more than before and a model reads the same of it.

        Raises:
            ContractError: its face came from a damaged cache.
        """
        approval = self._store.find(entry.source)
        if approval is None:
            return ("nobody has approved it",)
        if approval.sha256 == entry.fingerprint:
            return ()
        if approval.details.get("name") != entry.name:
            return (f"it was approved under the name {approval.details.get('name')}",)
        known = approval.details.get("powers")
        before = {str(what): str(how) for what, how in known.items()} if isinstance(known, Mapping) else {}
        more = gained(before, powers_of(entry.contract))
        # A model does what it reads: a description is as good a way to steer it as a command.
        reads = () if approval.details.get("face") == _face(entry) else ("a model would read something else of it",)
        return (*more, *reads)

    def approve(self, entry: CatalogEntry) -> Approval:
        """Approve a contract as it is.

        Raises:
            SettingsError: the approval cannot be kept.
            ContractError: its face came from a damaged cache.
        """
        details = {"name": entry.name, "powers": dict(powers_of(entry.contract)), "face": _face(entry)}
        return self._store.approve(entry.source, entry.fingerprint, details)

    def files_of(self, name: str, directories: Sequence[Path]) -> list[Path]:
        """The files below the directories that were approved under a name, whether they are still there or not."""
        tops = tuple(f"{os.path.realpath(directory)}{os.sep}" for directory in directories)
        known = (item for item in self._store.entries() if item.details.get("name") == name)
        return [Path(item.path) for item in known if item.path.startswith(tops)]

    def revoke(self, file: Path) -> bool:
        """Take the approval of a file back; whether there was one.

        Raises:
            SettingsError: it cannot be removed.
        """
        return self._store.revoke(file)


def _face(entry: CatalogEntry) -> str:
    """What a model reads of a contract, as a digest."""
    annotations = entry.annotations.model_dump(mode="json")
    seen = [entry.title, entry.description, entry.input_schema, entry.output_schema, annotations]
    return digest(json.dumps(seen, sort_keys=True, default=str).encode(errors="surrogatepass"))


def held_finding(entry: CatalogEntry, reasons: tuple[str, ...], stays: CatalogEntry | None) -> HeldBack:
    """What the log and the commands say of a contract that is held back.

    Args:
        entry: the contract as it is now.
        reasons: see `ContractApprovals.why_held`.
        stays: the version of it that is served meanwhile.
    """
    fate = "; it stays as it was before" if stays is not None else ""
    return HeldBack(
        tool=entry.name,
        message=f"{entry.name} is held back (reload: approved): {', '.join(reasons)}{fate}.",
        remedy=f"Look at it, then approve it: praxis-mcp contracts approve "
        f"{shlex.quote(f'{entry.name}@{entry.fingerprint}')}",
        severity=Severity.WARNING,
        path=entry.source,
    )
