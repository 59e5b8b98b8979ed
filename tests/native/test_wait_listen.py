"""A waiter that is connected to over TCP, as in a pod: one connection, which gives the secret, and no other."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from praxis_mcp.engines.init.framing import FrameDecoder, Hello, Output, encode_stdin_end
from praxis_mcp.support.praxis_init import CHANNEL_SECRET_BYTES, Ended, EndKind, wait_words
from tests.kit.ports import is_bindable
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE, PraxisInit, python_for
from tests.native.waiting import SECRET, PraxisWait, connect, listening, sh, whole, words

WRONG = bytes(CHANNEL_SECRET_BYTES)
SECRET_SECONDS = 5.0
"""Within which a connection must have given the secret (native/listener.c)."""
CALLER_SECONDS = 60.0
"""Within which that of the caller must have come."""
MOST_UNPROVEN = 64


def ended(connection: socket.socket) -> bool:
    """Whether the other end closed it without a word."""
    with suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def says_hello(connection: socket.socket) -> bool:
    data = connection.recv(4096)
    return bool(data) and isinstance(FrameDecoder().feed(data)[0], Hello)


def ends_well(connection: socket.socket) -> Ended | None:
    """A call over a connection that has said hello, to its end."""
    connection.sendall(whole(sh("cat; exit 7")) + encode_stdin_end())
    decoder, end = FrameDecoder(), None
    while end is None and (data := connection.recv(65536)):
        end = next((event for event in decoder.feed(data) if isinstance(event, Ended)), None)
    return end


def test_the_secret_may_come_in_any_pieces_and_with_the_call_behind_it(binary: Path) -> None:
    with listening(binary) as (process, port), connect(port) as connection:
        for byte in SECRET:
            connection.sendall(bytes([byte]))
        assert says_hello(connection)
        assert ends_well(connection) == Ended(EndKind.EXIT, 7)
        connection.close()
        assert process.wait(PATIENCE) == 0
    with listening(binary) as (_, port), connect(port, SECRET + whole(words("echo", "hi"))) as connection:
        decoder, heard = FrameDecoder(), b""
        while data := connection.recv(65536):
            for event in decoder.feed(data):
                heard += event.data if isinstance(event, Output) else b""
                if isinstance(event, Ended):
                    connection.shutdown(socket.SHUT_RDWR)
        assert heard == b"hi\n"


def test_a_connection_without_the_secret_learns_nothing_and_leaves_the_place_free(binary: Path) -> None:
    with listening(binary) as (_, port):
        for wrong in (WRONG, SECRET[:-1] + b"\0", b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n"):
            with connect(port, wrong) as stranger:
                assert ended(stranger)
        with connect(port, SECRET[:-1]) as stranger:
            stranger.shutdown(socket.SHUT_WR)
            assert ended(stranger)
        with connect(port, SECRET) as connection:
            assert says_hello(connection)
            assert ends_well(connection) == Ended(EndKind.EXIT, 7)


def test_connections_that_say_nothing_keep_nobody_out(binary: Path) -> None:
    with listening(binary) as (_, port):
        silent = [connect(port, SECRET[: number % len(SECRET)]) for number in range(3 * MOST_UNPROVEN)]
        with connect(port, SECRET) as connection:
            assert says_hello(connection)
            for stranger in silent:
                assert ended(stranger)
                stranger.close()
            assert ends_well(connection) == Ended(EndKind.EXIT, 7)


def test_a_connection_that_says_nothing_is_closed_in_time(binary: Path) -> None:
    with listening(binary) as (process, port), connect(port) as stranger:
        begin = time.monotonic()
        assert ended(stranger)
        assert time.monotonic() - begin >= SECRET_SECONDS - 1
        assert process.poll() is None


def test_a_second_connection_is_refused(binary: Path) -> None:
    with listening(binary) as (_, port), connect(port, SECRET) as connection:
        assert says_hello(connection)
        with pytest.raises(ConnectionRefusedError):
            connect(port, SECRET)
        assert ends_well(connection) == Ended(EndKind.EXIT, 7)


def test_without_a_secret_the_first_connection_is_taken(binary: Path) -> None:
    with listening(binary, secret=None) as (_, port), connect(port) as connection:
        assert says_hello(connection)
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        assert ends_well(connection) == Ended(EndKind.EXIT, 7)


def test_no_number_of_wrong_secrets_ends_the_waiter_or_takes_its_place(binary: Path) -> None:
    with listening(binary) as (process, port):
        for _ in range(1100):
            with suppress(OSError), connect(port, WRONG) as stranger:
                ended(stranger)
        assert process.poll() is None
        with connect(port, SECRET) as connection:
            assert says_hello(connection)
            assert ends_well(connection) == Ended(EndKind.EXIT, 7)


def test_strangers_that_connect_all_the_time_do_not_keep_the_caller_out(binary: Path) -> None:
    enough = threading.Event()

    def strangers(port: int) -> None:
        with ExitStack() as stack:
            held: deque[socket.socket] = deque()
            while not enough.is_set():
                with suppress(OSError):
                    held.append(stack.enter_context(connect(port, SECRET[:7])))
                if len(held) > 2 * MOST_UNPROVEN:
                    held.popleft().close()

    with listening(binary) as (_, port), ThreadPoolExecutor(2) as pool:
        try:
            pool.submit(strangers, port)
            pool.submit(strangers, port)
            limit = time.monotonic() + PATIENCE
            while True:
                with connect(port, SECRET) as connection, suppress(ConnectionResetError):
                    if says_hello(connection):
                        enough.set()
                        assert ends_well(connection) == Ended(EndKind.EXIT, 7)
                        return
                assert time.monotonic() < limit, "strangers keep the place"
        finally:
            enough.set()


def test_patience_ends_a_waiter_to_which_nobody_connects_or_says_the_secret(binary: Path) -> None:
    with listening(binary, "--patience", "0.5") as (process, _):
        assert process.wait(PATIENCE) == 0
    with listening(binary, "--patience", "2") as (process, port), suppress(OSError), connect(port):
        assert process.wait(PATIENCE) == 0


def test_a_waiter_to_which_no_caller_comes_in_a_minute_ends_whatever_its_patience(binary: Path) -> None:
    with listening(binary, "--patience", "3600") as (process, port), connect(port, SECRET[:-1]):
        begun = time.monotonic()
        assert process.wait(CALLER_SECONDS + PATIENCE) == 0
        assert time.monotonic() - begun > CALLER_SECONDS / 2


def test_a_waiter_waits_for_its_caller_as_long_as_the_option_says(binary: Path) -> None:
    with listening(binary, "--patience", "3600", "--caller", "0.5") as (process, _):
        assert process.wait(PATIENCE) == 0


def test_a_waiter_without_descriptors_does_not_use_a_processor_and_takes_its_caller_when_it_has_one(
    binary: Path,
) -> None:
    front = ("sh", "-c", 'ulimit -n 16; exec "$@"', "sh")
    with listening(binary, front=front) as (process, port), ExitStack() as strangers:
        for _ in range(16):
            strangers.enter_context(connect(port))
        with connect(port, SECRET) as connection:
            assert says_hello(connection)
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            used = sum(int(fields[index]) for index in (11, 12)) / os.sysconf("SC_CLK_TCK")
            assert used < 0.2, "seconds of a processor"
            assert ends_well(connection) == Ended(EndKind.EXIT, 7)


@pytest.mark.parametrize("as_pid_1", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_listening_waiter_that_is_told_to_end_ends(
    request: pytest.FixtureRequest, binary: Path, number: signal.Signals, as_pid_1: bool
) -> None:
    front: tuple[str, ...] = ()
    if as_pid_1:
        request.getfixturevalue("init_as_pid_1")
        front = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with listening(binary, front=front) as (process, port), connect(port) as silent:
        target = process.pid
        if as_pid_1:
            target = int(Path(f"/proc/{target}/task/{target}/children").read_text().split()[0])
        os.kill(target, number)
        assert process.wait(PATIENCE) == 0
        assert ended(silent)


def test_what_it_inherits_as_pid_1_is_reaped_while_nobody_is_connected(
    init_as_pid_1: PraxisInit, binary: Path, tmp_path: Path
) -> None:
    """What others start in the pod (kubectl exec, a probe) and leave behind becomes PID 1's."""
    del init_as_pid_1
    front = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with listening(binary, front=front) as (process, _):
        init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        into = ["nsenter", "--target", str(init), "--pid", "--mount"]
        if shutil.which("nsenter") is None or subprocess.run([*into, "true"], capture_output=True).returncode != 0:
            pytest.skip("needs nsenter")
        subprocess.run([*into, "sh", "-c", "sleep 0.01 & exit"], check=True, timeout=PATIENCE)
        children = Path(f"/proc/{init}/task/{init}/children")
        limit = time.monotonic() + PATIENCE
        while children.read_text().split():
            assert time.monotonic() < limit, "a process that ended is not reaped"
            select.select([], [], [], 0.01)


