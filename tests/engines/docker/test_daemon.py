"""The Docker engine and its daemon: images pulled, connections down, hung, lost and elsewhere."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker.engine import DAEMON_PROBE_TIMEOUT, DockerSDKExecutionEngine
from praxis_mcp.errors import EngineUnavailable, ImageError, LimitUnsupported
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.testing.bench import CALL_LIMIT, Bench, b64, past_its_deadline, stdin_of
from tests.engines.docker.bench import LATE, bench_on, tool
from tests.engines.docker.case import CASE, containers
from tests.engines.host.image_registry import image_registry
from tests.kit.until import until
from tests.upstreams.relay import relay

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

MISSING = "localhost:1/praxis-mcp/no-such-image:1"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with bench_on() as bench:
        yield bench


# --- images -----------------------------------------------------------------------------------------------------------


async def test_calls_that_miss_the_same_image_share_one_pull_and_its_failure() -> None:
    failures: list[ImageError] = []
    waiting: set[int] = set()

    with image_registry() as registry:
        registry.gate.clear()

        async def call(number: int) -> None:
            def listen(_: str) -> None:
                waiting.add(number)
                if len(waiting) == 3:
                    registry.gate.set()

            contract = tool("true", image=registry.image.removesuffix(":1") + ":2")
            with pytest.raises(ImageError) as failure:
                await bench.run(contract, ExecutionContext(on_status=listen))
            failures.append(failure.value)

        async with relay() as front, bench_on(host=front.address) as bench:
            await bench.engine.get_capabilities()
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(call, number)
        assert len(failures) == 3
        assert len({failure.message for failure in failures}) == 1
        assert len([request for request in front.requests if "/images/create" in request]) == 1


async def test_a_missing_image_is_pulled_once_for_all_calls_that_wait_and_each_gets_the_progress(bench: Bench) -> None:
    outputs: list[str] = []
    heard: dict[int, str] = {}

    with image_registry() as registry:
        registry.gate.clear()

        async def call(number: int) -> None:
            def listen(text: str) -> None:
                heard.setdefault(number, text)
                if len(heard) == 3:
                    registry.gate.set()

            contract = CASE.contract(["/tool", str(number)], image=registry.image)
            result = await bench.run(contract, ExecutionContext(on_status=listen))
            assert result.image == registry.image.removesuffix(":1") + "@" + registry.digest
            outputs.append(result.output)

        await bench.engine.get_capabilities()
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(call, number)
        manifests = [path for path in registry.requests if path.endswith("/manifests/1")]
    assert sorted(outputs) == ["0\n", "1\n", "2\n"]
    assert set(heard.values()) == {f"pulling {registry.image}"}
    assert len(manifests) <= 2  # HEAD and GET of one pull


async def test_a_tag_that_a_repository_lacks_is_told_apart(bench: Bench) -> None:
    with image_registry() as registry, pytest.raises(ImageError, match="no such tag"):
        await bench.run(tool("true", image=registry.image.removesuffix(":1") + ":2"))


async def test_a_call_that_is_cancelled_while_it_pulls_leaves_the_pull_to_those_who_wait(bench: Bench) -> None:
    with image_registry() as registry:
        contract = CASE.contract(["/tool", "pulled"], image=registry.image)
        await bench.engine.get_capabilities()
        first = anyio.CancelScope()

        async def cancelled() -> None:
            with first:
                await bench.run(contract, ExecutionContext(on_status=lambda _: first.cancel()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            assert (await bench.run(contract)).output == "pulled\n"
        assert first.cancelled_caught


async def test_a_missing_image_is_not_pulled_where_the_settings_say_never() -> None:
    settings = Settings(pull="never")
    async with DockerSDKExecutionEngine(settings) as engine:
        with pytest.raises(ImageError, match="does not have") as failure:
            await Bench(CASE, engine, settings).run(tool("true", image=MISSING))
    assert "docker pull" in (failure.value.remedy or "")


async def test_preparing_a_missing_image_tells_what_it_does_and_why_it_failed(bench: Bench) -> None:
    heard: list[str] = []
    with pytest.raises(ImageError), anyio.fail_after(CALL_LIMIT):
        await bench.engine.prepare(bench.plan(tool("true", image=MISSING)).blueprint, heard.append)
    assert heard[0] == f"pulling {MISSING}"


async def test_a_result_names_the_image_that_ran(bench: Bench) -> None:
    result = await bench.run(tool("true"))
    assert result.image is not None
    assert result.image.rpartition("@")[2].startswith("sha256:")


# --- the daemon: down, closed, hung, lost, elsewhere ------------------------------------------------------------------


async def test_a_socket_that_is_not_there_is_named_with_a_remedy(tmp_path: Path) -> None:
    async with bench_on(host=f"unix://{tmp_path}/none.sock") as bench:
        with pytest.raises(EngineUnavailable, match=r"none\.sock") as failure:
            await bench.run(tool("true"))
        status = await bench.engine.probe()
    assert "DOCKER_HOST" in (failure.value.remedy or "")
    assert (status.available, bool(status.remedy)) == (False, True)


async def test_a_socket_that_nobody_listens_on_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with bench_on(host=f"unix://{path}") as bench:
        with pytest.raises(EngineUnavailable, match="No Docker daemon listens"):
            await bench.run(tool("true"))


async def test_the_environments_docker_host_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/elsewhere.sock")
    async with bench_on() as bench:
        with pytest.raises(EngineUnavailable, match="elsewhere"):
            await bench.run(tool("true"))


async def test_a_daemon_that_hangs_is_reported_in_time(tmp_path: Path) -> None:
    path = tmp_path / "hung.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        async with bench_on(host=f"unix://{path}") as bench:
            with anyio.fail_after(CALL_LIMIT):
                status = await bench.engine.probe()
    assert (status.available, f"did not answer within {DAEMON_PROBE_TIMEOUT:g} s" in status.detail) == (False, True)


async def test_a_daemon_that_answers_but_is_slow_to_say_its_version_is_there() -> None:
    async with relay() as front, bench_on(host=front.address) as bench:
        front.held.add("GET .*/version")
        status = await bench.engine.probe()
        assert (status.available, status.version) == (True, "")
        assert (await bench.run(tool("echo hi"))).output == "hi\n"
        front.held.clear()
        assert (await bench.engine.probe()).version


async def test_the_version_of_the_api_is_the_daemons_own() -> None:
    """The SDK learns of it in another way than its own, by a private name."""
    async with relay() as front, bench_on(host=front.address) as bench:
        assert (await bench.engine.probe()).available
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.APIVersion}}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        await bench.engine.get_capabilities()
        assert f"GET /v{asked}/info" in front.requests


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
async def test_a_user_whom_the_socket_refuses_is_pointed_to_the_group() -> None:
    # The child gives up root after its imports: another user may not even read this checkout.
    source = """
