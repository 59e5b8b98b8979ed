"""As whom a command runs in a sandbox: numbers and home directory, by the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.errors import ExecutionError
from praxis_mcp.images.inside import open_file

_MAX_USER_FILE = 1024 * 1024
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SandboxUser:
    """A user: `uid` and `gid` as the command sees them, `home`, ``/`` where the image does not know the user."""

    uid: int
    gid: int
    home: str


def find_user(root: Path, wanted: str) -> SandboxUser:
    """The user that a contract or an image names, read as Docker does.

    Args:
        root: the image's root file system.
        wanted: ``name``, ``uid``, ``name:group``, ``uid:gid``, …; empty is root.

    Raises:
        ExecutionError: the image has no user or group of that name, or a number is too large.
    """
    name, colon, group = (wanted or "0").partition(":")
    name = name or "0"
    uid: int | None = _number(name)
    gid, home = 0, "/"
    for fields in _lines(root, "etc/passwd", 7):
        if name == fields[0] or (uid is not None and fields[2] == name):
            found_uid, found_gid = _number(fields[2]), _number(fields[3])
            if found_uid is not None and found_gid is not None:
                uid, gid, home = found_uid, found_gid, fields[5] or "/"
                break
    if uid is None:
        raise _unknown("user", name)
    if colon and group:
        number = _number(group)
        if number is None:
            numbers = (_number(fields[2]) for fields in _lines(root, "etc/group", 4) if fields[0] == group)
            number = next(numbers, None)
        if number is None:
            raise _unknown("group", group)
        gid = number
    # A NUL ends a word of bubblewrap's options: what follows it would be an option of the image's own.
    return SandboxUser(uid, gid, home if home.startswith("/") and "\0" not in home else "/")


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    value = int(text[:11])
    if value > _MAX_ID:
        raise ExecutionError(f"The user or group {text[:40]} is above {_MAX_ID}.", remedy="Fix the contract's user.")
    return value


def _lines(root: Path, name: str, count: int) -> Iterator[list[str]]:
    """Entries of passwd(5) or group(5); none where the image has no such file."""
    try:
        file = open_file(root, name)
        if file is None:
            return
        with file:
            text = file.read(_MAX_USER_FILE).decode(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= count:
            yield fields


def _unknown(kind: str, name: str) -> ExecutionError:
    return ExecutionError(
        f'The image has no {kind} "{name}".', remedy="Name one that it has, or use numbers (user: 1000:1000)."
    )
