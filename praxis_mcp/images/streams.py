"""Byte streams of layers: bounded, hashed on the way, decompressed by what their first bytes say; and downloads of
them, which go on where they were cut short."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from praxis_mcp.errors import ImageError
from praxis_mcp.images.manifests import Descriptor
from praxis_mcp.support.installation import install_command

LAYER_PIECE = 64 * 1024
"""Bytes to read at once. Only tarfile asks for more, for a header's own data (long names, pax records), which it would
read into memory whole, however large an archive claims it to be, and search with patterns that take quadratic time
(CVE-2024-6232): refused."""

_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"


DOWNLOAD_PIECE = 1024 * 1024
PROGRESS_INTERVAL = 0.5
"""Seconds between two lines about one pull."""


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
            raise cancelled_error()
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


def cancelled_error() -> ImageError:
    """The error about work that was stopped."""
    return ImageError("The image was not unpacked: that was cancelled.")


def decompress(source: BinaryIO | Measured, what: str) -> IO[bytes]:
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
        remedy=f"Use Python 3.14, or install it: {install_command('zstandard')}",
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


class TryAgain(Exception):
    """The registry is busy: try after a pause, and raise `error` in the end."""

    def __init__(self, error: ImageError, pause: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause


class BlobFile:
    """A blob on its way to the disk, hashed. Blocks."""

    def __init__(self, path: Path, part: Descriptor) -> None:
        self._path = path
        self._part = part
        self._hash = hashlib.sha256()
        self._size = 0
        self._file: BinaryIO | None = None

    def open(self) -> int:
        """Go on where it was left; how many bytes there are."""
        try:
            self._file = self._path.open("a+b")
            self._file.seek(0)
            self._hash, self._size = hashlib.sha256(), 0
            while data := self._file.read(DOWNLOAD_PIECE):
                self._hash.update(data)
                self._size += len(data)
        except OSError as exc:
            raise self._failure(exc) from exc
        if self._size > self._part.size:
            self.restart()
        return self._size

    def restart(self) -> None:
        """Begin again."""
        assert self._file is not None
        self._file.truncate(0)
        self._hash, self._size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Add to it; how many bytes there are now."""
        assert self._file is not None
        self._size += len(data)
        if self._size > self._part.size:
            raise ImageError(f"The registry sends more than the {self._part.size} bytes of {self._part.digest}.")
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as exc:
            raise self._failure(exc) from exc
        return self._size

    def check(self, what: str) -> None:
        """Whether it is whole and the one that was asked for; removed where it is another."""
        if self._size < self._part.size:
            raise TryAgain(ImageError(f"The registry cuts {self._part.digest} of {what} short."), 0.0)
        got = f"sha256:{self._hash.hexdigest()}"
        if got != self._part.digest:
            self._path.unlink(missing_ok=True)
            raise altered_error(what, got, self._part.digest)

    def close(self) -> None:
        """Close it; what is there stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _failure(self, exc: OSError) -> ImageError:
        return ImageError(
            f"A layer cannot be written to {self._path}: {exc.strerror}.",
            remedy="Make room, or choose another engines.sandbox.store.",
        )


class Progress:
    """Bytes of all layers, as a line now and then."""

    def __init__(self, total: int, tell: Callable[[str], None]) -> None:
        self._total = total
        self._tell = tell
        self._sizes: dict[str, int] = {}
        self._reported_at = 0.0

    def add(self, digest: str, size: int) -> None:
        """So much of that blob is there now."""
        self._sizes[digest] = size
        now = time.monotonic()
        if self._total and now - self._reported_at >= PROGRESS_INTERVAL:
            self._reported_at = now
            self._tell(f"{100 * sum(self._sizes.values()) // self._total}%")


def altered_error(what: str, got: str, wanted: str) -> ImageError:
    """The error about something that its digest belies."""
    return ImageError(
        f"{what} is not what its digest says: {got} instead of {wanted}.",
        remedy="Something between here and the registry alters it, or the registry is damaged.",
    )
