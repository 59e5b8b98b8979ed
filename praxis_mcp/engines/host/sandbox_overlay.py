"""A writable root in a sandbox: an overlay over the image's, in a mount namespace that goes with the sandbox.

Bubblewrap has learned that in 0.11 only. praxis-init makes it on its way to bubblewrap, so that nothing is left behind
when that is killed.
"""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread

from praxis_mcp.engines.host.bubblewrap import last_line
from praxis_mcp.engines.host.process import Launch, run_process
from praxis_mcp.engines.output import StreamCollector
from praxis_mcp.errors import ExecutionError
from praxis_mcp.images.model import StoredImage
from praxis_mcp.support.praxis_init import join_words, praxis_init_path
from praxis_mcp.support.processes import MarkedTree
from praxis_mcp.support.scratch import Scratch

LAYER_SIZE = 1024**3
"""Bytes that a call may write to its root; they lie in memory, and count against the memory limit."""
OVERLAY_PROBE_TIMEOUT = 4.0

_MARK = "PRAXIS_OVERLAY_PROBE"


def overlay_root(image: StoredImage) -> str:
    """Where the image's root is, writable, for what begins with an overlay over it (`RunGroup.prefix`)."""
    return str(image.layer / "root")


async def why_no_overlay() -> str | None:
    """Try one out; why there is none, if there is none."""
    init = praxis_init_path() if sys.platform == "linux" else None
    if init is None:
        return "praxis-init is missing"
    try:
        scratch = await anyio.to_thread.run_sync(Scratch.make)
    except OSError as exc:
        return f"a directory to try it out in cannot be made ({exc.strerror})"
    try:
        for name in ("rootfs", "layer"):
            await anyio.Path(scratch.path, name).mkdir()
        mark = str(scratch.path)
        words = [*join_words(str(init), overlay=(scratch.path, LAYER_SIZE)), str(init), "--version"]
        async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
            ended = await run_process(
                Launch(tuple(words), {_MARK: mark}),
                lambda process: MarkedTree(process, f"{_MARK}={mark}"),
                timeout=OVERLAY_PROBE_TIMEOUT,
                stdout=out,
                stderr=err,
            )
    except ExecutionError as exc:
        return exc.message
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.remove)
    if ended.exit_code == 0:
        return None
    said = last_line(err.captured.text)
    return f"the kernel lets no user namespace mount an overlay ({said or f'exit code {ended.exit_code}'})"
