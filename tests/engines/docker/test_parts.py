"""Parts of the Docker engine that need no daemon: framing, labels, and what a daemon's words mean."""

import errno
import itertools
import os
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.engines.docker.errors import init_failure, pull_failure, refused, unreachable
from praxis_mcp.engines.docker.ownership import (
    CONTAINER,
    DEADLINE,
    HOST,
    ORPHAN_GRACE,
    PID,
    STARTED,
    ServerIdentity,
    call_labels,
    is_orphan,
)
from praxis_mcp.engines.docker.stream import AttachedStream, ConnectionLost
from praxis_mcp.errors import CommandNotFound, EngineUnavailable, ExecutionError, ImageError, LimitUnsupported
from praxis_mcp.plans.model import Blueprint, Call, Limits, Plan, Where
from praxis_mcp.support.owners import start_of

BLUEPRINT = Blueprint("tool", Where.CONTAINER, ("docker",), Limits(60), image="python:3.11-slim")
PLAN = Plan(BLUEPRINT, Call("run", argv=("nope", "--flag"), secrets=("s3cr3t",)))


# --- framing ----------------------------------------------------------------------------------------------------------


class Pieces(ByteStream):
    """A connection that hands out given pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        for piece in self._pieces:
            return piece
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        raise AssertionError("nothing is to be sent")

    async def send_eof(self) -> None:
        raise AssertionError("nothing is to be sent")

    async def aclose(self) -> None:
        return None


def heard(pieces: list[bytes], first: bytes = b"") -> dict[str, bytes]:
    """What a stream that arrives in these pieces says, by name."""
    result = {"stdout": b"", "stderr": b""}

    async def listen() -> None:
        async for name, data in AttachedStream(Pieces(pieces), first).pieces():
            result[name] += data

    anyio.run(listen)
    return result


FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=12)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 4000), max_size=20))
def test_frames_are_read_however_the_network_cuts_them(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    whole = b"".join(struct.pack(">BxxxL", number, len(data)) + data for number, data in frames)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]
    expected = {name: b"".join(data for n, data in frames if n == number) for name, number in NUMBERS.items()}
    assert heard(pieces) == expected
    assert heard(pieces[1:], first=b"".join(pieces[:1])) == expected


NUMBERS = {"stdout": 1, "stderr": 2}


def test_a_stream_that_ends_within_a_frame_was_cut() -> None:
    with pytest.raises(ConnectionLost):
        heard([struct.pack(">BxxxL", 1, 10) + b"half"])


def test_output_that_is_not_framed_is_refused() -> None:
    with pytest.raises(ExecutionError, match="not framed"):
        heard([b"plain text, as a terminal would give"])


# --- whose a container is ---------------------------------------------------------------------------------------------

ME = ServerIdentity.current()


def labels_of(server: ServerIdentity, deadline: float = 1000.0) -> dict[str, str]:
    return call_labels(server, BLUEPRINT, "run", deadline)


def other_process() -> ServerIdentity:
    """Another process on this machine, which has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return replace(ME, id="other", pid=done.pid)


@pytest.mark.skipif(not ME.host, reason="no /proc here: only deadlines count")
def test_a_container_is_an_orphan_as_soon_as_its_server_has_ended() -> None:
    assert is_orphan(labels_of(other_process()), ME, now=0)


@pytest.mark.skipif(not ME.host, reason="no /proc here: only deadlines count")
def test_a_container_of_another_living_server_is_none_even_past_its_deadline() -> None:
    assert not is_orphan(labels_of(replace(ME, id="neighbour")), ME, now=1000 + ORPHAN_GRACE + 1)


@pytest.mark.skipif(not ME.host, reason="no /proc here: only deadlines count")
def test_a_container_of_a_living_server_whose_start_cannot_be_read_is_left_until_long_past_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = labels_of(replace(ME, id="neighbour"))
    # As under hidepid=2, which takes root and another user to see.
    read = Path.read_text

    def hidden(path: Path, *args: Any, **options: Any) -> str:
        if path.match("/proc/*/stat"):
            raise FileNotFoundError(errno.ENOENT, "hidden")
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not is_orphan(labels, ME, now=1000 + ORPHAN_GRACE - 1)
    assert is_orphan(labels, ME, now=1000 + ORPHAN_GRACE + 1)


@pytest.mark.skipif(not ME.host, reason="no /proc here: only deadlines count")
def test_a_container_of_a_server_that_ended_and_was_not_waited_for_is_an_orphan() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(ME, id="neighbour", pid=process.pid, started=start_of(process.pid))
        assert not is_orphan(labels_of(owner), ME, now=0)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_orphan(labels_of(owner), ME, now=0)


