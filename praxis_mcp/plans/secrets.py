"""Secrets: looked up by name when a call is planned, masked in everything that leaves.

They are masked in the ways in which programs that mean no harm write them out: as they are, escaped in JSON (also in
JSON that a JSON text holds), in a URL, in XML, and inside of something in Base64. A program that means harm can always
write a secret in a way of its own; nothing here promises anything against that.
"""

from __future__ import annotations

import base64
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.discovery import read_bytes
from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.base import SecretRef, TextOrSecret
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import SecretSource
from praxis_mcp.support.installation import install_command

MASK = "***"
MAX_SECRET_FILE = 64 * 1024
"""Bytes of a secret in a file."""
SHORTEST = 4
"""Characters of a secret. A shorter one is refused: masked it would blot out ordinary text, unmasked it would leak."""
_MOST_LEARNT = 8
_COMPARED = 64
"""Characters of a secret that may be compared at every byte of an output."""


_LEVELS = 3
"""How deep JSON texts inside of JSON texts are known."""
_SHORTEST_BASE64 = 8
"""Characters of Base64 below which a match would be chance: a secret of 7 bytes has as many, wherever it begins."""
_HEAD = 16
"""Characters of a secret that are looked for by a compiled pattern; the rest is compared where those were found."""
_PART = 16
"""Bytes of a literal that are one of its units."""
_MAX_SPELLED_CHARACTER = 64
"""Bytes that no way of writing one character takes."""
_SHORT_ESCAPES = {"\b": b"\\b", "\f": b"\\f", "\n": b"\\n", "\r": b"\\r", "\t": b"\\t"}
_ENTITIES = {"&": b"&amp;", "<": b"&lt;", ">": b"&gt;", '"': b"&quot;", "'": b"&apos;"}

NOT_HERE = -1
CUT = -2
"""The data ends before it is clear."""

Unit = tuple[tuple[bytes, ...], tuple[bytes, ...]]
"""How one character may be written: exactly so, or so with letters of either case (given in lower case). None begins
another, so that there is one way to read any data."""


def resolve_secret(name: str, settings: Settings, tool: str) -> str:
    """The value of a secret: from its source in the settings, else from the environment. It may be empty.

    Raises:
        SettingsError: it is nowhere to be found, or too short to be masked; never shows a value.
    """
    value = _look_up(name, settings, tool)
    if 0 < len(value) < SHORTEST:
        raise SettingsError(
            f'{tool} needs the secret "{name}", but it has fewer than {SHORTEST} characters: too few to be masked.',
            remedy="Give it a longer value; what is not secret can be written as plain text instead.",
        )
    return value


def resolve_values(
    values: Mapping[str, TextOrSecret], settings: Settings, tool: str, hidden: list[str]
) -> Iterator[tuple[str, str]]:
    """Variables or headers with the values of their secrets, which are added to `hidden`.

    Raises:
        SettingsError: see `resolve_secret`.
    """
    for name, value in values.items():
        if isinstance(value, SecretRef):
            value = resolve_secret(value.secret, settings, tool)
            hidden.append(value)
        yield name, value


def resolve_headers(
    headers: Mapping[str, TextOrSecret],
    auth_token: TextOrSecret | None,
    settings: Settings,
    tool: str,
    hidden: list[str],
) -> dict[str, str]:
    """The same of HTTP headers, a bearer token among them."""
    found = dict(resolve_values(headers, settings, tool, hidden))
    if auth_token is not None:
        ((_, token),) = resolve_values({"token": auth_token}, settings, tool, hidden)
        found["Authorization"] = f"Bearer {token}"
    return found


def _look_up(name: str, settings: Settings, tool: str) -> str:
    source = settings.secrets.get(name)
    if source is None:
        value = os.environ.get(name)
        if value is None:
            raise SettingsError(
                f'{tool} needs the secret "{name}", which is neither in the settings nor in the environment.',
                remedy=f"Set {name} in the server's environment, or name a source under secrets: in the settings.",
            )
        return value
    return read_source(name, source)


def read_source(name: str, source: SecretSource) -> str:
    """The value of a secret that a source has. It may be empty.

    Args:
        name: what messages call it.
        source: where it is.

    Raises:
        SettingsError: it cannot be read; never shows a value.
    """
    if source.env is not None:
        value = os.environ.get(source.env)
        if value is None:
            raise SettingsError(f'The secret "{name}" comes from the environment variable {source.env}, not set.')
        return value
    if source.file is not None:
        return _from_file(name, source.file)
    return _from_keyring(name, source.keyring or "")


def _from_file(name: str, file: Path) -> str:
    try:
        content = read_bytes(file)  # of a regular file only: a pipe's writer may never come
        if len(content) > MAX_SECRET_FILE:
            raise SettingsError(f'The secret "{name}" in {file} is larger than {MAX_SECRET_FILE // 1024} KiB.')
        return content.decode("utf-8").rstrip("\n")
    except OSError as exc:
        raise SettingsError(f'The secret "{name}" cannot be read from {file}: {exc.strerror}.') from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f'The secret "{name}" in {file} is not UTF-8 text.') from exc


