"""What a user has approved on this machine, kept below the user's own configuration.

A settings file that was found rather than named, and a contract under ``reload: approved``, count only as they were
approved: by the place where they lie and by the SHA-256 of what they hold. Approvals lie outside every project, so
that nobody who can write to a project can give them. What is judged is the bytes that are then used, read once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from praxis_mcp.errors import SettingsError
from praxis_mcp.support.files import config_home, read_regular, replace_private

Kind = Literal["settings", "contracts"]

_MAX_APPROVAL_FILE = 256 * 1024
"""Bytes of one approval."""


def approvals_directory() -> Path | None:
    """Where approvals are kept; None for a user without a home."""
    base = config_home()
    return base / "approved" if base is not None else None


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval.

    Attributes:
        path: the file that was approved, absolute, links in its directory resolved.
        sha256: of what it held, in hexadecimal.
        details: what else the approval covers, for the person who gave it.
    """

    path: str
    sha256: str
    details: Mapping[str, Any] = field(default_factory=dict)


class TrustStore:
    """The approvals of one kind of file, one small file each. Every method blocks for a moment.

    Args:
        kind: what is approved.
        directory: where; None is `approvals_directory`.
    """

    def __init__(self, kind: Kind, directory: Path | None = None) -> None:
        base = directory or approvals_directory()
        self.directory = base / kind if base is not None else None

    def find(self, file: Path) -> Approval | None:
        """The approval of that file, as it was then; None where there is none that can be believed."""
        if self.directory is None or not _is_closed(self.directory):
            return None
        path = identity(file)
        found = _read(self.directory / _name(path))
        return found if found is not None and found.path == path else None

    def approve(self, file: Path, sha256: str, details: Mapping[str, Any] | None = None) -> Approval:
        """Approve a file as it is, in place of an earlier approval.

        Args:
            file: where it is.
            sha256: of what it holds, in hexadecimal; see `digest`.
            details: kept with it.

        Raises:
            SettingsError: the approval cannot be kept.
        """
        if self.directory is None:
            raise SettingsError(
                "An approval has no place to be kept: this user has no home directory.",
                remedy="Set XDG_CONFIG_HOME to a directory of this user, or name the settings file with --config.",
            )
        approval = Approval(identity(file), sha256, dict(details or {}))
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _is_closed(self.directory):
                raise SettingsError(
                    f"The approval cannot be kept in {self.directory}: others can write there, or it is not yours.",
                    remedy="Make it your own, with mode 0700, or set XDG_CONFIG_HOME to a directory that is.",
                )
            replace_private(self.directory / _name(approval.path), json.dumps(asdict(approval)), is_durable=True)
        except OSError as exc:
            raise SettingsError(f"The approval cannot be kept in {self.directory}: {exc.strerror}.") from exc
        return approval

    def revoke(self, file: Path) -> bool:
        """Take an approval back; whether there was one.

        Raises:
            SettingsError: it cannot be removed.
        """
        if self.directory is None:
            return False
        try:
            (self.directory / _name(identity(file))).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            raise SettingsError(f"The approval of {file} cannot be removed: {exc.strerror}.") from exc
        return True

    def entries(self) -> list[Approval]:
        """All approvals, sorted by path."""
        if self.directory is None or not _is_closed(self.directory):
            return []
        found = [_read(path) for path in self.directory.glob("*.json")]
        return sorted((item for item in found if item is not None), key=lambda item: item.path)


def identity(file: Path) -> str:
    """How an approval names a file: links in its directory are resolved, one in its own place is not, so that a link to
    a file that was approved elsewhere is not approved here."""
    path = os.path.abspath(file)  # noqa: PTH100 - Path.absolute keeps ..
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH118, PTH119, PTH120


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_whole(path: Path, most: int, *, follow: bool = True) -> bytes:
    """All that a regular file holds.

    Raises:
        OSError: it cannot be read, is not a regular file, or holds more than `most` bytes.
    """
    content = read_regular(path, most, follow=follow)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it holds more than {most} bytes")
    return content


def _name(path: str) -> str:
    return f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:40]}.json"


def _read(path: Path) -> Approval | None:
    try:
        value = json.loads(read_whole(path, _MAX_APPROVAL_FILE, follow=False))
        return Approval(str(value["path"]), str(value["sha256"]), dict(value["details"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_closed(directory: Path) -> bool:
    """Whether only this user can write there: what others could have put there approves nothing."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    if os.name == "nt":
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
