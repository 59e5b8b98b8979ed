"""Byte streams of layers: measured, bounded, hashed on the way, decompressed by what their first bytes say."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import zlib
from collections.abc import Callable
from typing import IO, Any, BinaryIO, cast

from praxis_mcp.errors import ImageError
from praxis_mcp.support.installation import adding

LAYER_PIECE = 64 * 1024
"""Bytes to read at once. Only tarfile asks for more, for a header's own data (long names, pax records), which it would
read into memory whole, however large an archive claims it to be, and search with patterns that take quadratic time
(CVE-2024-6232): refused."""

_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"


class Measured:
    """A stream that is only read forwards, hashed and counted.

    Args:
        source: what is read.
        limit: bytes; more is an error.
        what: named in errors.
        is_stopped: asked now and then; True ends the reading.

    Attributes:
        header: bytes that may still be read, other than by `seek`; None for any number. tarfile follows one header to
            the next, and keeps what they say, for as long as an archive goes on with them: its reader sets it.
    """

    def __init__(
        self, source: IO[bytes], limit: int, what: str, is_stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.header: int | None = None
        self._is_stopped = is_stopped
        self._source = source
        self._limit = limit
        self._what = what
        self._hash = hashlib.sha256()
        self._position = 0

    @property
    def digest(self) -> str:
        """``sha256:…`` of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int = -1) -> bytes:
        """As of a file, short only at the end; a read of more than `LAYER_PIECE` bytes is refused.

        Raises:
            ImageError: the stream is longer than its limit, damaged, or has a header that is too large; or the
                reading was stopped.
        """
        if not 0 <= size <= LAYER_PIECE or (self.header is not None and size > self.header):
            raise ImageError(f"{self._what} has a header that is too large.")
        data = self._take(size)
        if self.header is not None:
            self.header -= len(data)
        return data

    def _take(self, size: int) -> bytes:
        if self._is_stopped():
            raise cancelled()
        pieces: list[bytes] = []
        left = size
        try:
            while left > 0 and (piece := self._source.read(left)):
                pieces.append(piece)
                left -= len(piece)
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            raise ImageError(f"{self._what} is damaged or cut short: {exc}.") from exc
        data = b"".join(pieces)
        self._position += len(data)
        if self._position > self._limit:
            raise ImageError(
                f"{self._what} is larger than {self._limit} bytes.",
                remedy="Use a smaller image, or raise engines.sandbox.max_image_size in the settings.",
            )
        self._hash.update(data)
        return data

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        """Forwards only, by reading.

        Raises:
            ImageError: it would go back, which no sound archive makes a reader do.
        """
        left = position - self._position
        if whence != 0 or left < 0:
            raise ImageError(f"{self._what} is damaged.")
        while left > 0:
            data = self._take(min(left, LAYER_PIECE))
            if not data:
                break
            left -= len(data)
        return self._position

    def drain(self) -> None:
        """Read to the end."""
        while self.read(LAYER_PIECE):
            pass


def cancelled() -> ImageError:
    """The error about work that was stopped."""
    return ImageError("The image was not unpacked: that was cancelled.")


def decompressed(source: BinaryIO | Measured, what: str) -> IO[bytes]:
    """What a layer or archive holds, whichever compression it has.

    Raises:
        ImageError: the compression is unknown, or Python lacks it here.
    """
    first = source.read(6)
    whole = _Rejoined(first, source)
    if first.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=cast(Any, whole), mode="rb"))
    if first.startswith(_ZSTD):
        return _zstd(what)(whole)
    if first.startswith((_BZIP2, _XZ)):
        raise ImageError(
            f"{what} is compressed in a way that images do not use.", remedy="Decompress it first (xz -d, bzip2 -d)."
        )
    return cast(IO[bytes], whole)  # all that is asked of it is to read


def _zstd(what: str) -> Callable[[Any], IO[bytes]]:
    # In the standard library from Python 3.14; before, by a package that few need.
    for module, attribute in (("compression.zstd", "ZstdFile"), ("zstandard", "ZstdDecompressor")):
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ImportError:
            continue
        if attribute == "ZstdFile":
            return found
        return lambda source: found().stream_reader(source, read_across_frames=True)
    raise ImageError(
        f"{what} is compressed by zstd, which this Python cannot read.",
        remedy=f"Use Python 3.14, or install it: {adding('zstandard')}",
    )


class _Rejoined:
    """A stream whose first bytes were taken off already."""

    def __init__(self, first: bytes, rest: BinaryIO | Measured) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        size = (
            min(size, LAYER_PIECE) if size >= 0 else LAYER_PIECE
        )  # decompressors ask for more, and are content with less
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._rest.read(size)