def _from_keyring(name: str, place: str) -> str:
    service, _, user = place.partition("/")
    try:
        import keyring  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise SettingsError(
            f'The secret "{name}" comes from the system\'s keyring, which needs the package keyring.',
            remedy=f"Install it: {install_command('keyring')}",
        ) from exc
    try:
        value = keyring.get_password(service, user)
    except Exception as exc:
        raise SettingsError(
            f'The keyring did not give the secret "{name}" ({type(exc).__name__}).',
            remedy="Unlock it, or name an environment variable or a file for the secret in the settings.",
        ) from exc
    if value is None:
        raise SettingsError(f'The keyring has no entry "{service}" for "{user}" (the secret "{name}").')
    return value


class Masker:
    """Replaces secret values by `MASK`, in text, bytes and JSON, in each of their `spellings`. Of secrets that overlap,
    all is masked."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._given = secrets
        self._learnt: deque[str] = deque(maxlen=_MOST_LEARNT)
        self._use()

    def learn(self, secret: str) -> None:
        """One more secret, such as a token that was given out only now. Of these the last few are known."""
        if secret not in self._learnt:
            self._learnt.append(secret)
            self._use()

    def _use(self) -> None:
        usable = {secret for secret in (*self._given, *self._learnt) if len(secret) >= SHORTEST}
        self.spellings = tuple(spelling for secret in sorted(usable) for spelling in spellings(secret))

    def __bool__(self) -> bool:
        return bool(self.spellings)

    def text(self, value: str) -> str:
        """`value` with every secret masked."""
        if not self.spellings:
            return value
        return self.data(value.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def json(self, value: Any) -> Any:
        """A value of JSON with every secret masked, in names as well."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        return value

    def data(self, value: bytes) -> bytes:
        """`value` with every secret masked."""
        return MaskedStream(self).feed(value, last=True)


class MaskedStream:
    """Masks a stream piece by piece, with the same result wherever the pieces end.

    What may yet turn out to be a secret, or the beginning of a longer one, is held back as it came: masked too early,
    ``abcd`` of ``abcd1234`` would let ``1234`` through. Nothing else is, so that a line of progress arrives at once.
    """

    def __init__(self, masker: Masker) -> None:
        self._spellings = masker.spellings
        self._held = b""
        self._covered = 0
        """Bytes at the beginning of what is held that a mask stands for already."""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take in the next piece.

        Args:
            data: the piece.
            last: whether the stream ends with it.

        Returns:
            What can be passed on of all that came, masked.
        """
        if not self._spellings:
            return data
        whole = self._held + data
        found, ready = self._found(whole, last=last)
        passed: list[bytes] = []
        end = self._covered
        for start, stop in found:
            if start >= ready:
                break
            if start >= end:
                passed += (whole[end:start], MASK.encode())
            end = max(end, stop)
        passed.append(whole[end:ready])
        self._held, self._covered = whole[ready:], max(0, end - ready)
        return b"".join(passed)

    def _found(self, whole: bytes, *, last: bool) -> tuple[list[tuple[int, int]], int]:
        """Where secrets begin and end, and up to where that is clear."""
        places: list[tuple[int, int]] = []
        ready = len(whole)
        for spelling in self._spellings:
            if spelling.mark and spelling.mark not in whole:
                continue
            compared = len(whole) * 16 + MAX_SECRET_FILE
            for start in spelling.starts(whole):
                end, number = spelling.read(whole, start)
                compared -= number
                if compared < 0 and len(spelling.units) > _COMPARED:
                    # A long secret that repeats itself ("aaaa…") in an output made of its parts: to look at each
                    # place would take minutes. All of it is masked.
                    return [(0, len(whole))], len(whole)
                if end >= 0:
                    places.append((start, end))
                elif end == CUT and not last:
                    ready = min(ready, start)
                    break
        if not last:
            ready = min([ready, *(spelling.cut_at(whole) for spelling in self._spellings)])
        return sorted(places), ready


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way of writing one secret.

    Attributes:
        units: its characters.
        mark: what the data must hold for this way to be used at all; empty is anything.
        head: finds where its first characters are.
        first: finds where its first byte is.
        reach: bytes that the first characters take at most.
    """

    units: tuple[Unit, ...]
    mark: bytes
    head: re.Pattern[bytes]
    first: re.Pattern[bytes]
    reach: int

    @classmethod
    def of(cls, units: tuple[Unit, ...], mark: bytes = b"") -> Spelling:
        """The spelling of these characters."""
        begin = units[:_HEAD]
        ways = [_pattern(exact, either) for exact, either in begin]
        firsts = {re.escape(written[:1]) for written in (*begin[0][0], *begin[0][1])}
        reach = sum(max(len(written) for written in (*exact, *either)) for exact, either in begin)
        return cls(units, mark, re.compile(b"".join(ways)), re.compile(b"|".join(sorted(firsts))), reach)

    def starts(self, data: bytes) -> Iterator[int]:
        """Where it may begin in `data`: where its first characters are, whole."""
        found = self.head.search(data)
        while found is not None:
            yield found.start()
            found = self.head.search(data, found.start() + 1)

    def end(self, data: bytes, start: int) -> int:
        """Where it ends that begins at `start`; `NOT_HERE`; or `CUT`, where that is not clear yet."""
        return self.read(data, start)[0]

    def read(self, data: bytes, start: int) -> tuple[int, int]:
        """The same, and how many of its characters were compared."""
        for number, (exact, either) in enumerate(self.units):
            for written in exact:
                if data.startswith(written, start):
                    start += len(written)
                    break
            else:
                for written in either:
                    if data[start : start + len(written)].lower() == written:
                        start += len(written)
                        break
                else:
                    rest = data[start : start + _MAX_SPELLED_CHARACTER]
                    is_cut = len(rest) < _MAX_SPELLED_CHARACTER and _is_cut(rest, exact, either)
                    return CUT if is_cut else NOT_HERE, number
        return start, len(self.units)

    def cut_at(self, data: bytes) -> int:
        """Where the end of `data` may be the beginning of it, within its first characters; the length of `data` where
        it cannot be."""
        for found in self.first.finditer(data, max(0, len(data) - self.reach)):
            if self.end(data, found.start()) == CUT:
                return found.start()
        return len(data)


