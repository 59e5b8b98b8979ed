"""The Dagger engine's own: its session, its cache, its errors, its copies of files. What every engine does is in
test_conformance.py."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.dagger import session
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.engines.dagger.session import SessionLost
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, SettingsError
from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.testing.bench import CALL_LIMIT, DEADLINES, processes
from tests.dagger_double.install import remove_containers
from tests.dagger_double.server import HANG
from tests.engines.dagger.case import IMAGE as PYTHON
from tests.engines.dagger.case import IS_REAL
from tests.engines.dagger.ground import UNIQUE, Ground, cli_processes, new_ground, settings_for, sh
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.dagger]

double_only = pytest.mark.skipif(IS_REAL, reason="breaks the engine, which only the double can be asked for")


@pytest.fixture
async def own(state: Path) -> AsyncIterator[Ground]:
    """A fresh engine, whose session may be broken."""
    async with new_ground(state, policy={"privileged": True}) as ground:
        yield ground


@pytest.fixture(scope="module")
async def ground(state: Path, anyio_backend: str) -> AsyncIterator[Ground]:
    """An engine that tests share which leave its session alone."""
    async with new_ground(state, policy={"privileged": True}) as ground:
        yield ground


@pytest.fixture
def image_with_telemetry() -> Iterator[str]:
    """An image of the local Docker's that says itself where its telemetry goes."""
    name = f"praxis-test-{uuid4().hex[:12]}"
    container = docker("create", "busybox:1.36")
    docker("commit", "--change", "ENV OTEL_EXPORTER_OTLP_ENDPOINT=http://image BAGGAGE=image", container, name)
    docker("rm", container)
    yield f"docker-daemon:{name}"
    docker("rmi", "--force", name)  # containers of the double may still be made from it


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


async def test_an_images_own_variables_of_the_names_that_dagger_uses_arrive(
    ground: Ground, image_with_telemetry: str
) -> None:
    show = 'echo "$OTEL_EXPORTER_OTLP_ENDPOINT $BAGGAGE $OTEL_TRACES_EXPORTER"'
    assert (await ground.run(sh(show, image=image_with_telemetry))).output == "http://image image \n"
    changed = sh(show, image=image_with_telemetry, env={"BAGGAGE": "contract"})
    assert (await ground.run(changed)).output == "http://image contract \n"


# --- the session ------------------------------------------------------------------------------------------------------


async def test_a_session_killed_under_a_call_ends_it_with_an_error_and_the_next_call_opens_another(
    own: Ground,
) -> None:
    marker, others = uuid4().hex, cli_processes()
    heard = anyio.Event()
    failures: list[BaseException] = []

    async def call() -> None:
        with pytest.raises(SessionLost, match="not run again") as failure:
            await own.run(sh("echo ready; sleep 1000", marker), ExecutionContext(on_output=lambda *_: heard.set()))
        failures.append(failure.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        for pid in set(cli_processes()) - set(others):
            os.kill(pid, signal.SIGKILL)
    assert isinstance(failures[0], EngineUnavailable)
    assert (await own.run(sh("echo again"))).output == "again\n"
    if own.state is not None:
        remove_containers(own.state)  # the double dies with its session, and cannot clean up as an engine does
    else:
        await until(lambda: not processes(marker))


@double_only
async def test_an_engine_that_is_down_is_an_error_with_its_reason_until_it_is_back(own: Ground) -> None:
    assert own.state is not None
    (own.state / "down").touch()
    try:
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match="told to be down") as failure:
                await own.run(sh("true"))
            assert failure.value.remedy
        assert not (await own.engine.probe()).available
    finally:
        (own.state / "down").unlink()
    assert (await own.run(sh("echo back"))).output == "back\n"
    assert (await own.engine.probe()).available


async def test_calls_fail_fast_while_an_engine_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for({"cli": "/bin/true", "runner_host": f"unix://{tmp_path}/none.sock"})
    async with DaggerExecutionEngine(settings) as engine:
        own = Ground(engine, None)
        for number in range(4):
            if number == 3:
                monkeypatch.setattr(session, "LONGEST_BACKOFF", 1000.0)
                monkeypatch.setattr(session, "FIRST_BACKOFF", 1000.0)
            with pytest.raises(EngineUnavailable, match="cannot be reached"):
                await own.run(sh("true"))
        with anyio.fail_after(CALL_LIMIT), pytest.raises(EngineUnavailable, match=r"next try is in \d{3,} s"):
            await own.run(sh("true"))


