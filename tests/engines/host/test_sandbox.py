"""The sandbox engine beyond what every engine does alike: what images say, what tools are kept from, what is left."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines import pulls
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.engines.host.sandbox_view import find_user
from praxis_mcp.errors import ExecutionError, ImageError, LimitUnsupported
from praxis_mcp.images.store import ImageStore
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.processes import OWNER_VARIABLE
from praxis_mcp.testing.bench import CALL_LIMIT, processes
from tests.engines.host import launchers
from tests.engines.host.sandbox_case import IMAGE, control_groups, shared_store
from tests.images.tars import directory, file, image, layer, symlink
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.usefixtures("launcher")]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
with_cgroups = pytest.mark.skipif(bool(find_cgroups().notes), reason="this user may make no cgroups")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345:An app:/home/app:/bin/sh\n"


def settings(root: Path, **values: Any) -> Settings:
    sandbox = {"store": shared_store(), "launcher": launchers.chosen}
    return Settings.model_validate({"root": root, "engines": {"sandbox": sandbox}, **values})


async def call(
    given: Settings, command: list[str], context: ExecutionContext | None = None, **fields: Any
) -> ExecutionResult:
    contract = ToolContract.create_dagger_tool("tool", fields.pop("image", IMAGE), command, **fields)
    async with SandboxExecutionEngine(given) as engine:
        with anyio.fail_after(CALL_LIMIT):
            return await engine.execute(contract, {}, context)


async def sh(given: Settings, source: str, **fields: Any) -> str:
    """What a shell prints; it must succeed."""
    result = await call(given, ["/bin/sh", "-c", source], **fields)
    assert result.success, (result.exit_code, result.output, result.stderr.text)
    return result.output


@pytest.fixture
async def busybox(tmp_path: Path) -> bytes:
    """A program with a shell, for images of a test's own."""
    with anyio.fail_after(CALL_LIMIT):
        found = await SandboxImages(settings(tmp_path)).ensure("busybox:1.36")
    return (found.image.root / "bin/busybox").read_bytes()


def install(busybox: bytes, name: str, *entries: Any, **config: Any) -> str:
    """An image with busybox and these entries; its name."""
    applets = ("sh", "cat", "env", "id", "ls", "pwd", "touch", "mkdir")
    base = layer(
        file("bin/busybox", busybox, 0o755),
        *(symlink(f"bin/{applet}", "busybox") for applet in applets),
        file("etc/passwd", PASSWD),
        file("etc/group", b"root:x:0:\nstaff:x:50:\n"),
    )
    made = image(base, layer(*entries), **config)
    ImageStore(shared_store()).install(made.content(), [name])
    return name


# What an image says


async def test_what_an_image_says_of_itself_is_honoured(tmp_path: Path, busybox: bytes) -> None:
    name = install(
        busybox,
        "test/config:1",
        directory("srv/here"),
        file("entry", b'#!/bin/sh\necho entry "$@"; pwd; id -u; id -g; echo "$HOME $FROM_IMAGE $PATH"\n', 0o755),
        Env=["FROM_IMAGE=yes", "PATH=/bin:/nowhere"],
        User="app",
        WorkingDir="/srv/here",
        Entrypoint=["/entry", "fixed"],
        Cmd=["not", "used"],
    )
    result = await call(settings(tmp_path), ["a b"], image=name, use_entrypoint=True)
    assert result.output.splitlines() == [
        "entry fixed a b", "/srv/here", "1234", "2345", "/home/app yes /bin:/nowhere"
    ]  # fmt: skip


async def test_a_contract_says_more_than_an_image(tmp_path: Path, busybox: bytes) -> None:
    name = install(busybox, "test/config:2", Env=["X=image", "Y=image"], User="app", WorkingDir="/etc")
    source = 'pwd; id -u; id -g; echo "$X $Y"'
    output = await sh(
        settings(tmp_path), source, image=name, env={"X": "contract"}, user="77:staff", working_dir="/not/there/yet"
    )
    assert output.splitlines() == ["/not/there/yet", "77", "50", "contract image"]


