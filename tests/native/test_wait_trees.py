"""Trees of a call as the waiter makes them and looks at them afterwards: hostile, cut, damaged, too large, in a pod."""

import errno
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from praxis_mcp.engines.init.framing import (
    Detail,
    Event,
    FrameDecoder,
    FrameType,
    Hello,
    Output,
    WaitCall,
    encode_call,
    encode_start,
    encode_stdin_end,
)
from praxis_mcp.engines.init.seccomp import filter_program
from praxis_mcp.engines.init.trees import (
    Found,
    FoundData,
    FoundEnd,
    FoundFile,
    FoundGone,
    FoundLink,
    FoundTree,
    Shortfall,
    TreeBounds,
    encode_data,
    encode_hole,
    encode_tree,
    encode_tree_directory,
    encode_tree_file,
    encode_tree_link,
)
from praxis_mcp.support.praxis_init import Ended, EndKind, normalize_machine, wait_words
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE, marked
from tests.native.test_wait_channel import damaged, frame
from tests.native.waiting import (
    SECRET,
    PraxisWait,
    Waiting,
    connect,
    ended_after,
    listening,
    sh,
    start_listening,
    words,
)

EXIT_0 = Ended(EndKind.EXIT, 0)
BEGIN = encode_call(words("true"))
BOUNDS = TreeBounds()


def tree_head(path: bytes, flags: int = 1, entries: int = 10, size: int = 1000) -> bytes:
    return frame(FrameType.TREE, struct.pack("<IIQ", flags, entries, size) + path)


def entry(kind: FrameType, path: bytes, mode: int = 0o644) -> bytes:
    if kind is FrameType.TREE_LINK:
        return frame(kind, path + b"\0target")
    return frame(kind, struct.pack("<IQ", mode, 0)[: 12 if kind is FrameType.TREE_FILE else 4] + path)


def whole_call(call: WaitCall, *trees: bytes) -> bytes:
    return encode_call(call) + b"".join(trees) + encode_start() + encode_stdin_end()


def sent_to(place: Path, *, returns: bool = True) -> bytes:
    """A small tree of each kind of entry."""
    return b"".join(
        [
            encode_tree(str(place), BOUNDS, returns=returns),
            encode_tree_directory("d", 0o700),
            encode_tree_file("d/f", 0o640, 1_500_000_000_000_000_000),
            encode_data(b"content"),
            encode_hole(10),
            encode_tree_link("l", "d/f"),
            encode_tree_file("g", 0o600, 0),
            encode_tree_directory("d", 0o550),
        ]
    )


def all_events(connection: socket.socket) -> list[Event]:
    """What comes until the call has ended."""
    decoder, events = FrameDecoder(), list[Event]()
    while not (events and isinstance(events[-1], Ended)) and (data := connection.recv(65536)):
        events += decoder.feed(data)
    return events


# --- nonsense ---------------------------------------------------------------------------------------------------------


def nonsense(place: bytes) -> dict[str, bytes]:
    """Calls that begin with a tree at a place, by what is said of them."""
    return {
        "a TREE without a path": BEGIN + frame(FrameType.TREE, bytes(16)),
        "of more than 4095 bytes": BEGIN + tree_head(b"/" + b"x" * 4096),
        "flags that are unknown": BEGIN + tree_head(place, flags=4),
        "not absolute and plain": BEGIN + tree_head(b"tmp"),
        "absolute and plain": BEGIN + tree_head(b"/tmp/../etc"),
        "is not absolute": BEGIN + tree_head(b"/tmp\0x"),
        "a TREE whose path": BEGIN + tree_head(b"/"),
        "a TREE whose": BEGIN + tree_head(b"/tmp/"),
        "without a TREE": BEGIN + entry(FrameType.TREE_FILE, b"x"),
        "entry of a tree without a path": BEGIN + tree_head(place) + frame(FrameType.TREE_FILE, bytes(12)),
        "with a path of more than 4095": BEGIN + tree_head(place) + entry(FrameType.TREE_DIRECTORY, b"x" * 4096),
        "mode above 07777": BEGIN + tree_head(place) + entry(FrameType.TREE_FILE, b"x", 0o10000),
        "without a target": BEGIN + tree_head(place) + frame(FrameType.TREE_LINK, b"x"),
        "a TREE_LINK without": BEGIN + tree_head(place) + frame(FrameType.TREE_LINK, b"x\0"),
        "one of more than 4095 bytes": BEGIN + tree_head(place) + frame(FrameType.TREE_LINK, b"x\0" + b"y" * 4096),
        "TREE_LINK without a target": BEGIN + tree_head(place) + frame(FrameType.TREE_LINK, b"x\0y\0z"),
        "than the file that is the tree": BEGIN + tree_head(place, flags=2) + entry(FrameType.TREE_FILE, b"y"),
        "another entry": BEGIN + tree_head(place, flags=2) + entry(FrameType.TREE_LINK, place.rpartition(b"/")[2]),
        "more entries": BEGIN + tree_head(place, entries=1)
        + entry(FrameType.TREE_LINK, b"a") + entry(FrameType.TREE_LINK, b"b"),
        "more entries than": BEGIN + tree_head(place, entries=1)
        + entry(FrameType.TREE_DIRECTORY, b"a", 0o700) + entry(FrameType.TREE_DIRECTORY, b"b", 0o700),
        "more content": BEGIN + tree_head(place, size=3) + entry(FrameType.TREE_FILE, b"f") + encode_data(b"1234"),
        "content than the TREE": BEGIN + tree_head(place) + entry(FrameType.TREE_FILE, b"f") + encode_hole(2**64 - 1),
        "without a TREE_FILE": BEGIN + tree_head(place) + encode_hole(1),
        "8 bytes long": BEGIN + tree_head(place) + entry(FrameType.TREE_FILE, b"f") + frame(FrameType.FILE_HOLE, b"1"),
        "FILE_DATA without a FILE": BEGIN + tree_head(place) + encode_data(b"x"),
        "64 trees": BEGIN + tree_head(place) * 65,
    }  # fmt: skip