@double_only
async def test_a_query_that_hangs_ends_at_the_deadline(own: Ground) -> None:
    await own.run(sh("true"))
    own.engine.configure_connection(grace=0.2)
    with pytest.raises(ExecutionTimeout, match=r"no answer .* the call was cancelled"):
        await own.run(sh("true", env={"X": HANG}, timeout=0.1, cache="pure"))


@pytest.mark.skipif(not IS_REAL, reason="twenty, in the conformance suite, are enough for a double")
async def test_fifty_calls_at_once_each_get_their_own(ground: Ground) -> None:
    results: dict[int, str] = {}

    async def call(number: int) -> None:
        results[number] = (await ground.run(sh('echo "$1"', str(number)))).output

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(call, number)
    assert results == {number: f"{number}\n" for number in range(50)}


async def test_sessions_are_replaced_under_calls_without_one_that_fails(own: Ground) -> None:
    each = 100 if IS_REAL else 12  # a double's session takes longer to begin than a call
    own.engine.configure_connection(rotate_after_calls=each)
    contract = sh(UNIQUE, cache="pure")
    outputs: set[str] = set()
    before, others = _memory(), len(cli_processes())

    async def calls() -> None:
        for _ in range(each):
            outputs.add((await own.run(contract)).output)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(calls)
    assert len(outputs) == 1
    if own.state is not None:
        assert own.sessions() >= 4
    await until(lambda: len(cli_processes()) - others <= 1)  # a replaced one closes when its last call has ended
    assert _memory() - before < 64 * 1024 * 1024


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_session_opens_with_the_library_installed_that_gql_must_not_pick(ground: Ground) -> None:
    # gql 4.4 prefers httpx2, which mcp brings, to httpx, whose URL the Dagger SDK hands it: no connection opened.
    import httpx2

    assert httpx2.__name__
    assert tuple(map(int, metadata.version("gql").split(".")[:2])) < (4, 4)
    assert (await ground.run(sh("echo connected"))).output == "connected\n"


async def test_a_cancelled_first_call_leaves_the_session_to_the_others(own: Ground) -> None:
    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(0.05):
            await own.run(sh("echo cancelled"))
        tasks.start_soon(own.run, sh("echo other"))


async def test_the_connection_can_be_configured_and_a_wrong_option_is_named(own: Ground) -> None:
    with pytest.raises(SettingsError, match="colour"):
        own.engine.configure_connection(colour="blue")
    await own.run(sh("true"))
    own.engine.configure_connection(runner_host="unix:///nowhere/engine.sock")
    with pytest.raises(EngineUnavailable, match=r"/nowhere/engine\.sock"):
        await own.run(sh("true"))


# --- what is missing --------------------------------------------------------------------------------------------------


async def test_without_the_sdk_its_installation_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dagger", None)
    async with DaggerExecutionEngine() as engine:
        status = await engine.probe()
        assert (status.available, status.remedy) == (False, f"Install it: {install_command_for_extra('dagger')}")
        with pytest.raises(EngineUnavailable, match="needs the Dagger SDK for Python"):
            await Ground(engine, None).run(sh("true"))


async def test_without_the_cli_none_is_downloaded_and_the_remedy_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("_EXPERIMENTAL_DAGGER_CLI_BIN", raising=False)
    async with DaggerExecutionEngine() as engine:
        assert "docs.dagger.io/install" in (await engine.probe()).remedy
        with pytest.raises(EngineUnavailable, match="CLI is not on the PATH"):
            await Ground(engine, None).run(sh("true"))


async def test_a_cli_that_is_not_a_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    async with DaggerExecutionEngine(settings_for({"cli": tmp_path / "text"})) as engine:
        with pytest.raises(EngineUnavailable, match=r"engines\.dagger\.cli names .*/text, which is not a program"):
            await Ground(engine, None).run(sh("true"))