async def test_volumes_of_an_image_can_be_written_as_on_docker(tmp_path: Path, busybox: bytes) -> None:
    name = install(busybox, "test/volumes:1", directory("data"), Volumes={"/data": {}, "/absent/deep": {}})
    assert await sh(settings(tmp_path), "touch /data/x /absent/deep/y && ls /data /absent/deep", image=name)


async def test_a_result_names_the_image_and_a_broken_one_has_no_users(tmp_path: Path, busybox: bytes) -> None:
    name = install(busybox, "test/users:1", symlink("etc/passwd", "/../../../../../etc/passwd"))
    found = ImageStore(shared_store()).find(name)
    assert found is not None
    result = await call(settings(tmp_path), ["/bin/sh", "-c", "id -u"], image=name)
    assert (result.image, result.output) == (found.pinned, "0\n")
    with pytest.raises(ExecutionError, match='no user "app"') as failure:
        await call(settings(tmp_path), ["/bin/true"], image=name, user="app")
    assert failure.value.remedy


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", (0, 0, "/root", ())),
        ("app", (1234, 2345, "/home/app", (50, 60))),
        ("1234", (1234, 2345, "/home/app", (50, 60))),
        ("9", (9, 0, "/", ())),
        ("app:staff", (1234, 50, "/home/app", ())),
        ("9:9", (9, 9, "/", ())),
    ],
)
def test_users_are_read_as_docker_does(
    tmp_path: Path, wanted: str, found: tuple[int, int, str, tuple[int, ...]]
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(b"broken\n" + PASSWD)
    groups = "staff:x:50:other,app\ngames:x:60:app\nhuge:x:99999999999:app\nodd:x:-1:app\nothers:x:70:apps\n"
    (tmp_path / "etc/group").write_text(groups)
    user = find_user(tmp_path, wanted, "it:1")
    assert (user.uid, user.gid, user.home, user.groups) == found


def test_a_home_directory_with_a_nul_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(b"root:x:0:0:root:/root\0--bind\0/\0/mnt:/bin/sh\n")
    assert find_user(tmp_path, "root", "it:1").home == "/"


@pytest.mark.parametrize("wanted", ["nobody-here", "app:nobody-here", "99999999999", "1:99999999999"])
def test_users_that_are_not_valid_are_refused(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(ExecutionError) as failure:
        find_user(tmp_path, wanted, "it:1")
    assert failure.value.remedy


# What a tool sees, and what it is kept from


async def test_a_tool_has_its_own_environment_and_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_THE_SERVER", "x")
    source = "import json, os; print(json.dumps([sorted(os.environ), sorted(os.listdir('/proc/self/fd'))]))"
    result = await call(settings(tmp_path), ["python3", "-c", source], env={"MINE": "1"})
    names, descriptors = json.loads(result.output)
    assert set(names) - {"LC_CTYPE", "PWD"} == {"PATH", "HOME", "HOSTNAME", "MINE"}  # PWD is bubblewrap's
    assert OWNER_VARIABLE not in names
    assert descriptors == ["0", "1", "2", "3"]  # the last is the listing itself


async def test_variables_of_an_image_do_not_steer_bubblewrap(tmp_path: Path, busybox: bytes) -> None:
    evil = tmp_path / "evil.so"
    evil.write_bytes(b"no library")
    name = install(busybox, "test/preload:1", Env=[f"LD_PRELOAD={evil}", "BASH_ENV=/x"])
    result = await call(settings(tmp_path), ["/bin/sh", "-c", "echo $LD_PRELOAD"], image=name)
    assert (result.output, result.stderr.text) == (f"{evil}\n", "")  # ld.so of the host would have complained


async def test_an_image_adds_no_options_of_its_own_to_a_sandbox(tmp_path: Path, busybox: bytes) -> None:
    home = f"/root\0--bind\0{tmp_path}\0/mnt"
    name = install(
        busybox, "test/options:1", file("etc/passwd", f"root:x:0:0::{home}:/bin/sh\n".encode()), directory("mnt")
    )
    (tmp_path / "note").write_text("the host's")
    assert await sh(settings(tmp_path), 'ls /mnt; echo "$HOME"', image=name) == "/\n"


async def test_no_option_of_a_sandbox_holds_a_second_one_wherever_it_comes_from(tmp_path: Path, busybox: bytes) -> None:
    name = install(busybox, "test/options:2", directory("mnt"), Env=["FROM_IMAGE=yes"])
    found = ImageStore(shared_store()).find(name)
    assert found is not None
    record = found.image.directory / "image.json"  # as a version that looked less closely at images may have left it
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"env": {"X": f"\0--bind\0{tmp_path}\0/mnt"}}))
    with pytest.raises(ImageError, match="NUL"):
        await call(settings(tmp_path), ["/bin/ls", "/mnt"], image=name)


