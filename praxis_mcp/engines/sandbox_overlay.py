"""A writable root in a sandbox: an overlay over the image's, in a mount namespace that goes with the sandbox.

Bubblewrap has learned that in 0.11 only. Before, unshare(1) makes a user and a mount namespace, mount(8) a file system
in memory and the overlay in it, and bubblewrap runs in there: all of it one process after the other, so that nothing is
left behind when the last of them is killed. Costs some 6 ms.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.engines.bubblewrap import last_line
from praxis_mcp.engines.output import StreamCollector
from praxis_mcp.engines.process import Launch, run_process
from praxis_mcp.engines.process_tree import MarkedTree
from praxis_mcp.engines.scratch import Scratch
from praxis_mcp.errors import ExecutionError
from praxis_mcp.images.model import StoredImage

LAYER_SIZE = 1024**3
"""Bytes that a call may write to its root; they lie in memory, and count against the memory limit."""
PROBE_TIMEOUT = 4.0

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MARK = "PRAXIS_OVERLAY_PROBE"
_PROGRAMS = ("unshare", "sh", "mount", "mkdir")
# In words of the script's own, never joined: $1 is the image's directory, the rest is what runs in it. userxattr: a
# user namespace may not write overlayfs' usual marks ("trusted."), without which removed directories stay removed only
# until they are made again.
_SCRIPT = """\
umask 022 && cd "$1" && shift &&
mount -t tmpfs -o size={size},mode=0755 tmpfs layer && mkdir layer/upper layer/work layer/root &&
mount -t overlay -o userxattr,lowerdir=rootfs,upperdir=layer/upper,workdir=layer/work overlay layer/root &&
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Overlay:
    """The programs that make one."""

    unshare: str
    shell: str

    def prefix(self, image: StoredImage | Path) -> list[str]:
        """The words to put in front of bubblewrap's; they need `PATH` as their path."""
        directory = image if isinstance(image, Path) else image.directory
        return [self.unshare, "-r", "-m", self.shell, "-c", _SCRIPT.format(size=LAYER_SIZE), "sh", str(directory)]

    def root(self, image: StoredImage) -> str:
        """Where the image's root lies, writable, for what runs behind the prefix."""
        return str(image.layer / "root")


async def find_overlay() -> Overlay | str:
    """Look for it, and try it out; a text says why there is none."""
    found = {name: shutil.which(name, path=PATH) for name in _PROGRAMS}
    missing = [name for name, program in found.items() if program is None]
    if missing or sys.platform != "linux":
        return f"{', '.join(missing) or 'Linux'} is missing"
    overlay = Overlay(str(found["unshare"]), str(found["sh"]))
    out, err = StreamCollector("stdout", keep=4096), StreamCollector("stderr", keep=4096)
    try:
        scratch = await anyio.to_thread.run_sync(Scratch.make)
    except OSError as exc:
        return f"a directory to try it out in cannot be made ({exc.strerror})"
    try:
        for name in ("rootfs", "layer"):
            await anyio.Path(scratch.path, name).mkdir()
        words = [*overlay.prefix(scratch.path), overlay.shell, "-c", "echo works > layer/root/x"]
        mark = str(scratch.path)
        ended = await run_process(
            Launch(tuple(words), {"PATH": PATH, _MARK: mark}),
            lambda process: MarkedTree(process, f"{_MARK}={mark}"),
            timeout=PROBE_TIMEOUT,
            stdout=out,
            stderr=err,
        )
    except ExecutionError as exc:
        return exc.message
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.remove)
    if ended.exit_code == 0:
        return overlay
    said = last_line((await err.finish()).text)
    return f"the kernel lets no user namespace mount an overlay ({said or f'exit code {ended.exit_code}'})"
