"""The local engine beyond what every engine does alike: its sandbox, its fallbacks, and that nothing outlives it."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.host import launcher as launcher_module
from praxis_mcp.engines.host import local_run, message
from praxis_mcp.engines.host.launcher import OwnLauncher, find_own_launcher
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandboxed import NoLauncher
from praxis_mcp.errors import CommandNotFound, EngineUnavailable, ExecutionError, LimitUnsupported
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.support import praxis_init as native
from praxis_mcp.support import processes as processes_module
from praxis_mcp.testing.bench import CALL_LIMIT, past_its_deadline, processes
from tests.chaos.ground import Sandbox
from tests.engines.host import launchers
from tests.engines.host.local_case import CASE
from tests.kit.places import directory_among_sockets, directory_in_sight
from tests.kit.until import until
from tests.native.harness import landlock_version

pytestmark = pytest.mark.anyio

sandboxed = pytest.mark.usefixtures("launcher")
SANDBOXES = [*launchers.BOTH, "off"]
PYTHON = CASE.python_program

# Detaches twice over, ignores the polite signal, and says that it is there.
DAEMON = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
"""


STDIN: dict[str, Any] = {
    "parameters": [ToolParameter(name="text", bind=Binding(kind=BindKind.STDIN))],
    "arguments": {"text": "the input"},
}


def local(root: Path, sandbox: str | None = None, **values: Any) -> Settings:
    return Settings(root=root, engines={"local": {"sandbox": sandbox or launchers.chosen}}, **values)  # pyright: ignore[reportArgumentType]


async def call(
    settings: Settings,
    command: list[str],
    context: ExecutionContext | None = None,
    arguments: dict[str, Any] | None = None,
    **fields: Any,
) -> ExecutionResult:
    contract = ToolContract.create_local_tool("tool", command, **fields)
    with anyio.fail_after(CALL_LIMIT):
        async with LocalExecutionEngine(settings) as engine:
            plan = build_plan(contract, arguments or {}, settings)
            await engine.check_demands(plan)
            return await engine.run(plan, context or ExecutionContext())


async def python(settings: Settings, source: str, *words: str, **fields: Any) -> str:
    """What a Python program prints; it must succeed."""
    result = await call(settings, [PYTHON, "-c", source, *words], **fields)
    assert result.success, result.stderr.text
    return result.output.strip()


async def gone(marker: str) -> None:
    """Return when no process has `marker` among its words: what the kernel has killed takes a moment to go."""
    await until(lambda: not processes(marker), within=CALL_LIMIT)


def new_marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


# What a tool sees


@sandboxed
async def test_credentials_and_sockets_are_out_of_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".ssh/id_ed25519", ".aws/credentials", ".netrc", "keys/token", "visible"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the-content")
    # Even where somebody lets all of the home directory be seen.
    policy = {"sensitive_paths": [tmp_path]}
    settings = local(tmp_path, secrets={"TOKEN": {"file": tmp_path / "keys/token"}}, policy=policy)
    source = """
import glob, os, stat, sys
def content(path):
    try:
        return open(path).read()
    except OSError:
        return ""
print([name for name in sys.argv[1:] if content(name)])
print([name for name in glob.glob("/run/**", recursive=True) if stat.S_ISSOCK(os.lstat(name).st_mode)])
"""
    paths = [str(tmp_path / name) for name in (".ssh/id_ed25519", ".aws/credentials", ".netrc", "keys/token")]
    seen = await python(settings, source, *paths, "/etc/shadow", str(tmp_path / "visible"))
    assert seen.splitlines() == [f"['{tmp_path}/visible']", "[]"]


