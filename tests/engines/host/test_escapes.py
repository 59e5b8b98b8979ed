"""A tool that tries to get out of its sandbox gets nothing, over each launcher, whoever the server's user is.

What it tries is in attacks.py. Ways out that need something of the machine around the call are tested next to what they
are about: late mounts in test_late_mounts.py, what outlives a killed server in test_local.py and test_sandbox.py, and
the system calls one by one in tests/engines/init/test_seccomp.py.
"""

import ctypes
import fcntl
import functools
import json
import os
import platform
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.errors import ExecutionError
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import normalize_machine
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.engines.host.local_case import CASE
from tests.engines.host.sandbox_case import IMAGE, shared_store
from tests.engines.host.waiting import WHEN_ASKED
from tests.engines.init.denied_calls import denied_calls
from tests.kit.ending import at_end
from tests.native.harness import landlock_version

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("launcher")]

NOBODY = 65534
GROUP = 4242
"""A supplementary group of the server's."""
OTHER = 23456
"""A user of the host's that no server here runs as."""
IS_ROOT = os.geteuid() == 0
NS_GET_MNTNS_ID = 0x8008B705  # linux/nsfs.h
ATTACKS = (Path(__file__).parent / "attacks.py").read_text()

MACHINE = normalize_machine(platform.machine()) or "x86_64"
CALLS = json.dumps(
    {"own": denied_calls(MACHINE), "32-bit": denied_calls({"x86_64": "i386", "aarch64": "arm"}[MACHINE])}
)

BUBBLEWRAP_LACKS = frozenset(
    {
        # Its first process is as open to the tool as the tool is to itself, and stays in the sandbox like it.
        "the first process, by /proc",
        "the settings of the first process",
        "tracing the first process",
        # To root they are the host's own, mounted writable.
        "the permissions of the host's device files",
        "the permissions of what its streams are",
        # It puts no Landlock around a tool that has the host's network.
        "an abstract socket of the host",
        # /dev/shm and /dev/pts; where nobody can make anything of it, having no capabilities nor new privileges.
        "mounts that let devices, set-user-id programs or the host's later mounts in",
        "all the machine's terminals",
        "keys of the host's users",
        "the machine's timers, interrupts and disks",
        # Only who makes the namespace can bound them.
        "more of the user's inotify instances than its part",
    }
)
A_PLAIN_USER_LACKS = frozenset({"a file for a group that the server is in"})
"""The kernel lets no plain user drop a group: files may be closed to a group."""

SERVER = """
import anyio, asyncio.subprocess, concurrent.futures.thread, encodings.ascii, fcntl, json, os, sys
import anyio._backends._asyncio
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.schemas.schema import validate_arguments
from praxis_mcp.engines.base import ExecutionContext, PinnedImage
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.settings.model import Settings

from tests.engines.host.waiting import WaitingLocalEngine, WaitingSandboxEngine

kind, waits, user, group, image, settings, fields, *command = sys.argv[1:]
settings, fields = Settings(**json.loads(settings)), json.loads(fields)
if kind == "sandbox":
    import docker
    contract = ToolContract.create_dagger_tool("attack", image, command, **fields)
    engine = (WaitingSandboxEngine if waits == "waiting" else SandboxExecutionEngine)(settings)
else:
    contract = ToolContract.create_local_tool("attack", command, **fields)
    engine = (WaitingLocalEngine if waits else LocalExecutionEngine)(settings)
validate_arguments(contract, {})

async def main():
    async with engine:
        context = ExecutionContext()
        if waits == "standing in":
            named = await engine.images.ensure(image)
            context = ExecutionContext(image=PinnedImage(image, named.image.id, named.pinned, shares_files=True))
        result = await engine.execute(contract, {}, context)
    print(result.output, end="")
    sys.exit(result.stderr.text if not result.success else 0)

if os.geteuid() == 0:
    os.setgroups([int(group)])
if user:  # the interpreter may lie where nobody may read: all that is needed is imported by now
    os.chdir("/")
    os.setgid(int(user))
    os.setuid(int(user))
    os.environ["HOME"] = "/nonexistent"
anyio.run(main)
"""