async def test_a_secret_is_in_nobodys_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"secret-{uuid.uuid4().hex}"
    monkeypatch.setenv("TOKEN_OF_TEST", secret)
    found: list[str] = []

    def look(*_: object) -> None:
        found.extend(processes(secret))

    result = await call(
        settings(tmp_path),
        ["/bin/sh", "-c", 'echo started; [ "${#TOKEN}" = 39 ]'],
        ExecutionContext(on_output=look),
        env={"TOKEN": {"secret": "TOKEN_OF_TEST"}},
    )
    assert (result.output, result.success, found) == ("started\n", True, [])


async def test_the_kernels_switches_and_the_hosts_processes_are_out_of_reach(tmp_path: Path) -> None:
    source = """
import os
def writable(path):
    try:
        with open(path, "a"):
            return True
    except OSError:
        return False
paths = ["sys/kernel/core_pattern", "sysrq-trigger", "sys/vm/drop_caches", "sys/kernel/hostname"]
print([path for path in paths if writable("/proc/" + path)])
print([name for name in os.listdir("/proc") if name.isdigit()] in (["1", "2"], ["1", "3"]), os.listdir("/sys"))
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print([int(status[key], 16) for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")])
print(status["NoNewPrivs"].strip(), status["Seccomp"].strip(), os.uname().nodename)
"""
    contract = ToolContract.create_dagger_tool("tool", IMAGE, ["python3", "-c", source])
    given = settings(tmp_path)
    plan = build_plan(contract, {}, given)
    async with SandboxExecutionEngine(given) as engine:
        with anyio.fail_after(CALL_LIMIT):
            lines = (await engine.run(plan, ExecutionContext())).output.splitlines()
    assert lines == ["[]", "True []", "[0, 0, 0, 0]", f"1 2 {plan.call.run_id[:12]}"]


async def test_system_calls_that_reach_beyond_a_sandbox_are_denied(tmp_path: Path) -> None:
    source = """
import ctypes, errno, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
calls = {
    "unshare": (272 if x86 else 97, 0x10000000),
    "clone": (56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "keyctl": (250 if x86 else 219, 0, -3, 1),
    "bpf": (321 if x86 else 280, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "userfaultfd": (323 if x86 else 282, 0),
    "perf_event_open": (298 if x86 else 241, 0, 0, 0, 0, 0),
    "mount": (165 if x86 else 40, 0, 0, 0, 0, 0),
    "x32 getpid": ((0x40000000 | 39) if x86 else 435,),
}
for name, words in calls.items():
    print(name, libc.syscall(*map(ctypes.c_long, words)), errno.errorcode.get(ctypes.get_errno()))
try:
    socket.socket(40, socket.SOCK_STREAM)
except OSError as exc:
    print("vsock", errno.errorcode[exc.errno])
print("unix", socket.socket(socket.AF_UNIX).fileno() > 2)
"""
    result = await call(settings(tmp_path), ["python3", "-c", source])
    answers = dict(line.split(" ", 1) for line in result.output.replace("x32 getpid", "x32").splitlines())
    assert {answers.pop("clone3"), answers.pop("x32")} == {"-1 ENOSYS"}
    assert (answers.pop("vsock"), answers.pop("unix")) == ("EAFNOSUPPORT", "True")
    assert len(answers) == 8
    assert set(answers.values()) == {"-1 EPERM"}


