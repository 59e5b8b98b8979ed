"""The message that lays out a sandbox: whatever comes in its place is refused, and nothing crashes over it."""

import os
import platform
import signal
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praxis_mcp.engines.init.framing import FrameType, FramingError, WaitCall, WaitFile, encode_call, encode_start
from praxis_mcp.engines.init.layout import (
    LaidMount,
    MountFlag,
    MountKind,
    SandboxLayout,
    encode_sandbox,
    encode_waiting_sandbox,
)
from praxis_mcp.engines.init.seccomp import filter_program
from praxis_mcp.engines.init.trees import TreeBounds, encode_hole, encode_tree
from praxis_mcp.support.praxis_init import Ended, EndKind, normalize_machine
from tests.kit import requirements
from tests.kit.unkillable import children_of
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE
from tests.native.sandboxing import ENV, MIB, Bench, works_for
from tests.native.waiting import Waiting, words

UNCHECKED = {"ASAN_OPTIONS": "detect_leaks=0"}
USER = NOBODY if IS_ROOT else None
FILTER = filter_program(normalize_machine(platform.machine()) or "")
"""What engines send."""


@pytest.fixture(scope="module")
def bench(checked_binary: Path) -> Iterator[Bench]:
    """Sandboxes of a praxis-init with every memory access checked, as a plain user: damage may say anything."""
    if why := works_for(checked_binary, USER):
        requirements.give_up("native", f"no sandbox for this user here: {why}")
    with (found := Bench(checked_binary, USER)).stack:
        yield found