@pytest.fixture(params=["the user of the tests", "nobody"])
def user(request: pytest.FixtureRequest) -> int | None:
    """Whom the server runs as; None is ourselves."""
    if request.param == "nobody" and not IS_ROOT:
        pytest.skip("only root can become somebody else")
    return NOBODY if request.param == "nobody" else None


@pytest.fixture
def place(user: int | None) -> Iterator[Path]:
    """What the tool has of the host: a directory to write, and one to read with things that the host may have left."""
    with tempfile.TemporaryDirectory(prefix="praxis-test-escapes-") as made:  # pytest's own are closed to others
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "writable" / "readable").mkdir(parents=True)
        (folder / "readable").mkdir()
        (folder / "readable" / "file").write_text("content")
        if IS_ROOT:
            owner, other = (0, NOBODY) if user is None else (user, 0)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, owner, owner)
            program = Path(shutil.copy("/bin/cat", folder / "readable" / "set-user-id"))
            os.chown(program, other, other)
            program.chmod(0o6755)
            for name in ("writable", "readable"):
                device = folder / name / "device-of-the-host"
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
                device.chmod(0o666)
            of_a_group = folder / "readable" / "of-a-group"
            of_a_group.write_text("x")
            of_a_group.chmod(0o040)
            os.chown(of_a_group, other, GROUP)
            of_another = folder / "writable" / "of-another"
            of_another.write_text("x")
            of_another.chmod(0o600)
            os.chown(of_another, OTHER, OTHER)
        yield folder


@pytest.fixture
def abstract_socket() -> Iterator[str]:
    """A program of the host that listens, by a name that lies in no file system."""
    name = f"praxis-test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        yield name


@pytest.fixture
def memory_key() -> Iterator[int]:
    """Shared memory of the host that everybody may use."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = int.from_bytes(os.urandom(3), "big") + 1
    number = libc.shmget(key, 4096, 0o1666)  # IPC_CREAT
    if number < 0:
        pytest.skip(f"no shared memory here: {os.strerror(ctypes.get_errno())}")
    yield key
    libc.shmctl(number, 0, None)  # IPC_RMID


@pytest.fixture
def mount_namespace() -> Iterator[int]:
    """The number of a mount namespace in a user namespace that root has made, as another sandbox has them; 0 where
    there can be none."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo made; exec cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as made:
        assert made.stdout is not None
        if made.stdout.readline() != b"made\n":
            yield 0
            return
        with open(f"/proc/{made.pid}/ns/mnt", "rb") as namespace:
            (number,) = struct.unpack("Q", fcntl.ioctl(namespace, NS_GET_MNTNS_ID, bytes(8)))
        yield number


@functools.cache
def store_of(user: int | None) -> Path:
    """An image store of the user's own, with the image."""
    anyio.run(SandboxImages(Settings.model_validate({"engines": {"sandbox": {"store": shared_store()}}})).ensure, IMAGE)
    if user is None:
        return shared_store()
    store = Path(tempfile.mkdtemp(prefix="praxis-test-nobody-"))
    at_end.callback(shutil.rmtree, store, ignore_errors=True)
    subprocess.run(["cp", "--archive", f"{shared_store()}/.", str(store)], check=True, timeout=CALL_LIMIT)
    subprocess.run(["chown", "-R", f"{user}:{user}", str(store)], check=True, timeout=CALL_LIMIT)
    return store