@sandboxed
async def test_making_room_in_the_home_directory_brings_no_credentials_to_light(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id").write_text("secret")
    (tmp_path / "data").mkdir()
    source = f"import os; print(os.listdir('{tmp_path}'), os.path.isdir('{tmp_path}/new/place'))"
    mounts = {str(tmp_path / "data"): f"{tmp_path}/new/place"}
    assert await python(local(tmp_path), source, mounts=mounts) == "['new'] True"
    assert not (tmp_path / "new").exists()


@sandboxed
@pytest.mark.parametrize("home", ["elsewhere", "here", "below", "programs"])
async def test_what_other_calls_have_in_the_servers_temporary_directory_is_out_of_sight(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    with directory_in_sight() as temporary:
        place = str(temporary)
        monkeypatch.setattr(tempfile, "tempdir", place)
        monkeypatch.setenv("HOME", {"here": place, "below": f"{place}/somebody"}.get(home, "/root"))
        if home == "programs":
            monkeypatch.setenv("PATH", f"{place}/env/bin:{os.environ['PATH']}")
        for name in ("praxis-mcp-runs-x/0123/stdout", "praxis-mcp-scratch-x/work/file", "other", "project/file"):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text("the-content")
        source = "import os; print([name for _, _, files in os.walk(os.sys.argv[1]) for name in files])"
        for root, seen in ((temporary / "project", ["file"]), (Path("/"), [])):
            wanted = seen if home in ("elsewhere", "here") else ["other", "file"]
            assert await python(local(root), source, place) == str(wanted)
        if home != "elsewhere":
            return
        inner = temporary / "project/tmp"
        (inner / "praxis-mcp-runs-x").mkdir(parents=True)
        (inner / "praxis-mcp-runs-x/stdout").write_text("the-content")
        monkeypatch.setattr(tempfile, "tempdir", str(inner))
        assert await python(local(temporary / "project"), source, f"{place}/project") == "['file']"


@sandboxed
async def test_the_servers_process_is_out_of_sight(tmp_path: Path) -> None:
    source = "import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdecimal()))"
    assert await python(local(tmp_path), source) == "[1, 2]"


@sandboxed
@pytest.mark.parametrize("place", ["/", "/etc", "/usr", "/var/lib", "{root}", "{root}/cwd", "/proc/sys/kernel"])
async def test_the_host_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "cwd").mkdir()
    source = """
import os, sys
try:
    if sys.argv[1].startswith("/proc"):
        os.open(sys.argv[1] + "/core_pattern", os.O_WRONLY)
    else:
        open(sys.argv[1] + "/praxis-test-file", "w")
except OSError as exc:
    print("refused")
"""
    where = place.format(root=tmp_path)
    assert await python(local(tmp_path), source, where, working_dir=str(tmp_path / "cwd")) == "refused"


@sandboxed
async def test_each_call_has_a_tmp_and_a_home_of_its_own(tmp_path: Path) -> None:
    marker = new_marker()
    source = f"""
import os
places = ["/tmp", "/var/tmp", os.environ["HOME"], os.environ["TMPDIR"], os.getcwd()]
print([os.path.exists(place + "/{marker}") for place in places])
for place in places:
    open(place + "/{marker}", "w")
"""
    nothing = str([False] * 5)
    assert [await python(local(tmp_path), source) for _ in range(2)] == [nothing, nothing]
    assert not Path("/tmp", marker).exists()


@sandboxed
async def test_the_contracts_directory_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("hello")
    assert await python(local(Path("/")), "print(open('data.txt').read())", working_dir=str(tmp_path)) == "hello"


@sandboxed
@pytest.mark.parametrize("target", ["/new-at-the-top/deep", "/usr/share/new-below/deep"])
async def test_a_mount_may_lie_where_the_host_has_nothing(tmp_path: Path, target: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data.txt").write_text("hello")
    source = """
import os, sys
print(open(sys.argv[1] + "/data.txt").read(), len(os.listdir("/usr/share")) > 5, os.path.exists("/bin/sh"))
try:
    open(os.path.dirname(sys.argv[1]) + "/x", "w")
except OSError:
    print("refused")
"""
    seen = await python(local(tmp_path), source, target, mounts={"in": target})
    assert seen.splitlines() == ["hello True True", "refused"]
    assert not Path(target).exists()


@sandboxed
@pytest.mark.skipif(os.path.realpath("/var/run") != "/run", reason="/var/run is not a link to /run here")
async def test_a_mount_may_lie_behind_a_link_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("hello")
    source = "print(open('/var/run/praxis-test/data.txt').read(), open('/run/praxis-test/data.txt').read())"
    assert await python(local(tmp_path), source, mounts={".": "/var/run/praxis-test"}) == "hello hello"


@sandboxed
async def test_artifacts_come_from_a_directory_that_the_host_does_not_have(tmp_path: Path) -> None:
    source = """
import os
open("/out/a.txt", "w").write(os.environ["PRAXIS_OUTPUT_DIR"])
"""
    (tmp_path / "run").mkdir()
    result = await call(
        local(tmp_path), [PYTHON, "-c", source], ExecutionContext(directory=tmp_path / "run"), artifacts=["/out/*.txt"]
    )
    assert [(item.name, item.file.read_text()) for item in result.artifacts] == [("a.txt", "/out")]


# What reaches a tool, and what does not


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_a_shell_never_runs_what_a_caller_gave(tmp_path: Path, sandbox: str) -> None:
    hostile = [
        "$(touch x)",
        "`touch x`",
        "; touch x",
        "'; touch x; '",
        '"; touch x; "',
        "a\ntouch x\n",
        "-e $HOME *",
        "| x",
    ]
    parameters = [
        *(
            ToolParameter(name=f"w{i}", bind=Binding(kind=BindKind.POSITION, target=i + 1, allow_dash=True))
            for i in range(8)
        ),
        *(ToolParameter(name=f"e{i}") for i in range(8)),
    ]
    values = {f"w{i}": text for i, text in enumerate(hostile)} | {f"e{i}": text for i, text in enumerate(hostile)}
    result = await call(
        local(tmp_path, sandbox),
        [
            "printf",
            "'%s\\0'",
            '"$@"',
            '"$E0"',
            '"$E1"',
            '"$E2"',
            '"$E3"',
            '"$E4"',
            '"$E5"',
            '"$E6"',
            '"$E7"',
            ";",
            "ls",
        ],
        shell=True,
        parameters=parameters,
        arguments=values,
    )
    assert result.output == "".join(f"{text}\0" for text in hostile * 2)


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_output_that_nobody_wants_is_discarded(tmp_path: Path, sandbox: str) -> None:
    result = await call(local(tmp_path, sandbox), ["sh", "-c", "echo hi; exit 3"], capture_output=False)
    assert (result.exit_code, result.stdout.total) == (3, 0)


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_a_program_without_its_interpreter_is_named(tmp_path: Path, sandbox: str) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandNotFound, match=r"no command.*script.*interpreter"):
        await call(local(tmp_path, sandbox), [str(script)])


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_a_missing_working_directory_is_named_and_not_made(tmp_path: Path, sandbox: str) -> None:
    with pytest.raises(ExecutionError, match=r"absent, which does not exist.*cwd"):
        await call(local(tmp_path, sandbox), ["true"], working_dir="absent")
    assert not (tmp_path / "absent").exists()


@sandboxed
async def test_a_working_directory_among_the_hosts_sockets_is_refused(tmp_path: Path) -> None:
    with directory_among_sockets() as found:
        place = str(found)
        with pytest.raises(LimitUnsupported, match=r"sockets.*policy\.sensitive_paths"):
            await call(local(tmp_path), ["true"], working_dir=place)
        allowed = local(tmp_path, policy={"sensitive_paths": [place]})
        assert (await call(allowed, ["pwd"], working_dir=place)).output.strip() == place


@sandboxed
async def test_the_socket_of_an_engine_that_the_settings_name_is_out_of_sight(tmp_path: Path) -> None:
    with directory_in_sight() as place, closing(socket.socket(socket.AF_UNIX)) as listener:
        path = str(place / "socket")
        listener.bind(path)
        settings = Settings.model_validate({"root": tmp_path, "engines": {"docker": {"host": f"unix://{path}"}}})
        source = f"import os, stat; print(stat.S_ISSOCK(os.stat({path!r}).st_mode))"
        assert await python(settings, source) == "False"


async def test_a_variable_that_no_process_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="cannot be passed to a process"):
        await call(local(tmp_path, "off"), ["true"], env={"A": "one\0two"})


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_output_that_cannot_be_kept_ends_the_tool_with_an_error(tmp_path: Path, sandbox: str) -> None:
    (tmp_path / "stdout").mkdir()  # where its file would be
    with pytest.raises(ExecutionError, match=r"output could not be kept: Is a directory"):
        await call(local(tmp_path, sandbox), ["yes"], ExecutionContext(directory=tmp_path))