@double_only
async def test_an_engine_that_is_too_old_is_refused(own: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAXIS_DAGGER_DOUBLE_VERSION", "v0.18.19")
    with pytest.raises(EngineUnavailable, match=r"v0\.18\.19, older than 0\.19") as failure:
        await own.run(sh("true"))
    assert "Upgrade" in str(failure.value)


# --- the cache --------------------------------------------------------------------------------------------------------


async def test_equal_calls_run_again_unless_their_contract_is_pure(ground: Ground) -> None:
    impure, pure = sh(UNIQUE), sh(f"{UNIQUE}; : {uuid4().hex}", cache="pure")
    assert (await ground.run(impure)).output != (await ground.run(impure)).output
    first = await ground.run(pure)
    assert (await ground.run(pure)).output == first.output
    async with DaggerExecutionEngine(ground.engine.settings) as restarted:
        assert (await Ground(restarted, None).run(pure)).output == first.output


async def test_equal_pure_calls_at_once_run_once(ground: Ground) -> None:
    contract = sh(f"sleep 0.5; {UNIQUE}; : {uuid4().hex}", cache="pure")
    outputs: list[str] = []

    async def call() -> None:
        outputs.append((await ground.run(contract)).output)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(call)
    assert len(outputs) == 8
    assert len(set(outputs)) == 1


async def test_a_deadline_is_not_remembered_as_the_answer_of_a_pure_call(ground: Ground) -> None:
    # What comes sooner than the deadline is a remembered answer. On a busy machine that too takes a while, and a tool
    # may say nothing in a second.
    for seconds in DEADLINES:
        contract = sh(f"{UNIQUE}; sleep 1000; : {uuid4().hex}", cache="pure", timeout=seconds)
        first, second = await ground.run(contract), await ground.run(contract)
        assert (first.timed_out, second.timed_out) == (True, True)
        if "" != first.output != second.output != "":
            return
    raise AssertionError("each second answer was a remembered one, or one of the two was empty")


# --- how a command ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [128, 137, 143, 191])
async def test_codes_that_dagger_takes_for_its_own_failure_are_results_with_all_their_output(
    ground: Ground, status: int
) -> None:
    result = await ground.run(sh(f"echo ' kept '; yes | head -n 100000; exit {status}"))
    assert result.exit_code == status
    assert result.stdout.total == len(" kept \n") + 200_000


async def test_even_praxis_init_killed_from_outside_gives_a_result(ground: Ground) -> None:
    marker = uuid4().hex
    heard = anyio.Event()
    results: list[Any] = []

    async def call() -> None:
        context = ExecutionContext(on_output=lambda *_: heard.set())
        results.append(await ground.run(sh("echo before; sleep 1000", marker, cache="pure"), context))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        for line in processes(marker):
            if "/.praxis/init" in line and "docker" not in line:
                os.kill(int(line.partition(":")[0]), signal.SIGKILL)
    assert (results[0].exit_code, results[0].output) == (137, "before")


# --- what a command finds ---------------------------------------------------------------------------------------------


async def test_privileged_is_the_root_capabilities_that_others_lack(ground: Ground) -> None:
    def sees(privileged: bool) -> ToolContract:
        return sh("grep CapEff /proc/self/status", privileged=privileged)

    plain, full = [int((await ground.run(sees(choice))).output.split()[1], 16) for choice in (False, True)]
    sys_admin = 1 << 21
    assert not plain & sys_admin
    assert full & sys_admin


async def test_a_user_by_name_owns_what_is_mounted_for_it(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir(mode=0o700)
    contract = sh(
        "id -un; echo x > /work/new", image=PYTHON, user="nobody", mounts={str(tmp_path / "work"): "/work:rw"}
    )
    result = await ground.run(contract)
    assert (result.output, result.changed_files) == ("nobody\n", (tmp_path / "work" / "new",))


async def test_python_images_keep_pips_cache_between_calls_that_have_a_network(ground: Ground) -> None:
    contract = sh(
        'cat "$PIP_CACHE_DIR/mark"; echo "$1" > "$PIP_CACHE_DIR/mark"', "kept", image=PYTHON, network="bridge"
    )
    await ground.run(contract)
    assert (await ground.run(contract)).output == "kept\n"
    assert (await ground.run(sh('echo "<$PIP_CACHE_DIR>"', image=PYTHON))).output == "<>\n"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the peak of memory")
async def test_four_long_lines_at_once_cost_the_server_no_memory(ground: Ground, tmp_path: Path) -> None:
    def memory(field: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(text.partition(f"{field}:")[2].split()[0]) * 1024

    size = 50_000_000
    contract = sh("head -c $1 /dev/zero | tr '\\0' x", str(size), timeout=CALL_LIMIT)
    results: list[ExecutionResult] = []

    async def call(number: int) -> None:
        (record := tmp_path / str(number)).mkdir()
        results.append(await ground.run(contract, ExecutionContext(directory=record)))
        assert (record / "stdout").stat().st_size == size

    await ground.run(sh("exit 0"))  # what a first call imports is not part of it
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew
    before = memory("VmRSS")
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(call, number)
    assert [(item.exit_code, item.stdout.total, item.stdout.head[:3]) for item in results] == [(0, size, b"xxx")] * 4
    assert memory("VmHWM") - before < 64 << 20


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_changed_file_of_the_host_is_seen_by_the_next_call(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    contract = sh("cat /data/x", mounts={str(tmp_path / "data"): "/data"})
    for text in ("one", "two", "six"):
        (tmp_path / "data" / "x").write_text(text)
        assert (await ground.run(contract)).output == text


async def test_calls_that_write_to_one_directory_do_not_undo_each_other(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "log").touch()
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(
                ground.run, sh('echo "$1" >> /work/log', str(number), mounts={str(tmp_path / "work"): "/work:rw"})
            )
    assert sorted((tmp_path / "work" / "log").read_text().split()) == ["0", "1", "2", "3"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["log"]


async def test_a_failing_tool_keeps_its_changes_and_one_past_its_deadline_does_not(
    ground: Ground, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    result = await ground.run(sh("echo x > /work/failed; exit 3", mounts={str(tmp_path / "work"): "/work:rw"}))
    assert (result.exit_code, result.changed_files) == (3, (tmp_path / "work" / "failed",))
    late = await ground.run(
        sh("echo x > /work/late; sleep 1000", mounts={str(tmp_path / "work"): "/work:rw"}, timeout=0.5)
    )
    assert (late.timed_out, late.changed_files) == (True, ())
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["failed"]


async def test_links_that_a_tool_makes_lead_nothing_out_of_its_mount(ground: Ground, tmp_path: Path) -> None:
    for name in ("work/d", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside" / "precious").write_text("untouched")
    mounts = {str(tmp_path / "work"): "/work:rw"}
    await ground.run(sh(f"rmdir /work/d; ln -s {tmp_path}/outside /work/d", mounts=mounts))
    assert (tmp_path / "work" / "d").is_symlink()
    script = "rm /work/d; mkdir /work/d; echo mine > /work/d/precious"
    await ground.run(sh(script, mounts=mounts))
    assert not (tmp_path / "work" / "d").is_symlink()
    assert (tmp_path / "work" / "d" / "precious").read_text() == "mine\n"
    assert (tmp_path / "outside" / "precious").read_text() == "untouched"


async def test_a_writable_file_is_written_back(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("old\n")
    result = await ground.run(sh("echo new >> /notes.txt", mounts={str(tmp_path / "notes.txt"): "/notes.txt:rw"}))
    assert (result.exit_code, (tmp_path / "notes.txt").read_text()) == (0, "old\nnew\n")
    assert result.changed_files == (tmp_path / "notes.txt",)


async def test_everything_that_can_happen_to_a_tree_comes_back(ground: Ground, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("gone/deep", "swap-d"):
        (work / name).mkdir(parents=True)
    for name in ("gone/deep/x", "swap-f", "mode", "moved", "kept", "swap-d/x"):
        (work / name).write_text(name)
    script = """
        set -e; cd /work
        rm -r gone; mv moved 'new name'; chmod 700 mode; mkdir -p a/b; echo deep > a/b/c; mkdir -m 711 empty
        rm swap-f; mkdir swap-f; echo in > swap-f/y; rm -r swap-d; echo file > swap-d; ln -s kept link
    """
    result = await ground.run(sh(script, mounts={str(tmp_path / "work"): "/work:rw"}))
    assert result.exit_code == 0, result.stderr.text
    files = {str(path.relative_to(work)): path.read_text() for path in work.rglob("*") if path.is_file()}
    assert files == {
        "new name": "moved",
        "mode": "mode",
        "kept": "kept",
        "link": "kept",
        "a/b/c": "deep\n",
        "swap-f/y": "in\n",
        "swap-d": "file\n",
    }
    assert (work / "mode").stat().st_mode & 0o777 == 0o700
    assert (work / "empty").stat().st_mode & 0o777 == 0o711
    assert not (work / "gone").exists()


def before_writing_back(action: Callable[[], None]) -> ExecutionContext:
    """A context in which `action` happens when the mounts have been read, and nothing has been written back."""
    done: list[str] = []

    def hear(stream: str, piece: bytes) -> None:
        if not done:
            done.append(stream)
            action()

    return ExecutionContext(on_output=hear)


async def test_directory_modes_come_back_and_a_private_file_becomes_private(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "work" / "d").mkdir(parents=True)
    (tmp_path / "work" / "d" / "key").write_text("x")
    result = await ground.run(
        sh("chmod 600 /work/d/key; chmod 700 /work/d", mounts={str(tmp_path / "work"): "/work:rw"})
    )
    assert result.changed_files == (tmp_path / "work" / "d" / "key",)
    modes = [oct((tmp_path / "work" / name).stat().st_mode & 0o777) for name in ("d", "d/key")]
    assert modes == ["0o700", "0o600"]


async def test_names_that_are_not_utf8_are_refused_before_anything_is_written(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / os.fsdecode(b"host-\xe9")).write_text("x")
    mounts = {str(tmp_path / "work"): "/work:rw"}
    assert (await ground.run(sh("cat /work/host-*; echo y > /work/other", mounts=mounts))).output == "x"
    with pytest.raises(ExecutionError, match="is not UTF-8") as caught:
        await ground.run(sh("echo y > /work/a; mkdir /work/$(printf 'dir-\\351')", mounts=mounts))
    assert (caught.value.remedy or "").startswith("Have the tool write names in UTF-8")
    assert sorted(os.listdir(os.fsencode(tmp_path / "work"))) == [b"host-\xe9", b"other"]


async def test_what_the_host_adds_meanwhile_to_a_directory_that_the_tool_removes_stays(
    ground: Ground, tmp_path: Path
) -> None:
    (tmp_path / "work" / "d" / "[e]").mkdir(parents=True)
    for name in ("x", "[e]/y", "[e]/.z"):
        (tmp_path / "work" / "d" / name).write_text(name)

    def add() -> None:
        (tmp_path / "work" / "d" / "mine").touch()

    contract = sh("rm -r /work/d; echo done", mounts={str(tmp_path / "work"): "/work:rw"})
    await ground.run(contract, before_writing_back(add))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["work", "work/d", "work/d/mine"]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_workspace_that_is_removed_meanwhile_is_not_made_again(
    ground: Ground, tmp_path: Path, *, replaced: bool
) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def remove() -> None:
        work.rename(tmp_path / "moved")
        if replaced:
            work.mkdir()

    contract = sh("echo x > /work/new; echo done", mounts={str(work): "/work:rw"})
    with pytest.raises(ExecutionError, match="was not written, none of it"):
        await ground.run(contract, before_writing_back(remove))
    assert list(tmp_path.rglob("new")) == []
    assert work.exists() == replaced


async def test_changes_of_two_mounts_come_back_together_or_not_at_all(ground: Ground, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    mounts = {str(tmp_path / name): f"/{name}:rw" for name in ("one", "two")}
    contract = sh("echo x > /one/new; echo x > /two/new; echo done", mounts=mounts)
    in_the_way = tmp_path / "two" / "new"
    with pytest.raises(ExecutionError, match=r"was not written, none of it: .*two/new: is a directory"):
        await ground.run(contract, before_writing_back(in_the_way.mkdir))
    assert [path.name for path in tmp_path.rglob("*")].count("new") == 1


# --- the older spellings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("params", "engineSpec", '"false"'), ("parameters", "engine_spec", "false")])
async def test_contracts_of_the_older_spellings_read_their_arguments_in_either_case(
    ground: Ground, keys: tuple[str, str, str]
) -> None:
    parameters, spec, optional = keys
    text = f"""
name: older
description: An older contract.
engine: dagger
{parameters}:
  - {{name: text, type: string, required: true}}
  - {{name: times, type: integer, required: {optional}, default: 2}}
{spec}:
  image: busybox:1.36
  command: [sh, -c, 'echo "$text/$TEXT/$times/$TIMES"']
  env_passthrough: [TEXT, TIMES]
"""
    loaded = load_text(text)
    assert isinstance(loaded.contract, ToolContract), loaded.diagnostics
    result = await ground.engine.execute(loaded.contract, {"text": "it's $HOME"})
    assert result.output == "it's $HOME/it's $HOME/2/2\n"