@pytest.mark.parametrize("waits", ["", "waiting", "standing in"], ids=["made for the call", "waiting", "for Docker"])
@pytest.mark.parametrize("kind", [pytest.param("sandbox", marks=pytest.mark.docker), "local"])
def test_a_tool_gets_nothing_that_is_not_its_own(
    kind: str,
    waits: str,
    launcher: str,
    user: int | None,
    place: Path,
    abstract_socket: str,
    memory_key: int,
    mount_namespace: int,
) -> None:
    if waits == "waiting" and launcher == "bubblewrap":
        pytest.skip("bubblewrap makes none that waits for its call")
    if waits == "standing in" and kind == "local":
        pytest.skip("only the sandbox stands in for Docker")
    engines: dict[str, Any] = {"local": {"sandbox": launcher}}
    if kind == "sandbox":
        engines = {"sandbox": {"launcher": launcher, "store": str(store_of(user))}}
    settings = {"root": str(place), "engines": engines, "policy": {"host_network": True}}
    settings["warm"] = WHEN_ASKED if waits == "waiting" else {"enabled": False}
    mounts = {f"{place}/writable": "/tmp/writable:rw", f"{place}/readable": "/tmp/writable/readable"}
    program = "python3" if kind == "sandbox" else CASE.python_program
    words = ["-c", ATTACKS, "/tmp/writable", "/tmp/writable/readable", abstract_socket, str(memory_key)]
    words += [str(mount_namespace), CALLS]
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", SERVER, kind, waits),
            *("" if user is None else str(user), str(GROUP), IMAGE),
            *(json.dumps(settings), json.dumps({"mounts": mounts, "network": "host"}), program, *words),
        ],
        capture_output=True,
        text=True,
        timeout=4 * CALL_LIMIT,  # a server of its own, and everything that it tries
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["tried"]) >= 30
    allowed = BUBBLEWRAP_LACKS if launcher == "bubblewrap" else frozenset[str]()
    if landlock_version() < 6:  # Linux 6.12
        allowed |= {"an abstract socket of the host"}
    if user is not None or not IS_ROOT:
        allowed |= A_PLAIN_USER_LACKS
    assert {what: got for what, got in answer["got"].items() if what not in allowed} == {}
    assert (place / "readable" / "file").read_text() == "content"
    if waits == "standing in" and launcher == "own" and IS_ROOT and user is None:
        assert answer["is"] == ["root of the machine's users"]


async def test_a_place_that_is_turned_while_mounts_are_made_leads_nowhere_else(launcher: str, tmp_path: Path) -> None:
    """Bubblewrap finds places by path, and may be led elsewhere: see SECURITY.md."""
    if launcher == "bubblewrap":
        pytest.skip("bubblewrap finds the place of a mount by its path")
    (tmp_path / "outer" / "above").mkdir(parents=True)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("inner")
    (tmp_path / "private").mkdir()
    (tmp_path / "outer" / "link").symlink_to(tmp_path / "private")
    (tmp_path / "outer" / "above" / "place").mkdir()
    mounts = {str(tmp_path / "outer"): "/tmp/outer:rw", str(tmp_path / "inner"): "/tmp/outer/above/place"}
    contract = ToolContract.create_local_tool("tool", ["/bin/cat", "/tmp/outer/above/place/file"], mounts=mounts)
    settings = Settings.model_validate({"root": tmp_path, "engines": {"local": {"sandbox": launcher}}})
    is_over = threading.Event()

    def turn() -> None:
        libc = ctypes.CDLL(None)
        one, other = (str(tmp_path / "outer" / name).encode() for name in ("above", "link"))
        while not is_over.is_set():
            libc.renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE

    seen: set[str] = set()
    turning = threading.Thread(target=turn)
    async with LocalExecutionEngine(settings) as engine:
        turning.start()
        try:
            with anyio.fail_after(CALL_LIMIT):
                for _ in range(10):
                    try:
                        result = await engine.execute(contract, {}, ExecutionContext())
                    except ExecutionError:
                        continue
                    seen.add(result.output)
        finally:
            is_over.set()
            turning.join(CALL_LIMIT)
    assert seen <= {"inner", ""}
    assert list((tmp_path / "private").iterdir()) == []
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["file"]