# The end of a tool


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_a_tool_at_its_deadline_may_say_its_last_words(
    tmp_path: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (message, local_run, processes_module):
        monkeypatch.setattr(module, "TERM_GRACE", 30.0)  # time to end on a machine that is busy with other things
    source = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("last words", flush=True), sys.exit(5)))
print("ready", flush=True)
signal.pause()
"""
    result = await past_its_deadline(
        lambda seconds: call(local(tmp_path, sandbox), [PYTHON, "-c", source], timeout=seconds), "ready\n"
    )
    assert (result.timed_out, result.exit_code, result.output) == (True, 5, "ready\nlast words\n")


@pytest.fixture
def without_praxis_init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a package that was built without a compiler."""
    monkeypatch.setattr(native, "_FOLDER", tmp_path)


@pytest.mark.usefixtures("without_praxis_init")
class TestAPlainProcessWithoutPraxisInit:
    async def test_a_detached_daemon_is_killed_at_the_deadline(self, tmp_path: Path) -> None:
        marker = new_marker()
        source = DAEMON + "signal.pause()"
        command = [PYTHON, "-c", source, marker]
        result = await past_its_deadline(
            lambda seconds: call(local(tmp_path, "off"), command, timeout=seconds, network="host"), "ready\n"
        )
        assert (result.timed_out, result.output) == (True, "ready\n")
        assert not processes(marker)

    async def test_a_detached_daemon_is_killed_when_the_call_is_cancelled(self, tmp_path: Path) -> None:
        marker = new_marker()
        command = [PYTHON, "-c", DAEMON + "signal.pause()", marker]
        with anyio.CancelScope() as scope:
            context = ExecutionContext(on_output=lambda *_: scope.cancel())
            await call(local(tmp_path, "off"), command, context, network="host")
        assert scope.cancelled_caught
        assert not processes(marker)

    async def test_a_detached_daemon_does_not_outlive_the_tool(self, tmp_path: Path) -> None:
        marker = new_marker()
        result = await call(local(tmp_path, "off"), [PYTHON, "-c", DAEMON, marker], network="host")
        assert result.success
        assert not processes(marker)

    async def test_network_none_is_refused_with_how_to_fix_it(self, tmp_path: Path) -> None:
        with pytest.raises(LimitUnsupported, match=r"network: none.*sandbox.*network: host"):
            await call(local(tmp_path, "off"), ["true"])


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize(
    "script",
    [
        "git init -q . && git -c user.name=x -c user.email=y commit -q --allow-empty -m z && git log --oneline | wc -l",
        'node -e \'new (require("worker_threads").Worker)("console.log(1)", {eval: true})\'',
        "java -version 2>&1 | head -1 | wc -l",
    ],
    ids=["git", "node", "java"],
)
async def test_large_programs_of_the_host_run_under_the_filter(tmp_path: Path, sandbox: str, script: str) -> None:
    program = script.split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    result = await call(local(tmp_path, sandbox), ["/bin/sh", "-c", script], network="host")
    assert (result.output.strip(), result.exit_code) == ("1", 0), result.stderr.text