def frame(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<II", kind, len(payload) if length is None else length) + payload


def layout(
    version: int = 1, flags: int = 0, uid: int = 0, gid: int = 0, patience: int = 0, tail: bytes = b"box\0/"
) -> bytes:
    return frame(FrameType.LAYOUT, struct.pack("<IIIIQ", version, flags, uid, gid, patience) + tail)


def mount(kind: int, path: bytes = b"/x", flags: int = 0, mode: int = 0, fd: int = 2**32 - 1, size: int = 0,
          files: int = 0) -> bytes:  # fmt: skip
    return frame(FrameType.MOUNT, struct.pack("<IIIIQQ", kind, flags, mode, fd, size, files) + path)


BEGIN = layout()
ROOT = BEGIN + mount(MountKind.ROOT_MEMORY, b"/", mode=0o755, size=MIB, files=64)
LAID = ROOT + frame(FrameType.LAID)
HOSTS = layout(flags=4) + mount(MountKind.ROOT_MEMORY, b"/", mode=0o755, size=MIB, files=64)
WAITS = layout(flags=2) + mount(MountKind.ROOT_MEMORY, b"/", mode=0o755, size=MIB, files=64)
NONSENSE = {
    "ends too early": b"",
    "too early": LAID,
    "of a type that is unknown here": frame(77),
    "type that is unknown": BEGIN + frame(FrameType.CALL, b"x" * 20),
    "128 KiB": BEGIN + frame(FrameType.MOUNT, length=2**32 - 1),
    "does not begin with LAYOUT": frame(FrameType.LAID),
    "second LAYOUT": BEGIN + BEGIN,
    "LAYOUT that is too short": frame(FrameType.LAYOUT, b"x" * 23),
    "version": layout(version=2),
    "LAYOUT with flags": layout(flags=16),
    "above 2147483647": layout(uid=2**31),
    "user or group": layout(gid=2**32 - 1),
    "31 years": layout(flags=2, patience=2**64 - 1),
    "waits for nothing": layout(patience=1),
    "host name": layout(tail=b"\0/"),
    "1 to 64 bytes": layout(tail=b"x" * 65 + b"\0/"),
    "without a host name": layout(tail=b"box"),
    "path that is empty": layout(tail=b"box\0"),
    "absolute and plain": layout(tail=b"box\0usr"),
    "MOUNT that is too short": BEGIN + frame(FrameType.MOUNT, b"x" * 31),
    "kind that is unknown": ROOT + mount(0),
    "of a kind": ROOT + mount(12),
    "flags that its kind": ROOT + mount(MountKind.PROC, flags=MountFlag.IS_WRITABLE),
    "07777": ROOT + mount(MountKind.DIRECTORY, mode=0o10000),
    "permission bits": ROOT + mount(MountKind.PROC, mode=0o755),
    "size out of bounds": ROOT + mount(MountKind.MEMORY, size=4095, files=16),
    "with a size": ROOT + mount(MountKind.MEMORY, size=2**64 - 1, files=16),
    "number of files": ROOT + mount(MountKind.MEMORY, size=4096, files=2**24 + 1),
    "is not open": ROOT + mount(MountKind.BIND, fd=999_999),
    "with a descriptor": ROOT + mount(MountKind.BIND, fd=1),
    "is missing": ROOT + mount(MountKind.BIND),
    "does not have": ROOT + mount(MountKind.DIRECTORY, fd=3),
    "not the first MOUNT": BEGIN + mount(MountKind.PROC),
    "not at /": BEGIN + mount(MountKind.ROOT_MEMORY, b"/x", size=MIB, files=64),
    "another MOUNT there": ROOT + mount(MountKind.PROC, b"/"),
    "first MOUNT": ROOT + mount(MountKind.ROOT_MEMORY, b"/", size=MIB, files=64),
    "without a root": BEGIN + frame(FrameType.LAID),
    "FILTER, or one of": ROOT + frame(FrameType.FILTER, bytes(8)),
    "second FILTER": WAITS + frame(FrameType.FILTER, bytes(8)) * 2,
    "LAID with": ROOT + frame(FrameType.LAID, b"x"),
    "link without": ROOT + mount(MountKind.LINK, b"/x"),
    "target that is empty": ROOT + mount(MountKind.LINK, b"/x\0"),
    "link with a target": ROOT + mount(MountKind.LINK, b"/x\0" + b"y" * 4096),
    "4096 mounts": ROOT + mount(MountKind.PROC) * 4096,
    "8 MiB": ROOT + mount(MountKind.PROC, b"/" + b"/".join([b"x" * 255] * 15)) * 2200,
    "GROUP that is": ROOT + frame(FrameType.GROUP, b"x"),
    "GROUP too many": ROOT + frame(FrameType.GROUP, struct.pack("<II", 3, 3)),
    "whose descriptor": ROOT + frame(FrameType.GROUP, struct.pack("<II", 1, 999_999)),
    "LIMIT that is": ROOT + frame(FrameType.LIMIT, b"x"),
    "LIMIT too many": ROOT + frame(FrameType.LIMIT, struct.pack("<IQQ", 16, 0, 0)),
    "or of a resource": ROOT + frame(FrameType.LIMIT, struct.pack("<IQQ", 0, 0, 0)) * 17,
    "not root's": layout(flags=4, uid=1),
    "without the machine's users": ROOT + frame(FrameType.MEMBERSHIP, bytes(4)),
    "MEMBERSHIP that is": HOSTS + frame(FrameType.MEMBERSHIP, b"x"),
    "MEMBERSHIP too many": HOSTS + frame(FrameType.MEMBERSHIP, bytes(4)) * 65,
    "of a group above": HOSTS + frame(FrameType.MEMBERSHIP, struct.pack("<I", 2**31)),
    "begin with CALL": LAID + encode_start(),
    "a file in a sandbox": LAID + encode_call(WaitCall([b"x"])) + frame(FrameType.FILE, b"\0\0\0\0/tmp/x"),
    "in a sandbox's call": LAID + encode_call(WaitCall([b"x"])) + encode_tree("/tmp/x", TreeBounds(), returns=False),
    "file in a sandbox's": LAID + encode_call(WaitCall([b"x"])) + encode_hole(1),
    "without a command": LAID + frame(FrameType.CALL, bytes(20)) + encode_start(),
}
PATHS = [b"x", b"/x/", b"//x", b"/x//y", b"/.", b"/..", b"/x/../y", b"/x/.", b"/x\0y", b"/" + b"x" * 256, b"/x" * 2048]


@pytest.mark.parametrize("reason", NONSENSE)
def test_nonsense_is_refused_with_a_reason(bench: Bench, reason: str) -> None:
    seen = bench.send(NONSENSE[reason], env=UNCHECKED)
    assert seen.refusal, seen
    assert reason in seen.refusal
    assert (seen.code, seen.stdout, seen.stderr) == (125, "", "")


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_not_plain_is_refused(bench: Bench, path: bytes) -> None:
    assert "path" in bench.send(ROOT + mount(MountKind.PROC, path), env=UNCHECKED).refusal
    with pytest.raises(FramingError):
        encode_sandbox(SandboxLayout([LaidMount(MountKind.PROC, path)]), WaitCall([b"true"]))


def test_python_refuses_what_the_other_side_would() -> None:
    root = LaidMount(MountKind.ROOT_MEMORY, b"/", size=MIB, files=64)
    call = WaitCall([b"true"])
    for wrong in (
        SandboxLayout([root] * 4097),
        SandboxLayout([root], host_name=b""),
        SandboxLayout([root], host_name=b"x" * 65),
        SandboxLayout([root], uid=2**31),
        SandboxLayout([root], directory=b"usr"),
        SandboxLayout([root], limits=[(0, 1, 1)] * 17),
        SandboxLayout([root], uid=1, memberships=[]),
        SandboxLayout([root], memberships=[0] * 65),
        SandboxLayout([root], memberships=[2**31]),
        SandboxLayout([LaidMount(MountKind.LINK, b"/x", target=b"")]),
        SandboxLayout([LaidMount(MountKind.PROC, b"/x", size=-1)]),
    ):
        with pytest.raises(FramingError):
            encode_sandbox(wrong, call)
    with pytest.raises(FramingError):
        encode_sandbox(SandboxLayout([root]), WaitCall([b"true"], files=[WaitFile(b"/x", b"")]))
    with pytest.raises(FramingError):
        encode_waiting_sandbox(SandboxLayout([root]), float("nan"))


def valid(bench: Bench, memberships: Sequence[int] | None = None) -> tuple[bytes, list[LaidMount]]:
    mounts = bench.host(
        LaidMount(MountKind.DIRECTORY, b"/tmp/a", mode=0o700),
        LaidMount(MountKind.LINK, b"/tmp/l", target=b"a"),
        LaidMount(MountKind.CONTENT, b"/tmp/f", None, MountFlag.MAKES_PLACE, 0o600),
        LaidMount(MountKind.READ_ONLY, b"/tmp"),
    )
    uid = 7 if memberships is None else 0
    layout = SandboxLayout(mounts, uid=uid, limits=[(7, 64, 64)], memberships=memberships)
    return bench.message(layout, "true", env=ENV), mounts


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[int, int, bytes]]:
    """Places, how much goes there, and what comes instead."""
    piece = st.tuples(st.integers(0, 4000), st.sampled_from([0, 1, 4, 8, 40]), st.binary(max_size=12))
    huge = st.tuples(st.integers(0, 4000), st.just(4), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"]))
    return draw(st.lists(piece | huge, min_size=1, max_size=5))


def assert_sound(bench: Bench, message: bytes, mounts: Sequence[LaidMount] = ()) -> None:
    with bench.start(message, mounts, env=UNCHECKED) as (process, _):
        _, stderr = process.communicate(timeout=PATIENCE)
    assert b"Sanitizer" not in stderr
    assert b"runtime error" not in stderr
    assert process.returncode in (0, 1, 124, 125, 126, 127) or process.returncode > 128
    assert process.returncode != -signal.SIGSEGV


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=damage(), memberships=st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=64))
def test_a_damaged_message_is_refused_or_ends_in_a_step_and_never_crashes(
    bench: Bench, changes: list[tuple[int, int, bytes]], memberships: list[int] | None
) -> None:
    whole, mounts = valid(bench, memberships)
    message = bytearray(whole)
    for place, size, instead in changes:
        start = place % (len(message) + 1)
        message[start : start + size] = instead
    assert_sound(bench, bytes(message), mounts)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=600), begins=st.booleans())