def test_a_pods_address_may_be_written_in_brackets_of_whichever_family_it_is(binary: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"[127.0.0.1]:{other.getsockname()[1]}"
        done = subprocess.run([binary, "wait", "--listen", place], capture_output=True, timeout=PATIENCE)
    assert b"in use" in done.stderr


def test_ipv6_is_listened_at_too(binary: Path) -> None:
    if not is_bindable("::1"):
        pytest.skip("no IPv6 here")
    with listening(binary, host="[::1]") as (_, port), connect(port, SECRET, "::1") as connection:
        assert says_hello(connection)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--listen", "0.0.0.0:9999"], "loopback"),
        (["--listen", "[::]:9999"], "loopback"),
        (["--listen", "128.0.0.1:9999"], "loopback"),
        (["--secret-sha256", "a" * 64], "--listen"),
        (["--listen", "127.0.0.1:9999", "--socket", "/s"], "exclude"),
        *((["--listen", address], "bad or missing") for address in (
            "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:9x", ":9999", "localhost:9999",
            "127.1:9999", "[127.0.0.1:9999", "127.0.0.1]:9999", "[]:9999", "[:9999", "::1:9999", "1" * 300 + ":9999",
            "",
        )),
        *((["--listen", "127.0.0.1:9999", "--secret-sha256", digest], "bad or missing") for digest in (
            "", "a" * 63, "a" * 65, "A" * 64, "g" * 64,
        )),
    ],
)  # fmt: skip
def test_a_wrong_address_or_secret_is_refused_with_a_reason(binary: Path, options: list[str], reason: str) -> None:
    done = subprocess.run([binary, "wait", *options], capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert (done.returncode, reason in done.stderr.decode()) == (125, True), done.stderr


def test_an_address_that_is_in_use_is_reported(binary: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        done = subprocess.run([binary, "wait", "--listen", place], capture_output=True, timeout=PATIENCE)
    assert (done.returncode, b"in use" in done.stderr) == (125, True)


def test_the_secret_is_not_among_the_words() -> None:
    said = " ".join(wait_words("x", 1, listen="127.0.0.1:1", secret=SECRET))
    assert SECRET.hex() not in said
    with pytest.raises(ValueError, match="32 bytes"):
        wait_words("x", 1, listen="127.0.0.1:1", secret=b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        wait_words("x", 1, secret=SECRET)


def test_the_command_has_no_descriptor_of_the_channel_which_stays_when_its_network_goes(
    binary: Path,
) -> None:
    source = """
import os, socket, sys
print(sorted(os.listdir("/proc/self/fd"), key=int)[:-1])
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])))
except OSError as error:
    print(error.strerror)
sys.stdout.flush()
sys.stdout.buffer.write(b"x" * 3_000_000)
"""
    user = NOBODY if IS_ROOT else None
    python = python_for(user)
    if python is None:
        pytest.skip("no Python that this user can execute")
    with PraxisWait(binary, "tcp").start(user=user) as waiting:
        told = waiting.call(words(python, "-I", "-c", source, "9", no_network=True))
        first, second, rest = bytes(told.stdout).split(b"\n", 2)
        assert (first, second) == (b"['0', '1', '2']", b"Address family not supported by protocol")
        assert (len(rest), told.end) == (3_000_000, Ended(EndKind.EXIT, 0))


def test_a_caller_that_is_killed_takes_all_with_it(binary: Path) -> None:
    caller = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
while True:
    print(connection.recv(65536), flush=True)
"""
    call = SECRET + whole(sh("trap '' TERM HUP; setsid sh -c 'sleep 1000' & echo ready; sleep 1000"))
    with listening(binary) as (process, port):
        other = subprocess.Popen(
            [sys.executable, "-I", "-c", caller, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(call)
        other.stdin.close()
        while b"ready" not in other.stdout.readline():
            assert other.poll() is None
        other.kill()
        other.wait(PATIENCE)
        other.stdout.close()
        assert process.wait(PATIENCE) == 125
