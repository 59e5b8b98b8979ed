"""The audit trail: a line of JSON for each call, refused ones too, appended and never changed.

Each line holds the SHA-256 of the one before it (`prev`), so that a line which was changed, removed or put in between
is found. Processes of one user share the file, and lock it to append. A process that is killed in the middle of a line
leaves a piece of one: the next ends it, and names it (`torn`) in the line that goes on from the last whole one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.row import StoredRun, iso_time
from praxis_mcp.support.files import open_regular

try:
    import fcntl
except ImportError:  # Windows: one process appends, or their lines break each other's chain
    fcntl = None

AUDIT = "audit.jsonl"
FIRST = "0" * 64
"""The `prev` of the very first line."""
MAX_FILE = 16 * 1024 * 1024
"""Bytes after which another file is begun."""
TRAIL_LOCK_TIMEOUT = 2.0
"""Seconds to wait for another process that appends."""
_LOCK_EVERY = 0.01
_LOOKS = 5
_TAIL_FIRST, _TAIL = 4 * 1024, 256 * 1024
"""Bytes from the end in which the last line mostly is, and those in which it is, however long its names are."""
_MOST_PROBLEMS = 20
_PLAIN = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))

Line = dict[str, Any]


def line_of(run: StoredRun) -> Line:
    """What the trail says of a call that has ended."""
    ended = run.ended if run.ended is not None else run.started
    return {
        "time": iso_time(ended),
        "caller": run.caller,
        "client": run.client,
        "tool": run.tool,
        "contract_sha256": run.contract_sha256,
        "image": run.image,
        "engine": run.engine,
        "outcome": run.outcome,
        "ms": round((ended - run.started) * 1000, 1),
        "run": run.id,
        "arguments": run.arguments,
        "server": run.server,
    }


class AuditTrail:
    """Appends to the trail in a directory. Everything here blocks.

    Args:
        directory: that of the records, which exists.
        max_bytes: how much is kept in all; the oldest file is removed beyond.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._file = directory / AUDIT
        self._max_bytes = max_bytes
        self._left: tuple[tuple[int, int, int], int, str] | None = None

    def append(self, lines: Sequence[Line]) -> None:
        """Append lines, all or none.

        Raises:
            RecordsUnavailable: they cannot be written.
        """
        with translated(_name(self._file)), self._locked() as (descriptor, found):
            size = found.st_size
            # What this process has left there need not be read again. A line of its own that somebody has changed since
            # does not fit the next one, either.
            left, self._left = self._left, None
            if left is not None and left[0] == _state(found, size):
                _, number, last = left
                torn, text = {}, b""
            else:
                number, last, torn = _end_of(descriptor, size)
                if not number:  # the file has just been begun
                    number, last = self._end_of_previous()
                text = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
            for line in lines:
                number += 1
                entry = json.dumps({"seq": number, **line, **torn, "prev": last}).encode()
                last, torn = digest(entry), {}
                text += entry + b"\n"
            try:
                _write_all(descriptor, text)
            except OSError:
                with suppress(OSError):  # a part of ours, on a full disk
                    os.ftruncate(descriptor, size)
                raise
            if size + len(text) > MAX_FILE:
                self._rotate()
            else:
                self._left = _state(found, size + len(text)), number, last

    def _end_of_previous(self) -> tuple[int, str]:
        for file in reversed(files_of(self._file.parent)):
            if file != self._file:
                with open_regular(file) as source:
                    number, last, _ = _end_of(source.fileno(), os.fstat(source.fileno()).st_size)
                    if number:
                        return number, last
        return 0, FIRST

    def _rotate(self) -> None:
        with open_regular(self._file) as source:
            first = next((line["seq"] for line in map(_parsed, source) if line is not None), 0)
        self._file.rename(self._file.with_name(f"audit-{first:012d}.jsonl"))
        kept = [(file, file.stat().st_size) for file in files_of(self._file.parent)]
        while len(kept) > 1 and sum(size for _, size in kept) > self._max_bytes:
            kept.pop(0)[0].unlink()

    @contextmanager
    def _locked(self) -> Iterator[tuple[int, os.stat_result]]:
        """A descriptor of the newest file, and what is known of it."""
        limit = time.monotonic() + TRAIL_LOCK_TIMEOUT
        while True:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | _PLAIN, 0o600)
            try:
                _lock(descriptor, limit)
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
                    os.fchmod(descriptor, 0o600)
                with suppress(FileNotFoundError):
                    if os.path.samestat(found, self._file.stat()):
                        yield descriptor, found
                        return
            finally:
                os.close(descriptor)
            # Another process has begun the next file meanwhile.


def _state(found: os.stat_result, size: int) -> tuple[int, int, int]:
    """Which file it is, and how long."""
    return found.st_dev, found.st_ino, size


def _lock(descriptor: int, limit: float) -> None:
    if fcntl is None:
        return
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if time.monotonic() > limit:
                raise OSError(errno.EAGAIN, "another process holds it") from exc
            time.sleep(_LOCK_EVERY)