@pytest.mark.native
async def test_a_tool_cannot_kill_its_supervisor_and_leave_a_daemon_without_a_mark(tmp_path: Path) -> None:
    """See tests/native/test_shield.py for every other way, and for kernels without Landlock."""
    marker = new_marker()
    source = DAEMON.replace(
        "import os, signal, sys\n",
        """
import os, signal, sys
if len(sys.argv) < 3:  # without an environment, nothing but descent tells whose it is
    os.execve(sys.executable, [sys.executable, "-c", sys.orig_argv[2], sys.argv[1], "again"], {})
""",
    )
    source += "os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    result = await call(local(tmp_path, "off"), [PYTHON, "-c", source, marker], network="host")
    assert "PermissionError" in result.stderr.text
    await gone(marker)


SERVER = """
import anyio, sys
from pathlib import Path
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host import launcher as launcher_module
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandboxed import NoLauncher
from praxis_mcp.settings.model import Settings

sandbox, *command = sys.argv[1:]
settings = Settings(engines={"local": {"sandbox": sandbox}})
contract = ToolContract.create_local_tool("tool", command)

async def main():
    context = ExecutionContext(on_output=lambda name, data: print(data.decode(), end="", flush=True))
    async with LocalExecutionEngine(settings) as engine:
        print((await engine.execute(contract, {}, context)).exit_code)

"""


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_nothing_survives_a_server_that_is_killed(tmp_path: Path, sandbox: str) -> None:
    marker = new_marker()
    words = [sandbox, PYTHON, "-c", DAEMON + "signal.pause()", marker]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER + "anyio.run(main)", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as server:
        assert server.stdout is not None
        with anyio.fail_after(CALL_LIMIT):
            assert await anyio.to_thread.run_sync(server.stdout.readline) == "ready\n"
        server.kill()
    await gone(marker)


