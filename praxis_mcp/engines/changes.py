"""What a call changes in writable mounts: a look before, a look after, and what can be kept of each file that differs.

The content that a file had can only be read before the call, when nobody knows yet which files it will change. So that
calls stay as fast as they are, only short files are read, only so many for one call, and what has been read is
remembered: the next call on the same mounts reads what is new there. An engine that brings changes back itself
(`praxis_mcp.engines.mounts.write_back`) knows them beforehand, and reads these alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import anyio.to_thread

from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import HeldDirectory, identity_of, walk

MAX_COMPARED_ENTRIES = 20_000
"""Entries of all writable mounts together; where there are more, no change is reported."""
MAX_CHANGES_DESCRIBED = 1000
"""Changes of one call of which more is kept than the path."""
CHANGE_TEXT_KEPT = 64 * 1024
"""Bytes of a file whose content is kept."""
CHANGES_KEPT = 512 * 1024
"""Bytes of content that are kept of one call, before and after together."""
CHANGES_HASHED = 32 * 1024 * 1024
"""Bytes of files that are hashed after one call: about as fast as they were written."""
READ_BEFORE_FILES, READ_BEFORE_BYTES = 1000, 4 * 1024 * 1024
"""Short files that are read before one call, and their bytes; as many bytes of longer ones are hashed. That takes about
ten milliseconds, once in the life of a process."""
CHANGES_REMEMBERED = 16 * 1024 * 1024
"""Bytes of content that a process remembers."""

Keeps = Literal["none", "hashes", "text"]
"""What is kept of changed files: only their paths; sizes, permissions and hashes; or the content of short ones too."""

_SETTLED = 3_000_000_000
"""Nanoseconds after a change before what was read is remembered: within one tick of a file system's clock (2 s on FAT),
a file can change again and look the same."""
_REMEMBERED_OVERHEAD = 256
_HASHED_AT_ONCE = 1024 * 1024
_MADE_BY_PROGRAMS = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".tox"})
"""Directories of very many files that nobody reads a difference of."""
_OF_CREDENTIALS = re.compile(
    r"\.env(\..*)?|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk)|id_(rsa|dsa|ecdsa|ed25519).*|\.netrc|_netrc|\.pgpass"
    r"|\.npmrc|\.pypirc|\.git-credentials|\.htpasswd|credentials(\..*)?|secrets?(\..*)?",
    re.IGNORECASE,
)

_Stamp = tuple[int, int, int, int, int, int]
"""Size, modification time, mode and inode, by which a change is known; then time of change and device."""
_BY_WHICH_KNOWN = 4


@dataclass(frozen=True, slots=True)
class FileState:
    """A file before or after a call.

    Attributes:
        kind: ``file``, ``link``, ``directory`` or ``other`` (a pipe, a socket, a device).
        size: bytes.
        mode: permission bits.
        text: its content, or where the link leads, secrets masked; None where that is not kept.
        sha256: of its content, in hexadecimal; None where the text is kept, or it was not read.
        left_out: why the text is not kept, such as "binary"; empty where it is.
    """

    kind: Literal["file", "link", "directory", "other"]
    size: int
    mode: int
    text: str | None = None
    sha256: str | None = None
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class FileChange:
    """What became of one file.

    Attributes:
        path: on the host.
        before: None where there was none.
        after: None where there is none.
    """

    path: Path
    before: FileState | None
    after: FileState | None


class Changed(NamedTuple):
    """The files that were created, changed or removed, sorted, and what is kept of them."""

    paths: tuple[Path, ...] = ()
    changes: tuple[FileChange, ...] = ()


@dataclass(slots=True)
class _Budget:
    """How much may still be read, or be kept."""

    files: int
    size: int

    def takes(self, size: int) -> bool:
        if self.files < 1 or size > self.size:
            return False
        self.files -= 1
        self.size -= size
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was looked at: its content where it was read, or its hash."""

    stamp: _Stamp
    content: bytes | None = None
    sha256: str | None = None


