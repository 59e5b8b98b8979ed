"""What steers the server, kept out of the reach of tools: contracts, settings, approvals, records, and its own program.

A tool that could write there would be served, and run, with whatever powers it gives itself. So a writable mount that
holds such a place gets it read-only on top, and one that is in such a place is refused. A place that does not exist
yet must be created first: a tool could create it otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import all_suffixes
from pathlib import Path

from praxis_mcp.contracts.catalog.entries import default_cache_dir
from praxis_mcp.contracts.discovery import find_contracts, is_searched
from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.plans.view import is_below
from praxis_mcp.settings.model import Settings, signature_of
from praxis_mcp.support.files import config_home, data_home, state_home

_MOST_NAMES = 4096
"""On the way along links, of which Linux follows forty."""
_SYSTEM = (Path("/"), Path("/usr"), Path("/usr/local"))
"""Prefixes of Pythons of the system: what is in them is not the server's alone, and root's to write."""

_MODULES = (".dist-info", ".egg-info", ".pth", *all_suffixes())
"""How the names end of modules that are files, and of what says which are imported (recording installed projects,
packaging.python.org; Python's site module)."""


@dataclass(frozen=True, slots=True)
class Protected:
    """A place, and what it holds, as the end of a sentence.

    Attributes:
        path: absolute, as it is spelled.
        holds: what it holds.
        is_required: whether it counts though it does not exist yet: what appears there is used.
        is_searched: whether it counts only as far as contracts are looked for in it.
        is_import_path: whether it counts only as far as modules are found in it: by itself, and with its packages.
    """

    path: Path
    holds: str
    is_required: bool = False
    is_searched: bool = False
    is_import_path: bool = False


def protected_places(settings: Settings, contract_dir: Path | None) -> Iterator[Protected]:
    """What no tool may write to.

    Args:
        settings: they name most of it.
        contract_dir: the directory that the contract came from.
    """
    named = "tools" in settings.model_fields_set
    for directory in settings.tool_directories:
        yield Protected(directory, "holds contracts, which are served as they are", named, is_searched=True)
    if contract_dir is not None and not settings.root.is_relative_to(contract_dir):
        yield Protected(contract_dir, "holds the tool's own contract", is_searched=True)
    if settings.origin.file is not None:
        yield Protected(settings.origin.file, "is the settings file")
    for name in ("praxis.yaml", "praxis.yml"):
        yield Protected(settings.root / name, "is a settings file")
    pins = any(upstream.pin for upstream in settings.upstreams.values())
    yield Protected(settings.upstream_approvals, "holds approvals of other servers' tools", is_required=pins)
    yield Protected(settings.lock_file, "is the lock file", is_required=settings.locked)
    for place, holds in (
        (config_home(), "holds what the user has approved"),
        (default_cache_dir(), "is the cache of contracts"),
        (data_home(), "holds images that tools run in"),
        (settings.engines.sandbox.store, "holds images that tools run in"),
        (state_home(), "holds the records of runs"),
        (settings.records.directory, "holds the records of runs"),
    ):
        if place is not None:
            yield Protected(place, holds, is_required=True)
    yield from _used_files(settings)
    yield Protected(Path(__file__).parents[1], "is the server's own program")
    # An environment borrows the interpreter and its library from the base.
    for text in dict.fromkeys((sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)):
        if Path(text) not in _SYSTEM:
            yield Protected(Path(text), "is the environment that the server runs in")


def _import_paths() -> Iterator[Protected]:
    """Where this process, and the next one in this environment, finds modules: a project that is installed in place
    (``pip install -e``, ``uv sync``) is among them, and a ``sitecustomize.py`` there runs at each start."""
    for text in dict.fromkeys(sys.path):
        # What PYTHONPATH names need not exist, nor will the archive that each Python looks for.
        needed = not text.endswith(".zip")
        place = Path(os.path.abspath(text))  # noqa: PTH100 - a path of the interpreter's, which may be empty
        yield Protected(place, "is where the server's Python finds modules", needed, is_import_path=True)


def _used_files(settings: Settings) -> Iterator[Protected]:
    """Files that the settings name: the server believes them, or runs them on this machine."""
    http, dagger = settings.http, settings.engines.dagger
    oauth = http.auth.oauth
    signature = signature_of(settings.lock_file) if settings.lock_key is not None else None
    for place, holds in (
        (oauth.jwks_file if oauth is not None else None, "holds the keys by which callers are known"),
        (settings.lock_key, "is the key that the lock file is signed with"),
        (signature, "is the signature of the lock file"),
        (http.tls_certificate, "is the server's certificate"),
        (http.tls_key, "is the key of the server's certificate"),
        (dagger.cli, "is a program that the server runs"),
        *((image, "is an image that tools run in") for image in dagger.images.values()),
    ):
        if place is not None:
            yield Protected(place, holds, is_required=True)
    for upstream in settings.upstreams.values():
        for file in _programs(upstream.address, settings.base):
            yield Protected(file, "is what another server is started with")


def _programs(address: str | tuple[str, ...], base: Path) -> Iterator[Path]:
    """The program of a command, and the script that it runs, as far as they are named by a path."""
    if isinstance(address, str):
        return
    program, *rest = address
    script = next((word for word in rest if not word.startswith("-")), None)
    for word in (program if "/" in program else None, script):
        if word is not None and (base / word).is_file():
            yield Path(os.path.normpath(base / word))


def guard_mounts(
    mounts: Sequence[Mount],
    settings: Settings,
    contract_dir: Path | None,
    tool: str,
    code: Sequence[Sequence[str]] = (),
) -> tuple[Mount, ...]:
    """The mounts, links in their sources resolved, with those that keep protected places from being written.

    A mount of a contract in an older spelling, where all are writable, is read-only instead of refused.

    Args:
        mounts: the contract's.
        settings: they name most of what is protected.
        contract_dir: the directory that the contract came from.
        tool: its name.
        code: see `Blueprint.code`.

    Raises:
        LimitUnsupported: a writable mount is in a protected place, or a link to one is in a writable mount.
        ExecutionError: a writable mount would hold a protected place that does not exist.
    """
    own = [mount for mount in mounts if mount.guard is Guard.NONE]
    if not any(mount.writable for mount in own):
        return tuple(own)
    allowed = {os.path.realpath(path) for path in settings.policy.sensitive_paths}
    # Where several are one, the last counts: the first of these counts only as far as it is written above. It is looked
    # at last, for the others say more.
    given = (*_import_paths(), *_own_code(own, code), *protected_places(settings, contract_dir))
    found_places = {Path(os.path.realpath(place.path)): place for place in given}
    places = dict(sorted(found_places.items(), key=lambda item: item[1].is_import_path))
    own = [mount if str(mount.source) in allowed else _kept(mount, places) for mount in own]
    found = {mount.target: mount for mount in own}
    for mount in own:
        if not mount.writable or str(mount.source) in allowed:
            continue
        for real, place in places.items():
            if _lies_in(mount, real, place):
                raise _refusal(mount, real, place, tool)
            _refuse_links(mount, place, tool)
        inside = [real for real in places if real.is_relative_to(mount.source)]
        for real in inside:
            if any(real != other and real.is_relative_to(other) for other in inside):
                continue  # it is covered with that
            for guard in _guards(mount, real, places[real], tool):
                known = found.get(guard.target)
                if _shows(own, mount, guard.target) and (known is None or known.guard is Guard.PIN):
                    found[guard.target] = guard
    return tuple(found.values())


def find_forbidden(mount: Mount, mounts: Sequence[Mount], paths: Sequence[str], gone: Sequence[str]) -> Path | None:
    """The protected place that changes of a writable mount would reach; None where they reach none.

    Args:
        mount: the mount.
        mounts: all of the blueprint's.
        paths: what was added or modified, relative to the mount; those of directories end in a slash.
        gone: what was removed.
    """
    for guard in mounts:
        if guard.guard is not Guard.SHIELD or not guard.source.is_relative_to(mount.source):
            continue
        place = str(guard.source.relative_to(mount.source))
        for path in (*paths, *gone):
            name = path.rstrip("/")
            # A directory on the way may get new entries; it may not go, nor become something else.
            above = is_below(f"/{place}", [f"/{name}"]) and (path in gone or not path.endswith("/"))
            if above or name == place or is_below(f"/{name}", [f"/{place}"]):
                return guard.source
    return None


def _own_code(own: Sequence[Mount], code: Sequence[Sequence[str]]) -> Iterator[Protected]:
    """What the command names as its programs and scripts, as far as writable mounts hold it."""
    for group in code:
        for path in group:
            over = [mount for mount in own if path == mount.target or is_below(path, [mount.target])]
            mount = max(over, key=lambda other: len(other.target), default=None)
            if mount is None:
                continue
            below = path[len(mount.target) :].lstrip("/")
            file = mount.source / below if below else mount.source
            if file.is_file():
                if mount.is_older and mount.writable:
                    yield Protected(file, "is the tool's own code")
                break


def _kept(mount: Mount, places: Mapping[Path, Protected]) -> Mount:
    """A mount of an older contract, read-only where a writable one would be refused."""
    if not mount.is_older or not mount.writable:
        return mount
    for real, place in places.items():
        if _lies_in(mount, real, place):
            where = "" if mount.source == real else f"is in {place.path}, which "
            return replace(mount, writable=False, kept=where + place.holds)
        link = _link_in(mount, place)
        if link is not None:
            return replace(mount, writable=False, kept=f"holds the link {link}: what is at {place.path} {place.holds}")
    return mount


def _lies_in(mount: Mount, real: Path, place: Protected) -> bool:
    if not mount.source.is_relative_to(real):
        return False
    inner = mount.source.relative_to(real).parts
    if place.is_import_path:
        return not inner or (real / inner[0] / "__init__.py").exists() or inner[0].endswith(_MODULES)
    return not place.is_searched or all(is_searched(name) for name in inner) or _is_linked_to(mount, place)


def _refusal(mount: Mount, real: Path, place: Protected, tool: str) -> LimitUnsupported:
    where = "which" if mount.source == real else f"in {place.path}, which"
    return LimitUnsupported(
        f"{tool} mounts {mount.source} writable, {where} {place.holds}.",
        remedy="Mount it without :rw, and let the tool write elsewhere"
        + (", or to a directory whose name begins with a dot, where no contract is looked for" * place.is_searched)
        + (", or install praxis-mcp in an environment of its own (uv tool, pipx)" * place.is_import_path)
        + f"; or allow it in the settings: policy.sensitive_paths: [{mount.source}].",
    )


def _is_linked_to(mount: Mount, place: Protected) -> bool:
    """Whether links among the tools make contracts of what is in a directory in which none is looked for."""
    files, _ = find_contracts([place.path])
    return any(Path(os.path.realpath(file)).is_relative_to(mount.source) for file in files)


def _refuse_links(mount: Mount, place: Protected, tool: str) -> None:
    path = _link_in(mount, place)
    if path is not None:
        raise LimitUnsupported(
            f"{tool} mounts {mount.source} writable, which holds the link {path}: what is at {place.path} "
            f"{place.holds}.",
            remedy=f"Name the directory that the link leads to ({os.path.realpath(path)}) instead of the link, or "
            "mount something narrower.",
        )


def _link_in(mount: Mount, place: Protected) -> Path | None:
    """The first link in a mount, of those that lead the way to a place."""
    return next((path for path in _links(place.path) if path.is_relative_to(mount.source)), None)


def _links(path: Path) -> Iterator[Path]:
    """Every link that leads the way to a path, those in the targets of others too, where it really is."""
    here, waiting = Path(path.anchor), list(reversed(path.parts[1:]))
    for _ in range(_MOST_NAMES):
        if not waiting:
            return
        name = waiting.pop()
        if name == "..":
            here = here.parent
            continue
        entry = here / name
        try:
            target = entry.readlink()
        except OSError:  # it is not a link
            here = entry
            continue
        yield entry
        if target.is_absolute():
            here = Path(target.anchor)
        waiting += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _guards(mount: Mount, real: Path, place: Protected, tool: str) -> Iterator[Mount]:
    if not real.exists():
        if place.is_required:
            raise ExecutionError(
                f"{tool} mounts {mount.source} writable, and could create {real} there, which {place.holds}.",
                remedy=f"Create {real} on the host, or mount something narrower.",
            )
        return
    base = mount.target.rstrip("/")
    below = real.relative_to(mount.source).parts
    for count in range(1, len(below)):
        # A directory on the way cannot be renamed once it is a mount itself: with it the place would go elsewhere,
        # and a new one could take its name.
        name = "/".join(below[:count])
        yield Mount(mount.source / name, f"{base}/{name}", writable=True, guard=Guard.PIN)
    yield Mount(real, "/".join((base, *below)), guard=Guard.SHIELD)


def _shows(own: Sequence[Mount], mount: Mount, target: str) -> bool:
    """Whether the tool sees that mount at the target, and no other of the contract's."""
    over = [other for other in own if target == other.target or is_below(target, [other.target])]
    return max(over, key=lambda other: len(other.target)) is mount
