"""A channel that ends or speaks nonsense, at every step: the waiter goes, and all that it started."""

import os
import random
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from praxis_mcp.engines.init.framing import (
    FrameType,
    Hello,
    Output,
    WaitFile,
    encode_call,
    encode_start,
    encode_stdin,
    encode_stdin_end,
)
from praxis_mcp.support.praxis_init import Ended, EndKind
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE
from tests.native.waiting import PraxisWait, Waiting, sh, whole, words

LASTING = sh("trap '' TERM HUP; setsid sh -c 'sleep 1000' & echo ready; sleep 1000")


def gone(waiting: Waiting, status: int) -> None:
    assert (waiting.wait(), waiting.survivors()) == (status, [])


def test_a_channel_that_ends_before_a_call_is_left_quietly(placed_wait: PraxisWait) -> None:
    with placed_wait.start() as waiting:
        waiting.close()
        gone(waiting, 0)
    with placed_wait.start() as waiting:
        waiting.hear(Hello)
        waiting.close()
        gone(waiting, 0)
        assert waiting.process.stderr is not None
        assert waiting.process.stderr.read() == b""


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_a_channel_that_ends_within_a_call_starts_nothing(
    placed_wait: PraxisWait, tmp_path: Path, share: float
) -> None:
    call = whole(words("touch", str(tmp_path / "ran"), files=[WaitFile(os.fsencode(tmp_path / "file"), b"x" * 5000)]))
    with placed_wait.start() as waiting:
        waiting.hear(Hello)
        waiting.send(call[: int(len(call) * share)])
        waiting.close()
        assert waiting.wait() in (0, 125)  # 0 within the very first frame
        assert waiting.survivors() == []
    assert not (tmp_path / "ran").exists()


def test_a_channel_that_ends_while_the_command_runs_ends_all(placed_wait: PraxisWait) -> None:
    with placed_wait.start() as waiting:
        waiting.send(whole(LASTING))
        assert waiting.hear(Output)
        waiting.close()
        gone(waiting, 125)


