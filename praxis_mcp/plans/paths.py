"""Host paths in contracts: resolved, checked for existence and for being sensitive; and directories of mounts that are
made for contracts in an older spelling, whose SDK made them, only below the project root and through no link."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from praxis_mcp.contracts.commands import CONTRACT_DIR, expand
from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Mount
from praxis_mcp.plans.protected import protected_places
from praxis_mcp.plans.sensitive import SOCKET, TEMPORARY, WHOLE, why_sensitive
from praxis_mcp.settings.files import is_top
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.files import expand as expand_home
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import CHANGED, HeldDirectory, identity_of, open_path

_PATH_LOOKS = 5
"""Looks at a path that changes meanwhile."""


Maker = Callable[[Path], Path | None]
"""`make_directory` for one contract."""


def host_path(text: str, root: Path, contract_dir: Path | None) -> Path:
    """An absolute host path: ``{contract_dir}`` and ``~`` expanded, relative ones from the project root.

    Raises:
        ExecutionError: ``{contract_dir}`` in a contract that came from no file, or ``~`` of a user without a home.
    """
    if CONTRACT_DIR in text:
        if contract_dir is None:
            raise ExecutionError(f'"{text}" names the contract\'s folder, but this contract came from no file.')
        text = expand(text, os.path.realpath(contract_dir))
    try:
        return Path(os.path.normpath(root / expand_home(Path(text))))
    except ValueError as exc:
        raise ExecutionError(f"{exc}.") from exc


def parse_mount(source: str, target: str, root: Path, contract_dir: Path | None) -> Mount:
    """A `Mount` from the contract's ``source: target[:rw|:ro]``; says nothing about whether the source exists.

    Raises:
        ExecutionError: the target is not absolute, or has an option that is neither ``rw`` nor ``ro``.
    """
    path, _, option = target.partition(":")
    if option not in ("", "rw", "ro"):
        raise ExecutionError(
            f'The mount "{source}: {target}" has the unknown option "{option}".', remedy="Write :rw, :ro or nothing."
        )
    if not path.startswith("/") or path == "/" or ".." in path.split("/"):
        raise ExecutionError(
            f'The mount "{source}: {target}" has no usable target.', remedy="Write an absolute path other than /."
        )
    return Mount(host_path(source, root, contract_dir), path.rstrip("/"), option == "rw")


def check_mount(mount: Mount, settings: Settings, tool: str) -> Mount:
    """The mount with its links resolved, and what is there identified, so that what was approved is what is mounted.

    A tool that can write to the project could put a link where a contract mounts a directory: so a path below the
    project root, which the settings or the contract trust, is not left by links.

    Raises:
        ExecutionError: the source does not exist, and is never created; or it cannot be looked at, or changes all the
            time; or a link leads out of the project.
        LimitUnsupported: it is sensitive, and the settings do not allow it.
    """
    what = f"{tool} mounts {mount.source}"
    for _ in range(_PATH_LOOKS):
        real = real_path(
            mount.source,
            what,
            f"Create it, or fix the contract's mounts (relative paths start at the project root, {settings.root}"
            + (", and below that what is missing is made)." if mount.is_older else ")."),
        )
        _refuse_sensitive(real, what, settings)
        _refuse_to_leave(mount.source, real, what, settings)
        if sys.platform != "linux":
            return replace(mount, source=real)
        try:
            held = open_path(str(real))
        except OSError as exc:
            if exc.errno in CHANGED:
                continue
            raise ExecutionError(f"{what}, which cannot be opened: {exc.strerror}.") from exc
        try:
            if stat.S_ISSOCK(os.fstat(held).st_mode):
                _refuse(f"{what}, which {SOCKET}", real, settings)
            return replace(mount, source=real, identity=identity_of(held))
        finally:
            os.close(held)
    raise ExecutionError(
        f"{what}, which is replaced again and again while it is looked at.",
        remedy="Another program, or a tool with a writable mount around it, changes it: stop that first.",
    )


def identify_mount(mount: Mount, tool: str) -> Mount:
    """A mount of the server's own making, with what is at its source.

    Raises:
        ExecutionError: it cannot be opened without following a link.
    """
    if mount.identity is not None or sys.platform != "linux":
        return mount
    try:
        held = open_path(str(mount.source))
    except OSError as exc:
        raise ExecutionError(f"{tool} mounts {mount.source}, which cannot be opened: {exc.strerror}.") from exc
    try:
        return replace(mount, identity=identity_of(held))
    finally:
        os.close(held)


def open_mount(mount: Mount) -> int:
    """A descriptor of a mount's source, which is what was judged.

    Raises:
        ExecutionError: it is something else by now.
    """
    try:
        held = open_path(str(mount.source))
    except OSError as exc:
        if exc.errno in CHANGED:
            raise replaced_error(mount) from exc
        raise ExecutionError(f"{mount.source}, which is mounted, cannot be opened: {exc.strerror}.") from exc
    if mount.identity not in (None, identity_of(held)):
        os.close(held)
        raise replaced_error(mount)
    return held


def replaced_error(mount: Mount) -> ExecutionError:
    """What is at a mount's source is not what was judged."""
    return ExecutionError(
        f"{mount.source}, which is mounted at {mount.target}, was replaced after it had been checked.",
        remedy="Call again. If it persists, another program, or a tool with a writable mount around it, changes it.",
    )


