"""The ways in which a secret is written out by programs that mean no harm: as it is, escaped in JSON (also in JSON that
a JSON text holds), in a URL, in XML, and inside of something in Base64.

A program that means harm can always write a secret in a way of its own; nothing here promises anything against that.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

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