@sandboxed
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_the_sandbox_works_for_a_user_who_is_not_root(tmp_path: Path) -> None:
    # The interpreter may lie where nobody may read: all that is needed is imported first.
    become_nobody = """
import asyncio.subprocess, concurrent.futures.thread, fcntl, anyio._backends._asyncio
import os
from praxis_mcp.contracts.schemas.schema import validate_arguments
validate_arguments(contract, {})
os.chdir("/")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.environ["HOME"] = "/nonexistent"
anyio.run(main)
"""
    tool = [
        "/bin/sh",
        "-c",
        "id -u; head -c 3 /etc/hostname >/dev/null && touch /tmp/a && ls /sys/class/net >/dev/null; ls -d /tmp/a",
    ]
    done = subprocess.run(
        [sys.executable, "-c", SERVER + become_nobody, launchers.chosen, *tool],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["65534", "/tmp/a", "0"], done.stderr


# With and without bubblewrap


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to(shell)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("no_bubblewrap")
async def test_a_required_sandbox_that_is_missing_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"bwrap is not on the PATH.*Install bubblewrap"):
        await call(local(tmp_path, "bubblewrap"), ["sh", "-c", "true"])
    async with LocalExecutionEngine(local(tmp_path, "bubblewrap")) as engine:
        status = await engine.probe()
    assert (status.available, "Install bubblewrap" in status.remedy) == (False, True)


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch, no_bubblewrap: None) -> None:
    """A machine where nobody may make a sandbox; praxis-init still runs."""

    async def nothing() -> NoLauncher:
        return NoLauncher("no namespaces here", "Allow unprivileged user namespaces.")

    monkeypatch.setattr(launcher_module, "find_own_launcher", nothing)


@pytest.mark.usefixtures("nothing_works")
async def test_without_a_sandbox_a_command_runs_as_a_plain_process_and_what_is_lacking_is_said(tmp_path: Path) -> None:
    assert (await call(local(tmp_path), ["sh", "-c", "true"])).isolation == "process"
    async with LocalExecutionEngine(local(tmp_path)) as engine:
        capabilities = await engine.get_capabilities()
    assert "no namespaces here" in capabilities.notes[Capability.MOUNTS]
    assert "bwrap is not on the PATH" in capabilities.notes[Capability.MOUNTS]
    (tmp_path / "data").mkdir()
    with pytest.raises(LimitUnsupported, match=r"mounts.*bwrap is not on the PATH"):
        await call(local(tmp_path), ["sh", "-c", "true"], mounts={"data": "/data"})
    with pytest.raises(EngineUnavailable, match=r"no namespaces here.*Allow unprivileged"):
        await call(local(tmp_path, "require"), ["sh", "-c", "true"])


@pytest.mark.sandbox
@pytest.mark.usefixtures("no_bubblewrap")
async def test_a_sandbox_needs_nothing_that_is_not_in_the_package(tmp_path: Path) -> None:
    assert (await call(local(tmp_path, "require"), ["sh", "-c", "true"])).isolation == "praxis-init"