@dataclass(slots=True)
class _Look:
    """All files of some mounts."""

    stamps: dict[str, _Stamp] = field(default_factory=dict)
    contents: dict[str, bytes | str] = field(default_factory=dict)

    def seen(self, path: str) -> Seen:
        stamp, content = self.stamps[path], self.contents.get(path)
        return Seen(stamp, None, content) if isinstance(content, str) else Seen(stamp, content)


class ChangeKeeper:
    """What is kept of changed files, and the contents that are remembered for the next call. Of one process; may be
    used in several threads.

    Args:
        keeps: see `Keeps`.
    """

    def __init__(self, keeps: Keeps = "none") -> None:
        self.keeps: Keeps = keeps
        self._lock = threading.Lock()
        self._remembered: dict[_Stamp, bytes | str] = {}
        self._size = 0

    def recall(self, stamp: _Stamp) -> bytes | str | None:
        """The content of the file that has this stamp, or of a long one its hash; None where it is not remembered."""
        return self._remembered.get(stamp)

    def remember(self, stamp: _Stamp, content: bytes | str, now: int) -> None:
        """Keep what a file holds for the next call, unless it may change without another stamp.

        Args:
            stamp, content: of the file; of a long one, its hash.
            now: nanoseconds since 1970, from before it was read.
        """
        if now - max(stamp[4], stamp[1]) < _SETTLED:
            return
        with self._lock:
            before = self._remembered.pop(stamp, None)
            self._size += len(content) - len(before) if before is not None else len(content) + _REMEMBERED_OVERHEAD
            self._remembered[stamp] = content
            while self._size > CHANGES_REMEMBERED:
                oldest = next(iter(self._remembered))
                self._size -= len(self._remembered.pop(oldest)) + _REMEMBERED_OVERHEAD

    def look_at(self, paths: Iterable[Path]) -> Mapping[Path, Seen]:
        """The files at these paths as they are now, as far as they are there; no link is followed. Blocks.

        Args:
            paths: absolute, without links on the way.
        """
        found: dict[Path, Seen] = {}
        hashed = _Budget(MAX_CHANGES_DESCRIBED, CHANGES_HASHED)
        if self.keeps == "none":
            return found
        for path in sorted(paths)[:MAX_CHANGES_DESCRIBED]:
            try:
                with HeldDirectory.at(path.parent, listed=False) as here:
                    status = here.look(path.name)
                    if status is not None:
                        found[path] = _read_changed(here, path.name, status, hashed)
            except OSError:  # it is gone, or a link is on the way by now
                continue
        return found

    def describe(
        self,
        before: Mapping[Path, Seen],
        after: Mapping[Path, Seen],
        roots: Iterable[Path],
        mask: Callable[[str], str] = str,
    ) -> tuple[FileChange, ...]:
        """What became of files, by two looks at them, sorted.

        Args:
            before, after: by `look_at`.
            roots: what is mounted: what is above has no say in what is kept.
            mask: masks secrets in a text.
        """
        kept = _Budget(2 * MAX_CHANGES_DESCRIBED, CHANGES_KEPT if self.keeps == "text" else -1)
        tops = sorted(map(str, roots), key=len, reverse=True)
        found: list[FileChange] = []
        for path in sorted(before.keys() | after.keys())[:MAX_CHANGES_DESCRIBED]:
            reason = _why_unread(_below(str(path), tops))
            states = (_state_of(seen.get(path), reason, kept, mask) for seen in (before, after))
            found.append(FileChange(path, *states))
        return tuple(found)


NOTHING_KEPT = ChangeKeeper()