@dataclass(slots=True)
class Verdict:
    """What a look at the whole trail found.

    Attributes:
        lines: how many there are.
        first: number of the first one; more than 1 where older files are gone.
        last: number of the last one.
        head: its digest, which shows that the end was cut off to those who keep it elsewhere.
        torn: places of pieces of lines that killed processes left.
        problems: what has been tampered with, one sentence each.
    """

    lines: int = 0
    first: int = 0
    last: int = 0
    head: str = FIRST
    torn: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed, removed or put in between."""
        return not self.problems


def verify(directory: Path, known: tuple[int, str] | None = None, run: StoredRun | None = None) -> Verdict:
    """Look at every line of the trail.

    Args:
        directory: of the records.
        known: the number and the digest of a line that were noted before: it has to be there as it was.
        run: one that has ended, such as the newest, and whose line has to be there, unless it is older than the trail.

    Raises:
        RecordsUnavailable: it cannot be read.
    """
    found = Verdict()
    expected: str | None = None
    pieces: list[str] = []
    begins = ""
    has_known, has_run = known is None, run is None
    for place, text in _texts(directory):
        line = _parsed(text)
        if line is None:
            found.torn.append(place)
            pieces.append(digest(text))
            continue
        number = line["seq"]
        if expected is None:
            found.first, begins = number, str(line.get("time"))
            if number == 1 and line["prev"] != FIRST:
                found.problems.append(f"{place}: the first line names one before it.")
        elif line["prev"] != expected:
            found.problems.append(f"{place}: what was before line {number} has been changed or removed.")
        elif number != found.last + 1:
            found.problems.append(f"{place}: line {number} follows line {found.last}.")
        if _torn(pieces) != line.get("torn"):
            found.problems.append(f"{place}: what is between line {number} and the one before it has been changed.")
        pieces = []
        expected = digest(text)
        found.lines, found.last, found.head = found.lines + 1, number, expected
        has_run = has_run or (run is not None and line.get("run") == run.id)
        if known is not None and number == known[0]:
            has_known = True
            if found.head != known[1]:
                found.problems.append(f"{place}: line {number} is not the one that was noted.")
        if len(found.problems) >= _MOST_PROBLEMS:
            return found
    if not has_known and known is not None and not found.problems:
        where = "was removed by the bound, or by someone" if known[0] < found.first else "has been cut off"
        found.problems.append(f"Line {known[0]}, which was noted, is not there: it {where}.")
    if not has_run and run is not None and (found.first <= 1 or begins <= iso_time(run.ended or run.started)):
        found.problems.append(
            f"Run {run.id}, which is recorded, is not in the trail: its end has been cut off, or none was kept then."
        )
    return found


def read(directory: Path) -> Iterator[Line]:
    """The lines of the trail, oldest first; pieces of lines are left out.

    Raises:
        RecordsUnavailable: it cannot be read.
    """
    for _, text in _texts(directory):
        line = _parsed(text)
        if line is not None:
            yield line


def files_of(directory: Path) -> list[Path]:
    """The files of the trail, oldest first."""
    older = sorted(directory.glob("audit-*.jsonl"))
    return [*older, *([directory / AUDIT] if (directory / AUDIT).exists() else [])]


def digest(line: bytes) -> str:
    """Of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def _texts(directory: Path) -> Iterator[tuple[str, bytes]]:
    """All lines, as they were at one moment."""
    file = directory / AUDIT
    with translated(_name(file)):
        older, newest, left = _at_rest(directory)
    with newest:
        for each in older:
            with translated(_name(each)), suppress(FileNotFoundError), open_regular(each) as source:
                for count, text in enumerate(source, 1):
                    yield f"{each.name}:{count}", text.removesuffix(b"\n")
        with translated(_name(file)):
            for count, text in enumerate(newest, 1):
                if left <= 0:  # appended since
                    return
                yield f"{file.name}:{count}", text[:left].removesuffix(b"\n")
                left -= len(text)


def _at_rest(directory: Path) -> tuple[list[Path], BinaryIO, int]:
    """The older files, oldest first; the newest one, and how long it was when they were listed. Waits for no lock: to
    read the trail is never in the way of those that append."""
    looks = 0
    while True:
        try:
            newest = open_regular(directory / AUDIT)
        except FileNotFoundError:
            return files_of(directory), BytesIO(), 0
        found = os.fstat(newest.fileno())
        older = [file for file in files_of(directory) if file.name != AUDIT]
        with suppress(FileNotFoundError):
            if os.path.samestat(found, (directory / AUDIT).stat()):
                looks += 1
                size = found.st_size
                if looks >= _LOOKS or not size or os.pread(newest.fileno(), 1, size - 1) == b"\n":
                    return older, newest, size
                time.sleep(_LOCK_EVERY)  # somebody is writing a line, or has left a piece of one
        newest.close()


def _parsed(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_line = isinstance(line, dict) and isinstance(line.get("seq"), int) and isinstance(line.get("prev"), str)
    return line if is_line else None


def _end_of(descriptor: int, size: int) -> tuple[int, str, Line]:
    """Number and digest of the last whole line, 0 and `FIRST` where there is none; and what names the pieces of lines
    behind it, if there are any."""
    length = _TAIL_FIRST
    while True:
        is_all = length >= min(size, _TAIL)
        tail = os.pread(descriptor, length, max(0, size - length)).removesuffix(b"\n").split(b"\n") if size else []
        pieces: list[str] = []
        for text in reversed(tail if is_all else tail[1:]):  # the first may lack its beginning
            line = _parsed(text)
            if line is not None:
                return line["seq"], digest(text), {"torn": _torn(pieces)} if pieces else {}
            pieces.insert(0, digest(text))
        if is_all:
            return 0, FIRST, {"torn": _torn(pieces)} if pieces else {}
        length *= 8


def _torn(pieces: list[str]) -> str | None:
    return digest("".join(pieces).encode()) if pieces else None


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


def _name(file: Path) -> str:
    return f"The audit trail {file}"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Around what works on files of the records; `what` begins the message of the error."""
    try:
        yield
    except OSError as exc:
        where = f": {exc.filename}" if exc.filename is not None and str(exc.filename) not in what else ""
        raise RecordsUnavailable(
            f"{what} cannot be used: {exc.strerror}{where}.",
            remedy="See who may write there, and whether the disk is full.",
        ) from exc
