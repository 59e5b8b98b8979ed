"""A call that comes over a channel: what reaches the command, what comes back."""

import errno
import hashlib
import os
import signal
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praxis_mcp.engines.init.framing import Hello, Output, WaitCall, WaitFile
from praxis_mcp.engines.init.seccomp import filter_program
from praxis_mcp.support.praxis_init import Ended, EndKind, normalize_machine
from tests.native.harness import IS_ROOT, NOBODY, marked, past_its_deadline
from tests.native.waiting import PraxisWait, Told, python_bytes, sh, whole, words

EXIT_0 = Ended(EndKind.EXIT, 0)
SIZE = int(os.environ.get("PRAXIS_TEST_STREAM_MB", "64")) << 20
"""Bytes through each direction; 1 GB takes some ten seconds: PRAXIS_TEST_STREAM_MB=1024."""

text = st.binary(max_size=200).map(lambda data: data.replace(b"\0", b"\1"))
names = st.from_regex(rb"[A-Za-z_\x80-\xff][^\x00=]{0,20}", fullmatch=True)


def test_a_waiter_says_what_it_is(placed_wait: PraxisWait) -> None:
    with placed_wait.start() as waiting:
        assert waiting.hear(Hello)
        hello = waiting.told.hello
    assert hello is not None
    assert hello.machine == normalize_machine(os.uname().machine)
    assert (hello.pid == 1) is placed_wait.as_pid_1


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", EXIT_0),
        ("exit 124", Ended(EndKind.EXIT, 124)),
        ("exit 127", Ended(EndKind.EXIT, 127)),
        ("kill -TERM $$", Ended(EndKind.SIGNAL, signal.SIGTERM)),
        ("kill -KILL $$", Ended(EndKind.SIGNAL, signal.SIGKILL)),
    ],
)
def test_the_end_says_how_it_ended(placed_wait: PraxisWait, script: str, end: Ended) -> None:
    with placed_wait.start() as waiting:
        told = waiting.call(sh(f"ulimit -c 0; {script}"))
        assert (told.end, waiting.wait(), waiting.survivors()) == (end, 0, [])


def test_what_cannot_be_executed_is_reported_with_its_errno(wait: PraxisWait, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    (tmp_path / "closed").touch(mode=0o644)
    for word, number in (
        ("praxis-no-such-command", errno.ENOENT),
        (str(tmp_path / "text"), errno.ENOEXEC),
        (str(tmp_path / "closed"), errno.EACCES),
    ):
        with wait.start() as waiting:
            told = waiting.call(words(word))
            assert (told.end, told.stderr) == (Ended(EndKind.EXEC_FAILED, number), b"")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(text, max_size=8), env=st.dictionaries(names, text, max_size=8), stdin=st.binary())
def test_any_bytes_arrive_as_words_variables_and_standard_input(
    wait: PraxisWait, arguments: list[bytes], env: dict[bytes, bytes], stdin: bytes
) -> None:
    with wait.start() as waiting:
        told = waiting.call(WaitCall([b"/usr/bin/printf", b"%s\\0", b"first", *arguments]))
        assert bytes(told.stdout).split(b"\0")[:-1] == [b"first", *arguments]
    with wait.start() as waiting:
        told = waiting.call(WaitCall([b"/usr/bin/env", b"-0"], env))
        assert env.items() <= dict(item.split(b"=", 1) for item in bytes(told.stdout).split(b"\0")[:-1]).items()
    with wait.start() as waiting:
        told = waiting.call(words("tee", "/dev/stderr"), stdin)
        assert (bytes(told.stdout), bytes(told.stderr), told.end) == (stdin, stdin, EXIT_0)


def test_variables_are_added_to_the_waiters_own(wait: PraxisWait) -> None:
    with wait.start(KEPT="kept", CHANGED="old") as waiting:
        told = waiting.call(sh('echo "$KEPT $CHANGED $NEW"', env={b"CHANGED": b"changed", b"NEW": b"new"}))
        assert told.stdout == b"kept changed new\n"


def test_hidden_variables_are_the_waiters_own_never_the_calls(wait: PraxisWait) -> None:
    hide = ("--hide", "OTEL_")
    with wait.start(*hide, OTEL_A="theirs", OTEL_B="theirs", OTEL_C="theirs", PRAXIS_KEPT_OTEL_C="ours") as waiting:
        told = waiting.call(sh('echo "$OTEL_A.$OTEL_B.$OTEL_C"', env={b"OTEL_A": b"the call's"}))
        assert told.stdout == b"the call's..ours\n"


def test_the_command_is_looked_up_on_the_path_of_the_call(wait: PraxisWait, tmp_path: Path) -> None:
    (tmp_path / "my-tool").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "my-tool").chmod(0o755)
    with wait.start() as waiting:
        assert waiting.call(words("my-tool", env={b"PATH": os.fsencode(tmp_path)})).stdout == b"found\n"


