"""A change of one client's file: worked out first, shown, then written in one step, or not at all."""

from __future__ import annotations

import copy
import difflib
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from praxis_mcp.clients import Scope, jsonc, toml_edits
from praxis_mcp.clients.model import Client, Machine, Server, merged
from praxis_mcp.errors import SettingsError
from praxis_mcp.support.files import read_regular, state_home

_MAX_CLIENT_FILE = 64 * 1024 * 1024
"""Bytes of a client's file; Claude Code keeps its history in its own."""

Kind = Literal["added", "changed", "removed", "unchanged"]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one client's file.

    Attributes:
        client: whose.
        file: where it is, for people.
        kind: what happens to the server's entry.
        before: what it holds; None where there is no such file.
        after: what it will hold.
        secret: text that is not shown.
    """

    client: Client
    file: Path
    kind: Kind
    before: bytes | None
    after: bytes
    secret: str = ""

    def diff(self) -> str:
        """The change in the form of diff(1), without the token."""
        old, new = (content.decode().splitlines(keepends=True) for content in (self.before or b"", self.after))
        lines = difflib.unified_diff(old, new, str(self.file), str(self.file), n=2)
        text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
        return text.replace(self.secret, "…") if self.secret else text

    def write(self) -> Path | None:
        """Write it, in one step; a link stays a link, and permissions stay.

        Returns:
            Where the file is kept as it was; None where there was none, or this user has no place for it.

        Raises:
            SettingsError: it cannot be written, or has changed since it was read.
        """
        target = Path(os.path.realpath(self.file))
        try:
            kept = self._keep() if self.before is not None else None
            target.parent.mkdir(parents=True, exist_ok=True)
            if _read(target) != self.before:
                raise SettingsError(
                    f"{self.file} has changed in this moment; it was left as it is.",
                    remedy=f"Close {self.client.title}, then do it again.",
                )
            _replace(target, self.after)
        except OSError as exc:
            where = exc.filename or target
            raise SettingsError(f"{where} cannot be written: {exc.strerror}.") from exc
        return kept

    def _keep(self) -> Path | None:
        base = state_home()
        if base is None:
            return None
        place = base / "clients"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = place / f"{sha256(str(self.file).encode()).hexdigest()[:8]}-{self.file.name}"
        _replace(kept, self.before or b"")
        return kept


def plan_change(
    client: Client, machine: Machine, scope: Scope, project: Path, name: str, server: Server | None
) -> Change:
    """Work out what a client's file becomes.

    Args:
        client: which.
        machine: where its user's files are.
        scope: which of its files.
        project: the directory of the project, for that scope.
        name: of the server there.
        server: to be written; None removes the entry.

    Raises:
        SettingsError: there is no such file for the client, it cannot be read, it is malformed (with the line), or the
            client cannot have that server.
    """
    file = file_of(client, machine, scope, project)
    ours = client.written(server) if server is not None else None
    before = _read_file(file)
    text = _text(file, before)
    path = (*client.section, name)
    try:
        values = _values(client, text)
        existing = _at(values, path)
        if ours is None:
            kind: Kind = "unchanged" if existing is None else "removed"
            written = text if existing is None else _edits(client).remove(text, path)
            expected = _without(values, path)
        else:
            entry = merged(existing, ours) if isinstance(existing, Mapping) else ours
            kind = "added" if existing is None else "unchanged" if entry == existing else "changed"
            written = text if kind == "unchanged" else _edits(client).put_members(text, path, entry)
            expected = _with(values, path, entry)
        found = _values(client, written)
    except ValueError as exc:
        raise _malformed(client, file, exc) from exc
    if _without_empty(found, client) != _without_empty(expected, client):
        raise SettingsError(
            f"{file} is written in a way that cannot be edited safely; it was left as it is.",
            remedy=f"Edit the entry {name} in {'.'.join(client.section)} by hand.",
        )
    secret = server.token if server is not None else ""
    return Change(client, file, kind, before, written.encode() if written != text else before or b"", secret)


def file_of(client: Client, machine: Machine, scope: Scope, project: Path) -> Path:
    """A client's file, which need not exist.

    Raises:
        SettingsError: the client has none for a project, or a link there leads out of the project.
    """
    if scope is Scope.USER:
        return client.file(machine)
    if not client.project_file:
        raise SettingsError(
            f"{client.title} has no file for a project.", remedy="Leave --scope out: it is added for the user."
        )
    file = project / client.project_file
    # The author of the project may have put a link there.
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(project)):
        raise SettingsError(
            f"{file} leads out of the project, and was left as it is.",
            remedy="Replace the link by a file, or leave --scope out.",
        )
    return file


def entry_in(client: Client, file: Path, name: str) -> bool | None:
    """Whether a client's file has a server of that name; None where the file cannot be read."""
    try:
        return _at(_values(client, _text(file, _read_file(file))), (*client.section, name)) is not None
    except (SettingsError, ValueError):
        return None


def _read_file(file: Path) -> bytes | None:
    try:
        content = _read(file)
    except OSError as exc:
        raise SettingsError(f"{file} cannot be read: {exc.strerror}.") from exc
    if content is not None and len(content) > _MAX_CLIENT_FILE:
        raise SettingsError(f"{file} holds more than {_MAX_CLIENT_FILE} bytes.")
    return content


def _read(file: Path) -> bytes | None:
    try:
        return read_regular(file, _MAX_CLIENT_FILE)
    except FileNotFoundError:
        return None


def _text(file: Path, content: bytes | None) -> str:
    try:
        return (content or b"").decode()
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise SettingsError(f"{file}:{line}: it is not UTF-8 text; nothing was changed.") from exc


def _edits(client: Client) -> Any:
    return toml_edits if client.form == "toml" else jsonc


def _values(client: Client, text: str) -> dict[str, Any]:
    """What a file holds.

    Raises:
        ValueError: it is malformed.
    """
    if client.form == "toml":
        import tomllib

        return tomllib.loads(text)
    return jsonc.parse_object(text)


def _malformed(client: Client, file: Path, exc: ValueError) -> SettingsError:
    remedy = f"Fix it, or open it in {client.title}, which shows what it makes of it."
    if isinstance(exc, jsonc.MalformedError):
        return SettingsError(f"{file}:{exc.line}:{exc.column}: {exc}; nothing was changed.", remedy=remedy)
    # tomllib's messages end with the line and the column.
    return SettingsError(f"{file} cannot be edited: {exc}; nothing was changed.", remedy=remedy)


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return None
        values = values[name]
    return values


def _with(values: dict[str, Any], path: tuple[str, ...], entry: dict[str, Any]) -> dict[str, Any]:
    whole = copy.deepcopy(values)
    place = whole
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = entry
    return whole


def _without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    whole = copy.deepcopy(values)
    place = _at(whole, path[:-1])
    if isinstance(place, dict):
        place.pop(path[-1], None)
    return whole


def _without_empty(values: dict[str, Any], client: Client) -> dict[str, Any]:
    """Without the object of a client's servers where that is empty: TOML has no table without content."""
    empty = not _at(values, client.section)
    return _without(values, client.section) if empty else values


def _replace(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(descriptor)
            with suppress(FileNotFoundError):
                found = target.stat()
                if hasattr(os, "fchmod"):
                    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
                if hasattr(os, "fchown") and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, found.st_uid, found.st_gid)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
