"""``reload: approved``: a contract is served only as the user approved it, whether it was there at the start or came
later. The approvals are kept below the user's configuration (`praxis_mcp.settings.trust`), where no tool can write.

What a contract may do is taken as plain facts that can be compared: what a change of it adds. Whatever is not known to
be harmless counts: a field that is new to this module is compared like a command. The files next to a contract, which
its command may run, are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.catalog.entries import CatalogEntry
from praxis_mcp.contracts.model import EngineType, ToolContract
from praxis_mcp.contracts.values import Network
from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.errors import ContractError
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.settings.trust import Approval, TrustStore, digest
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import counted

Powers = Mapping[str, str]
"""What → how, such as ``network`` → ``host``; a value that may be long or private is a digest."""

_Entries = Mapping[str, CatalogEntry]

_MAX_ANNOUNCED = 50
"""Lines of one look at the directories."""
_BOUNDS = frozenset({"timeout", "memory_limit", "cpu_limit", "pids_limit", "warm", "capture_output"})
"""Fields of a specification that bound a run, or shape how it is served."""
_REDUCED = ("secret ", "server variable ", "variable ", "header ", "parameter ", "privileged", "cache directory ")
"""Powers that are less where they are gone; where others are gone (``user``), the default may be more."""
_NETWORKS = [network.value for network in (Network.NONE, Network.BRIDGE, Network.HOST)]
_WRITABLE = ", writable"
_OFF = "off"
"""How a protection is written that a contract gives up, such as ``drop_capabilities: false``."""


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
        more = gained_powers(before, powers_of(entry.contract))
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


_NAMED_VALUES = {"env": "variable", "headers": "header", "query": "query parameter"}


def powers_of(contract: ToolContract) -> Powers:
    """Everything in a contract that decides what runs and what that can reach."""
    found: dict[str, str] = {}
    for what, how in _powers(contract):  # a secret may go to several places
        found[what] = f"{found[what]}, {how}" if what in found else how
    return found


def notable_powers(powers: Powers) -> tuple[str, ...]:
    """The powers beyond a container of its own without network and without anything of the host."""
    return tuple(_words(what, how) for what, how in powers.items() if _is_notable(what, how))


def gained_powers(before: Powers, now: Powers) -> tuple[str, ...]:
    """What the second has and the first has not, in words; empty where it only has less."""
    found = [_words(what, how, before.get(what)) for what, how in now.items() if _is_more(what, before.get(what), how)]
    found += [
        f"{what} is no longer {how}"
        for what, how in before.items()
        if what not in now and how != _OFF and _was_bound(what, now)
    ]
    return tuple(found)


def _powers(contract: ToolContract) -> Iterator[tuple[str, str]]:
    yield "engine", contract.engine.value
    spec = contract.engine_spec
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if name in _BOUNDS or value is None or value == () or value == {}:
            continue
        if value is False:
            if type(spec).model_fields[name].default is None:  # by default it is on where the engine can do that
                yield name.replace("_", " "), _OFF
            continue
        if name == "mounts":
            yield from _mounts(value)
        elif name in _NAMED_VALUES:
            yield from _values(_NAMED_VALUES[name], value)
        elif isinstance(value, SecretRef):
            yield f"secret {value.secret}", f"for {name}"
        elif name == "env_passthrough":
            yield from ((f"server variable {variable}", "passed on") for variable in value)
        elif name == "cache_dirs":
            yield from ((f"cache directory {path}", "kept") for path in value)
        elif name in ("image", "user", "network", "cwd", "working_dir"):
            yield name, str(getattr(value, "value", value))
        elif value is True:
            yield name.replace("_", " "), "true"
        else:
            yield name, _digest(value if isinstance(value, str | tuple) else str(value))
    for parameter in contract.parameters:
        yield f"parameter {parameter.name}", _digest(parameter.model_dump(mode="json", exclude={"description"}))
    if contract.input_keywords:
        yield "schema", _digest(contract.input_keywords)


def _mounts(mounts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for source, target in mounts.items():
        path, writable = target.removesuffix(":rw").removesuffix(":ro"), target.endswith(":rw")
        yield f"mount {posixpath.normpath(path)}", f"of {source}{_WRITABLE if writable else ''}"


def _values(kind: str, values: Mapping[str, str | SecretRef]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, SecretRef):
            yield f"secret {value.secret}", f"as {kind} {name}"
        else:
            yield f"{kind} {name}", _digest(value)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}"


def _is_notable(what: str, how: str) -> bool:
    if what == "engine":
        return how not in (EngineType.DAGGER.value, EngineType.DOCKER.value, EngineType.SANDBOX.value)
    if what == "network":
        return how != Network.NONE.value
    if what == "drop capabilities":
        return how == _OFF
    return what in ("privileged", "build") or what.startswith(("mount ", "secret ", "server variable "))


def _is_more(what: str, before: str | None, now: str) -> bool:
    if before == now:
        return False
    if before is None:
        return what != "network" or now != Network.NONE.value
    if what == "network" and {before, now} <= set(_NETWORKS):
        return _NETWORKS.index(now) > _NETWORKS.index(before)
    return not (what.startswith("mount ") and before == now + _WRITABLE)


def _was_bound(what: str, now: Powers) -> bool:
    """Whether that which is gone held something back, as a mount that hid a part of another does."""
    if what.startswith("mount "):
        place = what.removeprefix("mount ")
        others = [other.removeprefix("mount ").rstrip("/") for other in now if other.startswith("mount ")]
        return any(place.startswith(f"{other}/") for other in others)
    return what != "network" and not what.startswith(_REDUCED)


def _words(what: str, how: str, before: str | None = None) -> str:
    if how.startswith("sha256:"):
        return f"{what}: another one" if before is not None else f"{what}: new"
    text = what if how == "true" else f"{what} {how}" if " " in what else f"{what}: {how}"
    return f"{text} (before: {before})" if before is not None and not before.startswith("sha256:") else text


def announce_changes(before: _Entries, now: _Entries, added: Sequence[str], changed: Sequence[str]) -> None:
    """Log them: as warnings those that can do more than before, or more than a container without network.

    Args:
        before, now: the tools before and after the look.
        added: names that were not there before.
        changed: names whose contracts are others than before.
    """
    names = [*added, *changed]
    for name in names[:_MAX_ANNOUNCED]:
        entry, old = now[name], before.get(name)
        powers = _known_powers(entry)
        if powers is None:
            continue
        if old is None:
            found = notable_powers(powers)
            text = f"; it has {', '.join(found)}" if found else ""
            logger.log("WARNING" if found else "INFO", "the tool {} appeared ({}){}", name, entry.source, text)
            continue
        more = gained_powers(_known_powers(old) or {}, powers)
        text = f"and can do more than before: {', '.join(more)}" if more else "and can do no more than before"
        logger.log("WARNING" if more else "INFO", "the tool {} changed ({}) {}", name, entry.source, text)
    if len(names) > _MAX_ANNOUNCED:
        logger.warning("{} more appeared or changed", counted(len(names) - _MAX_ANNOUNCED, "tool"))


def _known_powers(entry: CatalogEntry) -> Powers | None:
    try:
        return powers_of(entry.contract)
    except ContractError:
        return None  # its face came from a damaged cache, which a call reports
