"""The files of a tool that its contract names by ``{contract_dir}``, as one digest. A link counts with what it leads
to, where that is in the project."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from praxis_mcp.contracts.commands import CONTRACT_DIR
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec
from praxis_mcp.errors import ContractError
from praxis_mcp.support.files import open_regular, pieces_of

MOST_LOCKED_FILES = 10_000
MOST_LOCKED_BYTES = 512 * 1024 * 1024
"""Of one tool."""
_PIECE = 256 * 1024
_NAMED = re.compile(re.escape(CONTRACT_DIR) + r"((?:/[\w.@%+=,-]+)*)")
_MADE_BY_OTHERS = frozenset({"__pycache__", ".git", ".DS_Store"})

Found = dict[str, tuple[os.stat_result, ...]]
"""Files and links by their paths from the folder, sorted: how each is, and what a link leads to, if that counts."""
Stamps = tuple[tuple[str, int, int, int], ...]
"""Path, size, time of change and inode of each file: while they are the same, so is the digest. It is the time that no
program can set (st_ctime)."""


class ToolFiles:
    """The digests of tools' files, each computed again only where a file has changed. Every method blocks.

    Args:
        root: of the project.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._known: dict[str, tuple[Stamps, str]] = {}

    def digest(self, contract: ToolContract) -> str | None:
        """SHA-256 of the files, in hexadecimal; None where the contract names none.

        Files are the same if their names, contents and right to be executed are; a link, if it is written so, and leads
        to the same.

        Raises:
            ContractError: there are too many, or they cannot be read.
        """
        folder = contract.directory
        places = _places(contract) if folder is not None else ()
        if folder is None or not places:
            return None
        try:
            found = _files(folder, places, _written(contract), contract.source, self._root)
            stamps = tuple(
                (name, status.st_size, status.st_ctime_ns, status.st_ino)
                for name, each in found.items()
                for status in each
            )
            known = self._known.get(contract.name)
            if known is None or known[0] != stamps:
                if sum(status.st_size for each in found.values() for status in each) > MOST_LOCKED_BYTES:
                    raise _too_much(contract)
                known = self._known[contract.name] = stamps, _digest(folder, found)
        except OSError as exc:
            raise ContractError(f"The files of {contract.name} cannot be read: {exc.strerror}.") from exc
        except _TooMany as exc:
            raise _too_much(contract) from exc
        return known[1]


class _TooMany(Exception):
    """More than `MOST_LOCKED_FILES`."""


def _too_much(contract: ToolContract) -> ContractError:
    return ContractError(
        f"The files of {contract.name} are too many to be locked: more than {MOST_LOCKED_FILES:,}, or "
        f"{MOST_LOCKED_BYTES // 1024**2} MiB.",
        remedy="Put data of the tool into another folder, and mount that.",
    )


def _places(contract: ToolContract) -> tuple[str, ...]:
    """What the contract names below its own folder, but for what the tool may write to. What is not there counts as the
    folder around it: it may be made later, or be a name that goes on, as one with a space does."""
    spec, folder = contract.engine_spec, contract.directory
    assert folder is not None
    if isinstance(spec, RemoteMCPEngineSpec):
        words, paths = spec.address if isinstance(spec.address, tuple) else (), []
    elif isinstance(spec, CommandSpec):
        words, paths = spec.command, [source for source, target in spec.mounts.items() if not target.endswith(":rw")]
        directory = spec.cwd if isinstance(spec, LocalEngineSpec) else None
        directory = spec.working_dir if isinstance(spec, DaggerEngineSpec) else directory
        paths += [directory] if directory is not None else []
    else:
        return ()
    texts = [*words, *(value for value in spec.env.values() if isinstance(value, str)), *paths]
    names = {match[1].strip("/") for text in texts for match in _NAMED.finditer(text)}
    wholes = {text.removeprefix(CONTRACT_DIR).strip("/") for text in texts if text.startswith(CONTRACT_DIR)}
    names |= {name for name in wholes if os.path.lexists(folder / name)}
    return tuple(sorted({_there(folder, name) for name in names}))


def _there(folder: Path, name: str) -> str:
    while name and not os.path.lexists(folder / name):
        name = name.rpartition("/")[0]
    return name


def _written(contract: ToolContract) -> frozenset[str]:
    """Folders below the contract's own that the tool may write to."""
    spec = contract.engine_spec
    mounts = spec.mounts.items() if isinstance(spec, CommandSpec) else ()
    sources = [_NAMED.fullmatch(source) for source, target in mounts if target.endswith(":rw")]
    return frozenset(match[1].strip("/") for match in sources if match)


def _files(folder: Path, places: tuple[str, ...], written: frozenset[str], contract: Path | None, root: str) -> Found:
    found: Found = {}
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(name, ()) for name in places]
    while waiting:
        name, above = waiting.pop()  # the directories that it is in: links can lead back into them
        if name in written or name in found or name.rpartition("/")[2] in _MADE_BY_OTHERS:
            continue
        path = folder / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # gone meanwhile
        if stat.S_ISLNK(status.st_mode):
            found[name] = (status,)
            if (target := _in_project(path, root)) is None:
                continue
            found[name] = (status, target)
            status = target
        if stat.S_ISDIR(status.st_mode):
            if (own := (status.st_dev, status.st_ino)) not in above:
                waiting += [(f"{name}/{child}".strip("/"), (*above, own)) for child in os.listdir(path)]  # noqa: PTH208
        elif path != contract and name not in found:
            found[name] = (status,)
        if len(found) > MOST_LOCKED_FILES or len(waiting) > MOST_LOCKED_FILES:
            raise _TooMany
    return dict(sorted(found.items()))


def _in_project(link: Path, root: str) -> os.stat_result | None:
    """What a link leads to; None where that is not in the project, or not there."""
    if not os.path.realpath(link).startswith(f"{root.rstrip(os.sep)}{os.sep}"):
        return None
    try:
        return link.stat()
    except OSError:
        return None


def _digest(folder: Path, files: Found) -> str:
    whole = hashlib.sha256()
    for name, each in files.items():
        own = hashlib.sha256()
        if stat.S_ISLNK(each[0].st_mode):
            own.update(os.fsencode(os.readlink(folder / name)) + b"\0")  # noqa: PTH115 - as it is written
        if stat.S_ISREG(each[-1].st_mode):
            with open_regular(os.path.realpath(folder / name)) as file:
                for piece in pieces_of(file, _PIECE):
                    own.update(piece)
        kinds = " ".join(
            f"{stat.S_IFMT(status.st_mode):o} {int(bool(status.st_mode & stat.S_IXUSR))}" for status in each
        )
        whole.update(os.fsencode(name) + f"\0{kinds} {own.hexdigest()}\n".encode())
    return whole.hexdigest()
