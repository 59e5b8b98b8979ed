"""Where this user's files are, where links lead, and small files that people or other processes change meanwhile.

Not every user has a home directory: a service's or a container's may lack HOME and an entry in passwd. Everything here
blocks, if only for a moment.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
_FIRST_USER = 1000
_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/nonexistent", "/proc", "/run", "/sbin", "/sys", "/usr")
_SYSTEM_TOPS = ("/", "/var", "/opt", "/srv", "/mnt", "/media", "/tmp", "/nix", "/snap", "/var/lib", "/var/tmp")  # noqa: S108

_PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)

MAX_LINKS = 40
"""Links that a path leads through, as the kernel has it (path_resolution(7))."""
MAX_NAMES = 4096
"""Names that it leads through, those of the links' targets counted: 40 links of 4,095 bytes have 82,000."""
STAMP_CHECK_INTERVAL = 2.0
"""Seconds between two looks at a file that is read again when it changes."""

Stamp = tuple[int, int, int] | None
"""Changes when the file is written, or another takes its place; None while there is none."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def replace_text(file: Path, text: str) -> None:
    """Write a file so that a reader sees either the old text or the new, never a part of it.

    Raises:
        OSError: it cannot be written.
    """
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def replace_private(file: Path, text: str, *, is_durable: bool = False) -> None:
    """As `replace_text`, by a file that only this user can read, and which several processes may replace at once.

    Args:
        file: which, in a directory that exists.
        text: what it holds from then on.
        is_durable: whether it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    _replace(file, text.encode(), is_durable=is_durable)


def replace_bytes(file: Path, content: bytes) -> None:
    """As `replace_private`, durably, with the permissions and the owner that the file has; one that is not there yet is
    for this user alone.

    Raises:
        OSError: it cannot be written.
    """
    _replace(file, content, is_durable=True, keeps_permissions=True)


def _replace(file: Path, content: bytes, *, is_durable: bool, keeps_permissions: bool = False) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            if is_durable:
                out.flush()
                os.fsync(descriptor)
            if keeps_permissions:
                _take_permissions(descriptor, file)
        Path(name).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _take_permissions(descriptor: int, file: Path) -> None:
    with suppress(FileNotFoundError):
        found = file.stat()
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        if hasattr(os, "fchown") and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, found.st_uid, found.st_gid)


def read_regular(path: str | Path, most: int, *, follow: bool = True) -> bytes:
    """What a regular file holds, read once through one descriptor, but never more than one byte above `most`; does not
    wait for the writer of a pipe.

    Args:
        path: the file.
        most: bytes.
        follow: False refuses a link in its place.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    # Python's own file objects take twice as long, which a thousand contracts feel.
    descriptor = _open_regular(path, follow=follow)
    try:
        content = os.read(descriptor, most + 1)
        while len(content) <= most and (more := os.read(descriptor, most + 1)):
            content += more
        return content[: most + 1]
    finally:
        os.close(descriptor)


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, to read. A link in its place, which may lead to any file of the host, is refused, and the writer
    of a pipe is not waited for.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    return os.fdopen(_open_regular(path, follow=False), "rb")


def pieces_of(source: BinaryIO, size: int) -> Iterator[bytes]:
    """What is left of an open file, in pieces of so many bytes; the last one may be shorter."""
    while piece := source.read(size):
        yield piece


def _open_regular(path: str | Path, *, follow: bool) -> int:
    descriptor = os.open(path, os.O_RDONLY | _PLAIN | (0 if follow else _NOFOLLOW))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def link_target(place: str) -> str | None:
    """What a symbolic link holds; None where there is none."""
    try:
        return os.readlink(place)  # noqa: PTH115 - text, for thousands of them
    except OSError:
        return None


def follow_links(path: str, read: Callable[[str], str | None] = link_target) -> str:
    """Where a path leads: absolute, without links and ``..``. What does not exist is taken as it is written.

    Args:
        path: absolute, or from ``/``.
        read: what a link at an absolute path holds; None where there is none.

    Raises:
        OSError: ELOOP where it has more links than the kernel would follow, or these lead through too many names.
    """
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    found = ""
    links = names = 0
    while waiting:
        part = waiting.pop()
        names += 1
        if part == "..":
            found = found.rpartition("/")[0]
            continue
        place = f"{found}/{part}"
        target = read(place)
        if target is None:
            found = place
        else:
            links += 1
            found = "" if target.startswith("/") else found
            waiting += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
        if links > MAX_LINKS or names > MAX_NAMES:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return found or "/"


def leads_out_of(directory: Path, path: Path) -> bool:
    """Whether links lead a path below a directory out of it: the author of what is there may have put them."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def home() -> Path | None:
    """The user's home directory; None where there is none."""
    if os.environ.get("HOME") == "":  # which Python reads as the root
        return None
    try:
        path = Path.home()
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def expand(path: Path) -> Path:
    """A path with ``~`` replaced.

    Raises:
        ValueError: there is no such home directory.
    """
    try:
        return path.expanduser()
    except RuntimeError as exc:
        raise ValueError(f"{path} begins at a home directory, and there is none; write an absolute path") from exc


def homes_of_users() -> tuple[str, ...]:
    """The home directories on this machine, this user's and everybody else's, links resolved, outer ones first."""
    return _real([str(home() or ""), *_of_users(), "/root", "/home"])


def home_directories() -> tuple[str, ...]:
    """As `homes_of_users`, and the XDG base directories where they are elsewhere: where people's files are."""
    homes = homes_of_users()
    elsewhere = _real(os.environ.get(name, "") for name in _XDG)
    return (*homes, *(place for place in elsewhere if not any(f"{place}/".startswith(f"{top}/") for top in homes)))


def _real(places: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({real for place in places if (real := _usable(place))}, key=lambda real: real.count("/")))


def _usable(place: str) -> str:
    """Its real path; empty where it is not a home but a part of the system, as of users that only own a service."""
    if not place.startswith("/"):
        return ""
    real = os.path.realpath(place)
    if real in _SYSTEM_TOPS or any(f"{real}/".startswith(f"{top}/") for top in _SYSTEM):
        return ""
    return real if os.path.isdir(real) else ""  # noqa: PTH112


def _of_users() -> Iterator[str]:
    try:
        text = Path("/etc/passwd").read_text(errors="replace")  # passwd(5); getpwall(3) may ask a directory service
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and fields[2].isdecimal():
            number = int(fields[2])
            if number in (0, os.geteuid()) or number >= _FIRST_USER:
                yield fields[5]


def config_home() -> Path | None:
    """``$XDG_CONFIG_HOME/praxis-mcp``; None for a user without a home."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def data_home() -> Path | None:
    """``$XDG_DATA_HOME/praxis-mcp``; None for a user without a home."""
    return _xdg("XDG_DATA_HOME", ".local/share")


def state_home() -> Path | None:
    """``$XDG_STATE_HOME/praxis-mcp``; None for a user without a home."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_home() -> Path | None:
    """``$XDG_CACHE_HOME/praxis-mcp``; None for a user without a home."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def _xdg(variable: str, default: str) -> Path | None:
    base = Path(os.environ.get(variable, ""))
    if not base.is_absolute():  # XDG Base Directory Specification: a relative value is ignored
        where = home()
        if where is None:
            return None
        base = where / default
    return base / "praxis-mcp"