def test_any_bytes_are_refused(bench: Bench, data: bytes, begins: bool) -> None:
    assert_sound(bench, (BEGIN if begins else b"") + data)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(share=st.floats(0, 0.999))
def test_a_message_that_is_cut_off_is_refused(bench: Bench, share: float) -> None:
    message, mounts = valid(bench)
    seen = bench.send(message[: int(len(message) * share)], mounts, env=UNCHECKED)
    assert "too early" in seen.refusal


def test_the_checked_sandbox_runs_a_command(bench: Bench) -> None:
    mounts = bench.host()
    seen = bench.send(bench.message(SandboxLayout(mounts, uid=7, gid=8), "sh", "-c", "id -u; exit 3"), mounts,
                      env=UNCHECKED)  # fmt: skip
    assert (seen.code, seen.stdout, seen.end) == (3, "7\n", Ended(EndKind.EXIT, 3)), seen


@pytest.fixture(params=[None, FILTER], ids=["", "filtered"])
def waiting(request: pytest.FixtureRequest, binary: Path) -> Iterator[Waiting]:
    """A sandbox that waits for its call, without a filter of system calls and with the one that engines send."""
    if why := works_for(binary, USER):
        requirements.give_up("native", f"no sandbox for this user here: {why}")
    with (bench := Bench(binary, USER)).stack:
        mounts = bench.host()
        message = bench.memory(encode_waiting_sandbox(SandboxLayout(mounts, uid=5), 60, request.param))
        (theirs_in, write), (read, theirs_out) = os.pipe(), os.pipe()
        held = [mount.descriptor for mount in mounts if mount.descriptor is not None]
        process = subprocess.Popen(
            [binary, "sandbox", "--layout", str(message)], stdin=theirs_in, stdout=theirs_out, stderr=subprocess.PIPE,
            pass_fds=[message, *held], user=USER, group=USER, cwd="/",
            extra_groups=None if USER is None else [],
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        found = Waiting(process, "none", read, write, [read, write])
        try:
            yield found
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)
            found.close()