import os, anyio, docker, docker.errors, requests.exceptions, docker.utils
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
engine = DockerSDKExecutionEngine()
os.setgroups([]); os.setgid(65534); os.setuid(65534); os.environ["HOME"] = "/"
status = anyio.run(engine.probe)
print(status.available, status.detail, status.remedy)
"""
    done = await anyio.run_process([sys.executable, "-c", source], check=False)
    text = done.stdout.decode()
    assert text.startswith("False"), done.stderr.decode()
    assert "This user may not connect to the Docker daemon" in text
    assert "usermod -aG docker" in text


async def test_without_the_sdk_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    async with bench_on() as bench:
        status = await bench.engine.probe()
    assert not status.available
    assert status.remedy == f"Install it: {install_command_for_extra('docker')}"


async def test_a_connection_lost_in_a_call_fails_that_call_and_no_other() -> None:
    contract = tool("echo ready; exec sleep 1000")
    heard = anyio.Event()
    failures: list[EngineUnavailable] = []

    async def call() -> None:
        with pytest.raises(EngineUnavailable, match="lost") as failure:
            await bench.run_plan(plan, ExecutionContext(on_output=lambda *_: heard.set()))
        failures.append(failure.value)

    async with relay() as front, bench_on(host=front.address) as bench:
        plan = bench.plan(contract)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(CALL_LIMIT):
                await heard.wait()
            await front.drop()
        assert len(failures) == 1
        assert containers(f"praxis-mcp.run={plan.call.run_id}") == []
        assert (await bench.run(tool("echo again"))).output == "again\n"


async def test_a_daemon_behind_tcp_works_alike() -> None:
    async with relay(tcp="127.0.0.1") as front, bench_on(host=front.address) as bench:
        result = await bench.run(stdin_of(tool("cat; echo err >&2; exit 3")), data=b64(b"x" * 100_000))
    assert (result.stdout.total, result.stderr.text, result.exit_code) == (100_000, "err\n", 3)


async def test_a_daemon_elsewhere_is_not_asked_for_this_machines_files(tmp_path: Path) -> None:
    # Any name but localhost may be another machine, so this machine's own name will do.
    names = (socket.gethostname(), "ip6-localhost", "localhost.localdomain")
    name = next((name for name in names if resolves_to_loopback(name)), None)
    if name is None:
        pytest.skip("no other name of this machine leads to loopback")
    async with relay(tcp=name) as front, bench_on(host=front.address) as bench:
        for contract in (tool("true", mounts={str(tmp_path): "/data"}), tool("true", artifacts=["/out/*"])):
            with pytest.raises(LimitUnsupported, match="does not see this machine's files"):
                await bench.run(contract)
        assert (await bench.run(tool("echo hi"))).output == "hi\n"


def resolves_to_loopback(name: str) -> bool:
    try:
        return socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory as DOCKER_CERT_PATH wants it; one certificate is authority, server and client at once."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    return tmp_path


async def test_a_daemon_behind_tls_is_reached_by_the_sdks_sockets(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to the client's own ca.pem
        monkeypatch.delenv(name, raising=False)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    server.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    async with relay(tcp="127.0.0.1", tls=server) as front, bench_on(host=front.address) as bench:
        result = await bench.run(tool("seq 1 100000; echo err >&2; exit 3"))
        assert (result.stdout.total, result.stderr.text, result.exit_code) == (588_895, "err\n", 3)
        late = await past_its_deadline(lambda seconds: bench.run(tool(LATE, timeout=seconds)), "begun\n")
        assert (late.timed_out, late.output) == (True, "begun\n")
        with pytest.raises(LimitUnsupported, match="cannot be ended"):
            await bench.run(stdin_of(tool("cat")), data=b64(b"x"))
    monkeypatch.undo()  # the docker command reads the same variables
    assert CASE.leftovers() == []


async def test_a_container_that_the_daemon_first_refuses_to_remove_is_gone_after_the_call() -> None:
    # What 20.10 answers, now and then, where the container ends while it is killed.
    async with relay() as line, bench_on(host=line.address) as bench:

        async def relent() -> None:
            await until(lambda: any(request.startswith("DELETE") for request in line.requests), every=0.01)
            line.refused.clear()

        line.refused["^DELETE"] = 500
        plan = bench.plan(tool("echo hi", memory_limit="64m"))  # with a limit, none removes itself
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relent)
            await bench.run_plan(plan)
        assert not containers(f"praxis-mcp.run={plan.call.run_id}")


@pytest.mark.parametrize("taken_by", ["the reaper", "the end of the engine"])
async def test_a_container_that_a_call_could_not_remove_does_not_stay_until_its_deadline(taken_by: str) -> None:
    contract = tool("echo hi", memory_limit="64m", timeout=600)  # with a memory limit, none removes itself
    async with relay() as line:
        async with bench_on(host=line.address) as bench:
            line.refused["^DELETE"] = 500
            plan = bench.plan(contract)
            assert (await bench.run_plan(plan)).output == "hi\n"
            assert containers(f"praxis-mcp.run={plan.call.run_id}")
            line.refused.clear()
            if taken_by == "the reaper":
                assert len(await bench.engine.reap()) == 1
                assert not containers(f"praxis-mcp.run={plan.call.run_id}")
        assert not containers(f"praxis-mcp.run={plan.call.run_id}")


async def test_a_container_that_a_cut_connection_left_goes_when_the_daemon_is_there_again() -> None:
    contract = tool("echo ready; exec sleep 1000", memory_limit="64m", timeout=600)
    heard = anyio.Event()

    async def call() -> None:
        with pytest.raises(EngineUnavailable, match="lost"):
            await bench.run_plan(plan, ExecutionContext(on_output=lambda *_: heard.set()))

    async with relay() as front, bench_on(host=front.address) as bench:
        plan = bench.plan(contract)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(CALL_LIMIT):
                await heard.wait()
            front.refused["^DELETE"] = 500
            await front.drop()
        assert containers(f"praxis-mcp.run={plan.call.run_id}")
        front.refused.clear()
        assert (await bench.engine.probe()).available
        await until(lambda: not containers(f"praxis-mcp.run={plan.call.run_id}"), every=0.1)


async def test_the_reaper_leaves_the_container_of_a_call_that_runs() -> None:
    contract = tool("echo ready; exec sleep 1000")
    heard = anyio.Event()
    async with bench_on() as bench, anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run_plan, bench.plan(contract), ExecutionContext(on_output=lambda *_: heard.set()))
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
            assert await bench.engine.reap() == ()
        assert len(CASE.leftovers()) == 1
        tasks.cancel_scope.cancel()
    assert CASE.leftovers() == []
