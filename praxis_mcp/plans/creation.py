"""Directories of mounts that are made for contracts in an older spelling, whose SDK made them.

Only below the project root, and through no link: one directory after the other, each held open.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.protected import protected_places
from praxis_mcp.plans.sensitive import why_sensitive
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.project import is_top
from praxis_mcp.support.logs import logger

Maker = Callable[[Path], Path | None]
"""`make_directory` for one contract."""

_DIRECTORY: int = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


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
        held = os.open(root, _DIRECTORY)
    except OSError:
        return None
    try:
        for number, name in enumerate(names):
            try:
                below = os.open(name, _DIRECTORY | _NOFOLLOW, dir_fd=held)
            except FileNotFoundError:
                if not create:
                    return place
                below = _make(name, held)
                logger.warning(
                    "{}: made the directory {}, which its contract mounts", tool, root.joinpath(*names[: number + 1])
                )
            os.close(held)
            held = below
    except NotADirectoryError:  # a file; or a link, of whatever it leads to
        return None
    except OSError as exc:
        raise ExecutionError(
            f"{tool} mounts {path}, which does not exist, and cannot be made: {exc.strerror}.", remedy="Create it."
        ) from exc
    finally:
        os.close(held)
    return place


def _make(name: str, above: int) -> int:
    with suppress(FileExistsError):  # another call was faster
        os.mkdir(name, dir_fd=above)
    return os.open(name, _DIRECTORY | _NOFOLLOW, dir_fd=above)


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