# The root file system


async def test_mounts_lie_where_the_links_of_the_image_lead(tmp_path: Path, busybox: bytes) -> None:
    (tmp_path / "note").write_text("from the host")
    name = install(
        busybox, "test/links:1", directory("run"), symlink("var/run", "/run"), symlink("data", "../../../srv/data")
    )
    output = await sh(
        settings(tmp_path),
        "cat /run/deep/note /srv/data/note && ls /data/",
        image=name,
        mounts={str(tmp_path / "note"): "/var/run/deep/note", str(tmp_path): "/data"},
    )
    assert output == "from the hostfrom the hostnote\n"


@pytest.mark.parametrize("read_only", [None, False])
async def test_a_mount_may_have_a_target_that_the_image_lacks(tmp_path: Path, read_only: bool | None) -> None:
    (tmp_path / "note").write_text("x")
    source = "cat /brand/new/note /etc/made/note && ls -d /usr/bin /etc/passwd"
    mounts = {str(tmp_path): "/brand/new", f"{tmp_path}/../{tmp_path.name}": "/etc/made"}
    assert await sh(settings(tmp_path), source, mounts=mounts, read_only=read_only)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note"]


async def test_file_systems_in_memory_are_bounded(tmp_path: Path) -> None:
    source = """
for place in / /dev /dev/shm /tmp /run /proc; do
    if touch "$place/x" 2>/dev/null; then echo "$place $(($(stat -f -c '%b * %S' "$place") / 1048576))"; fi
done"""
    assert await sh(settings(tmp_path), source) == "/dev/shm 64\n/tmp 256\n"


async def test_a_writable_root_is_the_calls_own_and_behaves_like_one(tmp_path: Path) -> None:
    given = settings(tmp_path)
    async with SandboxExecutionEngine(given) as engine:
        notes = (await engine.get_capabilities()).notes
    if (reason := notes.get(Capability.WRITABLE_ROOT)) is not None:
        pytest.skip(reason)
    source = """
        set -e
        rm -r /opt /srv && mkdir /opt && touch /opt/x && mv /home /home2
        echo changed > /etc/hostname && mkdir -p /brand/new && ls -d /home2 /opt/x
        rm /usr/bin/env && ! ls /usr/bin/env 2>/dev/null
    """
    for _ in range(2):  # nothing of the first call is seen by the second
        assert await sh(given, source, read_only=False) == "/home2\n/opt/x\n"
    found = ImageStore(shared_store()).find(IMAGE)
    assert found is not None
    assert list(found.image.layer.iterdir()) == []
    assert (found.image.root / "usr/bin/env").exists()
    assert str(shared_store()) not in Path("/proc/mounts").read_text()


async def test_an_image_in_use_is_not_removed(tmp_path: Path, busybox: bytes) -> None:
    name = install(busybox, "test/in-use:1", file("mark", b"in-use"))
    store = ImageStore(shared_store())
    refusals: list[str] = []

    def try_to_remove(*_: object) -> None:
        try:
            store.remove(name)
        except ImageError as exc:
            refusals.append(exc.message)

    result = await call(
        settings(tmp_path), ["sh", "-c", "echo on"], ExecutionContext(on_output=try_to_remove), image=name
    )
    assert (result.success, len(refusals)) == (True, 1)
    assert store.remove(name)


# Network, limits, sizes


async def test_the_hosts_network_is_given_only_where_the_settings_allow_it(tmp_path: Path) -> None:
    with pytest.raises(LimitUnsupported, match="host_network"):
        await call(settings(tmp_path), ["/bin/true"], network="bridge")
    allowed = settings(tmp_path, policy={"host_network": True})
    assert await sh(allowed, "cat /etc/hosts", network="bridge") == Path("/etc/hosts").read_text()
    assert "localhost" in await sh(allowed, "cat /etc/hosts")