def test_the_longest_word_that_linux_takes_arrives(wait: PraxisWait) -> None:
    word = b"x" * (128 * 1024 - 1)
    with wait.start() as waiting:
        assert waiting.call(WaitCall([b"/usr/bin/printf", b"%s", word])).stdout == word


def test_more_than_linux_takes_is_reported_as_its_errno(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        told = waiting.call(WaitCall([b"true"] + [b"x" * 131_000] * 60))
        assert told.end == Ended(EndKind.EXEC_FAILED, errno.E2BIG)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=text.filter(lambda name: name not in (b"", b".", b"..") and b"/" not in name), content=st.binary())
def test_files_are_there_with_their_content_and_mode(
    wait: PraxisWait, tmp_path: Path, name: bytes, content: bytes
) -> None:
    place = os.fsencode(tmp_path) + b"/made/on/the/way/" + name
    with wait.start() as waiting:
        told = waiting.call(WaitCall([b"/bin/cat", place], files=[WaitFile(place, content, 0o640)]))
        assert (bytes(told.stdout), told.end) == (content, EXIT_0)
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o640


def test_a_large_file_is_made_before_the_command_starts(wait: PraxisWait, tmp_path: Path) -> None:
    content = b"".join(python_bytes(20 << 20))
    place = os.fsencode(tmp_path / "large")
    files = [WaitFile(place, content), WaitFile(os.fsencode(tmp_path / "other"), b"")]
    with wait.start() as waiting:
        told = waiting.call(WaitCall([b"sha256sum", place], files=files))
    assert bytes(told.stdout).split()[0].decode() == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "other").read_bytes() == b""


