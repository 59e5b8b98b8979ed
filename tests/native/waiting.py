"""A waiting praxis-init with a test at the other end of its channel."""

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from praxis_mcp.engines.init.framing import (
    Event,
    FrameDecoder,
    Hello,
    Output,
    Refused,
    StdinClosed,
    StdinCredit,
    WaitCall,
    encode_call,
    encode_file,
    encode_start,
    encode_stdin,
    encode_stdin_end,
)
from praxis_mcp.support.praxis_init import CHANNEL_SECRET_BYTES, Ended, wait_words
from tests.kit.ports import is_bindable, is_listened_at
from tests.native.harness import MARK, PATIENCE, marked

Kind = Literal["pipes", "socket", "tcp"]

SECRET = bytes(range(CHANNEL_SECRET_BYTES))


@dataclass
class Told:
    """All that a waiter has sent."""

    hello: Hello | None = None
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    end: Ended | None = None
    refusal: str | None = None
    stdin_closed: bool = False
    credit: int = 0
    """Bytes of standard input that may be sent."""
    out: int = 0
    """Bytes of output, whether kept or not."""


class Waiting:
    """The test's end; every wait has a limit."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, read: int, write: int, close: list[int]) -> None:
        self.process = process
        self.mark = mark
        self.told = Told()
        self.keeps = True
        self._decoder = FrameDecoder()
        self._read, self._write, self._open = read, write, close
        os.set_blocking(read, False)
        os.set_blocking(write, False)

    def hear(self, wanted: type[Event] | None = None) -> bool:
        """Read until an event of that kind, or anything at all, has come, or to the end; whether it has."""
        limit = time.monotonic() + PATIENCE
        while True:
            ready, _, _ = select.select([self._read], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"nothing more in {PATIENCE} s; so far {self.told}"
            try:
                data = os.read(self._read, 1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return False
            events = self._decoder.feed(data)
            for event in events:
                self._take(event)
            if wanted is None or any(isinstance(event, wanted) for event in events):
                return True

    def _take(self, event: Event) -> None:
        match event:
            case Hello():
                self.told.hello = event
                self.told.credit = event.stdin_window
            case Output(stream, data):
                self.told.out += len(data)
                if self.keeps:
                    (self.told.stdout if stream == "stdout" else self.told.stderr).extend(data)
            case StdinCredit(size):
                self.told.credit += size
            case StdinClosed():
                self.told.stdin_closed = True
            case Ended():
                self.told.end = event
            case Refused(reason):
                self.told.refusal = reason

    def send(self, data: bytes) -> None:
        """Send all of it, reading meanwhile what comes."""
        view = memoryview(data)
        limit = time.monotonic() + PATIENCE
        while view:
            ready, free, _ = select.select([self._read], [self._write], [], max(0.0, limit - time.monotonic()))
            assert ready or free, f"nothing moves for {PATIENCE} s; so far {self.told}"
            if free:
                try:
                    view = view[os.write(self._write, view) :]
                except BlockingIOError:
                    pass
                except (BrokenPipeError, ConnectionResetError):
                    return
                limit = time.monotonic() + PATIENCE
            elif self._read_once():
                return

    def _read_once(self) -> bool:
        try:
            data = os.read(self._read, 1 << 16)
        except ConnectionResetError:
            return True
        for event in self._decoder.feed(data):
            self._take(event)
        return not data

    def feed(self, pieces: Iterator[bytes]) -> None:
        """Send standard input as credit allows, and end it."""
        for piece in pieces:
            while self.told.credit < len(piece):
                if self.told.stdin_closed or self.told.end or not self.hear():
                    return
            self.told.credit -= len(piece)
            self.send(encode_stdin(piece))
        self.send(encode_stdin_end())

    def call(self, call: WaitCall, stdin: bytes | None = b"") -> Told:
        """Send the call, see it to its end, and hang up; None leaves standard input open."""
        self.send(whole(call))
        if stdin is not None:
            self.feed(stdin[start : start + 65536] for start in range(0, len(stdin), 65536))
        while self.told.end is None and self.told.refusal is None and self.hear(Ended):
            pass
        self.close()
        return self.told

    def close(self, *, only_writing: bool = False) -> None:
        """Hang up."""
        for descriptor in list(self._open):
            if only_writing and descriptor != self._write:
                continue
            os.close(descriptor)
            self._open.remove(descriptor)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def survivors(self) -> list[int]:
        """Processes of this run that are still there a moment later: their end is signalled, not awaited, by hanging
        up."""
        limit = time.monotonic() + PATIENCE
        while (left := marked(self.mark)) and time.monotonic() < limit:
            select.select([], [], [], 0.01)
        return left


def whole(call: WaitCall) -> bytes:
    """All frames of a call."""
    files = b"".join(piece for file in call.files for piece in encode_file(file))
    return encode_call(call) + files + encode_start()


@dataclass(frozen=True)
class PraxisWait:
    """How a waiter is started: with which channel, and where its process stands."""

    path: Path
    channel: Kind = "pipes"
    as_pid_1: bool = False

    @contextmanager
    def start(self, *options: str, user: int | None = None, **env: str) -> Iterator[Waiting]:
        mark = uuid.uuid4().hex
        front = ["unshare", "--pid", "--fork", "--mount-proc"] if self.as_pid_1 else []
        if user is not None:
            front += [shutil.which("setpriv") or "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        words = [*front, str(self.path), "wait", *options]
        with ExitStack() as stack:
            process, read, write, close = self._started(words, {**os.environ, MARK: mark, **env}, stack)
            waiting = Waiting(process, mark, read, write, close)
            try:
                yield waiting
            finally:
                for pid in marked(mark):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait(PATIENCE)
                if process.stderr is not None:
                    process.stderr.close()
                waiting.close()

    def _started(
        self, words: Sequence[str], env: dict[str, str], stack: ExitStack
    ) -> tuple[subprocess.Popen[bytes], int, int, list[int]]:
        if self.channel == "pipes":
            (theirs_in, write), (read, theirs_out) = os.pipe(), os.pipe()
            process = subprocess.Popen(words, stdin=theirs_in, stdout=theirs_out, stderr=subprocess.PIPE, env=env)
            os.close(theirs_in)
            os.close(theirs_out)
            return process, read, write, [read, write]
        if self.channel == "tcp":
            process, port = start_listening(words, SECRET, env)
            connection = connect(port, SECRET).detach()
            return process, connection, connection, [connection]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="praxis-wait-")))
        folder.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "s"))
            (folder / "s").chmod(0o777)
            listener.listen()
            listener.settimeout(PATIENCE)
            words = [*words, "--socket", str(folder / "s")]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, env=env)  # fmt: skip
            connection = listener.accept()[0].detach()
        return process, connection, connection, [connection]


def start_listening(
    words: Sequence[str],
    secret: bytes | None,
    env: dict[str, str] | None = None,
    host: str = "127.0.0.1",
    *,
    bare: bool = False,
) -> tuple[subprocess.Popen[bytes], int]:
    """A praxis-init that listens, and its port: below those that the kernel gives to connections, where one to a port
    that nobody has may meet itself. Another one is taken where something else has it.

    `bare`: the words take an address and a digest, instead of options."""
    for _ in range(100):
        port = secrets.choice(range(10_000, 32_000))  # not `random`, which begins alike in every test
        if not is_bindable(host, port):
            continue
        more = wait_words("", 1, listen=f"{host}:{port}", secret=secret)[4:]
        more = more[1::2] if bare else more
        process = subprocess.Popen([*words, *more], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=env)  # fmt: skip
        if _listens(process, port, host) or process.returncode == 0:  # its patience may have passed
            return process, port
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert b"in use" in said, said
    raise AssertionError("no port is free")


@contextmanager
def ended_after(process: subprocess.Popen[bytes], port: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """What `start_listening` gave; killed when it is left."""
    try:
        yield process, port
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


def listening(
    binary: Path, *options: str, secret: bytes | None = SECRET, host: str = "127.0.0.1", front: tuple[str, ...] = ()
) -> AbstractContextManager[tuple[subprocess.Popen[bytes], int]]:
    """A praxis-init that listens, and its port."""
    return ended_after(*start_listening([*front, str(binary), "wait", *options], secret, host=host))


def _listens(process: subprocess.Popen[bytes], port: int, host: str) -> bool:
    """Whether it listens there, once it does or has ended."""
    limit = time.monotonic() + PATIENCE
    while process.poll() is None:
        if is_listened_at(port, host, process.pid):
            return True
        assert time.monotonic() < limit, f"it does not listen within {PATIENCE} s"
        select.select([], [], [], 0.005)
    return False


def connect(port: int, secret: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
    """A connection to a praxis-init that listens, the secret sent."""
    connection = socket.create_connection((host, port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if secret:
        connection.sendall(secret)
    return connection


def words(*command: str, **fields: object) -> WaitCall:
    """A call of these words."""
    return WaitCall([word.encode() for word in command], **fields)  # pyright: ignore[reportArgumentType]


def sh(script: str, **fields: object) -> WaitCall:
    """A call of a shell script."""
    return words("/bin/sh", "-c", script, **fields)


def python_bytes(size: int) -> Iterator[bytes]:
    """So many bytes, in pieces, that differ from place to place."""
    block = bytes(range(256)) * 256
    for start in range(0, size, len(block)):
        yield block[: min(len(block), size - start)]