async def test_with_the_hosts_network_each_call_sees_how_the_host_looks_up_names(tmp_path: Path) -> None:
    given = settings(tmp_path, policy={"host_network": True})
    contract = ToolContract.create_dagger_tool("tool", IMAGE, ["cat", "/etc/hosts"], network="bridge")
    async with SandboxExecutionEngine(given) as engine:
        for _ in range(3):
            with anyio.fail_after(CALL_LIMIT):
                result = await engine.execute(contract, {})
            assert result.output.encode() == Path("/etc/hosts").read_bytes()


@with_cgroups
async def test_a_tool_without_a_limit_is_bounded_all_the_same_and_leaves_no_group(tmp_path: Path) -> None:
    source = """
import os, signal
count = 1
try:
    while count < 1000:
        if not os.fork():
            signal.pause()
        count += 1
except OSError:
    print(count)
"""
    assert (await call(settings(tmp_path), ["python3", "-c", source])).output == "512\n"
    assert control_groups(f"praxis-mcp-{os.getpid()}-") == []


async def test_without_cgroups_limits_are_refused_with_the_reason(tmp_path: Path) -> None:
    found = find_cgroups(tmp_path)  # a directory without mounts and cgroup
    assert (found.enforces, set(found.notes)) == (
        frozenset(),
        {Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.PIDS_LIMIT},
    )
    assert all("control groups" in note for note in found.notes.values())


async def test_words_and_variables_that_the_kernel_refuses_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="too large") as failure:
        await call(settings(tmp_path), ["/bin/true"], env={"BIG": "x" * 200_000})
    assert "stdin" in str(failure.value.remedy)


# What is left


SERVER = """
import anyio, sys
from pathlib import Path
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.settings.model import Settings

launcher, store, read_only, *command = sys.argv[1:]
settings = Settings(engines={"sandbox": {"store": Path(store), "launcher": launcher}})
fields = {"read_only": False} if read_only == "False" else {}
contract = ToolContract.create_dagger_tool("tool", "python:3.11-slim", command, **fields)

async def main():
    context = ExecutionContext(on_output=lambda name, data: print(data.decode(), end="", flush=True))
    async with SandboxExecutionEngine(settings) as engine:
        print((await engine.execute(contract, {}, context)).exit_code)

"""


@pytest.mark.parametrize("read_only", [True, False])
async def test_nothing_survives_a_server_that_is_killed(tmp_path: Path, read_only: bool) -> None:
    given = settings(tmp_path)
    await sh(given, "true")  # the image is there
    marker = f"marker-{uuid.uuid4().hex}"
    source = "import os, signal\nif not os.fork(): os.setsid()\nprint('ready', flush=True)\nsignal.pause()"
    words = [launchers.chosen, str(shared_store()), str(read_only), "python3", "-c", source, marker]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER + "anyio.run(main)", *words], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        with anyio.fail_after(CALL_LIMIT):
            assert await anyio.to_thread.run_sync(server.stdout.readline) == "ready\n"
        prefix = f"praxis-mcp-{server.pid}-"
        assert bool(control_groups(prefix)) is bool(find_cgroups().enforces)
        async with SandboxExecutionEngine(given) as engine:
            await engine.reap()  # another server leaves a living one's alone
            assert bool(control_groups(prefix)) is bool(find_cgroups().enforces)
            server.kill()
            server.wait()

            async def is_reaped() -> bool:
                await engine.reap()
                return not processes(marker) and not control_groups(prefix)

            await until(is_reaped)
    assert str(shared_store()) not in Path("/proc/mounts").read_text()


async def test_a_sandbox_that_lost_its_server_before_it_could_notice_is_reaped(tmp_path: Path) -> None:
    gone = subprocess.Popen(["sleep", "1000"])
    started = Path(f"/proc/{gone.pid}/stat").read_text().rpartition(")")[2].split()[19]
    owner = f"{gone.pid}-{started}-{os.stat('/proc/self/ns/pid').st_ino}"
    orphan = subprocess.Popen(["sleep", "1000"], env={OWNER_VARIABLE: owner})
    try:
        async with SandboxExecutionEngine(settings(tmp_path)) as engine:
            with anyio.fail_after(CALL_LIMIT):
                assert f"process {orphan.pid}" not in await engine.reap()
                gone.kill()
                gone.wait()
                assert f"process {orphan.pid}" in await engine.reap()
        assert orphan.wait(CALL_LIMIT) == -9
    finally:
        for process in (gone, orphan):
            process.kill()
            process.wait()


