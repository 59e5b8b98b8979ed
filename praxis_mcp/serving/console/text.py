"""What a run wrote, as text that a page can show: bounded, without colours, and with nothing that could hide from a
reader's eyes."""

from __future__ import annotations

import codecs
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praxis_mcp.serving.mcp.media import decode_text
from praxis_mcp.support.rooted import open_kept
from praxis_mcp.support.text import visible

END_SHOWN = 32 * 1024
"""Bytes that are shown of the beginning of a stream, and of its end; what is between is left out."""
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stream as it is shown.

    Attributes:
        size: bytes of all of it.
        head, tail: text; the tail is empty where the head is all.
        left_out: bytes between the two.
        is_text: whether it is text at all.
        is_gone: whether its file is no longer there.
    """

    size: int = 0
    head: str = ""
    tail: str = ""
    left_out: int = 0
    is_text: bool = True
    is_gone: bool = False


def excerpt(source: bytes | Path) -> Excerpt:
    """Beginning and end of a stream. Blocks."""
    try:
        size, head, tail = _ends(source)
    except OSError:
        return Excerpt(is_gone=True)
    left_out = size - len(head) - len(tail)
    text = decode_text(head, cut=bool(tail))
    end = decode_text(tail, begun=True) if tail else ""
    if text is None or end is None:
        return Excerpt(size, is_text=False)
    return Excerpt(size, readable(text), readable(end), left_out)


def readable(text: str) -> str:
    """Text of a program for a page: colours are left out, other controls shown by number."""
    return visible(_COLOURS.sub("", text))


def json_text(value: Any, most: int) -> tuple[str, bool]:
    """A value as indented JSON, and whether there is more of it: 256 KiB that are nested 900 deep would become 200 MB.

    Args:
        value: of JSON; anything else in it is written as text.
        most: characters.
    """
    pieces: list[str] = []
    length = 0
    try:
        for piece in json.JSONEncoder(indent=2, ensure_ascii=False, default=str).iterencode(value):
            pieces.append(piece)
            length += len(piece)
            if length > most:
                return "".join(pieces)[:most], True
    except RecursionError:
        return "".join(pieces), True
    return "".join(pieces), False


class LiveText:
    """Pieces of a stream of bytes, one after the other, as text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, data: bytes) -> str:
        """The text of one more piece."""
        return readable(self._decoder.decode(data))


def _ends(source: bytes | Path) -> tuple[int, bytes, bytes]:
    if isinstance(source, bytes):
        size = len(source)
        if size <= 2 * END_SHOWN:
            return size, source, b""
        return size, source[:END_SHOWN], source[-END_SHOWN:]
    with open_kept(source) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= 2 * END_SHOWN:
            return size, file.read(2 * END_SHOWN), b""
        head = file.read(END_SHOWN)
        file.seek(size - END_SHOWN)
        return size, head, file.read(END_SHOWN)
