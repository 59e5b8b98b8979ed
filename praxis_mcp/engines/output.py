"""What a tool writes: kept as head and tail in memory, whole (up to a bound) on disk, masked, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple, Self

import anyio.to_thread

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.secrets import MaskedStream, Masker
from praxis_mcp.support.text import counted

StreamName = Literal["stdout", "stderr"]
OutputListener = Callable[[StreamName, bytes], None]
"""Is called with output as it arrives, secrets masked. Must not block."""

_SPOOL_BATCH = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Captured:
    """One stream of a finished run.

    Attributes:
        head, tail: its first and last bytes; `head` is everything when nothing was left out.
        total: how many bytes the tool wrote, counted after secrets were masked.
        file: the whole stream, up to the record's bound, where it was longer than what is kept inline.
    """

    head: bytes = b""
    tail: bytes = b""
    total: int = 0
    file: Path | None = None

    @property
    def omitted(self) -> int:
        """Bytes between `head` and `tail` that are not kept inline."""
        return max(0, self.total - len(self.head) - len(self.tail))

    @property
    def data(self) -> bytes:
        """All that is kept inline."""
        return self.head + self.tail

    @property
    def text(self) -> str:
        """What is kept inline, as text: invalid UTF-8 replaced, a gap named."""
        gap = f"\n… {counted(self.omitted, 'byte')} omitted …\n" if self.omitted else ""
        return self.head.decode(errors="replace") + gap + self.tail.decode(errors="replace")


class StreamCollector:
    """Takes one stream in, piece by piece, in bounded memory.

    An async context manager around what writes to it: left without an exception, the stream has ended, and `captured`
    says what was kept; else its file is closed without a result. Leaving raises what `write` raises.

    Args:
        name: which stream.
        keep: bytes to keep inline: the first half of them from the start, the rest from the end.
        masker: masks secrets.
        listener: is called with each piece, masked.
        file: where the whole goes once it exceeds `keep`; None keeps head and tail only.
        make_directory: called, in a thread, before that file is made.
        max_file: bytes that `file` may hold.

    Attributes:
        captured: what was kept, once it has been left.
    """

    def __init__(
        self,
        name: StreamName,
        *,
        keep: int,
        masker: Masker | None = None,
        listener: OutputListener | None = None,
        file: Path | None = None,
        make_directory: Callable[[], object] = lambda: None,
        max_file: int = 0,
    ) -> None:
        self.captured = Captured()
        self._name: StreamName = name
        self._keep = keep
        self._head_room = keep // 2
        self._masked = MaskedStream(masker) if masker else None
        self._listener = listener
        self._path = file if max_file > 0 else None
        self._make_directory = make_directory
        self._room = max_file
        self._file: BinaryIO | None = None
        self._batch = bytearray()
        self._kept = bytearray()
        self._tail = bytearray()
        self._overflowed = False
        self._total = 0

    def take(self, data: bytes) -> bool:
        """Take in the next piece where it is kept in memory, without a wait. Else it is False, and nothing was taken:
        `write` it."""
        if self._overflowed or self._masked is not None or len(self._kept) + len(data) > self._keep:
            return False
        self._total += len(data)
        if self._listener is not None:
            self._listener(self._name, data)
        self._kept += data
        return True

    async def write(self, data: bytes) -> None:
        """Take in the next piece.

        Raises:
            ExecutionError: it cannot be kept: the disk is full, say.
        """
        if self._masked is not None:
            data = self._masked.feed(data)
        if data:
            await self._accept(data)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if exc_type is None:
                self.captured = await self._finish()
        finally:
            if self._file is not None:
                with suppress(OSError):  # a full disk: closing writes what is left
                    self._file.close()
                self._file = None

    async def _finish(self) -> Captured:
        held = self._masked.feed(b"", last=True) if self._masked is not None else b""
        if held:
            await self._accept(held)
        file = self._path if self._file is not None else None
        if self._file is not None:
            await self._flush()
            with self._keeping():
                await anyio.to_thread.run_sync(self._file.close)
            self._file = None
        return Captured(bytes(self._kept), bytes(self._tail), self._total, file)

    async def _accept(self, data: bytes) -> None:
        self._total += len(data)  # after masking, so that what is left out of head and tail can be found from it
        if self._listener is not None:
            self._listener(self._name, data)
        if not self._overflowed and len(self._kept) + len(data) <= self._keep:
            self._kept += data
            return
        if not self._overflowed:
            self._overflowed = True
            await self._open_file()
            whole = bytes(self._kept) + data
            self._kept, self._tail = bytearray(whole[: self._head_room]), bytearray()
            self._keep_tail(whole[self._head_room :])
        else:
            self._keep_tail(data)
        await self._spool(data)

    def _keep_tail(self, data: bytes) -> None:
        room = self._keep - self._head_room
        self._tail += data[-room:]
        del self._tail[: max(0, len(self._tail) - room)]

    async def _open_file(self) -> None:
        if self._path is None:
            return
        with self._keeping():
            self._file = await anyio.to_thread.run_sync(self._opened, self._path)
        await self._spool(bytes(self._kept))

    def _opened(self, path: Path) -> BinaryIO:
        self._make_directory()
        return path.open("wb")

    async def _spool(self, data: bytes) -> None:
        if self._file is None or self._room <= 0:
            return
        data = data[: self._room]
        self._room -= len(data)
        if not self._batch and len(data) >= _SPOOL_BATCH:
            await self._write(data)  # as it is: to copy it takes longer than to write it
            return
        self._batch += data
        if len(self._batch) >= _SPOOL_BATCH:
            await self._flush()

    async def _flush(self) -> None:
        batch, self._batch = self._batch, bytearray()
        if batch:
            await self._write(batch)

    async def _write(self, data: bytes | bytearray) -> None:
        if self._file is not None:
            with self._keeping():
                await anyio.to_thread.run_sync(self._file.write, data)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ExecutionError(
                f"The tool's output could not be kept: {exc.strerror} ({self._path}).",
                remedy="Free some room there, or set records.directory to a place that has it.",
            ) from exc


class Streams(NamedTuple):
    """What takes in both streams of a command, as one context manager; see `StreamCollector`."""

    stdout: StreamCollector
    stderr: StreamCollector

    @property
    def captured(self) -> tuple[Captured, Captured]:
        """What was kept of standard output and standard error, once they have been left."""
        return self.stdout.captured, self.stderr.captured

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.stdout.__aexit__(exc_type, exc, tb)
        except BaseException as failure:
            await self.stderr.__aexit__(type(failure), failure, failure.__traceback__)
            raise
        await self.stderr.__aexit__(exc_type, exc, tb)
