"""Servers that were started by command and do not want to end: nothing of them outlives their connection, nor us."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.engines.remote import RemoteMCPEngine
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings.model import Settings
from praxis_mcp.support import praxis_init as native
from praxis_mcp.support import processes
from praxis_mcp.support.processes import OWNER_VARIABLE, kill_orphans, send_signal
from praxis_mcp.upstreams.spec import UpstreamSpec
from praxis_mcp.upstreams.transports.stdio import MARK_VARIABLE
from praxis_mcp.upstreams.upstream import Upstream, UpstreamPool
from tests.kit.clinging_server import KINDS
from tests.kit.until import until
from tests.kit.upstreams import ROOT

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a server ends with its process group"),
]

LIMIT = 60.0
"""Seconds that anything may take; reached only where something hangs."""


class Brood:
    """The processes of a `clinging_server`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def pids(self) -> dict[str, int]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return {kind: int(pid) for kind, pid in (line.split() for line in lines)}

    @property
    def alive(self) -> set[str]:
        return {kind for kind, pid in self.pids.items() if is_alive(pid)}

    async def all_there(self) -> None:
        await until(lambda: self.alive == set(KINDS))


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def brood(tmp_path: Path) -> Iterator[Brood]:
    found = Brood(tmp_path / "processes")
    yield found
    send_signal((found.pids[kind] for kind in found.alive), signal.SIGKILL)


@pytest.fixture
async def upstream(anyio_backend: str, brood: Brood) -> AsyncIterator[Upstream]:
    pool = UpstreamPool()
    words = (sys.executable, "-m", "tests.kit.clinging_server", str(brood.file))
    try:
        yield pool.get(UpstreamSpec("the server", words, directory=ROOT))
    finally:
        await pool.close()


@contextmanager
def killed_server(brood: Brood, *options: str) -> Iterator[None]:
    """A server is killed while a call of what it started runs."""
    command = [sys.executable, "-m", "tests.upstreams.victim", str(brood.file), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as victim:
        try:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "connected\n"
            yield
        finally:
            victim.kill()


@pytest.mark.native
async def test_nothing_is_left_of_a_server_that_ignores_the_end_of_its_input_and_sigterm(
    brood: Brood, upstream: Upstream
) -> None:
    await upstream.connect()
    await brood.all_there()
    with anyio.fail_after(LIMIT):
        await upstream.close()
    assert brood.alive == set()


async def test_without_praxis_init_what_clears_its_environment_and_gives_up_its_parent_is_all_that_gets_away(
    brood: Brood, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "host_init_path", lambda: None)
    await upstream.connect()
    await brood.all_there()
    with anyio.fail_after(LIMIT):
        await upstream.close()
    assert brood.alive <= {"bare"}


@pytest.mark.native
async def test_nothing_outlives_a_server_that_is_killed_during_a_call(brood: Brood) -> None:
    with killed_server(brood):
        await brood.all_there()
    await until(lambda: not brood.alive)


@pytest.mark.native
async def test_a_server_that_cleans_up_meanwhile_leaves_praxis_init_to_end_what_says_no_more_whose_it_is(
    brood: Brood,
) -> None:
    with killed_server(brood):
        await brood.all_there()
    with anyio.fail_after(LIMIT):
        while brood.alive:
            await anyio.to_thread.run_sync(kill_orphans)


@pytest.mark.native
async def test_a_praxis_init_that_does_not_end_when_asked_is_killed_later(
    brood: Brood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SUPERVISOR_TIMEOUT", 0.0)
    with killed_server(brood):
        await brood.all_there()
        supervisor = parent_of(brood.pids["server"])
        send_signal([supervisor], signal.SIGSTOP)
    with anyio.fail_after(LIMIT):
        while is_alive(supervisor):
            await anyio.to_thread.run_sync(kill_orphans)


async def test_what_outlives_a_killed_server_without_praxis_init_is_found_by_the_next_one(brood: Brood) -> None:
    with killed_server(brood, "alone"):
        await brood.all_there()
        assert await anyio.to_thread.run_sync(kill_orphans) == (), "its server lives"
        assert brood.alive == set(KINDS)
    await RemoteMCPEngine(Settings(root=ROOT)).reap()
    await until(lambda: brood.alive <= {"bare"})


@pytest.mark.native
async def test_a_server_that_kills_praxis_init_does_not_get_away(brood: Brood, upstream: Upstream) -> None:
    await upstream.connect()
    await brood.all_there()
    assert upstream.is_connected
    supervisor = parent_of(brood.pids["server"])
    assert supervisor not in (1, brood.pids["server"])
    send_signal([supervisor], signal.SIGKILL)
    with anyio.fail_after(LIMIT):
        await upstream.close()
    assert brood.alive <= {"bare"}


@pytest.mark.native
async def test_a_server_is_as_free_under_praxis_init_as_we_are(tmp_path: Path) -> None:
    file = tmp_path / "status"
    source = f"import pathlib; pathlib.Path({str(file)!r}).write_text(pathlib.Path('/proc/self/status').read_text())"
    pool = UpstreamPool()
    with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable):
        await pool.get(UpstreamSpec("the server", (sys.executable, "-c", source))).connect()
    await pool.close()
    limits = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk")
    theirs, ours = (
        {name: value for line in text.splitlines() for name, _, value in [line.partition(":")] if name in limits}
        for text in (file.read_text(), Path("/proc/self/status").read_text())
    )
    assert theirs == ours, "it may be a server like this one, whose own sandboxes need all of that"


async def test_a_server_gets_no_more_of_our_environment_for_that(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    source = f"import os; open({str(file)!r}, 'w').write(' '.join(sorted(os.environ)))"
    pool = UpstreamPool()
    with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable):
        await pool.get(UpstreamSpec("the server", (sys.executable, "-c", source))).connect()
    await pool.close()
    names = set(file.read_text().split())
    ours = {OWNER_VARIABLE, MARK_VARIABLE, "_PRAXIS_MCP_DEPTH"}
    assert {name for name in names if "PRAXIS" in name} == ours


@pytest.mark.native
async def test_a_command_that_is_there_and_cannot_be_executed_says_so(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    plain = tmp_path / "plain"
    plain.write_text("")
    pool = UpstreamPool()
    for words, problem in (
        (("./server",), r"\./server could not be started: No such file"),
        (("./plain",), "Permission denied"),
        (("nonexistent-server",), "there is no nonexistent-server"),
    ):
        upstream = pool.get(UpstreamSpec("the server", words, directory=tmp_path))
        with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable, match=problem):
            await upstream.connect()
    await pool.close()
