"""What the command line writes can be written, whatever the encoding of the terminal or the pipe lacks."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO

_HANDLER = "praxis_mcp.look_alike"
_LOOK_ALIKES = {
    "✓": "+", "✗": "x", "→": "->", "←": "<-", "…": "~", "·": "-", "•": "*", "×": "x", "≥": ">=", "≤": "<=",  # noqa: RUF001
    "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ",  # noqa: RUF001
}  # fmt: skip
_DRAWN = (("\u2500", "\u2501", "-"), ("\u2502", "\u2503", "|"), ("\u2504", "\u259f", "+"), ("\u2800", "\u28ff", "*"))
"""Ranges of lines, corners and spinners, and what stands for each of their characters."""


def have_standard_streams() -> None:
    """Have the null device where standard input, output or error came closed: else the next
    file or socket that is opened takes that number, and gets what is written to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as we live


def write_in_any_encoding() -> None:
    """Have standard output and error write a look-alike for what their encoding lacks, rather than raise.

    A handler that the user chose (``PYTHONIOENCODING=…:replace``) stays.
    """
    codecs.register_error(_HANDLER, _look_alike)
    for stream, usual in ((sys.stdout, ("strict", "surrogateescape")), (sys.stderr, ("strict", "backslashreplace"))):
        reconfigure = getattr(stream, "reconfigure", None)  # None where there is no stream, or a test stands in for it
        if reconfigure is not None and stream.errors in usual:
            reconfigure(errors=_HANDLER)


def can_write(text: str, stream: TextIO) -> bool:
    """Whether the stream's encoding has every character."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_ascii(character) for character in error.object[error.start : error.end])
    return text, error.end


def _ascii(character: str) -> str:
    known = _LOOK_ALIKES.get(character)
    if known is not None:
        return known
    for first, last, instead in _DRAWN:
        if first <= character <= last:
            return instead
    return character.encode("ascii", "backslashreplace").decode()