@pytest.mark.bubblewrap
async def test_bubblewrap_makes_it_where_praxis_init_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "praxis-init"
    broken.write_text("#!/bin/sh\nexit 125\n")
    broken.chmod(0o755)
    monkeypatch.setattr(launcher_module, "host_init_path", lambda: broken)
    assert (await call(local(tmp_path), ["true"])).isolation == "bubblewrap"
    with pytest.raises(EngineUnavailable, match=r"there is none.*user namespaces"):
        await call(local(tmp_path, "own"), ["true"])


async def test_a_bubblewrap_that_does_not_work_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(EngineUnavailable, match=r"does not work here: bwrap: No permissions.*user namespaces"):
        await call(local(tmp_path, "bubblewrap"), ["true"])


@pytest.mark.bubblewrap
async def test_a_mount_that_goes_while_the_sandbox_is_made_does_not_fail_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What bubblewrap says when, say, a Docker container ends at the wrong moment; every second time here.
    program = tmp_path / "bin/bwrap"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
if [ "$1" = --version ]; then echo bubblewrap 0; exit; fi
if rm {tmp_path}/ended 2>&-; then exec {shutil.which("bwrap")} "$@"; fi
touch {tmp_path}/ended
echo "bwrap: Can't bind mount /oldroot/ on /newroot/: Unable to apply mount flags: Invalid argument" >&2
exit 1
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    result = await call(local(tmp_path, "bubblewrap"), ["sh", "-c", "cat; echo once >&2"], **STDIN)
    assert (result.output, result.stderr.text) == ("the input", "once\n")


@sandboxed
async def test_the_sandbox_is_named_in_status_and_result(tmp_path: Path, launcher: str) -> None:
    name = "praxis-init" if launcher == "own" else launcher
    async with LocalExecutionEngine(local(tmp_path)) as engine:
        status = await engine.probe()
    assert status.version.startswith(name)
    assert ("reach abstract sockets of other programs" in status.detail) == (
        launcher == "bubblewrap" or landlock_version() < 6
    )
    assert (await call(local(tmp_path), ["true"])).isolation == name


@pytest.mark.sandbox
async def test_that_a_trial_was_killed_says_nothing_of_this_machine() -> None:
    """By the out-of-memory killer, say: the server would do without sandboxes, or with bubblewrap's, for its life."""
    hits = 0

    async def hit() -> None:
        nonlocal hits
        found = await until(lambda: Sandbox.all_of(os.getpid()), every=0)
        hits += found[0].kill(found[0].outer)

    with anyio.fail_after(CALL_LIMIT):
        while not hits:  # it takes a few milliseconds, and may have ended before
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hit)
                assert isinstance(await find_own_launcher(), OwnLauncher)
                tasks.cancel_scope.cancel()


async def test_a_sandbox_that_is_off_is_not_used(tmp_path: Path) -> None:
    assert (await call(local(tmp_path, "off"), ["true"])).isolation == "process"


async def test_a_plain_call_leaves_no_directory_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = await call(local(tmp_path, "off"), ["sh", "-c", 'cd "$HOME" && touch x && chmod 500 . && pwd'])
    assert Path(result.output.strip()).parent.parent == tmp_path
    assert os.listdir(tmp_path) == []


async def test_the_directory_of_a_plain_call_goes_while_the_engine_lives_and_no_call_gets_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = local(tmp_path, "off")
    contract = ToolContract.create_local_tool("tool", ["sh", "-c", "ls -A . ~ $TMPDIR; touch x ~/x $TMPDIR/x; pwd"])
    places: set[Path] = set()

    async def one() -> None:
        result = await engine.run(build_plan(contract, {}, settings), ExecutionContext())
        *listed, last = result.output.splitlines()
        assert not any("x" in line.split("/")[-1:] for line in listed)
        places.add(Path(last).parent)

    def left() -> list[Path]:
        return [place for place in places if place.exists()]

    with anyio.fail_after(CALL_LIMIT):
        async with LocalExecutionEngine(settings) as engine:
            for _ in range(4):
                await one()
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(one)
            assert len(places) == 10
            await until(lambda: not left())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("deed", "serves_again"),
    [
        ("ls -A . ~ $TMPDIR", True),
        ("touch ~/x", False),
        ("mkdir $TMPDIR/x", False),
        ("chmod 500 .", False),
        ("rmdir ~ && mkdir ~", False),
        ("touch ../x", False),
    ],
)
async def test_a_directory_serves_the_next_call_only_where_nothing_was_changed_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, serves_again: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = local(tmp_path, "off")
    tool = ToolContract.create_local_tool("tool", ["sh", "-ec", f"pwd; {deed} >&2"])
    with anyio.fail_after(CALL_LIMIT):
        async with LocalExecutionEngine(settings) as engine:
            found: list[str] = []
            for _ in range(4):
                result = await engine.run(build_plan(tool, {}, settings), ExecutionContext())
                assert result.success, result.stderr.text
                found.append(result.output)
    again = [one == other for one, other in itertools.pairwise(found)]
    assert again == [serves_again] * 3
    assert os.listdir(tmp_path) == []


