"""What the Docker engine does beyond what every engine does: containers that go, and how they are hardened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker.connections import Address, open_wait
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.errors import CommandNotFound, ExecutionError, LimitUnsupported
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import EXIT_SETUP_FAILED
from praxis_mcp.testing.bench import CALL_LIMIT, Bench, b64, past_its_deadline, with_parameter
from tests.engines.docker.bench import BUSYBOX, LATE, bench_on, tool
from tests.engines.docker.case import CASE, containers
from tests.kit.until import until
from tests.upstreams.relay import DOCKER_SOCKET

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with bench_on() as bench:
        yield bench


def inspect(container: str) -> dict[str, Any]:
    return json.loads(subprocess.run(["docker", "inspect", container], check=True, capture_output=True).stdout)[0]


# --- containers come and go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_limit", [None, "64m"])
@pytest.mark.parametrize(
    ("script", "timeout"), [("exit 0", 60), ("exit 3", 60), ("exec sleep 1000", 0.3), ("exec /no/such/command", 60)]
)
async def test_a_container_is_gone_when_its_call_returns(
    bench: Bench, script: str, timeout: float, memory_limit: str | None
) -> None:
    contract = tool(script, timeout=timeout, memory_limit=memory_limit)
    plan = bench.plan(contract)
    await bench.run_plan(plan)
    assert containers(f"praxis-mcp.run={plan.call.run_id}") == []


async def test_labels_say_whose_a_container_is_and_until_when_it_may_live(bench: Bench) -> None:
    contract = tool("echo ready; exec sleep 1000", timeout=100)
    plan = bench.plan(contract)
    found: list[dict[str, str]] = []
    heard = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run_plan, plan, ExecutionContext(on_output=lambda *_: heard.set()))
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        (line,) = containers(f"praxis-mcp.run={plan.call.run_id}")
        found.append(inspect(line.split()[0])["Config"]["Labels"])
        tasks.cancel_scope.cancel()
    (labels,) = found
    assert labels["praxis-mcp.tool"] == contract.name
    assert labels["praxis-mcp.pid"] == str(os.getpid())
    assert labels["praxis-mcp.server"]
    assert time.time() + 90 < int(labels["praxis-mcp.deadline"]) < time.time() + 600


@contextmanager
def victim(timeout: float, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process in the middle of a call, and the call's container."""
    command = [sys.executable, "-m", "tests.engines.docker.victim", str(timeout), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        container = process.stdout.readline().strip()
        try:
            yield process, container
        finally:
            process.kill()
            subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=False)


def exists(container: str) -> bool:
    return subprocess.run(["docker", "inspect", container], capture_output=True, check=False).returncode == 0


async def test_the_reaper_removes_what_a_killed_server_left_and_nothing_else(bench: Bench) -> None:
    # With a memory limit, none removes itself when it has ended.
    with victim(600, "64m") as (killed, orphan), victim(600) as (_, in_use):
        assert await bench.engine.reap() == ()  # pyright: ignore[reportAttributeAccessIssue]
        killed.kill()
        killed.wait()
        assert exists(orphan)
        assert await bench.engine.reap() == (orphan,)  # pyright: ignore[reportAttributeAccessIssue]
        assert not exists(orphan)
        assert exists(in_use)


@pytest.mark.native
async def test_a_tool_of_a_server_that_hangs_ends_at_its_deadline_without_any_help(bench: Bench) -> None:
    with victim(3) as (process, container):
        process.send_signal(signal.SIGSTOP)
        exit_code = await open_wait(Address(DOCKER_SOCKET), f"/v1.41/containers/{container}/wait?condition=next-exit")
        # praxis-init has told the end, and stays to be heard; the tool is gone.
        top = ["docker", "top", container]
        await until(lambda: "sleep" not in subprocess.run(top, check=True, capture_output=True, text=True).stdout)
        process.kill()
        with anyio.fail_after(60):
            assert await exit_code.status() == 0
        await exit_code.aclose()