async def test_a_user_without_a_home_learns_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    given = Settings.model_validate({"root": tmp_path})
    async with SandboxExecutionEngine(given) as engine:
        status = await engine.probe()
        assert (status.available, "no home directory" in status.detail) == (False, True)
        assert "engines.sandbox.store" in str(status.remedy)
        await engine.reap()  # needs no store
    with pytest.raises(ImageError, match="no home directory"):
        await sh(given, "echo")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    async with SandboxExecutionEngine(given) as engine:
        assert (await engine.probe()).available


async def test_an_image_that_another_process_unpacks_is_waited_for_along_with_everything_else(tmp_path: Path) -> None:
    given = settings(tmp_path)
    assert await sh(given, "echo") == "\n"  # the image is there
    found = ImageStore(shared_store()).find(IMAGE)
    assert found is not None
    # Lets go when told, or by itself after a while, for a server that can tell nothing because it waits.
    source = """
import fcntl, select, sys
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    print("told" if select.select([sys.stdin], [], [], 30)[0] else "not told", flush=True)
"""
    lock = shared_store() / "locks" / found.image.id.removeprefix("sha256:")
    ended = anyio.Event()

    async def run() -> None:
        assert await sh(given, "echo ran") == "ran\n"
        ended.set()

    with subprocess.Popen(
        [sys.executable, "-c", source, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            with anyio.move_on_after(0.5):
                await ended.wait()
            assert not ended.is_set()
            holder.stdin.close()
        assert holder.stdout.read() == b"told\n"


@as_root
@pytest.mark.parametrize("read_only", [True, False])
async def test_it_works_for_a_user_who_is_not_root(read_only: bool) -> None:
    store = Path(tempfile.mkdtemp(prefix="praxis-test-nobody-"))
    try:
        await SandboxImages(Settings.model_validate({"engines": {"sandbox": {"store": store}}})).ensure(IMAGE)
        subprocess.run(["chown", "-R", "65534:65534", str(store)], check=True)
        run_as_nobody(store, read_only)
    finally:
        shutil.rmtree(store)


def run_as_nobody(store: Path, read_only: bool) -> None:
    # The interpreter may lie where nobody may read: all that is needed is imported first.
    become_nobody = """
import asyncio.subprocess, concurrent.futures.thread, encodings.ascii, fcntl, anyio._backends._asyncio, docker
import os
from praxis_mcp.contracts.schemas.schema import validate_arguments
validate_arguments(contract, {})
os.chdir("/")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.environ["HOME"] = "/nonexistent"
anyio.run(main)
"""
    source = "import os; print(os.getuid(), os.access('/usr', os.W_OK)); open('/tmp/x', 'w').close()"
    done = subprocess.run(
        [
            *(sys.executable, "-c", SERVER + become_nobody),
            *(launchers.chosen, str(store), str(read_only), "python3", "-c", source),
        ],
        capture_output=True,
        text=True,
        timeout=CALL_LIMIT,
        check=False,
    )
    assert done.stdout.splitlines() == [f"0 {not read_only}", "0"], done.stderr


@pytest.mark.parametrize("has_docker", [True, False])
async def test_a_pull_that_fails_names_what_would_take_the_image_from_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_docker: bool
) -> None:
    """Without the Docker SDK nobody can ask the daemon that may have built it."""
    (tmp_path / "bin").mkdir()
    if has_docker:
        (tmp_path / "bin" / "docker").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(pulls, "find_spec", lambda _: None)

    async def nothing(*_: object) -> bool:
        return False

    settings = Settings.model_validate({"engines": {"sandbox": {"store": tmp_path / "store"}}})
    with pytest.raises(ImageError) as failure:
        await SandboxImages(settings, nothing).ensure("localhost:1/praxis-mcp/nowhere:1")
    assert ("If Docker has the image, install what" in (failure.value.remedy or "")) is has_docker