async def test_the_directory_of_a_call_that_did_not_come_to_its_end_serves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = local(tmp_path, "off")
    tool = ToolContract.create_local_tool("tool", ["sh", "-c", "pwd; exec sleep 1000"])
    quick = ToolContract.create_local_tool("tool", ["pwd"])
    async with LocalExecutionEngine(settings) as engine:
        with anyio.fail_after(CALL_LIMIT):
            first = await engine.run(build_plan(quick, {}, settings), ExecutionContext())
            heard: list[bytes] = []
            async with anyio.create_task_group() as tasks:

                def hear(_: str, data: bytes) -> None:
                    heard.append(data)
                    tasks.cancel_scope.cancel()

                context = ExecutionContext(on_output=hear)
                tasks.start_soon(engine.run, build_plan(tool, {}, settings), context)
            last = await engine.run(build_plan(quick, {}, settings), ExecutionContext())
    assert first.stdout.data == b"".join(heard)
    assert last.output != first.output


async def test_a_directory_that_waited_for_its_call_too_long_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("praxis_mcp.engines.host.call_directories.FRESH_FOR", 0.0)
    settings = local(tmp_path, "off")
    plan = build_plan(ToolContract.create_local_tool("tool", ["pwd"]), {}, settings)
    with anyio.fail_after(CALL_LIMIT):
        async with LocalExecutionEngine(settings) as engine:
            for _ in range(3):
                for waiting in tmp_path.iterdir():  # as a cleaner of temporary files would
                    shutil.rmtree(waiting, ignore_errors=True)
                assert (await engine.run(plan, ExecutionContext())).success
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("deed", ["touch {}/home/left", "rm -rf {}/tmp", "mv {}/home {}/was; ln -s was {}/home"])
async def test_no_call_meets_what_a_call_before_it_did_to_the_directories_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = local(tmp_path, "off")
    others = 'for each in ../../praxis-mcp-scratch-*; do [ "$each" -ef .. ] || {{ {}; }} 2>/dev/null || :; done'
    command = f'ls -A "$HOME"; ls -d "$TMPDIR" "$HOME" >/dev/null; test ! -L "$HOME"; {others}'.format(
        deed.replace("{}", '"$each"')
    )
    tool = ToolContract.create_local_tool("tool", ["sh", "-ec", command])
    with anyio.fail_after(CALL_LIMIT):
        async with LocalExecutionEngine(settings) as engine:
            for _ in range(5):
                result = await engine.run(build_plan(tool, {}, settings), ExecutionContext())
                assert (result.exit_code, result.output, result.stderr.text) == (0, "", "")
                await until(lambda: len(os.listdir(tmp_path)) < 2)
    assert os.listdir(tmp_path) == []


async def test_nothing_stays_of_a_directory_that_could_not_be_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("praxis_mcp.engines.host.call_directories._FOLDERS", ("home", "home"))
    plan = build_plan(ToolContract.create_local_tool("tool", ["pwd"]), {}, local(tmp_path, "off"))
    async with LocalExecutionEngine(local(tmp_path, "off")) as engine:
        with pytest.raises(ExecutionError, match="directory for the call cannot be made"):
            await engine.run(plan, ExecutionContext())
    assert os.listdir(tmp_path) == []