@pytest.mark.native
@pytest.mark.parametrize("way", ["mounted", "copied"])
async def test_nothing_of_a_call_stands_in_its_containers_configuration(
    bench: Bench, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_TOKEN", "s3cr3t-token")
    await bench.engine.get_capabilities()
    bench.engine._init = replace(bench.engine._init, is_mounted=way == "mounted")  # pyright: ignore
    env = {"TOKEN": SecretRef(secret="THE_TOKEN"), "PLAIN": "plain-value"}
    contract = tool('echo "${#TOKEN} $PLAIN $0 $DATA"; echo filler of a secret; exec sleep 1000', env=env)
    contract = with_parameter(contract, Binding(kind=BindKind.ENV, target="DATA"))
    argument = b64(b"an-argument")
    plan = bench.plan(contract, data=argument)
    found: list[str] = []
    heard: list[bytes] = []
    ready = anyio.Event()

    def listen(_: str, data: bytes) -> None:
        heard.append(data)
        ready.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run_plan, plan, ExecutionContext(on_output=listen))
        with anyio.fail_after(CALL_LIMIT):
            await ready.wait()
        (line,) = containers(f"praxis-mcp.run={plan.call.run_id}")
        found.append(json.dumps(inspect(line.split()[0])))
        tasks.cancel_scope.cancel()
    # What could be the beginning of a secret is held back, hence the filler.
    assert b"".join(heard).split()[:4] == [b"12", b"plain-value", b"sh", argument.encode()]
    for value in ("s3cr3t-token", "plain-value", argument, "sleep 1000"):
        assert value not in found[0]


@pytest.mark.native
@pytest.mark.parametrize("memory_limit", [None, "64m"])
async def test_a_tool_made_for_its_call_ends_with_a_server_that_is_killed(memory_limit: str | None) -> None:
    """Though its deadline is far away, and no other server looks for what is left."""
    with victim(600, *([memory_limit] if memory_limit else [])) as (process, container):
        exit_code = await open_wait(Address(DOCKER_SOCKET), f"/v1.41/containers/{container}/wait?condition=next-exit")
        process.kill()
        with anyio.fail_after(60):
            assert await exit_code.status() == EXIT_SETUP_FAILED
        await exit_code.aclose()


@pytest.mark.native
async def test_praxis_init_is_copied_where_the_daemon_does_not_see_it(bench: Bench, tmp_path: Path) -> None:
    await bench.engine.get_capabilities()
    init = bench.engine._init  # pyright: ignore[reportAttributeAccessIssue]
    with init.path.open("rb") as file:
        os.dup2(file.fileno(), 987)
    try:
        # The daemon's own descriptors are others.
        bench.engine._init = replace(init, path=Path("/proc/self/fd/987"))  # pyright: ignore[reportAttributeAccessIssue]
        contract = tool(
            "cat /proc/1/comm; id -u; echo x > /out/a", user="1000", memory_limit="64m", artifacts=["/out/*"]
        )
        result = await bench.run(contract, ExecutionContext(directory=tmp_path))
        assert result.output.split() == ["init", "1000"]
        assert [artifact.name for artifact in result.artifacts] == ["a"]
        with pytest.raises(CommandNotFound, match="no-such-command"):
            await bench.run(CASE.contract(["no-such-command"]))
    finally:
        os.close(987)
    assert CASE.leftovers() == []


async def test_where_praxis_init_cannot_be_in_a_container_the_daemons_init_takes_its_place_and_secrets_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_TOKEN", "s3cr3t-token")
    await bench.engine.get_capabilities()
    bench.engine._init = None  # pyright: ignore[reportAttributeAccessIssue]
    assert (await bench.run(tool("cat /proc/1/comm"))).output == "docker-init\n"
    with pytest.raises(CommandNotFound, match="no-such-command"):
        await bench.run(CASE.contract(["no-such-command"]))
    with pytest.raises(LimitUnsupported, match="docker inspect"):
        await bench.run(tool("true", env={"TOKEN": SecretRef(secret="THE_TOKEN")}))
    late = await past_its_deadline(lambda seconds: bench.run(tool(LATE, timeout=seconds)), "begun\n")
    assert (late.timed_out, late.output) == (True, "begun\n")


# --- hardening --------------------------------------------------------------------------------------------------------


async def inside(bench: Bench, **fields: Any) -> dict[str, str]:
    """What /proc/self/status says inside a container."""
    result = await bench.run(tool("cat /proc/self/status", **fields))
    return {name: value.strip() for name, _, value in (line.partition(":") for line in result.output.splitlines())}


