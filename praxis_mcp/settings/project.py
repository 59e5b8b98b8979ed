"""Which project a directory of contracts belongs to: relative host paths start there, and its settings file counts.

One rule, whatever directory a client starts the server in: the nearest directory, upwards from the contracts, that
holds a mark of a project. Never the root of the file system, the home directory or one that everybody may write to:
those hold many projects, and a mark there may be anyone's.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from praxis_mcp.support.files import home

SETTINGS_FILES = ("praxis.yaml", "praxis.yml")
TOOLS = "tools"
"""The usual name of a directory of contracts: it belongs to the directory that holds it."""

_ROOTS = (*SETTINGS_FILES, ".git", ".hg", ".jj", ".svn")
_MANIFESTS = ("pyproject.toml", "package.json", "Cargo.toml", "go.mod")
"""Marks of a project too, but not of one that begins at the contracts themselves: a tool may have its own."""


def project_of(directory: Path) -> Path:
    """The project of a directory (or file) of contracts that somebody named, absolute.

    Where nothing marks one, the directory that holds ``tools``; of a directory that has another name, itself.
    """
    start = directory.parent if directory.is_file() else directory
    found = _marked(start, is_contracts=True)
    if found is not None:
        return found
    for place in (start, *start.parents):
        if place.name == TOOLS and not is_shared(place.parent):
            return place.parent
    return start


def project_at(directory: Path) -> Path:
    """The project that a directory is in, where nobody named contracts. Without a mark it is the directory itself; of
    one that holds many projects, its ``tools``."""
    found = _marked(directory, is_contracts=False)
    if found is not None:
        return found
    return directory / TOOLS if is_shared(directory) else directory


def tools_at(directory: Path, project: Path) -> Path:
    """The directory of contracts where nobody named one: ``tools`` here or in the nearest directory above, up to the
    project; the project's own where there is none."""
    for place in (directory, *directory.parents):
        if place == project or not place.is_relative_to(project):
            break
        if (place / TOOLS).is_dir():
            return place / TOOLS
    return project if project.name == TOOLS and is_shared(project.parent) else project / TOOLS


def is_shared(directory: Path) -> bool:
    """Whether a directory holds many projects rather than being one: the root of the file system, the home directory,
    or one that everybody may write to, such as ``/tmp``."""
    if is_top(directory):
        return True
    try:
        return os.name != "nt" and bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def is_top(directory: Path) -> bool:
    """Whether that is the root of the file system or the home directory, however it is spelled."""
    places = {Path(directory.anchor), Path(os.path.realpath(directory.anchor))}
    where = home()
    if where is not None:
        places |= {where, Path(os.path.realpath(where))}
    return directory in places or Path(os.path.realpath(directory)) in places


def _marked(start: Path, *, is_contracts: bool) -> Path | None:
    for place in (start, *start.parents):
        marks = _ROOTS if is_contracts and place == start else (*_ROOTS, *_MANIFESTS)
        if any(os.path.lexists(place / mark) for mark in marks) and not is_shared(place):
            return place
    return None