def test_a_file_that_is_there_is_replaced(wait: PraxisWait, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("longer than the new one")
    with wait.start() as waiting:
        waiting.call(words("true", files=[WaitFile(os.fsencode(tmp_path / "file"), b"new")]))
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["folder", "pipe", "below a file"])
def test_a_file_that_cannot_be_made_stops_the_call_before_it_starts(
    wait: PraxisWait, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        (tmp_path / "file").touch()
        place = tmp_path / "file" / "place"
    files = [WaitFile(os.fsencode(place), b"x" * 300_000), WaitFile(os.fsencode(tmp_path / "next"), b"x")]
    with wait.start() as waiting:
        told = waiting.call(words("touch", str(tmp_path / "ran"), files=files))
    assert told.end is not None
    assert (told.end.kind, told.end.step) == (EndKind.SETUP_FAILED, "file")
    assert not (tmp_path / "ran").exists()


def test_nothing_but_the_streams_is_open_for_the_command(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        told = waiting.call(words("ls", "/proc/self/fd"))
        assert told.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to become nobody")
def test_the_command_cannot_reach_the_channel_through_its_waiter(wait: PraxisWait) -> None:
    with wait.start(user=NOBODY) as waiting:
        told = waiting.call(sh("echo forged > /proc/$PPID/fd/1 || echo refused"))
        assert told.stdout == b"refused\n"


def test_no_network_leaves_unix_sockets_only(wait: PraxisWait) -> None:
    source = "import socket; socket.socket(socket.AF_UNIX); socket.socket(socket.AF_INET)"
    with wait.start() as waiting:
        told = waiting.call(words("python3", "-c", source, no_network=True))
        assert b"Address family not supported" in told.stderr
    with wait.start() as waiting:
        assert waiting.call(words("python3", "-c", source)).end == EXIT_0


@pytest.mark.parametrize("asked", [True, False])
def test_new_privileges_are_refused_on_request(wait: PraxisWait, asked: bool) -> None:
    with wait.start() as waiting:
        told = waiting.call(words("grep", "NoNewPrivs", "/proc/self/status", no_new_privileges=asked))
        assert told.stdout.split()[-1] == (b"1" if asked else b"0")


def test_a_filter_of_the_caller_is_around_the_command_and_a_bad_one_lets_nothing_run(wait: PraxisWait) -> None:
    source = "import socket; socket.sethostname('x')"
    machine = normalize_machine(os.uname().machine) or ""
    with wait.start() as waiting:
        told = waiting.call(words("python3", "-c", source, seccomp=filter_program(machine), no_new_privileges=False))
        assert b"PermissionError" in told.stderr
    with wait.start() as waiting:  # without a return at its end
        told = waiting.call(words("echo", "ran", seccomp=struct.pack("=HBBI", 0x20, 0, 0, 0)))
        assert told.end == Ended(EndKind.SETUP_FAILED, errno.EINVAL, "filter")
        assert not told.stdout


# --- streams ----------------------------------------------------------------------------------------------------------


def test_streams_of_any_length_pass_both_ways_in_bounded_memory(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.hear(Hello)
        waiting.keeps = False
        waiting.send(whole(words("cat")))
        waiting.feed(python_bytes(SIZE))
        memory = Path(f"/proc/{waiting.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        while waiting.told.end is None and waiting.hear():
            pass
        assert (waiting.told.out, waiting.told.end) == (SIZE, EXIT_0)
        assert int(memory) < 2048  # KiB


def test_a_command_that_floods_both_streams_is_read_whole(wait: PraxisWait) -> None:
    source = """
import os, threading
def flood(stream, byte):
    for _ in range(300):
        os.write(stream, byte * 32768)
threads = [threading.Thread(target=flood, args=each) for each in ((1, b"a"), (2, b"b"))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    with wait.start() as waiting:
        told = waiting.call(words("python3", "-c", source))
        assert (told.stdout == b"a" * 9_830_400, told.stderr == b"b" * 9_830_400) == (True, True)


def test_input_that_is_not_read_does_not_hold_output_up(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        # As much as the window holds; the command writes far more than a pipe takes, and then leaves.
        told = waiting.call(sh("head -c 5000000 /dev/zero; exit 4"), b"x" * 256 * 1024)
        assert (len(told.stdout), told.end) == (5_000_000, Ended(EndKind.EXIT, 4))


def test_a_command_that_closes_its_input_is_reported(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.hear(Hello)
        waiting.send(whole(sh("exec 0<&-; echo closed; exec sleep 1000")))
        waiting.feed(python_bytes(10 << 20))
        assert waiting.told.stdin_closed
        assert waiting.told.end is None


def test_input_stays_open_until_its_end_is_sent(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.hear(Hello)
        waiting.send(whole(sh("while read line; do echo got $line; done; echo end")))
        waiting.feed(iter([b"one\n"]))
        while waiting.told.end is None and waiting.hear():
            pass
        assert waiting.told.stdout == b"got one\nend\n"


def test_output_is_sent_while_the_command_runs(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.send(whole(sh("echo first; exec sleep 1000")))
        assert waiting.hear(Output)
        assert (waiting.told.stdout, waiting.told.end) == (b"first\n", None)


# --- the tree ---------------------------------------------------------------------------------------------------------

IGNORING = "setsid sh -c 'trap \"\" TERM INT HUP; echo hidden >&2; while :; do sleep 1000; done' &"


def test_the_deadline_ends_the_whole_tree(placed_wait: PraxisWait) -> None:
    def run(seconds: float) -> Told:
        script = f"trap '' TERM; {IGNORING} read line; sleep 1000"
        with placed_wait.start() as waiting:
            told = waiting.call(sh(script, timeout=seconds, kill_after=0.2), None)
            assert (told.end, waiting.wait(), waiting.survivors()) == (Ended(EndKind.TIMEOUT), 0, [])
        return told

    assert past_its_deadline(run, lambda told: told.stderr).stderr == b"hidden\n"


def test_a_deadline_ends_a_command_whose_output_nobody_takes(wait: PraxisWait) -> None:
    def run(seconds: float) -> bool:
        with wait.start() as waiting:
            waiting.hear(Hello)
            waiting.send(whole(words("cat", "/dev/zero", timeout=seconds)))
            while not waiting.told.out and waiting.told.end is None and waiting.hear():
                pass
            has_begun = waiting.told.out > 0
            waiting.keeps = False
            while len(marked(waiting.mark)) > 1:  # nothing is read until the waiter is alone again
                assert waiting.process.poll() is None
            while waiting.told.end is None and waiting.hear():
                pass
            assert waiting.told.end == Ended(EndKind.TIMEOUT)
        return has_begun

    assert past_its_deadline(run, bool)


def test_what_a_command_leaves_behind_ends_with_it(placed_wait: PraxisWait, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    hiding = IGNORING.replace("echo hidden >&2", f"echo hidden > {fifo}")
    with placed_wait.start() as waiting:
        told = waiting.call(sh(f"{hiding} read line < {fifo}; echo $line; exit 5"))
        assert (told.end, told.stdout) == (Ended(EndKind.EXIT, 5), b"hidden\n")
        assert (waiting.wait(), waiting.survivors()) == (0, [])


@pytest.mark.skipif(not IS_ROOT, reason="needs a user of its own, whose processes can be counted")
def test_a_fork_bomb_is_ended(wait: PraxisWait) -> None:
    bomb = """
import os, resource, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_NPROC, (60, 60))
os.write(1, b"lit")
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""

    def run(seconds: float) -> Told:
        with wait.start(user=NOBODY) as waiting:
            told = waiting.call(words("/usr/bin/python3", "-I", "-c", bomb, timeout=seconds))
            assert (told.end, waiting.wait(), waiting.survivors()) == (Ended(EndKind.TIMEOUT), 0, [])
        return told

    assert past_its_deadline(run, lambda told: told.stdout).stdout == b"lit"
