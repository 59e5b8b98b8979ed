"""Whose a container is, by its labels."""

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
from praxis_mcp.plans.model import Blueprint, Limits, Where
from praxis_mcp.support.processes import start_of

BLUEPRINT = Blueprint("tool", Where.CONTAINER, ("docker",), Limits(60), image="python:3.11-slim")
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
def test_a_container_of_another_living_server_is_not_an_orphan_even_past_its_deadline() -> None:
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
