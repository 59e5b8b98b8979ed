"""Blobs on their way to the disk: hashed, bounded, gone on with where they were cut short."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from praxis_mcp.errors import ImageError
from praxis_mcp.images.manifests import Descriptor

DOWNLOAD_PIECE = 1024 * 1024
PROGRESS_INTERVAL = 0.5
"""Seconds between two lines about one pull."""


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
            raise altered(what, got, self._part.digest)

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
        self._told = 0.0

    def add(self, digest: str, size: int) -> None:
        """So much of that blob is there now."""
        self._sizes[digest] = size
        now = time.monotonic()
        if self._total and now - self._told >= PROGRESS_INTERVAL:
            self._told = now
            self._tell(f"{100 * sum(self._sizes.values()) // self._total}%")


def altered(what: str, got: str, wanted: str) -> ImageError:
    """The error about something that its digest belies."""
    return ImageError(
        f"{what} is not what its digest says: {got} instead of {wanted}.",
        remedy="Something between here and the registry alters it, or the registry is damaged.",
    )
