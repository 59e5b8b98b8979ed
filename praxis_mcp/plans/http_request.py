"""Arguments → an HTTP request. No value becomes more than its place: another segment of the path, parameter of the
query, header or host."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from praxis_mcp.contracts.http_places import place_of
from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.specs import URL_PLACE, HttpEngineSpec
from praxis_mcp.contracts.values import BindKind
from praxis_mcp.errors import ArgumentError, SettingsError
from praxis_mcp.plans.secrets import resolve_headers, resolve_values
from praxis_mcp.settings.model import Settings

MAX_URL = 16 * 1024
"""Bytes of a URL with its arguments: most servers take 8 KiB."""
MAX_BODY = 16 * 1024 * 1024
_SECRET = secrets.token_bytes(32)
"""Of this process, for boundaries: each is of one content alone, so that what an API tells of one forges no part of
another, and plans of equal calls stay equal."""
_MOST_DEPTH_OF_MEMBERS = 32
_LONGEST_MEMBER_NAME = 1024
"""Of a member of an object in depth: characters, those around it included."""
_IN_HEADER = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_CONTENT_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}


@dataclass(slots=True)
class HttpRequest:
    """A request, whole but for its method.

    Attributes:
        url: with the query.
        headers: by name.
        body: None where it has no body.
    """

    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)


def build_request(
    contract: ToolContract,
    spec: HttpEngineSpec,
    arguments: Mapping[str, Any],
    settings: Settings,
    hidden: list[str],
) -> HttpRequest:
    """The request of a call.

    Args:
        contract: the tool.
        spec: its specification.
        arguments: validated, defaults applied.
        settings: where secrets come from.
        hidden: gets the values of secrets.

    Raises:
        ArgumentError: a value cannot be carried; every such value is named.
        SettingsError: a secret cannot be found, or cannot stand in a header.
    """
    path: dict[str, str] = {}
    query = list(resolve_values(spec.query, settings, contract.name, hidden))
    headers = _fixed_headers(contract, spec, settings, hidden)
    parts: dict[str, Any] = {}
    files: set[str] = set()
    has_body = False
    problems: list[str] = []
    for parameter in contract.parameters:
        kind, name = place_of(parameter, spec)
        has_body = has_body or kind is BindKind.BODY
        if parameter.name not in arguments:
            continue
        value = arguments[parameter.name]
        try:
            if kind is BindKind.BODY and parameter.bind.deep:
                parts |= _grouped(_members(name, value, MAX_BODY))
            elif kind is BindKind.BODY:
                parts[name] = value
                if "base64" in (parameter.keywords.get("contentEncoding"), _encoding_of_items(parameter)):
                    files.add(name)
            elif value is None:
                continue
            elif kind is BindKind.PATH:
                path[name] = _segment(_joined(value))
            elif kind is BindKind.QUERY:
                items = value if parameter.bind.repeat and isinstance(value, list) else [value]
                pairs = _members(name, value, MAX_URL) if parameter.bind.deep else ((name, item) for item in items)
                query += [(key, _encodable(_joined(item))) for key, item in pairs]
            else:
                headers[name] = _header(_joined(value))
        except ValueError as exc:
            problems.append(f'"{parameter.name}" {exc}')
    lacking = [name for name in URL_PLACE.findall(urlsplit(spec.url).path) if name not in path]
    if lacking and not problems:
        problems = [f'"{name}" is a part of the path, and cannot be null' for name in lacking]
    body: bytes | None = None
    content_type = ""
    if not problems:
        try:
            if has_body and (parts or spec.method in ("POST", "PUT", "PATCH")):
                body, content_type = _body(spec.body, parts, files)
        except ValueError as exc:
            problems.append(f"the body {exc}")
    url = _url(spec.url, path, query) if not problems else ""
    if len(url) > MAX_URL:
        problems.append(f"the URL would have more than {MAX_URL // 1024} KiB")
    if problems:
        raise ArgumentError(f"{contract.name} cannot take these arguments: {'; '.join(problems)}.", problems=problems)
    if body is not None and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = content_type
    return HttpRequest(url, headers, body)


def _fixed_headers(
    contract: ToolContract, spec: HttpEngineSpec, settings: Settings, hidden: list[str]
) -> dict[str, str]:
    headers = resolve_headers(spec.headers, spec.auth_token, settings, contract.name, hidden)
    if spec.basic_user is not None and spec.basic_password is not None:
        pair = {"user": spec.basic_user, "password": spec.basic_password}
        values = dict(resolve_values(pair, settings, contract.name, hidden))
        both = base64.b64encode(f"{values['user']}:{values['password']}".encode()).decode("ascii")
        hidden.append(both)
        headers["Authorization"] = f"Basic {both}"
    for name, value in headers.items():
        if not _IN_HEADER.fullmatch(value):
            raise SettingsError(
                f"{contract.name} cannot send its header {name}: the value has characters that no header can carry.",
                remedy="Remove line breaks and letters beyond ASCII from it, or from the secret in it.",
            )
    return headers


def _url(template: str, path: Mapping[str, str], query: list[tuple[str, str]]) -> str:
    parts = urlsplit(template)
    filled = URL_PLACE.sub(lambda found: path[found[1]], parts.path) or "/"
    added = urlencode(query, quote_via=quote, safe="")
    return urlunsplit((parts.scheme, parts.netloc, filled, "&".join(filter(None, (parts.query, added))), ""))


def _segment(text: str) -> str:
    if not text:
        raise ValueError("is empty, and would be another path")
    if any(part in (".", "..") for part in re.split(r"[/\\]", text)):
        raise ValueError('holds "." or ".." as a part of a path, which would be another one')
    if any(ord(character) < 0x20 or character == "\x7f" for character in text):
        raise ValueError("holds control characters")
    return quote(_encodable(text), safe="")


def _header(text: str) -> str:
    if not _IN_HEADER.fullmatch(text):
        raise ValueError("holds what no header can carry: line breaks, letters beyond ASCII, or blanks around it")
    return text


def _joined(value: Any) -> str:
    """Text as it is; a list of plain items with commas between, as OpenAPI's style "simple" has it; else JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ",".join(_joined(item) for item in value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"is not valid Unicode (a lone surrogate at character {exc.start})") from exc
    return text


