"""A tool in the catalog: its face, ready to be listed, and its contract, built when it is first needed.

Faces are kept on disk by the hash of the contract's content, so that a start need not parse it. The cache is a
convenience of one user, and trusted no further: its directory must belong to the user and be closed to everybody else,
and what it holds is a tool's face only. What a call does always comes from the contract itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.discovery import DefaultsFile
from praxis_mcp.contracts.model import NAME_PATTERN, Annotations, ToolContract
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import ContractError
from praxis_mcp.support.files import cache_home, replace_private
from praxis_mcp.support.logs import logger

_NONE = Annotations()


_MAX_CACHE_FILE = 64 * 1024 * 1024
_MOST_FILES = 32
"""Sets of directories that are remembered; each has a file."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What can be said of a tool without building its contract.

    Attributes:
        engine: the engine that the contract asks for.
        image: image reference; None for tools that run in none.
        network: what it can reach (see `Network`); None for remote tools.
        writable_mounts: whether it can write to the host.
        privileged: whether it asks for that.
        is_built: whether its image is made here, by the contract's ``build``.
        pure: whether equal calls may be answered from a cache.
        execution, enabled, tags: see `ToolContract`.
    """

    engine: str
    image: str | None = None
    network: str | None = None
    writable_mounts: bool = False
    privileged: bool = False
    is_built: bool = False
    pure: bool = False
    execution: str = "call"
    enabled: bool = True
    tags: tuple[str, ...] = ()


@dataclass(slots=True, eq=False, weakref_slot=True)
class CatalogEntry:
    """One tool. Two entries are the same only if they are the same object: a changed contract has a new entry.

    Attributes:
        name, title, description: of the contract.
        input_schema: see `contracts.schemas.schema.input_schema`; do not change it.
        output_schema: of the contract, as clients can take it (see `without_booleans`).
        annotations: as they are written in the contract.
        traits: see `Traits`.
        source: the file, absolute.
        fingerprint: SHA-256 of the file's content, and of what it shares with others, in hexadecimal.
        diagnostics: warnings of the contract.
    """

    name: str
    title: str | None
    description: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    annotations: Annotations
    traits: Traits
    source: Path
    fingerprint: str
    diagnostics: tuple[Diagnostic, ...] = ()
    _content: bytes = field(default=b"", repr=False)
    _contract: ToolContract | None = field(default=None, repr=False)
    _defaults: tuple[DefaultsFile, ...] = field(default=(), repr=False)

    @property
    def contract(self) -> ToolContract:
        """The contract; the first access may read it from the file's content, which takes less than a millisecond.

        That is the content which the face was made from, whatever the file holds by now.

        Raises:
            ContractError: the face came from a damaged cache.
        """
        if self._contract is None:
            from praxis_mcp.contracts.reading.loading import load_bytes

            loaded = load_bytes(self._content, self.source, check=False, defaults=self._defaults)
            if loaded.contract is None or loaded.contract.name != self.name:
                raise ContractError(
                    f"The contract in {self.source} is not what was listed as {self.name}.",
                    diagnostics=loaded.diagnostics,
                    remedy="Delete the cache of contracts (~/.cache/praxis-mcp/contracts) and start again.",
                )
            self._contract = loaded.contract
            self._content, self._defaults = b"", ()
        return self._contract

    def is_of(self, contract: ToolContract) -> bool:
        """Whether that is the very contract which this entry has given out; never builds one."""
        return self._contract is contract


def entry_of(
    contract: ToolContract, source: Path, fingerprint: str, diagnostics: tuple[Diagnostic, ...]
) -> CatalogEntry:
    """The entry of a contract that was just loaded."""
    from praxis_mcp.contracts.schemas.schema import input_schema
    from praxis_mcp.contracts.vocabulary import without_booleans

    return CatalogEntry(
        name=contract.name,
        title=contract.title,
        description=contract.description,
        input_schema=input_schema(contract),
        output_schema=without_booleans(contract.output_schema),
        annotations=contract.annotations,
        traits=_traits(contract),
        source=source,
        fingerprint=fingerprint,
        diagnostics=diagnostics,
        _contract=contract,
    )


def face_of(entry: CatalogEntry) -> dict[str, Any]:
    """What a cache keeps of an entry: nothing of its environment, headers or commands."""
    return {
        "name": entry.name,
        "title": entry.title,
        "description": entry.description,
        "input_schema": entry.input_schema,
        "output_schema": entry.output_schema,
        "annotations": entry.annotations.model_dump(exclude_none=True),
        "traits": asdict(entry.traits),
    }


def entry_from_face(
    face: dict[str, Any],
    source: Path,
    fingerprint: str,
    diagnostics: tuple[Diagnostic, ...],
    content: bytes,
    defaults: tuple[DefaultsFile, ...],
) -> CatalogEntry:
    """The reverse of `face_of`.

    Raises:
        ValueError, KeyError, TypeError: it is not a face.
    """
    schema = face["input_schema"]
    usable = schema["type"] == "object" and isinstance(schema["properties"], dict)
    if not (usable and NAME_PATTERN.fullmatch(face["name"])):
        raise ValueError("no face of a tool")
    return CatalogEntry(
        name=face["name"],
        title=face["title"],
        description=face["description"],
        input_schema=schema,
        output_schema=face["output_schema"],
        annotations=Annotations.model_validate(face["annotations"]) if face["annotations"] else _NONE,
        traits=Traits(**{**face["traits"], "tags": tuple(face["traits"]["tags"])}),
        source=source,
        fingerprint=fingerprint,
        diagnostics=diagnostics,
        _content=content,
        _defaults=defaults,
    )


def _traits(contract: ToolContract) -> Traits:
    spec = contract.engine_spec
    mounts: dict[str, str] = getattr(spec, "mounts", {})
    network = getattr(spec, "network", None)
    return Traits(
        engine=contract.engine.value,
        image=getattr(spec, "image", None),
        network=network.value if network is not None else None,
        writable_mounts=any(target.endswith(":rw") for target in mounts.values()),
        privileged=getattr(spec, "privileged", False),
        is_built=getattr(spec, "build", None) is not None,
        pure=contract.cache == "pure",
        execution=contract.execution,
        enabled=contract.enabled,
        tags=contract.tags,
    )


def default_cache_dir() -> Path | None:
    """`contracts` in `cache_home`; None for a user without a home."""
    base = cache_home()
    return base / "contracts" if base is not None else None


class FaceCache:
    """Faces and diagnostics by key, for one set of tool directories.

    Args:
        directory: where the cache is, made if it is missing; None is nowhere.
        tools: the directories whose contracts it holds.
    """

    def __init__(self, directory: Path | None, tools: Sequence[Path]) -> None:
        self._directory = directory or Path()
        self._items: dict[str, Any] | None = {} if directory is None else None
        self._is_kept = directory is not None
        names = "\0".join(str(tool) for tool in tools)
        self._file = self._directory / f"{hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:32]}.json"

    def read(self) -> dict[str, Any]:
        """What is known, by key; empty where the cache is missing, damaged, of another version or open to others."""
        if self._items is None:
            self._items = self._read()
        return self._items

    def write(self, items: dict[str, Any]) -> None:
        """Replace everything; a cache that cannot be written is done without."""
        if items.keys() == self.read().keys():
            return
        self._items = items
        if not self._is_kept:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_private():
                logger.debug("{} is open to other users; contracts are not cached there", self._directory)
                return
            self._prune()
            # json.dump, unlike json.dumps, does not use the C encoder and takes twenty times as long.
            replace_private(self._file, json.dumps({"version": _version(), "items": items}, separators=(",", ":")))
        except (OSError, ValueError) as exc:
            logger.debug("contracts are not cached: {}", exc)

    def _read(self) -> dict[str, Any]:
        try:
            if not self._is_private():
                return {}
            # No link, and no file that another user has put there.
            descriptor = os.open(self._file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not _is_own(status) or status.st_size > _MAX_CACHE_FILE:
                    return {}
                content = json.loads(file.read())
            if content["version"] == _version() != "" and isinstance(content["items"], dict):
                return content["items"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            logger.debug("the cache of contracts is ignored: {}", exc)
        return {}

    def _is_private(self) -> bool:
        status = self._directory.lstat()
        return stat.S_ISDIR(status.st_mode) and _is_own(status) and (os.name == "nt" or not status.st_mode & 0o077)

    def _prune(self) -> None:
        files = sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - _MOST_FILES + 1)]:
            if path != self._file:
                with suppress(OSError):
                    path.unlink()


def _is_own(status: os.stat_result) -> bool:
    return os.name == "nt" or status.st_uid == os.getuid()


def _version() -> str:
    """A hash that changes with the code and the lists by which contracts are read and faces made, in releases and in a
    developer's tree alike; empty where they lie in no folder (a zip file): then nothing that was cached is used."""
    files: list[str] = []
    folders = [os.fspath(Path(__file__).parents[1])]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders += [] if entry.name == "__pycache__" else [entry.path]
                    else:
                        status = entry.stat()
                        files.append(f"{entry.path} {status.st_size} {status.st_mtime_ns}")
    except OSError:
        return ""
    return hashlib.sha256("\n".join(sorted(files)).encode(errors="surrogateescape")).hexdigest()
