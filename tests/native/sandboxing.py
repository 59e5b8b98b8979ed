"""Sandboxes of praxis-init with a test around them: laid out, run, and looked at from inside."""

import os
import platform
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from praxis_mcp.engines.init.frame_types import FrameType, encode_frame
from praxis_mcp.engines.init.framing import Detail, FrameDecoder, Refused, WaitCall
from praxis_mcp.engines.init.layout import LaidMount, MountFlag, MountKind, SandboxLayout, encode_sandbox
from praxis_mcp.engines.init.seccomp import filter_program
from praxis_mcp.support.praxis_init import Ended, normalize_machine
from tests.native.harness import PATIENCE

MIB = 1 << 20
_FLAGS = slice(12, 16)  # of a layout, in its message
_STAYS = 8
ENV = {b"PATH": b"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", b"LANG": b"C.UTF-8"}


@dataclass
class Seen:
    """What became of a sandbox: praxis-init's exit code, the streams, and its reply."""

    code: int
    stdout: str
    stderr: str
    end: Ended | None = None
    detail: str = ""
    refusal: str = ""


@dataclass
class Bench:
    """Makes sandboxes as one user.

    Attributes:
        binary: praxis-init.
        user: to run it as; None is ourselves.
        memberships: see `SandboxLayout`, of every sandbox.
        is_ahead: praxis-init is started before there is a message, where that is for a sandbox which it can have ready.
    """

    binary: Path
    user: int | None
    memberships: Sequence[int] | None = None
    is_ahead: bool = False
    stack: ExitStack = field(default_factory=ExitStack)

    def hold(self, path: Path | str) -> int:
        """A descriptor of a file or directory, as engines open them."""
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        self.stack.callback(os.close, descriptor)
        return descriptor

    def memory(self, content: bytes) -> int:
        """A descriptor of a content."""
        descriptor = os.memfd_create("test")
        self.stack.callback(os.close, descriptor)
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def host(self, *more: LaidMount) -> list[LaidMount]:
        """The host's files to read, and more."""
        return [
            LaidMount(MountKind.ROOT_DIRECTORY, b"/", self.hold("/")),
            LaidMount(MountKind.PROC, b"/proc", flags=MountFlag.LOCKS_PROC),
            LaidMount(MountKind.DEVICES, b"/dev", flags=MountFlag.HAS_TERMINALS, size=MIB),
            LaidMount(MountKind.MEMORY, b"/tmp", mode=0o1777, size=MIB, files=64),
            *more,
        ]

    def bind(self, source: Path, target: str, *, writable: bool = False, makes: bool = False) -> LaidMount:
        """A file or directory of the host."""
        flags = writable * MountFlag.IS_WRITABLE | makes * MountFlag.MAKES_PLACE
        return LaidMount(MountKind.BIND, target.encode(), self.hold(source), flags)

    def message(self, layout: SandboxLayout, *argv: str, **call: Any) -> bytes:
        """The message for a command, with the filter that engines send."""
        machine = normalize_machine(platform.machine())
        assert machine is not None
        fields: dict[str, Any] = {"env": ENV, "seccomp": filter_program(machine), **call}
        return encode_sandbox(layout, WaitCall([word.encode() for word in argv], **fields))

    def run(self, mounts: Sequence[LaidMount], *argv: str, front: Sequence[str] = (), **fields: Any) -> Seen:
        """Run a command in a sandbox, to its end."""
        call = {key: fields.pop(key) for key in ("timeout", "kill_after", "env", "seccomp") if key in fields}
        layout = SandboxLayout(mounts, **{"memberships": self.memberships, **fields})
        held = [descriptor for _, descriptor in layout.groups]
        return self.send(self.message(layout, *argv, **call), mounts, front=front, held=held)

    def send(
        self,
        message: bytes,
        mounts: Sequence[LaidMount] = (),
        *,
        front: Sequence[str] = (),
        held: Sequence[int] = (),
        env: dict[str, str] | None = None,
    ) -> Seen:
        """Send a message, and see what becomes of it."""
        with self.start(message, mounts, front=front, held=held, env=env) as (process, reply):
            stdout, stderr = process.communicate(timeout=PATIENCE)
            seen = Seen(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
            data = b"".join(iter(lambda: os.read(reply, 65536), b""))
        for event in FrameDecoder().feed(data):
            if isinstance(event, Ended):
                seen.end = event
            elif isinstance(event, Detail):
                seen.detail = event.text
            elif isinstance(event, Refused):
                seen.refusal = event.reason
        return seen

    @contextmanager
    def start(
        self,
        message: bytes,
        mounts: Sequence[LaidMount] = (),
        *,
        front: Sequence[str] = (),
        held: Sequence[int] = (),
        env: dict[str, str] | None = None,
    ) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """The started process, and the reading end of its reply."""
        layout = os.memfd_create("layout")
        read_end, write_end = os.pipe()
        try:
            os.write(layout, message)
            os.lseek(layout, 0, os.SEEK_SET)
            inherited = [mount.descriptor for mount in mounts if mount.descriptor is not None]
            given = [write_end, layout, *held, *inherited]
            is_ahead = self.is_ahead and not front and int.from_bytes(message[_FLAGS], "little") in (0, _STAYS)
            words = ["--standby"] if is_ahead else ["--layout", str(layout), "--reply", str(write_end)]
            ours, theirs = socket.socketpair()
            with ours, theirs:
                process = subprocess.Popen(
                    [*front, str(self.binary), "sandbox", *words],
                    stdin=theirs.fileno() if is_ahead else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL if is_ahead else subprocess.PIPE,
                    stderr=subprocess.DEVNULL if is_ahead else subprocess.PIPE,
                    pass_fds=() if is_ahead else given,
                    user=self.user,
                    group=self.user,
                    extra_groups=None if self.user is None else [],
                    env={**os.environ, "PRAXIS_OUTSIDE": "1", **(env or {})},
                    cwd="/",
                )
                if is_ahead:
                    process.stdout, process.stderr = send_descriptors(ours, {number: number for number in given})
            os.close(write_end)
            write_end = -1
            try:
                yield process, read_end
            finally:
                process.kill()
                process.communicate(timeout=PATIENCE)
        finally:
            for descriptor in (layout, read_end, write_end):
                if descriptor >= 0:
                    os.close(descriptor)


def send_descriptors(channel: socket.socket, descriptors: Mapping[int, int]) -> tuple[IO[bytes], IO[bytes]]:
    """Give a praxis-init that was started ahead what it is for, and two streams, of which the reading ends come back.

    Args:
        channel: to it.
        descriptors: by the numbers that they are to have.
    """
    pipes = [os.pipe(), os.pipe()]
    given = {**descriptors} | {place: ends[1] for place, ends in enumerate(pipes, 1)}
    message = encode_frame(FrameType.DESCRIPTORS, struct.pack(f"<{len(given)}I", *given))
    socket.send_fds(channel, [message], list(given.values()))
    for _, write_end in pipes:
        os.close(write_end)
    return os.fdopen(pipes[0][0], "rb"), os.fdopen(pipes[1][0], "rb")


def works_for(binary: Path, user: int | None) -> str:
    """Why this user can make no sandbox here; empty where it can."""
    with (bench := Bench(binary, user)).stack:
        seen = bench.run(bench.host(), "true")
    return "" if seen.code == 0 else seen.detail or seen.refusal or seen.stderr or f"exit code {seen.code}"
