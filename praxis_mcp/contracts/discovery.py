"""Finds contracts below directories, and reads their bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.support.files import read_regular

MAX_BYTES = 1024 * 1024
"""Bytes of a file; a larger one is not a contract."""

_SUFFIXES = (".yaml", ".yml", ".json")
_NAMES = frozenset("contract" + suffix for suffix in _SUFFIXES)
_ENDINGS = tuple(".contract" + suffix for suffix in _SUFFIXES)
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})


def is_searched(name: str) -> bool:
    """Whether contracts are looked for in directories of this name: not in hidden ones, nor in package managers'."""
    return not name.startswith(".") and name not in _SKIPPED


def is_contract_name(name: str) -> bool:
    """Whether a file of this name is a contract: ``contract.yaml``, ``NAME.contract.json`` and the like."""
    # Names with a dot before them are editors' and archivers' own (`.#contract.yaml`, `._contract.yaml`).
    return (name in _NAMES or name.endswith(_ENDINGS)) and not name.startswith(".")


def find_contracts(directories: Sequence[Path]) -> tuple[list[str], list[Diagnostic]]:
    """Every contract in or below the directories, in a stable order, each once however many ways lead there.

    Links are followed as far as they lead to what is in one of the directories, and loops of them end: anyone who may
    write there must not have other people's files served as tools. Hidden directories and those of package managers are
    left out. A file among the directories is a contract whatever its name. Paths are text, because a thousand `Path`
    objects take as long as finding the files.
    """
    files: dict[str, None] = {}
    links: dict[str, None] = {}
    problems: list[Diagnostic] = []
    seen: set[tuple[int, int]] = set()
    tops = tuple(os.path.realpath(directory).rstrip("/") + "/" for directory in directories)
    for directory in directories:
        if directory.is_file():
            files[str(directory)] = None
        elif directory.is_dir():
            _walk(str(directory), tops, files, links, problems, seen)
        else:
            problems.append(
                Diagnostic(
                    message=f"The tools directory {directory} does not exist.",
                    remedy="Create it, or name another with --tools DIRECTORY.",
                    path=directory,
                )
            )
    known = {os.path.realpath(path) for path in files if path not in links} if links else set()
    for link in links:
        target = os.path.realpath(link)
        if target in known:
            del files[link]
        known.add(target)
    return list(files), problems


def _walk(
    top: str,
    tops: tuple[str, ...],
    files: dict[str, None],
    links: dict[str, None],
    problems: list[Diagnostic],
    seen: set[tuple[int, int]],
) -> None:
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        try:
            status = os.stat(directory)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            below: list[str] = []
            for entry in found:
                name = entry.name
                is_contract = is_contract_name(name) and not entry.is_dir()
                if not is_contract and not (is_searched(name) and entry.is_dir()):
                    continue
                if entry.is_symlink() and (problem := _why_not_followed(entry.path, tops, is_contract)) is not None:
                    problems.append(problem)
                elif is_contract:
                    files[entry.path] = None
                    if entry.is_symlink():
                        links[entry.path] = None
                else:
                    below.append(entry.path)
        except FileNotFoundError:
            continue  # gone since its parent was read
        except OSError as exc:
            problems.append(
                Diagnostic(
                    message=f"The directory {directory} cannot be read: {exc.strerror}.",
                    remedy="Fix its permissions, or move it out of the tools directory.",
                    path=Path(directory),
                )
            )
            continue
        waiting += reversed(below)


def _why_not_followed(link: str, tops: tuple[str, ...], is_contract: bool) -> Diagnostic | None:
    target = os.path.realpath(link)
    if f"{target}/".startswith(tops):
        return None
    return Diagnostic(
        message=f"{link} is a link that leads out of the tools directory, to {target}: it is not followed.",
        remedy=f"Name {target} as a tools directory of its own (--tools, or tools: in the settings), or copy it here.",
        severity=Severity.ERROR if is_contract else Severity.WARNING,
        path=Path(link),
    )


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes, but never more than one above `MAX_BYTES`; does not wait for the writer of a pipe.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    return read_regular(path, MAX_BYTES)
