"""The files of a tool that its contract names by ``{contract_dir}``, as one digest."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from praxis_mcp.contracts.commands import CONTRACT_DIR
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import CommandSpec
from praxis_mcp.errors import ContractError
from praxis_mcp.support.files import open_regular, pieces_of

MOST_LOCKED_FILES = 10_000
MOST_LOCKED_BYTES = 512 * 1024 * 1024
"""Of one tool."""
_PIECE = 256 * 1024
_NAMED = re.compile(re.escape(CONTRACT_DIR) + r"((?:/[\w.@%+=,-]+)*)")
_MADE_BY_OTHERS = frozenset({"__pycache__", ".git", ".DS_Store"})

Stamps = tuple[tuple[str, int, int, int], ...]
"""Path, size, time of change and inode of each file: while they are the same, so is the digest."""


class ToolFiles:
    """The digests of tools' files, each computed again only where a file has changed. Every method blocks."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamps, str]] = {}

    def digest(self, contract: ToolContract) -> str | None:
        """SHA-256 of the files, in hexadecimal; None where the contract names none.

        Files are the same if their names, contents and right to be executed are; of a link it is where it leads.

        Raises:
            ContractError: there are too many, or they cannot be read.
        """
        folder = contract.directory
        places = _places(contract)
        if folder is None or not places:
            return None
        try:
            found = dict(_files(folder, places, _written(contract), contract.source))
            stamps = tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found.items())
            known = self._known.get(contract.name)
            if known is None or known[0] != stamps:
                if sum(status.st_size for status in found.values()) > MOST_LOCKED_BYTES:
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
    """What the contract names below its own folder, but for what the tool may write to."""
    spec = contract.engine_spec
    if not isinstance(spec, CommandSpec):
        return ()
    texts = [*spec.command, *(value for value in spec.env.values() if isinstance(value, str))]
    texts += [source for source, target in spec.mounts.items() if not target.endswith(":rw")]
    return tuple(sorted({match[1].strip("/") for text in texts for match in _NAMED.finditer(text)}))


def _written(contract: ToolContract) -> frozenset[str]:
    """Folders below the contract's own that the tool may write to."""
    spec = contract.engine_spec
    mounts = spec.mounts.items() if isinstance(spec, CommandSpec) else ()
    sources = [_NAMED.fullmatch(source) for source, target in mounts if target.endswith(":rw")]
    return frozenset(match[1].strip("/") for match in sources if match)


def _files(
    folder: Path, places: tuple[str, ...], written: frozenset[str], contract: Path | None
) -> Iterator[tuple[str, os.stat_result]]:
    """Every file and link, by its path from the folder, sorted."""
    found: dict[str, os.stat_result] = {}
    waiting = list(places)
    while waiting:
        name = waiting.pop()
        if name in written or name in found or name.rpartition("/")[2] in _MADE_BY_OTHERS:
            continue
        path = folder / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # made later, or a part of a shell's text; that it is gone is seen as well
        if stat.S_ISDIR(status.st_mode):
            waiting += [f"{name}/{child}".strip("/") for child in os.listdir(path)]  # noqa: PTH208 - names alone
        elif path != contract:
            found[name] = status
        if len(found) > MOST_LOCKED_FILES or len(waiting) > MOST_LOCKED_FILES:
            raise _TooMany
    yield from sorted(found.items())


def _digest(folder: Path, files: dict[str, os.stat_result]) -> str:
    whole = hashlib.sha256()
    for name, status in files.items():
        own = hashlib.sha256()
        kind = stat.S_IFMT(status.st_mode)
        if stat.S_ISLNK(kind):
            own.update(os.fsencode(os.readlink(folder / name)))  # noqa: PTH115 - as it is written
        elif stat.S_ISREG(kind):
            with open_regular(folder / name) as file:
                for piece in pieces_of(file, _PIECE):
                    own.update(piece)
        runs = int(bool(status.st_mode & stat.S_IXUSR))
        whole.update(os.fsencode(name) + f"\0{kind:o} {runs} {own.hexdigest()}\n".encode())
    return whole.hexdigest()
