"""No test waits for ever: what ends one that does, and how tests wait."""

import subprocess
import sys
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from tests.kit.until import until, until_blocking

ROOT = Path(__file__).resolve().parents[1]

HANGING = """
import time
import anyio
import pytest
from tests.kit.timeouts import pytest_pyfunc_call, pytest_timeout_set_timer

ended = []

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module")
async def shared(anyio_backend):
    yield "shared"
    ended.append("fixture")
    print("ended:", *ended)

@pytest.mark.anyio
async def test_asynchronous(shared):
    try:
        await anyio.sleep_forever()
    finally:
        ended.append("test")

def test_synchronous():
    time.sleep(600)

@pytest.mark.timeout(600)
def test_with_its_own_limit():
    time.sleep(2.5)

@pytest.mark.anyio
async def test_after(shared):
    await anyio.sleep(0)
"""


def test_a_test_that_hangs_fails_alone_and_is_cleaned_up_after(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    (tmp_path / "conftest.py").write_text("from tests.kit.timeouts import *")
    command = [sys.executable, "-m", "pytest", "--rootdir", tmp_path, "-c", "/dev/null", "-rA", "--timeout=2"]
    options = ["-o", "timeout_func_only=true", "-p", "no:randomly", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert "2 failed, 2 passed" in done.stdout, done.stdout
    assert "Timeout (>2 s) from pytest-timeout; it waited here:" in done.stdout
    assert "await anyio.sleep_forever()" in done.stdout
    assert "Timeout (>2.0s) from pytest-timeout" in done.stdout
    assert "ended: test fixture" in done.stdout


@pytest.mark.anyio
async def test_until_returns_what_came_true_and_fails_with_what_was_seen_last() -> None:
    values = iter(["", [], "here"])
    assert await until(lambda: next(values)) == "here"

    async def later() -> int:
        await anyio.lowlevel.checkpoint()
        return 3

    assert await until(later) == 3
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the socket; last seen: \[\]"):
        await until(list, within=0.05, what="the socket")
    with pytest.raises(AssertionError, match=r"test_bounds\.py:\d+; last seen: None"):
        await until(_never, within=0.05)


async def _never() -> None:
    await anyio.sleep_forever()


def test_until_blocking_does_so_without_an_event_loop() -> None:
    values = iter([0, 0, 7])
    assert until_blocking(lambda: next(values)) == 7
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: a turn; last seen: 0"):
        until_blocking(lambda: 0, within=0.05, what="a turn")