@pytest.mark.parametrize("reason", nonsense(b"/x"))
def test_nonsense_is_refused_with_a_reason(wait: PraxisWait, tmp_path: Path, reason: str) -> None:
    with wait.start() as waiting:
        waiting.send(nonsense(os.fsencode(tmp_path / "tree"))[reason])
        while waiting.told.refusal is None and waiting.hear():
            pass
        assert reason in (waiting.told.refusal or "")
        assert (waiting.wait(), waiting.survivors()) == (125, [])


@pytest.mark.parametrize("kind", [FrameType.TREE_FILE, FrameType.TREE_DIRECTORY, FrameType.TREE_LINK])
@pytest.mark.parametrize("path", [b"/etc/x", b"..", b"../x", b"a/../../x", b".", b"a/.", b"a//b", b"a/", b"/", b"",
                                  b"y" * 256, b"a/" + b"y" * 256, b"a\0b"])  # fmt: skip
def test_a_name_that_does_not_lead_below_is_refused(binary: Path, tmp_path: Path, kind: FrameType, path: bytes) -> None:
    with PraxisWait(binary).start() as waiting:
        head = tree_head(os.fsencode(tmp_path / "tree"))
        more = frame(kind, b"a\0\0b") if kind is FrameType.TREE_LINK and b"\0" in path else entry(kind, path)
        waiting.send(BEGIN + head + more)
        while waiting.told.refusal is None and waiting.hear():
            pass
        assert waiting.told.refusal is not None
    assert list((tmp_path / "tree").iterdir()) == []


def test_no_link_is_followed_not_even_one_that_came_before(wait: PraxisWait, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    place = tmp_path / "tree"
    begin = encode_tree(str(place), BOUNDS, returns=True)
    for entries in (
        encode_tree_link("a", str(tmp_path / "outside")) + encode_tree_file("a/f", 0o644, 0),
        encode_tree_link("a", str(tmp_path / "outside")) + encode_tree_directory("a", 0o755),
        encode_tree_link("a", str(tmp_path / "outside" / "f")) + encode_tree_file("a", 0o644, 0),
        encode_tree_link("a", "outside") + encode_tree_link("a", "elsewhere"),
    ):
        shutil.rmtree(place, ignore_errors=True)
        with wait.start() as waiting:
            waiting.send(whole_call(words("touch", str(tmp_path / "ran")), begin, entries))
            while waiting.told.end is None and waiting.hear():
                pass
            waiting.close()
            end = waiting.told.end
            assert end is not None
            assert (end.kind, end.step) == (EndKind.SETUP_FAILED, "tree")
            assert end.number in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "ran").exists()


# --- cut --------------------------------------------------------------------------------------------------------------