def _refuse_to_leave(source: Path, real: Path, what: str, settings: Settings) -> None:
    """Refuse a path below the project root from which a link leads out of the project."""
    root = Path(os.path.realpath(settings.root))
    if not (source.is_relative_to(settings.root) or source.is_relative_to(root)) or real.is_relative_to(root):
        return
    if not _is_allowed(real, settings):
        raise LimitUnsupported(
            f"{what}, from where a link leads out of the project, to {real}.",
            remedy=f"Write that path in the contract instead, or allow it in the settings: "
            f"policy.sensitive_paths: [{real}].",
        )


def _refuse_sensitive(real: Path, what: str, settings: Settings) -> None:
    reason = why_sensitive(real, settings)
    if reason is not None:
        _refuse(f"{what}, which {reason}", real, settings)


def check_working_directory(path: Path, settings: Settings, tool: str) -> Path:
    """The working directory of a command on the host, its links resolved.

    It is shown to the command wherever it is, so it may lie nowhere that may not be mounted; the root is readable
    there anyway, credentials and home directories aside.

    Raises:
        ExecutionError: it does not exist, is not a directory, or cannot be looked at.
        LimitUnsupported: it is sensitive, and the settings do not allow it.
    """
    fix = "Create it, or fix the contract's cwd."
    real = real_path(path, f"{tool} runs in {path}", fix)
    if not real.is_dir():
        raise ExecutionError(f"{tool} runs in {path}, which is not a directory.", remedy=fix)
    reason = why_sensitive(real, settings)
    if reason not in (None, WHOLE, TEMPORARY):  # a call's /tmp is its own
        _refuse(f"{tool} runs in {path}, which {reason}", real, settings)
    return real


def real_path(path: Path, what: str, remedy: str) -> Path:
    """Where a path's links lead.

    Args:
        path: absolute.
        what: the beginning of a sentence about it.
        remedy: what helps where it is missing.

    Raises:
        ExecutionError: it does not exist, its links form a loop, or a directory on the way is closed to the server.
    """
    try:
        return path.resolve(strict=True)
    except FileNotFoundError as exc:
        raise ExecutionError(f"{what}, which does not exist.", remedy=remedy) from exc
    except PermissionError as exc:
        raise ExecutionError(
            f"{what}, which the server's user may not look at.", remedy="Fix its permissions, or those above it."
        ) from exc
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop, in Python before 3.13
        reason = exc.strerror if isinstance(exc, OSError) else "its links form a loop"
        raise ExecutionError(f"{what}, which cannot be used: {reason}.", remedy=remedy) from exc


def _refuse(what: str, real: Path, settings: Settings) -> None:
    if _is_allowed(real, settings):
        return
    raise LimitUnsupported(
        f"{what}.", remedy=f"Choose something narrower, or allow it in the settings: policy.sensitive_paths: [{real}]."
    )


def _is_allowed(real: Path, settings: Settings) -> bool:
    return any(str(real) == os.path.realpath(allowed) for allowed in settings.policy.sensitive_paths)


def make_directory(
    path: Path, settings: Settings, contract_dir: Path | None, tool: str, *, create: bool
) -> Path | None:
    """Make a directory that a contract in an older spelling takes for granted, with those on the way.

    Args:
        path: absolute, without ``..``; there is nothing there.
        settings: the root, and what no tool may write to.
        contract_dir: the directory that the contract came from.
        tool: its name, for the log.
        create: False only looks whether it could be made.

    Returns:
        Where it is (or would be), links of the root resolved; None where nothing is made: outside of the root, through
        a link, or where something sensitive or the server's own belongs.

    Raises:
        ExecutionError: the server may not write there.
    """
    place = _place(path, settings)
    if place is None or why_sensitive(place, settings) is not None or _is_reserved(place, settings, contract_dir):
        return None
    root = Path(os.path.realpath(settings.root))
    names = place.relative_to(root).parts
    try:
        held = HeldDirectory.at(root, listed=False)
    except OSError:
        return None
    try:
        for number, name in enumerate(names):
            try:
                below = held.enter(name, listed=False)
            except FileNotFoundError:
                if not create:
                    return place
                with suppress(FileExistsError):  # another call was faster
                    held.make(name, 0o777)
                logger.warning(
                    "{}: made the directory {}, which its contract mounts", tool, root.joinpath(*names[: number + 1])
                )
                below = held.enter(name, listed=False)
            held.close()
            held = below
    except OSError as exc:
        if exc.errno in CHANGED:  # a file; or a link, of whatever it leads to
            return None
        raise ExecutionError(
            f"{tool} mounts {path}, which does not exist, and cannot be made: {exc.strerror}.", remedy="Create it."
        ) from exc
    finally:
        held.close()
    return place


def _place(path: Path, settings: Settings) -> Path | None:
    """The path with the links of the root resolved; None where it is not below the root."""
    if is_top(settings.root) or not {os.open, os.mkdir} <= os.supports_dir_fd:
        return None
    root = Path(os.path.realpath(settings.root))
    for spelling in (settings.root, root):
        if path.is_relative_to(spelling) and path != spelling:
            return root / path.relative_to(spelling)
    return None


def _is_reserved(place: Path, settings: Settings, contract_dir: Path | None) -> bool:
    """Whether it is a place of the server's own, or is in one; a directory among the tools is harmless."""
    for protected in protected_places(settings, contract_dir):
        real = Path(os.path.realpath(protected.path))
        if place == real or (not protected.is_searched and place.is_relative_to(real)):
            return True
    return False