def test_a_sandbox_waits_for_its_call_and_runs_it(waiting: Waiting) -> None:
    script = b"id -u; cat; cat /tmp/file; touch /no 2>&1; exit 4"
    call = WaitCall([b"sh", b"-c", script], env=ENV, files=[WaitFile(b"/tmp/file", b"content\n")])
    told = waiting.call(call, b"input\n")
    assert told.hello is not None
    assert told.hello.pid == 1
    assert told.stdout.startswith(b"5\ninput\ncontent\n")
    assert b"Read-only file system" in told.stdout
    assert told.end == Ended(EndKind.EXIT, 4)
    assert waiting.wait() == 0


def modes(status: str) -> set[str]:
    """Whether system calls are filtered: 0 no, 2 by a filter (proc(5))."""
    return {line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:")}


@pytest.mark.parametrize("waiting", [FILTER], indirect=True)
def test_a_filter_that_comes_with_the_layout_is_in_place_before_the_call_and_holds_for_it(waiting: Waiting) -> None:
    assert waiting.hear()
    [inside] = children_of(waiting.process.pid)
    assert modes(Path(f"/proc/{inside}/status").read_text()) == {"2"}
    script = b"grep -h ^Seccomp: /proc/1/status /proc/self/status; unshare -U true; exit 4"
    told = waiting.call(WaitCall([b"sh", b"-c", script], env=ENV))
    assert modes(told.stdout.decode()) == {"2"}
    assert b"Operation not permitted" in told.stderr
    assert told.end == Ended(EndKind.EXIT, 4)


@pytest.mark.parametrize("waiting", [FILTER], indirect=True)
@pytest.mark.parametrize("own", [{"seccomp": FILTER}, {"no_network": True}], ids=["another filter", "no network"])
def test_a_call_may_bring_more_that_is_denied_to_it(waiting: Waiting, own: dict[str, Any]) -> None:
    told = waiting.call(WaitCall([b"sh", b"-c", b"grep -h ^Seccomp: /proc/self/status; exit 4"], env=ENV, **own))
    assert modes(told.stdout.decode()) == {"2"}
    assert told.end == Ended(EndKind.EXIT, 4)


def test_a_waiting_sandbox_goes_with_its_channel(waiting: Waiting) -> None:
    assert waiting.hear()
    waiting.close()
    assert waiting.wait() == 0


def test_a_waiting_sandbox_refuses_nonsense(waiting: Waiting) -> None:
    waiting.send(encode_call(words("true")) * 2)
    while waiting.told.refusal is None and waiting.hear():
        pass
    assert "second CALL" in (waiting.told.refusal or "")
    assert waiting.wait() == 125