def test_bytes_may_come_one_by_one(binary: Path, tmp_path: Path) -> None:
    place = tmp_path / "tree"
    data = SECRET + whole_call(sh(f"cd {place}; cat d/f; rm l; echo new > g"), sent_to(place))
    with listening(binary) as (_, port), connect(port) as connection:
        for byte in data:
            connection.sendall(bytes([byte]))
        hello, *events, last, end = all_events(connection)
    assert (type(hello), last, end) == (Hello, FoundEnd(Shortfall.NONE), EXIT_0)
    found = [event for event in events if isinstance(event, Found)]
    assert found[0] == FoundTree(0)
    assert {part.path for part in found if isinstance(part, FoundFile)} == {"g"}
    assert [part.data for part in found if isinstance(part, FoundData)] == [b"new\n"]
    assert [part.path for part in found if isinstance(part, FoundGone)] == ["l"]
    assert (place / "d" / "f").stat().st_mtime_ns == 1_500_000_000_000_000_000


def test_a_channel_that_ends_at_any_byte_of_a_tree_starts_nothing(binary: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    size = len(whole_call(words("touch", str(ran)), sent_to(tmp_path / "t000")))
    for cut in range(size - len(encode_stdin_end() + encode_start()) + 1):
        place = tmp_path / f"t{cut:03}"
        with PraxisWait(binary).start() as waiting:
            waiting.send(whole_call(words("touch", str(ran)), sent_to(place))[:cut])
            waiting.close()
            assert waiting.wait() in (0, 125)
    assert not ran.exists()


def test_a_caller_that_leaves_at_any_byte_of_what_comes_back_ends_the_waiter(binary: Path, tmp_path: Path) -> None:
    def read(waiting: Waiting, most: int) -> int:
        count = 0
        while count < most and select.select([waiting._read], [], [], PATIENCE)[0]:
            data = os.read(waiting._read, most - count)
            count += len(data)
            if not data or struct.pack("<II", FrameType.END, 8) in data:
                break
        return count

    script = "cd {}; rm -r d; echo new > g; mkdir n; ln -s x n/l; truncate -s 3000 n/hole"
    size = 1 << 20
    for cut in range(-1, 1000, 2):
        if cut > size:
            break
        place = tmp_path / f"t{cut + 1:03}"
        with PraxisWait(binary, "socket").start() as waiting:
            waiting.send(whole_call(sh(script.format(place)), sent_to(place)))
            came = read(waiting, size if cut < 0 else cut)
            size = came if cut < 0 else size
            waiting.close()
            assert waiting.wait() in (0, 125)
            assert waiting.survivors() == []
    assert 150 < size < 900


def test_a_caller_that_is_killed_in_the_middle_of_a_tree_ends_the_waiter(binary: Path, tmp_path: Path) -> None:
    caller = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
data = sys.stdin.buffer.read()
connection.sendall(data)
print("sent", flush=True)
while True:
    connection.sendall(data[-65544:])
"""
    begin = SECRET + encode_call(words("touch", str(tmp_path / "ran"))) + encode_tree(
        str(tmp_path / "tree"), TreeBounds(size=2**60), returns=True
    )  # fmt: skip
    with listening(binary) as (process, port):
        other = subprocess.Popen([sys.executable, "-I", "-c", caller, str(port)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(begin + encode_tree_file("f", 0o644, 0) + encode_data(b"x" * 65536))
        other.stdin.close()
        assert other.stdout.readline() == b"sent\n"
        other.send_signal(signal.SIGKILL)
        other.wait(PATIENCE)
        other.stdout.close()
        assert process.wait(PATIENCE) == 125
    assert not (tmp_path / "ran").exists()


def test_a_tree_may_take_longer_than_patience_has_left(binary: Path, tmp_path: Path) -> None:
    data = whole_call(words("cat", str(tmp_path / "tree" / "g")), sent_to(tmp_path / "tree"))
    with PraxisWait(binary, "socket").start("--patience", "1") as waiting:
        waiting.send(data[:100])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.process.wait(1.5)
        waiting.send(data[100:])
        while waiting.told.end is None and waiting.hear():
            pass
        assert waiting.told.end == EXIT_0


# --- full, and closed -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to mount a small disk")
def test_a_disk_that_is_full_stops_the_call_and_is_named(binary: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {small} && exec {binary} wait"
    front = ["unshare", "--mount", "sh", "-c", f"{mount} --listen $1 --secret-sha256 $2", "sh"]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"]).returncode != 0:
        pytest.skip("needs unshare")
    for entries, last in (
        (encode_tree_file("large", 0o644, 0) + encode_data(b"x" * 65536) * 2, "large"),
        (b"".join(encode_tree_file(f"f{number}", 0o644, 0) + encode_data(b"x") for number in range(30)), "f"),
    ):
        with pod(front) as connection:
            begin = encode_tree(str(small / "tree"), BOUNDS, returns=True)
            connection.sendall(whole_call(words("touch", str(tmp_path / "ran")), begin, entries))
            *_, detail, end = all_events(connection)
        assert end == Ended(EndKind.SETUP_FAILED, errno.ENOSPC, "tree")
        assert isinstance(detail, Detail)
        assert detail.text.startswith(last)
        assert detail.text.endswith(": No space left on device")
    assert not (tmp_path / "ran").exists()


@contextmanager
def pod(front: list[str]) -> Iterator[socket.socket]:
    """A waiter that the words start, its address and digest behind them; connected, and hello said."""
    with ended_after(*start_listening(front, SECRET, bare=True)) as (_, port), connect(port, SECRET) as connection:
        assert isinstance(FrameDecoder().feed(connection.recv(100))[0], Hello)
        yield connection


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to lay out what a pod has")
def test_all_of_it_works_with_a_read_only_root_as_nobody_without_any_capability(
    init_as_pid_1: object, binary: Path
) -> None:
    """As in a pod of the restricted standard: PID 1, uid 65534, nothing writable but a volume and /tmp."""
    del init_as_pid_1
    layout = (
        "set -e; mount -t tmpfs -o mode=1777,size=8m none /media; cp $0 /media/praxis-init; "
        "mkdir -m 777 /media/volume; "
        "mount --bind / /mnt; mount -o remount,ro,bind /mnt; mount --bind /dev /mnt/dev; mount --bind /media /mnt/tmp; "
        "mount -t proc proc /mnt/proc; "
        "exec chroot /mnt setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all "
        "--inh-caps=-all /tmp/praxis-init wait --listen $1 --secret-sha256 $2"
    )
    front = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", layout, str(binary)]
    script = (
        "cd /tmp/volume; id -u; grep -h CapEff /proc/self/status; touch /x 2>/dev/null || echo read-only; cat d/f; "
        "chmod 755 d; echo new > d/n; rm g; ls /proc/self/fd | wc -l"
    )
    with pod(front) as connection:
        trees = sent_to(Path("/tmp/volume")) + sent_to(Path("/tmp/made/on/the/way"), returns=False)
        machine = normalize_machine(os.uname().machine) or ""
        call = sh(script, no_network=True, seccomp=filter_program(machine))
        connection.sendall(whole_call(call, trees))
        events = all_events(connection)
    found = [event for event in events if isinstance(event, Found)]
    said = b"".join(event.data for event in events if isinstance(event, Output))
    end = events[-1]
    assert end == EXIT_0, said
    assert said.split(b"\n")[:3] == [b"65534", b"CapEff:\t0000000000000000", b"read-only"]
    assert [part.path for part in found if isinstance(part, FoundFile)] == ["d/n"]
    assert [part.path for part in found if isinstance(part, FoundGone)] == ["g"]


@pytest.mark.docker
def test_all_of_it_works_in_a_container_with_the_runtimes_own_filter(binary: Path) -> None:
    """What Kubernetes calls RuntimeDefault is Docker's; connected from outside, as by `channel: direct`."""
    words_in = wait_words("/praxis-init", 60, listen="0.0.0.0:7031", secret=SECRET)
    options = ["--rm", "--detach", "--read-only", "--user=65534", "--cap-drop=ALL", "--tmpfs=/tmp:mode=1777",
               "--security-opt=no-new-privileges", f"--volume={binary}:/praxis-init:ro"]  # fmt: skip
    done = subprocess.run(["docker", "run", *options, "busybox:1.36", *words_in], capture_output=True, text=True,
                          timeout=PATIENCE, check=True)  # fmt: skip
    container = done.stdout.strip()
    try:
        where = ["docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", container]
        host = subprocess.run(where, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip()
        machine = normalize_machine(os.uname().machine) or ""
        with connected(host, 7031) as connection:
            script = "cd /tmp/tree; cat d/f; echo new > g; rm l; mkdir n; ln -s g n/l"
            call = sh(script, no_network=True, seccomp=filter_program(machine))
            connection.sendall(whole_call(call, sent_to(Path("/tmp/tree"))))
            events = all_events(connection)
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=PATIENCE)
    assert events[-1] == EXIT_0
    assert [event.path for event in events if isinstance(event, FoundFile | FoundLink)] in (["g", "n/l"], ["n/l", "g"])
    assert [event.path for event in events if isinstance(event, FoundGone)] == ["l"]


@contextmanager
def connected(host: str, port: int) -> Iterator[socket.socket]:
    """A connection to a waiter that is just starting, the secret sent."""
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            with connect(port, SECRET, host) as connection:
                yield connection
                return
        except ConnectionRefusedError:
            assert time.monotonic() < limit
            select.select([], [], [], 0.02)


def test_a_waiter_whose_findings_nobody_takes_ends_when_it_is_told_to(binary: Path, tmp_path: Path) -> None:
    begin = encode_tree(str(tmp_path / "tree"), TreeBounds(), returns=True)
    with PraxisWait(binary, "socket").start() as waiting:
        script = f"head -c 20000000 /dev/zero > {tmp_path}/tree/large; touch {tmp_path}/done"
        waiting.send(whole_call(sh(script), begin))
        limit = time.monotonic() + PATIENCE
        while not (tmp_path / "done").exists() or len(marked(waiting.mark)) > 1:
            assert time.monotonic() < limit
            select.select([], [], [], 0.02)
        assert waiting.process.poll() is None
        while waiting.process.poll() is None:  # one that comes before the command's end is known ends the command
            assert time.monotonic() < limit
            waiting.process.send_signal(signal.SIGTERM)
            select.select([], [], [], 0.02)
        assert (waiting.wait(), waiting.survivors()) == (125, [])


def test_thousands_of_closed_directories_take_no_time(binary: Path, tmp_path: Path) -> None:
    """Of the waiter: it receives no signal while it looks for them."""
    names = [f"d{number}" for number in range(40_000)]
    entries = [encode_tree_directory(name, 0o755) for name in names]
    entries += [encode_tree_directory(name, 0o555) for name in reversed(names)]
    begin = encode_tree(str(tmp_path / "tree"), TreeBounds(entries=2 * len(names)), returns=True)
    with PraxisWait(binary, "socket").start() as waiting:
        waiting.send(whole_call(words("true"), begin, *entries))
        while waiting.told.end is None and waiting.hear():
            pass
        assert (waiting.told.end, waiting.told.refusal) == (EXIT_0, None)
        own = int(Path(f"/proc/{waiting.process.pid}/stat").read_text().rpartition(")")[2].split()[11])
        assert own / os.sysconf("SC_CLK_TCK") < 2.0


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_damaged_trees_neither_crash_nor_hang_a_waiter(checked_binary: Path, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    tmp_path.chmod(0o777)
    place = tmp_path / "tree"
    script = sh(f"cd {place}; rm -r d; echo x > x; ln -s . y; chmod 0 x", timeout=5)
    # The call and the tree's place stay as they are: what comes of other ones is not this test's to say.
    begin = encode_call(script) + encode_tree(str(place), BOUNDS, returns=True)
    entries = sent_to(place).removeprefix(encode_tree(str(place), BOUNDS, returns=True))
    data = begin + damaged(entries, dice) + encode_start() + encode_stdin_end()
    wait = PraxisWait(checked_binary, "socket" if seed % 3 else "pipes")
    with wait.start(user=NOBODY if IS_ROOT else None, ASAN_OPTIONS="detect_leaks=0") as waiting:
        position = 0
        while position < len(data):
            size = dice.choice([1, 7, 100, 5000])
            waiting.send(data[position : position + size])
            position += size
        # To its end, where there is one; where it waits for more, there is none.
        while waiting.told.end is None and waiting.told.refusal is None:
            if not select.select([waiting._read], [], [], 2.0)[0] or not waiting.hear():
                break
        waiting.close()
        assert waiting.wait() in (0, 125)
        assert waiting.survivors() == []
        assert waiting.process.stderr is not None
        assert b"Sanitizer" not in waiting.process.stderr.read()


def test_the_checked_waiter_carries_trees_and_refuses_nonsense(checked_binary: Path, tmp_path: Path) -> None:
    place = tmp_path / "tree"
    script = f"cd {place}; rm -r d; yes | head -c 3000000 > x; mkdir -p a/b/c; truncate -s 1M h; ln -s . y; echo z > g"
    with PraxisWait(checked_binary).start(ASAN_OPTIONS="detect_leaks=0") as waiting:
        waiting.send(whole_call(sh(script), sent_to(place)))
        while waiting.told.end is None and waiting.hear():
            pass
        assert waiting.told.end == EXIT_0
        waiting.close()
        assert waiting.wait() == 0
    for number, reason in enumerate(nonsense(b"/x")):
        with PraxisWait(checked_binary).start(ASAN_OPTIONS="detect_leaks=0") as waiting:
            waiting.send(nonsense(os.fsencode(tmp_path / f"t{number}"))[reason])
            while waiting.told.refusal is None and waiting.hear():
                pass
            assert reason in (waiting.told.refusal or "")
