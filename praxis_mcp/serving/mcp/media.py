"""What bytes are: text, an image, sound, or something else; decided by the bytes, never by a name alone."""

from __future__ import annotations

import codecs
import mimetypes

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What models and clients take as image content."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"OggS\0", "audio/ogg"),
    (b"fLaC\0", "audio/flac"),
    (b"ID3\x02", "audio/mpeg"),
    (b"ID3\x03", "audio/mpeg"),
    (b"ID3\x04", "audio/mpeg"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
)
_MPEG_FRAMES = (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}

_MOST_INVALID = 0.25
"""Part of invalid bytes up to which something is still text in another encoding, rather than binary."""
_TEXT_HEAD = 64 * 1024


def media_type(head: bytes) -> str | None:
    """The MIME type that the first bytes prove; None where they prove none."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[:2] in _MPEG_FRAMES:
        return "audio/mpeg"
    return next((mime for magic, mime in _MAGIC if head.startswith(magic)), None)


def mime_of_file(name: str, head: bytes) -> str:
    """The MIME type of a file: from its first bytes, else from its name, else from whether it is text."""
    proven = media_type(head)
    if proven is not None:
        return proven
    guessed, encoding = mimetypes.guess_type(name, strict=False)
    if guessed is not None and encoding is None:
        return guessed
    return "text/plain" if decode_text(head[:_TEXT_HEAD], cut=True) is not None else "application/octet-stream"


def decode_text(data: bytes, *, cut: bool = False, begun: bool = False) -> str | None:
    """The text that bytes are: UTF-8, or mostly UTF-8 with the rest replaced; None where they are binary.

    Args:
        data: the bytes.
        cut: they end anywhere, so that the last character may be incomplete; it is left out.
        begun: they begin anywhere, so that the first character may be incomplete; it is left out.
    """
    if begun:
        data = data[continuation_bytes(data) :]
    try:
        return codecs.getincrementaldecoder("utf-8")("strict").decode(data, final=not cut)
    except UnicodeDecodeError:
        pass
    if b"\0" in data:
        return None
    # Logs with one broken byte, and old tools that write Latin-1, are better read with a few marks than not at all.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=not cut)
    return text if text.count("\N{REPLACEMENT CHARACTER}") <= _MOST_INVALID * len(text) else None


def continuation_bytes(data: bytes) -> int:
    """How many of the first bytes belong to a character that began before them (at most three, RFC 3629)."""
    count = 0
    while count < min(3, len(data)) and data[count] & 0xC0 == 0x80:
        count += 1
    return count


def clean(text: str) -> str:
    """Text that JSON can carry: lone surrogates, which stand for invalid bytes in file names, are replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
