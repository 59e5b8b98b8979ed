"""One file that a call may change: what is read of it, and what of that is kept.

Short texts are kept as they are, secrets masked; of others, a hash tells one state from another. All of it blocks.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from praxis_mcp.support.rooted import HeldDirectory

MAX_CHANGES_DESCRIBED = 1000
"""Changes of one call of which more is kept than the path."""
CHANGE_TEXT_KEPT = 64 * 1024
"""Bytes of a file whose content is kept."""
CHANGES_HASHED = 32 * 1024 * 1024
"""Bytes of files that are hashed after one call: about as fast as they were written."""
CHANGES_READ = 4 * 1024 * 1024
"""Bytes of short files that are held in memory of one look at changed files; of others, their hashes."""

Keeps = Literal["none", "hashes", "text"]
"""What is kept of changed files: only their paths; sizes, permissions and hashes; or the content of short ones too."""

_HASHED_AT_ONCE = 1024 * 1024
_MADE_BY_PROGRAMS = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".tox"})
"""Directories of very many files that nobody reads a difference of."""
OF_CREDENTIALS = re.compile(
    r"\.env(\..*)?|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk)|id_(rsa|dsa|ecdsa|ed25519).*|\.netrc|_netrc|\.pgpass"
    r"|\.npmrc|\.pypirc|\.git-credentials|\.htpasswd|credentials(\..*)?|secrets?(\..*)?",
    re.IGNORECASE,
)
"""Names of files of which nothing is read."""

Stamp = tuple[int, int, int, int, int, int]
"""Size, modification time, mode and inode, by which a change is known; then time of change and device."""
BY_WHICH_KNOWN = 4
"""How many of these tell whether a file has changed."""


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


@dataclass(slots=True)
class Budget:
    """How much may still be read, or be kept."""

    files: int
    size: int

    def takes(self, size: int) -> bool:
        """Whether there is room for a file of that size; then it is taken from what is left."""
        if self.files < 1 or size > self.size:
            return False
        self.files -= 1
        self.size -= size
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was looked at: its content where it was read, or its hash."""

    stamp: Stamp
    content: bytes | None = None
    sha256: str | None = None


def stamp_of(found: os.stat_result) -> Stamp:
    """By which a state of a file is known."""
    return found.st_size, found.st_mtime_ns, found.st_mode, found.st_ino, found.st_ctime_ns, found.st_dev


def last_change(stamp: Stamp) -> int:
    """When the content or the status changed last: nanoseconds since 1970."""
    return max(stamp[1], stamp[4])


def is_short(size: int) -> bool:
    """Whether a file of so many bytes may be kept as a text."""
    return size <= CHANGE_TEXT_KEPT


def why_unread(path: str) -> str:
    """Why the text of a file is not kept, whatever it is; empty where it may be.

    Args:
        path: from the directory that is mounted.
    """
    *directories, name = path.split("/")
    if not _MADE_BY_PROGRAMS.isdisjoint(directories):
        return "in a directory that programs keep"
    return "named like credentials" if OF_CREDENTIALS.fullmatch(name) else ""


def content_of(here: HeldDirectory, name: str, status: os.stat_result) -> bytes | None:
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
            return data if stamp_of(found) == stamp_of(status) and len(data) == status.st_size else None
        finally:
            os.close(descriptor)
    except OSError:
        return None


class Reading:
    """Reads the files that a call has changed: so much of them that the memory for it is bounded.

    Args:
        mask: masks secrets in a text.
    """

    def __init__(self, mask: Callable[[str], str] = str) -> None:
        self._mask = mask
        self._held = Budget(MAX_CHANGES_DESCRIBED, CHANGES_READ)
        self._hashed = Budget(MAX_CHANGES_DESCRIBED, CHANGES_HASHED)

    def read(self, here: HeldDirectory, name: str, status: os.stat_result) -> Seen:
        """A file's content where it is short, else its hash."""
        stamp = stamp_of(status)
        if OF_CREDENTIALS.fullmatch(name) or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return Seen(stamp)
        if is_short(status.st_size) and self._held.takes(status.st_size):
            return Seen(stamp, content_of(here, name, status))
        if not self._hashed.takes(status.st_size):
            return Seen(stamp)
        if not is_short(status.st_size):
            return Seen(stamp, None, digest_of(here, name, status))
        content = content_of(here, name, status)
        return Seen(stamp, None, _digest_without_secrets(content, self._mask) if content is not None else None)


def digest_of(here: HeldDirectory, name: str, status: os.stat_result) -> str | None:
    """The SHA-256 of a long file; None where it cannot be read, or is another one by now."""
    if not stat.S_ISREG(status.st_mode):
        return None
    digest, left = hashlib.sha256(), status.st_size
    try:
        with os.fdopen(here.read(name), "rb", buffering=0) as file:
            while left > 0 and (piece := file.read(min(left, _HASHED_AT_ONCE))):
                digest.update(piece)
                left -= len(piece)
            return digest.hexdigest() if stamp_of(os.fstat(file.fileno())) == stamp_of(status) else None
    except OSError:
        return None


def state_of(
    seen: Seen | None, reason: str, kept: Budget, mask: Callable[[str], str], keeps: Keeps
) -> FileState | None:
    """What is kept of a file.

    Args:
        seen: what was read; None where there was no file.
        reason: see `why_unread`.
        kept: how much may be kept yet.
        mask: masks secrets in a text.
        keeps: what the settings ask for.
    """
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
    content = seen.content
    if content is None:
        if not reason:
            reason = _why_not_held(size, keeps) if seen.sha256 is not None or not is_short(size) else "not read"
        return replace(state, left_out=reason)
    text = _text(content) if kind == "file" else content.decode(errors="backslashreplace")
    # Other bytes hold secrets, too. A hash of little else than one would let it be guessed.
    given = text if text is not None else content.decode(errors="surrogateescape")
    masked = mask(given)
    if not reason and text is not None and kept.takes(len(content)):
        return replace(state, text=masked)
    reason = reason or ("binary" if text is None else _why_not_held(size, keeps))
    if masked != given:
        return replace(state, left_out=f"{reason}, with a secret")
    return replace(state, sha256=hashlib.sha256(content).hexdigest(), left_out=reason)


def _digest_without_secrets(content: bytes, mask: Callable[[str], str]) -> str | None:
    """The SHA-256 of what a short file holds; None where that is or has a secret, which could be guessed by it."""
    text = content.decode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest() if mask(text) == text else None


def _why_not_held(size: int, keeps: Keeps) -> str:
    if not is_short(size):
        return "large"
    return "not asked for" if keeps == "hashes" else "beyond what is kept of one run"


def _text(content: bytes) -> str | None:
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