def _encoding_of_items(parameter: ToolParameter) -> Any:
    items = parameter.keywords.get("items")
    return items.get("contentEncoding") if isinstance(items, Mapping) else None


def _members(name: str, value: Any, most: int) -> list[tuple[str, Any]]:
    """``a[b]=1``, ``a[]=1``; ``a[0][b]=1`` in an array of objects, whose members would mix otherwise.

    Raises:
        ValueError: a name would be read as that of another member, or the names have more than `most` characters.
    """
    found: list[tuple[str, Any]] = []
    for key, item in _below(name, value, _MOST_DEPTH_OF_MEMBERS):
        most -= len(key)
        if most < 0:
            raise ValueError("has too many members")
        found.append((_encodable(key), item))
    return found


def _below(name: str, value: Any, levels: int) -> Iterator[tuple[str, Any]]:
    if len(name) > _LONGEST_MEMBER_NAME or not levels:
        raise ValueError("has members that are too deep, or whose names are too long")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not key or "[" in key or "]" in key:
                raise ValueError("has a name that is empty or holds brackets, which would be that of another member")
            yield from _below(f"{name}[{key}]", item, levels - 1)
    elif isinstance(value, list):
        is_plain = not any(isinstance(item, list | Mapping) for item in value)
        for index, item in enumerate(value):
            yield from _below(f"{name}[{'' if is_plain else index}]", item, levels - 1)
    elif value is not None:
        yield name, value


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def _body(form: str, parts: Mapping[str, Any], files: Collection[str]) -> tuple[bytes, str]:
    """The body, and its Content-Type."""
    fields = [
        (name, item)
        for name, value in parts.items()
        for item in (value if isinstance(value, list) else [value])
        if item is not None
    ]
    if form == "text":
        content = _encodable(_joined(parts.get("", ""))).encode()
    elif form == "form":
        content = urlencode([(_encodable(name), _encodable(_joined(item))) for name, item in fields]).encode()
    elif form == "multipart":
        return _multipart(fields, files)
    else:
        value = parts[""] if "" in parts else dict(parts)
        content = _encodable(json.dumps(value, ensure_ascii=False)).encode()
    if len(content) > MAX_BODY:
        raise _too_large()
    return content, _CONTENT_TYPES[form]


def _too_large() -> ValueError:
    return ValueError(f"would have more than {MAX_BODY // 1024**2} MiB")


def _multipart(fields: Iterable[tuple[str, Any]], files: Collection[str]) -> tuple[bytes, str]:
    whole = hashlib.blake2b(key=_SECRET, digest_size=24)
    found: list[bytes] = []
    left = MAX_BODY
    for name, item in fields:
        part = _part(name, item, is_file=name in files)
        left -= len(part) + 2 * whole.digest_size + len(b"--\r\n\r\n")
        if left < 0:
            raise _too_large()
        whole.update(b"%d %b" % (len(part), part))
        found.append(part)
    boundary = whole.hexdigest()
    content = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in found)
    return content + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _part(name: str, value: Any, *, is_file: bool) -> bytes:
    """One field of a form in parts, escaped as HTML has it (section 4.10.21.8)."""
    label = _encodable(name).replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'Content-Disposition: form-data; name="{label}"'
    if is_file:
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError) as exc:
            raise ValueError(f'has a file "{name[:64]}" that is not base64') from exc
        head += f'; filename="{label}"\r\nContent-Type: application/octet-stream'
    else:
        data = _encodable(_joined(value)).encode()
        head += "\r\nContent-Type: application/json" if isinstance(value, dict | list) else ""
    return f"{head}\r\n\r\n".encode() + data
