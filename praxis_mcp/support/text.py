"""What others sent (upstreams, contracts, images, daemons, clients, tools), made safe to show and to pass on; and
numbers with their nouns.

The one place that decides which characters never reach a log, a terminal or a model's list of tools as they are: those
that steer a terminal (ESC and the other controls of C0 and C1), end a line where a reader does not expect it, or cannot
be seen (format and bidirectional controls, zero-width and tag characters, fillers). They are shown by their numbers, so
that what a person reads, and approves, is what is there.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_UNSEEN = (
    # Unicode's category Cf but for the signs in it that are seen (U+0600 to U+0605, U+06DD, U+070F, U+0890, U+0891,
    # U+08E2, U+110BD, U+110CD), and but for the joiners, for which see `_JOINERS`.
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    # What is blank, or chooses a form of a character, by its property Default_Ignorable_Code_Point.
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufff0-\ufff8\U000e0080-\U000e0fff"
)
_JOINERS = "\u200c\u200d\ufe00-\ufe0f"
"""Joiners and forms that emoji, Persian and Indic texts are written with: one, or a form and a joiner, behind a
character that is not ASCII stays. Behind anything else, or in a row, they can only hide something."""
_KEYCAP = "(?<=[0-9#*])\ufe0f(?=\u20e3)"
_JOINED = (
    rf"{_KEYCAP}|(?<=[^\x00-\x7f{_CONTROLS}{_UNSEEN}{_JOINERS}])(?:[\ufe00-\ufe0f]?[\u200c\u200d]|[\ufe00-\ufe0f])"
)
_ODD = re.compile(rf"({_JOINED})(?![{_JOINERS}])|[{_CONTROLS}{_UNSEEN}{_JOINERS}]")
_WORD = re.compile(r"[!#-<>-~]+")
"""What stands without quotation marks: printable ASCII but for blanks, ``"`` and ``=``."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """`text` as one line that shows all that is in it: ``\\n``, ``\\x1b``, ``\\u202e``, ``\\U000e0041``."""
    # Most text is plain, and asking costs little.
    return text if text.isascii() and text.isprintable() else _ODD.sub(_numbered, text)


def visible(text: str) -> str:
    """The same for text of several lines: line feeds and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "\n".join("\t".join(printable(part) for part in line.split("\t")) for line in _lines(text))


def unseen(text: str) -> tuple[str, ...]:
    """What `visible` shows by number, each once, such as ``\\u202e``; empty for honest text."""
    found = (_numbered(match) for line in _lines(text) for match in _ODD.finditer(line.replace("\t", " ")))
    return tuple(dict.fromkeys(escape for escape in found if escape.startswith("\\")))


def as_field(value: str) -> str:
    """The value of ``name=value`` in a line: as it is, in quotation marks, or ``-``: no name of others adds a field."""
    return value if _WORD.fullmatch(value) else json.dumps(value, ensure_ascii=False) if value else "-"


def counted(number: float, noun: str, plural: str | None = None, *, form: str = "") -> str:
    """A number with its noun: ``1 error``, ``2 errors``, ``0 errors``.

    Args:
        number: how many.
        noun: of one.
        plural: of any other number; None is `noun` with an s.
        form: how the number is written, as for `format`.
    """
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"


def size_in_words(number: float) -> str:
    """A number of bytes for people: ``64 MiB``."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return counted(number, "byte", form=",")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")


def _numbered(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    character = match[0]
    number = ord(character)
    if number < 0x100:
        return _NAMED.get(character) or f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


_LINE_ENDS = tuple((character.encode(), f"\\u{ord(character):04x}".encode()) for character in "\u0085\u2028\u2029")


def escape_line_ends(message: bytes) -> bytes:
    """The same JSON, as UTF-8, on one line for every reader of lines.

    JSON allows U+0085, U+2028 and U+2029 unescaped in a string, and Python's ``str.splitlines``, Node's and C#'s line
    readers and others end a line at them: a message that holds one reaches such a client as two halves. The other
    characters that some reader splits at (U+000A to U+000D, U+001C to U+001E) are below U+0020, which JSON always
    escapes. These three occur in strings only, and never after a backslash, so each can be escaped where it is.
    """
    for raw, escaped in _LINE_ENDS:
        message = message.replace(raw, escaped)
    return message


T = TypeVar("T")

NOT_FINITE = "holds a number that JSON cannot carry, such as 1e999 or NaN"
"""Of a value with a number that JSON can write and Python cannot hold: ``1e999`` is read as an infinity, and would be
sent on as null."""


def all_finite(value: Any) -> bool:
    """Whether every number in a value of JSON is finite. Without recursion, so that no depth is too much."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, list):
            todo += part
        elif isinstance(part, float) and not math.isfinite(part):
            return False
    return True


def finite(value: T) -> T:
    """A value of JSON in which numbers that are not finite are text, as ``Infinity``; the same object where there are
    none. For what only describes: where a number means something, refuse what is not `all_finite`."""
    return value if all_finite(value) else _spelled(value)


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_spelled(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value
