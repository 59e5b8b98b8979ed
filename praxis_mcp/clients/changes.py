"""A change of one client's file: worked out first, shown, then written in one step, or not at all."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from praxis_mcp.clients import Scope, jsonc, toml_edits
from praxis_mcp.clients.model import Client, Machine, Server, merged
from praxis_mcp.errors import SettingsError
from praxis_mcp.support.files import leads_out_of, read_regular, replace_bytes, state_home

_MAX_CLIENT_FILE = 64 * 1024 * 1024
"""Bytes of a client's file; Claude Code keeps its history in its own."""

_SECRET_SECTIONS = frozenset({"env", "environment", "headers", "http_headers"})
_REFERENCE = re.compile(r"\$\{|\{env:")
_MIN_SECRET = 8
"""Characters of a value, below which it is shown: ``1`` and ``debug`` keep nothing secret."""

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
        secrets: texts that are not shown.
    """

    client: Client
    file: Path
    kind: Kind
    before: bytes | None
    after: bytes
    secrets: tuple[str, ...] = ()

    def diff(self) -> str:
        """The change in the form of diff(1), without tokens, and without the values of other servers' variables and
        headers."""
        old, new = (content.decode().splitlines(keepends=True) for content in (self.before or b"", self.after))
        lines = difflib.unified_diff(old, new, str(self.file), str(self.file), n=2)
        text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
        if not self.secrets:
            return text
        # The longest first: one may be within another.
        return re.sub("|".join(map(re.escape, sorted(self.secrets, key=len, reverse=True))), "…", text)

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
                    f"{self.file} has just been changed by another program; it was left as it is.",
                    remedy=f"Close {self.client.title}, then run the command again.",
                )
            replace_bytes(target, self.after)
        except OSError as exc:
            where = exc.filename or target
            raise SettingsError(
                f"{where} cannot be written: {exc.strerror}; {self.file} was left as it is.",
                remedy="Make its directory writable for you, or do by hand what --dry-run shows.",
            ) from exc
        return kept

    def _keep(self) -> Path | None:
        base = state_home()
        if base is None:
            return None
        place = base / "clients"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = place / f"{sha256(os.fsencode(self.file)).hexdigest()[:8]}-{self.file.name}"
        replace_bytes(kept, self.before or b"")
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
        is_as_meant = _means(client, written, expected)
    except toml_edits.UnusualError as exc:
        raise _unsafe(client, file, name) from exc
    except (ValueError, RecursionError) as exc:
        raise _malformed(client, file, exc) from exc
    if not is_as_meant:
        raise _unsafe(client, file, name)
    token = (server.token,) if server is not None and server.token else ()
    after = written.encode() if written != text else before or b""
    return Change(client, file, kind, before, after, (*token, *_secrets_in(values)))


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
    if leads_out_of(project, file):
        raise SettingsError(
            f"{file} leads out of the project, and was left as it is.",
            remedy="Replace the link by a file, or leave --scope out.",
        )
    return file


def entry_in(client: Client, file: Path, name: str) -> bool | None:
    """Whether a client's file has a server of that name; None where the file cannot be read."""
    try:
        return _at(_values(client, _text(file, _read_file(file))), (*client.section, name)) is not None
    except (SettingsError, ValueError, RecursionError):
        return None


def _read_file(file: Path) -> bytes | None:
    try:
        content = _read(file)
    except OSError as exc:
        raise SettingsError(
            f"{file} cannot be read: {exc.strerror}; nothing was changed.",
            remedy="Remove what is in its place, or change its permissions: it has to be a file that you may read.",
        ) from exc
    if content is not None and len(content) > _MAX_CLIENT_FILE:
        raise SettingsError(
            f"{file} holds more than {_MAX_CLIENT_FILE} bytes; nothing was changed.", remedy="Make it smaller."
        )
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
        raise SettingsError(
            f"{file}:{line}: it is not UTF-8 text; nothing was changed.", remedy="Save it as UTF-8 in an editor."
        ) from exc


def _edits(client: Client) -> Any:
    return toml_edits if client.form == "toml" else jsonc


def _values(client: Client, text: str) -> dict[str, Any]:
    """What a file holds.

    Raises:
        ValueError: it is malformed.
    """
    if client.form == "toml":
        return toml_edits.parse(text)
    return jsonc.parse_object(text)


def _unsafe(client: Client, file: Path, name: str) -> SettingsError:
    return SettingsError(
        f"{file} is written in a way that cannot be edited safely; it was left as it is.",
        remedy=f"Edit the entry {name} in {'.'.join(client.section)} by hand.",
    )


def _means(client: Client, text: str, expected: dict[str, Any]) -> bool:
    """Whether an edited text holds what was meant."""
    try:
        return _without_empty(_values(client, text), client) == _without_empty(expected, client)
    except ValueError:
        return False


def _secrets_in(values: Mapping[str, Any]) -> Iterator[str]:
    """The values of variables and headers that a file holds, as they may stand in its text."""
    left: list[tuple[Any, bool]] = [(values, False)]
    while left:
        value, is_secret = left.pop()
        if isinstance(value, Mapping):
            left += [(item, is_secret or name in _SECRET_SECTIONS) for name, item in value.items()]
        elif isinstance(value, list):
            left += [(item, is_secret) for item in value]
        elif is_secret and isinstance(value, str) and len(value) >= _MIN_SECRET and not _REFERENCE.search(value):
            yield from (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])


def _malformed(client: Client, file: Path, exc: ValueError | RecursionError) -> SettingsError:
    remedy = f"Fix it, or open it in {client.title}, which shows what it makes of it."
    if isinstance(exc, jsonc.MalformedError):
        return SettingsError(f"{file}:{exc.line}:{exc.column}: {exc}; nothing was changed.", remedy=remedy)
    if isinstance(exc, RecursionError):
        return SettingsError(f"{file} nests brackets too deeply; nothing was changed.", remedy=remedy)
    # tomllib's messages end with the line and the column.
    return SettingsError(f"{file} cannot be edited: {exc}; nothing was changed.", remedy=remedy)


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return None
        values = values[name]
    return values


def _with(values: Mapping[str, Any], path: tuple[str, ...], entry: dict[str, Any]) -> dict[str, Any]:
    name, *inner = path
    return {**values, name: _with(values.get(name, {}), tuple(inner), entry) if inner else entry}


def _without(values: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    name, *inner = path
    if not inner:
        return {key: value for key, value in values.items() if key != name}
    place = values.get(name)
    return {**values, name: _without(place, tuple(inner))} if isinstance(place, Mapping) else dict(values)


def _without_empty(values: dict[str, Any], client: Client) -> dict[str, Any]:
    """Without the object of a client's servers where that is empty: TOML has no table without content."""
    empty = not _at(values, client.section)
    return _without(values, client.section) if empty else values