class ChangeWatch:
    """The state of writable mounts before a call, to be compared with the state after it.

    A file counts as changed when its size, modification time, permissions or inode did. What other programs write there
    in the meantime is reported as well: nothing can tell it apart.
    """

    def __init__(self, mounts: tuple[Mount, ...], before: _Look | None, keeper: ChangeKeeper) -> None:
        self._mounts = mounts
        self._before = before
        self._keeper = keeper

    @classmethod
    async def start(cls, mounts: Iterable[Mount], keeper: ChangeKeeper = NOTHING_KEPT) -> ChangeWatch:
        """Look at the writable ones among `mounts`; costs nothing where there are none."""
        writable = tuple(mount for mount in mounts if mount.writable and mount.guard is Guard.NONE)
        before = await anyio.to_thread.run_sync(_look_before, writable, keeper) if writable else _Look()
        return cls(writable, before, keeper)

    async def changes(self, mask: Callable[[str], str] = str) -> Changed:
        """Files created, changed or removed since.

        Args:
            mask: masks secrets in a text.
        """
        if not self._mounts or self._before is None:
            return Changed()
        return await anyio.to_thread.run_sync(self._compare, self._before, mask)

    def _compare(self, before: _Look, mask: Callable[[str], str]) -> Changed:
        keeper = self._keeper
        after: dict[Path, Seen] = {}
        hashed = _Budget(MAX_CHANGES_DESCRIBED, CHANGES_HASHED)
        unseen = set(before.stamps)
        names: set[str] = set()

        def compare(path: str, place: str, here: HeldDirectory, name: str, status: os.stat_result) -> None:
            unseen.discard(path)
            known = before.stamps.get(path)
            if (
                known is not None
                and (status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino) == known[:_BY_WHICH_KNOWN]
            ):
                return
            names.add(path)
            if keeper.keeps != "none" and len(after) < MAX_CHANGES_DESCRIBED:
                after[Path(path)] = _read_changed(here, name, status, hashed)

        if not _visit(self._mounts, compare):
            return Changed()
        paths = tuple(map(Path, sorted(names | unseen)))
        if keeper.keeps == "none":
            return Changed(paths)
        seen = {path: before.seen(str(path)) for path in paths if str(path) in before.stamps}
        described = {path: after[path] for path in paths if path in after}
        return Changed(paths, keeper.describe(seen, described, [mount.source for mount in self._mounts], mask))


def _look_before(mounts: tuple[Mount, ...], keeper: ChangeKeeper) -> _Look | None:
    """Every file, with the content of those that may be read; None where there are too many."""
    found = _Look()
    budget, hashed = (_Budget(READ_BEFORE_FILES, READ_BEFORE_BYTES) for _ in range(2))
    reads = keeper.keeps != "none"
    now = time.time_ns()
    reason = ("/", "")

    def note(path: str, place: str, here: HeldDirectory, name: str, status: os.stat_result) -> None:
        nonlocal reason
        stamp = found.stamps[path] = _stamp(status)
        if not reads:
            return
        if reason[0] != place:  # the files of a directory come one after the other
            reason = (place, _why_unread(place))
        if reason[1]:
            return
        content = keeper.recall(stamp)
        if content is None and not _OF_CREDENTIALS.fullmatch(name):
            if status.st_size > CHANGE_TEXT_KEPT:
                content = _digest(here, name, status) if hashed.takes(status.st_size) else None
            elif budget.takes(status.st_size):
                content = _content(here, name, status)
            if content is not None:
                keeper.remember(stamp, content, now)
        if content is not None:
            found.contents[path] = content

    return found if _visit(mounts, note) else None


_Visit = Callable[[str, str, HeldDirectory, str, os.stat_result], None]
"""Gets a file's path, that of its directory below the mount, the directory, its name there, its status."""


def _visit(mounts: tuple[Mount, ...], visit: _Visit) -> bool:
    """Show every file to `visit`; False where there are too many.

    No link is followed, not even above a mount: a tool may put one where a directory was, and what is where it leads
    is nobody's business.
    """
    seen = 0
    for mount in mounts:
        root = mount.source
        place = os.path.realpath(root) if mount.identity is None else str(root)
        try:
            status = os.lstat(place)
            if stat.S_ISREG(status.st_mode):
                with HeldDirectory.at(os.path.dirname(place), listed=False) as around:  # noqa: PTH120
                    visit(str(root), "", around, os.path.basename(place), status)  # noqa: PTH119
                continue
            top = HeldDirectory.at(place)
        except OSError:  # removed just now, closed to the server, or a link by now
            continue
        with top:
            if mount.identity not in (None, identity_of(top.status)):
                continue  # it is not what is mounted
            for path, here, (name, inner) in walk(top, on_closed=_skip):
                seen += 1
                if seen > MAX_COMPARED_ENTRIES:
                    logger.debug(
                        "more than {} entries in writable mounts: changes are not reported", MAX_COMPARED_ENTRIES
                    )
                    return False
                if not stat.S_ISDIR(inner.st_mode):
                    visit(f"{root}/{path}", path[: -len(name)], here, name, inner)
    return True