def test_a_servers_own_container_is_an_orphan_as_soon_as_nothing_uses_it() -> None:
    labels = {**labels_of(ME, deadline=time.time() + 1000), CONTAINER: "first"}
    assert not is_orphan(labels, ME, {"first", "second"})
    assert is_orphan(labels, ME, {"second"})


@pytest.mark.skipif(not ME.host, reason="no /proc here: only deadlines count")
def test_a_process_id_that_was_used_again_is_not_taken_for_the_server() -> None:
    assert is_orphan(labels_of(replace(ME, id="earlier", started="1")), ME, now=0)


@pytest.mark.parametrize("elsewhere", ["another-boot/pid:[1]", ""])
def test_a_container_of_a_server_elsewhere_is_left_until_long_past_its_deadline(elsewhere: str) -> None:
    labels = labels_of(replace(other_process(), host=elsewhere))
    assert not is_orphan(labels, ME, now=1000 + ORPHAN_GRACE - 1)
    assert is_orphan(labels, ME, now=1000 + ORPHAN_GRACE + 1)


def test_what_carries_no_label_of_ours_is_never_touched() -> None:
    foreign = {DEADLINE: "0", PID: "1", STARTED: "0", HOST: ME.host}
    assert not is_orphan(foreign, ME)


# --- what a daemon's words mean ---------------------------------------------------------------------------------------

DOCKER_20 = 'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "nope": '
DOCKER_28 = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: error during container init: exec: "nope": '
)


@pytest.mark.parametrize(
    ("words", "expected", "saying"),
    [
        (DOCKER_20 + "executable file not found in $PATH: unknown", CommandNotFound, 'no command "nope"'),
        (DOCKER_28 + "executable file not found in $PATH", CommandNotFound, 'no command "nope"'),
        (DOCKER_28 + "permission denied: unknown", CommandNotFound, "cannot be executed"),
        ("crun: executable file `nope` not found in $PATH: No such file or directory", CommandNotFound, "nope"),
        ("exec /bin/x: exec format error", ImageError, "processor"),
        ("unable to find user bob: no matching entries in passwd file", ImageError, "no such user"),
        ("Minimum memory limit allowed is 6MB", LimitUnsupported, "6MB"),
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", LimitUnsupported, "2 CPUs"),
        ('invalid mount config for type "bind": bind source path does not exist: /x', ExecutionError, "mounted path"),
        ("Unknown runtime specified runsc", EngineUnavailable, "runsc"),
        ('rootfs_linux.go: mounting "/a" to rootfs caused: not a directory: unknown', ExecutionError, "could not run"),
    ],
)
def test_a_refusal_is_told_for_what_it_is(words: str, expected: type[ExecutionError], saying: str) -> None:
    error = refused(words, PLAN)
    assert type(error) is expected
    assert saying in error.message


def test_a_refusal_never_shows_a_secret() -> None:
    assert "s3cr3t" not in str(refused("invalid environment variable: X=s3cr3t", PLAN))


@pytest.mark.parametrize(
    ("code", "stderr", "expected"),
    [
        (127, b"[FATAL tini (7)] exec nope failed: No such file or directory\n", CommandNotFound),
        (126, b"[FATAL tini (7)] exec nope failed: Permission denied\n", CommandNotFound),
        (127, b"praxis-init: cannot run 'nope': No such file or directory\n", CommandNotFound),
        (126, b"praxis-init: cannot run 'nope': Exec format error\n", ImageError),
        (125, b"praxis-init: cannot set up 'fork': Resource temporarily unavailable\n", ExecutionError),
        (127, b"sh: nope: not found\n", None),
        (1, b"praxis-init: cannot run 'nope': No such file or directory\n", None),
    ],
)
def test_an_init_that_failed_is_told_from_a_tool_that_did(
    code: int, stderr: bytes, expected: type[ExecutionError] | None
) -> None:
    error = init_failure(PLAN, code, stderr)
    assert (None if error is None else type(error)) is expected


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        ("manifest for python:9 not found: manifest unknown: manifest unknown", "no such tag"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "needs a login"),
        ("Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: no such host", "could not be"),
        ("toomanyrequests: You have reached your pull rate limit", "limits pulls"),
        ("failed to register layer: no space left on device", "no room"),
        ("invalid reference format", "not an image reference"),
    ],
)
def test_a_failed_pull_says_why_and_what_to_do(words: str, saying: str) -> None:
    error = pull_failure("python:9", words)
    assert saying in error.message
    assert error.remedy


def test_a_certificate_that_is_not_trusted_is_not_taken_for_a_missing_permission() -> None:
    error = unreachable("tcp://host:2376", ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert "TLS" in error.message