def test_hanging_up_in_one_direction_is_enough(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.send(whole(LASTING))
        assert waiting.hear(Output)
        if wait.channel != "pipes":
            with socket.socket(fileno=os.dup(waiting._write)) as half:
                half.shutdown(socket.SHUT_WR)
        else:
            waiting.close(only_writing=True)
        gone(waiting, 125)


def test_a_channel_that_ends_in_the_middle_of_a_flood_ends_all(placed_wait: PraxisWait) -> None:
    with placed_wait.start() as waiting:
        waiting.send(whole(sh("yes & yes >&2")))
        assert waiting.hear(Output)
        waiting.close()
        gone(waiting, 125)


def test_a_channel_that_ends_while_input_waits_unread_ends_all(placed_wait: PraxisWait) -> None:
    with placed_wait.start() as waiting:
        waiting.send(whole(LASTING))
        assert waiting.hear(Output)
        for _ in range(4):
            waiting.send(encode_stdin(b"x" * 65536))
        waiting.close()
        gone(waiting, 125)


def test_a_waiter_stays_after_the_end_until_the_caller_has_hung_up(wait: PraxisWait) -> None:
    for hang_up in (b"", BEGIN + BEGIN):
        with wait.start() as waiting:
            waiting.send(whole(sh("echo last")))
            while waiting.told.end is None and waiting.hear():
                pass
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.process.wait(0.2)
            if hang_up:
                waiting.send(hang_up)
            else:
                waiting.close()
            gone(waiting, 0)


def test_a_call_that_begins_twice_ends_all_that_runs(placed_wait: PraxisWait) -> None:
    with placed_wait.start() as waiting:
        waiting.send(whole(LASTING))
        assert waiting.hear(Output)
        waiting.send(BEGIN + BEGIN)
        gone(waiting, 125)


def test_patience_ends(wait: PraxisWait) -> None:
    with wait.start("--patience", "0.1") as waiting:
        waiting.hear(Hello)
        gone(waiting, 0)


def test_a_call_in_time_is_not_cut_by_patience(wait: PraxisWait) -> None:
    with wait.start("--patience", "0.5") as waiting:
        assert waiting.call(sh("sleep 1; exit 4")).end == Ended(EndKind.EXIT, 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_waiter_that_is_told_to_end_ends(wait: PraxisWait, number: signal.Signals) -> None:
    with wait.start() as waiting:
        waiting.hear(Hello)
        waiting.process.send_signal(number)
        gone(waiting, 0)


def test_a_command_is_told_to_end_with_its_waiter(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.send(whole(sh("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done", kill_after=20)))
        assert waiting.hear(Output)
        waiting.process.send_signal(signal.SIGTERM)
        while waiting.told.end is None and waiting.hear():
            pass
        assert waiting.told.end == Ended(EndKind.EXIT, 9)


def test_the_command_dies_with_a_waiter_that_is_killed(wait: PraxisWait) -> None:
    with wait.start() as waiting:
        waiting.send(whole(sh("echo ready; exec sleep 1000")))
        assert waiting.hear(Output)
        waiting.process.kill()
        assert waiting.survivors() == []


@pytest.mark.parametrize("words", [["--socket", "/nowhere/socket"], ["--socket", "x" * 200], ["--socket"], ["--no"],
                                   ["--patience", "0"]])  # fmt: skip
def test_a_wrong_command_line_is_125_with_a_reason(binary: Path, words: list[str]) -> None:
    done = subprocess.run([binary, "wait", *words], capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert done.returncode == 125
    assert done.stderr.startswith(b"praxis-init: ")


# --- nonsense ---------------------------------------------------------------------------------------------------------


def frame(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<II", kind, len(payload) if length is None else length) + payload


BEGIN = encode_call(words("true"))
NONSENSE = {
    "unknown here": frame(77),
    "of a type": frame(FrameType.HELLO),
    "type that is": frame(1 | 1 << 8),
    "128 KiB": BEGIN + frame(FrameType.ARGUMENT, length=128 * 1024 + 1),
    "more than 128": BEGIN + frame(FrameType.STDIN, length=0xFFFFFFFF),
    "does not begin": frame(FrameType.ARGUMENT, b"x"),
    "second CALL": BEGIN + BEGIN,
    "20 bytes": frame(FrameType.CALL, b"short"),
    "flags": frame(FrameType.CALL, struct.pack("<IQQ", 8, 0, 0)),
    "31 years": frame(FrameType.CALL, struct.pack("<IQQ", 0, 2**64 - 1, 0)),
    "NUL byte": BEGIN + frame(FrameType.ARGUMENT, b"a\0b"),
    "a text with": BEGIN + frame(FrameType.VARIABLE, b"N=\0"),
    "that is unknown": BEGIN + frame(4),
    "without a name": BEGIN + frame(FrameType.VARIABLE, b"=x"),
    "a variable": BEGIN + frame(FrameType.VARIABLE, b"x"),
    "without a path": BEGIN + frame(FrameType.FILE, b"\0\0\0\0"),
    "4095": BEGIN + frame(FrameType.FILE, b"\0\0\0\0" + b"x" * 4096),
    "07777": BEGIN + frame(FrameType.FILE, b"\0\0\1\0x"),
    "in its path": BEGIN + frame(FrameType.FILE, b"\0\0\0\0x\0"),
    "of 1 to 4096": BEGIN + frame(FrameType.FILTER, b"seven b"),
    "1 to 4096 instructions": BEGIN + frame(FrameType.FILTER, b"\0" * 8 * 4097),
    "second FILTER": BEGIN + frame(FrameType.FILTER, b"\x06" + b"\0" * 7) * 2,
    "FILE_DATA": BEGIN + frame(FrameType.FILE_DATA, b"x"),
    "standard input before": BEGIN + frame(FrameType.STDIN, b"x"),
    "without a command": frame(FrameType.CALL, struct.pack("<IQQ", 0, 0, 0)) + encode_start(),
    "START with": BEGIN + frame(FrameType.START, b"x"),
    "8 MiB": BEGIN + frame(FrameType.ARGUMENT, b"x" * 131_000) * 65,
    "8192": BEGIN + b"".join(frame(FrameType.VARIABLE, b"N%d=" % number) for number in range(8193)),
    "after START": whole(sh("sleep 1000")) + frame(FrameType.ARGUMENT, b"x"),
    "other than standard": whole(sh("sleep 1000")) + frame(FrameType.STDIN_END, b"x"),
    "after its end": whole(sh("sleep 1000")) + encode_stdin_end() + encode_stdin(b"x"),
    "credit": whole(sh("sleep 1000")) + encode_stdin(b"x" * 131_072) * 3,
}


@pytest.mark.parametrize("reason", NONSENSE)
def test_nonsense_is_refused_with_a_reason_and_nothing_runs_any_more(placed_wait: PraxisWait, reason: str) -> None:
    with placed_wait.start() as waiting:
        waiting.send(NONSENSE[reason])
        while waiting.told.refusal is None and waiting.hear():
            pass
        assert waiting.told.refusal is not None
        assert reason in waiting.told.refusal
        gone(waiting, 125)


def damaged(original: bytes, dice: random.Random) -> bytes:
    data = bytearray(original)
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[place] = dice.randrange(256)
            case 1:
                del data[place : place + dice.randint(1, 40)]
            case 2:
                data[place:place] = dice.randbytes(dice.randint(1, 40))
            case _:
                other = dice.randrange(len(data))
                data[place:place] = data[other : other + dice.randint(1, 60)]
        if not data:
            return bytes(data)
    return bytes(data)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_frames_neither_crash_nor_hang_a_waiter(checked_binary: Path, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    # Relative, and as nobody where this is root: damage may change any path.
    call = words("echo", "a", "b", env={b"A": b"1", b"B": b"2"}, timeout=5,
                 files=[WaitFile(b"/proc/self/nowhere/file", b"content" * 50)] if seed % 2 else [])  # fmt: skip
    data = damaged(whole(call) + encode_stdin(b"input" * 20) + encode_stdin_end(), dice)
    if seed % 10 == 0:
        data = dice.randbytes(4000)
    wait = PraxisWait(checked_binary, "socket" if seed % 3 else "pipes")
    with wait.start(user=NOBODY if IS_ROOT else None, ASAN_OPTIONS="detect_leaks=0", TMPDIR=str(tmp_path)) as waiting:
        position = 0
        while position < len(data):
            size = dice.choice([1, 7, 100, 5000])
            waiting.send(data[position : position + size])
            position += size
        waiting.close()
        assert waiting.wait() in (0, 125)
        assert waiting.survivors() == []
        assert waiting.process.stderr is not None
        assert b"Sanitizer" not in waiting.process.stderr.read()


def test_the_checked_waiter_runs_a_call_and_refuses_nonsense(checked_binary: Path) -> None:
    wait = PraxisWait(checked_binary)
    with wait.start(ASAN_OPTIONS="detect_leaks=0") as waiting:
        told = waiting.call(sh("cat; yes | head -c 3000000 >&2"), b"x" * 1_000_000)
        assert (len(told.stdout), len(told.stderr), told.end) == (1_000_000, 3_000_000, Ended(EndKind.EXIT, 0))
    for reason, data in NONSENSE.items():
        with wait.start(ASAN_OPTIONS="detect_leaks=0") as waiting:
            waiting.send(data)
            while waiting.told.refusal is None and waiting.hear():
                pass
            assert reason in (waiting.told.refusal or "")


def test_output_of_a_short_command_is_not_waited_for_by_looking_again_and_again(wait: PraxisWait) -> None:
    """It has ended within the moment for which its output stays in its pipes. That the moment is over must be seen
    where there is no room for output, too. Whether a command is so fast is up to the machine: some are."""
    for _ in range(5):
        with wait.start() as waiting:
            waiting.send(whole(sh("printf %65536s; printf %65536s >&2")))
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.process.wait(0.1)
            assert Path(f"/proc/{waiting.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
            while waiting.told.end is None and waiting.hear():
                pass
            assert (len(waiting.told.stdout), len(waiting.told.stderr)) == (65536, 65536)
            waiting.close()
            gone(waiting, 0)