async def test_a_container_is_hardened_unless_its_contract_says_otherwise(bench: Bench) -> None:
    status = await inside(bench)
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    result = await bench.run(tool("echo x > /usr/x || echo refused; echo x > /tmp/x && cat /tmp/x; ls /sys/class/net"))
    assert result.output.split() == ["refused", "x", "lo"]


async def test_an_older_contract_keeps_dockers_own_capabilities(bench: Bench) -> None:
    status = await inside(bench, drop_capabilities=False, read_only=False)
    assert int(status["CapEff"], 16) == 0xA80425FB  # Docker's default set (docs.docker.com/engine/security)
    assert status["NoNewPrivs"] == "1"


async def test_privileged_is_refused_unless_the_settings_allow_it(bench: Bench) -> None:
    with pytest.raises(LimitUnsupported):
        await bench.run(tool("true", privileged=True))


async def test_privileged_is_privileged_where_the_settings_allow_it() -> None:
    plain = ["docker", "run", "--rm", "--privileged", BUSYBOX, "true"]
    if (done := await anyio.run_process(plain, check=False)).returncode:
        pytest.skip(f"this daemon has no privileges to give: {done.stderr.decode().strip()[-80:]}")
    settings = Settings(policy={"privileged": True})  # pyright: ignore[reportArgumentType]
    async with DockerSDKExecutionEngine(settings) as engine:
        status = await inside(Bench(CASE, engine, settings), privileged=True)
    assert int(status["CapEff"], 16) & (1 << 21)  # CAP_SYS_ADMIN


async def test_a_fork_bomb_is_bounded_without_any_limit_in_the_contract(bench: Bench) -> None:
    assert (
        int((await bench.run(tool("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"))).output)
        < 1000
    )


async def test_it_says_whether_an_image_would_have_to_be_pulled_first(bench: Bench) -> None:
    blueprint = build_plan(tool("true"), {}, Settings()).blueprint
    assert not await bench.engine.lacks_image(blueprint)
    assert await bench.engine.lacks_image(replace(blueprint, image="localhost/praxis-mcp-nowhere:1"))


async def test_the_images_own_entrypoint_is_used_only_on_request(bench: Bench) -> None:
    image = "praxis-mcp-test-entrypoint:1"
    make = f"""
        id=$(docker create scratch-tool:latest /tool) &&
        docker commit --change 'ENTRYPOINT ["/tool", "from-the-image"]' --change 'CMD ["default"]' $id {image} &&
        docker rm $id
    """
    subprocess.run(["/bin/sh", "-c", make], check=True, capture_output=True)
    try:
        result = await bench.run(CASE.contract(["hello"], image=image, use_entrypoint=True))
        assert result.output == "from-the-image hello\n"
        assert (await bench.run(CASE.contract(["/tool"], image=image))).output == ""
    finally:
        subprocess.run(["docker", "rmi", image], check=True, capture_output=True)


async def test_a_file_in_tmp_is_seen_and_belongs_to_the_call(bench: Bench) -> None:
    contract = with_parameter(tool("cat /tmp/in.txt; echo >> /tmp/in.txt"), CASE.file_binding("/tmp/in.txt"))
    result = await bench.run(contract, data=b64(b"content"))
    assert (result.output, result.exit_code) == ("content", 1)


async def test_a_file_inside_a_mount_is_refused(bench: Bench, tmp_path: Path) -> None:
    contract = with_parameter(tool("true", mounts={str(tmp_path): "/data:rw"}), CASE.file_binding("/data/in.txt"))
    with pytest.raises(ExecutionError, match="in each other's way"):
        await bench.run(contract, data=b64(b"content"))
    assert list(tmp_path.iterdir()) == []


async def test_a_limit_that_the_daemon_refuses_is_a_refused_limit(bench: Bench) -> None:
    with pytest.raises(LimitUnsupported, match="memory limit"):
        await bench.run(tool("true", memory_limit="1m"))


async def test_artifacts_need_a_directory_to_be_kept_in(bench: Bench) -> None:
    with pytest.raises(ExecutionError, match="this run has no directory for them"):
        await bench.run(tool("true", artifacts=["/out/*"]))
