"""A file system that the host mounts while a call runs is none of the call's business."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine
from praxis_mcp.engines.host.cgroups import RunGroup
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import praxis_init_path
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.engines.host import launchers
from tests.engines.host.sandbox_case import IMAGE, shared_store

pytestmark = pytest.mark.anyio

# Says that it is there, waits until it is told to go on, and says what it sees.
LOOK = """
import os, sys, time
print("ready", flush=True)
while not os.path.exists(sys.argv[1] + "/go"):
    time.sleep(0.01)
print(os.listdir(sys.argv[1] + "/late"))
"""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory from which mounts propagate, as from every one where systemd has set the machine up."""
    place = tmp_path / "shared"
    (place / "late").mkdir(parents=True)
    try:
        subprocess.run(["mount", "--bind", place, place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may mount nothing")
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


@pytest.mark.usefixtures("launcher")
@pytest.mark.parametrize("kind", [pytest.param("sandbox", marks=pytest.mark.docker), "local"])
async def test_it_does_not_appear_in_a_sandbox(kind: str, shared: Path, tmp_path: Path) -> None:
    engines = {
        "sandbox": {"store": str(shared_store()), "launcher": launchers.chosen},
        "local": {"sandbox": launchers.chosen},
    }
    settings: Any = {"root": tmp_path, "engines": engines}
    engine: ExecutionEngine
    command, mounts = ["python3", "-c", LOOK, str(shared)], {str(shared): str(shared)}
    if kind == "sandbox":
        contract = ToolContract.create_dagger_tool("look", IMAGE, command, mounts=mounts)
        engine = SandboxExecutionEngine(Settings(**settings))
    else:
        contract = ToolContract.create_local_tool("look", command, mounts=mounts)
        engine = LocalExecutionEngine(Settings(**settings))
    is_there = anyio.Event()

    async def mount_late() -> None:
        await is_there.wait()
        await anyio.run_process(["mount", "-t", "tmpfs", "tmpfs", str(shared / "late")])
        await anyio.Path(shared / "late/secret").touch()
        await anyio.Path(shared / "go").touch()

    with anyio.fail_after(CALL_LIMIT):
        async with engine, anyio.create_task_group() as tasks:
            tasks.start_soon(mount_late)
            context = ExecutionContext(on_output=lambda _name, _data: is_there.set())
            result = await engine.execute(contract, {}, context)
            assert result.output.splitlines() == ["ready", "[]"], result.stderr.text


@pytest.mark.parametrize("init", [praxis_init_path(), None], ids=["praxis-init", "unshare"])
def test_a_program_put_in_front_leaves_the_user_as_it_is(init: Path | None) -> None:
    command = [*RunGroup((), unified=False).prefix(init, private_mounts=True), "sh", "-c", "id -u; id -g"]
    done = subprocess.run(command, capture_output=True, timeout=CALL_LIMIT, check=False, text=True)
    assert done.stdout.split() == [str(os.geteuid()), str(os.getegid())], done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("init", [praxis_init_path(), None], ids=["praxis-init", "unshare"])
def test_so_it_is_for_a_user_without_privileges(init: Path | None, tmp_path: Path) -> None:
    source = "import os; print(os.readlink('/proc/self/ns/mnt'), os.getuid(), os.getgid())"
    words = RunGroup((), unified=False).prefix(init, private_mounts=True)
    if init is None:
        words.insert(-1, "--map-current-user")  # as for whoever is not root
    else:
        copy = Path("/tmp", f"praxis-init-{os.urandom(8).hex()}")
        copy.write_bytes(init.read_bytes())
        copy.chmod(0o755)
        words[0] = str(copy)
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    command = [*nobody, *words, "/usr/bin/python3", "-c", source]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CALL_LIMIT, check=False, text=True)
    finally:
        if init is not None:
            copy.unlink()  # pyright: ignore[reportPossiblyUnboundVariable]
    namespace, user, group = done.stdout.split() or [done.stderr, "", ""]
    assert (user, group) == ("65534", "65534")
    assert namespace.startswith("mnt:")
    assert namespace != os.readlink("/proc/self/ns/mnt")
