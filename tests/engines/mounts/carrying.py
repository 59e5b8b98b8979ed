"""A call whose trees are carried to a real praxis-init and back."""

import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from praxis_mcp.engines.init.framing import WaitCall, WaitFile
from praxis_mcp.engines.init.trees import Tree
from praxis_mcp.engines.init.waiter import Waiter
from praxis_mcp.engines.output import StreamCollector, Streams
from praxis_mcp.support.praxis_init import Ended, praxis_init_path
from praxis_mcp.support.unix_stream import UnixStream
from praxis_mcp.testing.bench import CALL_LIMIT

Looked = dict[str, tuple[object, ...]]


@asynccontextmanager
async def waiting(place: Path, *front: str) -> AsyncIterator[Waiter]:
    """A real waiter; it has ended when this is left."""
    binary = praxis_init_path()
    assert binary is not None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "s"))
        (place / "s").chmod(0o777)
        listener.listen()
        listener.setblocking(False)
        words = [*front, str(binary), "wait", "--socket", str(place / "s")]
        async with await anyio.open_process(words, stdin=None, stdout=None, stderr=None) as process:
            with anyio.fail_after(CALL_LIMIT):
                await anyio.wait_readable(listener)
                connection = listener.accept()[0]
                connection.setblocking(False)
                waiter = Waiter(UnixStream(connection))
                try:
                    yield waiter
                finally:
                    await waiter.aclose()
                    await process.wait()
    (place / "s").unlink()


async def run(
    waiter: Waiter,
    script: str,
    trees: Sequence[Tree],
    *,
    files: Sequence[WaitFile] = (),
    timeout: float | None = None,
    grace: float | None = None,
) -> tuple[Ended, bytes]:
    """A shell script with trees; its end, and what it wrote."""
    call = WaitCall([b"/bin/sh", b"-c", script.encode()], files=files, timeout=timeout)
    async with Streams(StreamCollector("stdout", keep=1 << 20), StreamCollector("stderr", keep=1 << 20)) as streams:
        end = await waiter.run(call, None, *streams, trees=trees, grace=grace)
    return end, b"".join(stream.data for stream in streams.captured)


def look_at(top: Path) -> Looked:
    """All that is below a directory, as far as it travels."""
    found: Looked = {}
    for here, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(here, name)
            status = path.lstat()
            kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
            inner: tuple[object, ...] = (kind, mode)
            if kind == stat.S_IFLNK:
                inner = (kind, os.fsencode(path.readlink()))
            elif kind == stat.S_IFREG:
                inner = (kind, mode, path.read_bytes(), status.st_mtime_ns)
            found[str(path.relative_to(top))] = inner
    return found


def open_file_count() -> int:
    """Descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