def _skip(closed: OSError) -> None:
    """Changes in a directory that this server cannot read are not reported."""


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_size, found.st_mtime_ns, found.st_mode, found.st_ino, found.st_ctime_ns, found.st_dev


def _below(path: str, tops: Iterable[str]) -> str:
    """A path from the directory that is mounted; of a mounted file, its name."""
    top = next((top for top in tops if path.startswith(f"{top}/")), None)
    return path[len(top) + 1 :] if top is not None else path.rpartition("/")[2]


def _why_unread(path: str) -> str:
    *directories, name = path.split("/")
    if not _MADE_BY_PROGRAMS.isdisjoint(directories):
        return "in a directory that programs keep"
    return "named like credentials" if _OF_CREDENTIALS.fullmatch(name) else ""


def _content(here: HeldDirectory, name: str, status: os.stat_result) -> bytes | None:
    """What a short file holds, or where a link leads; None where it cannot be read, or is another one by now."""
    try:
        if stat.S_ISLNK(status.st_mode):
            return os.fsencode(here.link_target(name))
        if not stat.S_ISREG(status.st_mode):
            return None
        descriptor = here.read(name)
        try:
            data = os.read(descriptor, status.st_size + 1)
            while len(data) <= status.st_size and (more := os.read(descriptor, status.st_size + 1 - len(data))):
                data += more
            found = os.fstat(descriptor)
            return data if _stamp(found) == _stamp(status) and len(data) == status.st_size else None
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _read_changed(here: HeldDirectory, name: str, status: os.stat_result, hashed: _Budget) -> Seen:
    """A changed file: its content where it is short, else its hash."""
    stamp = _stamp(status)
    if _OF_CREDENTIALS.fullmatch(name) or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        return Seen(stamp)
    if status.st_size <= CHANGE_TEXT_KEPT:
        return Seen(stamp, _content(here, name, status))
    return Seen(stamp, None, _digest(here, name, status) if hashed.takes(status.st_size) else None)


def _digest(here: HeldDirectory, name: str, status: os.stat_result) -> str | None:
    """The SHA-256 of a long file; None where it cannot be read, or is another one by now."""
    if not stat.S_ISREG(status.st_mode):
        return None
    digest, left = hashlib.sha256(), status.st_size
    try:
        with os.fdopen(here.read(name), "rb", buffering=0) as file:
            while left > 0 and (piece := file.read(min(left, _HASHED_AT_ONCE))):
                digest.update(piece)
                left -= len(piece)
            return digest.hexdigest() if _stamp(os.fstat(file.fileno())) == _stamp(status) else None
    except OSError:
        return None


def _state_of(seen: Seen | None, reason: str, kept: _Budget, mask: Callable[[str], str]) -> FileState | None:
    if seen is None:
        return None
    size, mode = seen.stamp[0], seen.stamp[2]
    kind: Literal["file", "link", "directory", "other"] = "other"
    for name, test in (("file", stat.S_ISREG), ("link", stat.S_ISLNK), ("directory", stat.S_ISDIR)):
        if test(mode):
            kind = name  # pyright: ignore[reportAssignmentType] - one of these
    state = FileState(kind, size, stat.S_IMODE(mode), sha256=seen.sha256)
    if kind in ("directory", "other"):
        return state
    if reason:
        sha256 = state.sha256
        if seen.content is not None:
            sha256 = hashlib.sha256(seen.content).hexdigest()
        return replace(state, sha256=sha256, left_out=reason)
    if seen.content is None:
        return replace(state, left_out="large" if size > CHANGE_TEXT_KEPT else "not read")
    text = _text(seen.content) if kind == "file" else seen.content.decode(errors="backslashreplace")
    if text is not None and kept.takes(len(seen.content)):
        return replace(state, text=mask(text))
    reason = "binary" if text is None else "beyond what is kept of one run" if kept.size >= 0 else "not asked for"
    return replace(state, sha256=hashlib.sha256(seen.content).hexdigest(), left_out=reason)


def _text(content: bytes) -> str | None:
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