def _pattern(exact: tuple[bytes, ...], either: tuple[bytes, ...]) -> bytes:
    ways = [*map(re.escape, exact), *(b"(?i:%s)" % re.escape(written) for written in either)]
    return b"(?:%s)" % b"|".join(ways)


def _is_cut(rest: bytes, exact: tuple[bytes, ...], either: tuple[bytes, ...]) -> bool:
    return any(written.startswith(rest) for written in exact) or any(
        written.startswith(rest.lower()) for written in either
    )


@lru_cache(maxsize=64)
def spellings(secret: str) -> tuple[Spelling, ...]:
    """Every way of writing a secret that is looked for. Longer than a moment for a long one, so that it is kept."""
    found = [_literal(text) for text in dict.fromkeys([*_raw(secret), *_in_base64(secret)])]
    known: dict[str, list[Unit]] = {}
    for character in set(secret):
        known[character] = [*_in_json(character), _in_url(character), _in_xml(character)]
    marks = [*[b"\\"] * _LEVELS, b"%" if " " not in secret else b"", b"&"]
    found += [Spelling.of(tuple(known[each][way] for each in secret), mark) for way, mark in enumerate(marks)]
    return tuple(found)


def _raw(text: str) -> Iterator[bytes]:
    # As bytes that are not UTF-8 come out of a process, and as a string with what stands for them is written.
    for way in ("surrogateescape", "surrogatepass"):
        yield text.encode(errors=way)


def _literal(text: bytes) -> Spelling:
    parts = [text[at : at + _PART] for at in range(0, len(text), _PART)]
    return Spelling.of(tuple(((part,), ()) for part in parts))


def _in_json(character: str) -> list[Unit]:
    """At each level; a level escapes once more what the one before has escaped."""
    units = character.encode("utf-16-be", errors="surrogatepass")
    numbered = b"".join(b"\\u%s" % units[at : at + 2].hex().encode() for at in range(0, len(units), 2))
    exact = set() if character == "\\" else set(_raw(character))
    if character in _SHORT_ESCAPES:
        exact.add(_SHORT_ESCAPES[character])
    elif character.isascii() and not character.isalnum() and character.isprintable():
        exact.add(b"\\" + character.encode())  # JSON has \" \\ and \/; shells and Python have others
    either = {numbered}
    levels: list[Unit] = [(tuple(sorted(exact)), tuple(either))]
    for _ in range(_LEVELS - 1):
        exact = {_escaped(written) for written in exact}
        either = {_escaped(written) for written in either} | ({numbered} if not character.isascii() else set())
        levels.append((tuple(sorted(exact)), tuple(sorted(either))))
    return levels


def _escaped(written: bytes) -> bytes:
    return written.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n").replace(b"\t", b"\\t")


def _in_url(character: str) -> Unit:
    exact = () if character in "%+" else tuple(dict.fromkeys(_raw(character)))
    numbered = {b"".join(b"%%%02x" % byte for byte in written) for written in _raw(character)}
    return ((*exact, b"+") if character == " " else exact, tuple(sorted(numbered)))


def _in_xml(character: str) -> Unit:
    exact = () if character == "&" else tuple(dict.fromkeys(_raw(character)))
    number = ord(character)
    named = (_ENTITIES[character],) if character in _ENTITIES else ()
    return (*exact, *named, b"&#%d;" % number, b"&#0%d;" % number), (b"&#x%x;" % number,)


def _in_base64(secret: str) -> Iterator[bytes]:
    """What it is sure to be inside of longer data: what depends on its neighbours is left out."""
    data = secret.encode(errors="surrogatepass")
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        sure = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        if len(sure) >= _SHORTEST_BASE64:
            yield sure
            yield sure.translate(bytes.maketrans(b"+/", b"-_"))
