"""What every engine does alike, one body for each behaviour. What is limited, killed or kept apart is in limits.py.

Tests whose contract may exceed an engine's powers begin with `if await bench.refuses(contract): return`: an engine
that cannot enforce a demand must refuse it.
"""

import hashlib
import json
import re
import shutil
import threading
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import EngineStatus, ExecutionContext
from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import CommandNotFound, ExecutionError, ImageError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Capability
from praxis_mcp.support.tracing import Trace, TraceContext, belonging_to
from praxis_mcp.testing.bench import (
    CALL_LIMIT,
    FOREVER,
    Bench,
    b64,
    check_cache,
    measured_growth,
    stdin_of,
    with_parameter,
)

pytestmark = pytest.mark.anyio

AWKWARD = {
    "quotes": """it's "quoted" `so` \\ and 'so'""",
    "newlines": "one\ntwo\r\n\ttabbed\n",
    "substitution": "$(touch /tmp/hacked) ${HOME} `id` ; rm -rf / && * ? [a] ~ ! #",
    "unicode": "naïve 日本語 🦀 \u202e",
    "empty": "",
    "option": "-rf",
}
"""Values that a shell, or careless joining and splitting, would change."""


# --- how a tool ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 3, 124, 137, 255])
async def test_an_exit_code_comes_back_as_it_is(bench: Bench, status: int) -> None:
    result = await bench.run(bench.case.sh(f"exit {status}"))
    assert (result.exit_code, result.timed_out, result.out_of_memory) == (status, False, False)
    assert result.success is (status == 0)


async def test_a_tool_ended_by_a_signal_gives_128_and_the_signal(bench: Bench) -> None:
    source = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    result = await bench.run(bench.case.python(source))
    assert (result.exit_code, result.timed_out) == (128 + 15, False)


@pytest.mark.parametrize("status", [126, 127])
async def test_a_tool_that_itself_ends_as_if_not_found_is_a_result(bench: Bench, status: int) -> None:
    result = await bench.run(bench.case.sh(f"echo 'sh: nope: not found' >&2; exit {status}"))
    assert result.exit_code == status
    assert result.stderr.text == "sh: nope: not found\n"


async def test_a_command_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(CommandNotFound, match="no-such-command-here"):
        await bench.run(bench.case.contract(["no-such-command-here", "--flag"]))


async def test_a_result_says_who_ran_it_and_how_long(bench: Bench) -> None:
    plan = bench.plan(bench.case.sh("exit 0"))
    result = await bench.run_plan(plan)
    assert (result.run_id, result.engine) == (plan.call.run_id, bench.engine.name)
    assert result.isolation == (await bench.engine.get_capabilities()).isolation
    assert 0 < result.duration < CALL_LIMIT


async def test_the_time_that_a_command_takes_is_in_the_phase_run(bench: Bench) -> None:
    result = await bench.run(bench.case.python("import time; time.sleep(0.3)"))
    assert 0.3 <= result.phases["run"] <= result.duration


# --- what reaches the tool --------------------------------------------------------------------------------------------


async def test_every_word_arrives_as_one_word(bench: Bench) -> None:
    contract = bench.case.python("import json, sys; print(json.dumps(sys.argv[1:]))", *AWKWARD.values())
    assert json.loads((await bench.run(contract)).output) == list(AWKWARD.values())


async def test_variables_arrive_as_they_are(bench: Bench) -> None:
    env = {f"X_{name.upper()}": value for name, value in AWKWARD.items()}
    source = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('X_')}))"
    assert json.loads((await bench.run(bench.case.python(source, env=env))).output) == env


async def test_the_servers_environment_stays_with_the_server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_TO_SERVER", "private-value")
    result = await bench.run(bench.case.python("import os; print(dict(os.environ))"))
    assert "private-value" not in result.output


async def test_an_engines_own_variables_stay_away_and_the_contracts_of_these_names_arrive(bench: Bench) -> None:
    """Dagger gives every exec the way to its own telemetry, over variables of the same names."""
    own = ("OTEL_", "TRACEPARENT", "TRACESTATE", "BAGGAGE", "DAGGER_", "_DAGGER_", "_EXPERIMENTAL_", "PRAXIS_KEPT_")
    env = {"OTEL_SERVICE_NAME": "mine", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://mine", "TRACEPARENT": "mine"}
    source = f"import json, os; print(json.dumps({{k: v for k, v in os.environ.items() if k.startswith({own})}}))"
    for wanted in ({}, env):
        result = await bench.run(bench.case.python(source, env=wanted))
        assert json.loads(result.output) == wanted


async def test_a_tool_that_asks_gets_the_trace_of_its_own_call_and_no_other_tool_does(bench: Bench) -> None:
    source = "import os; print(*(os.environ.get(name) for name in ('TRACEPARENT', 'TRACESTATE', 'BAGGAGE')))"
    asking = bench.case.python(source, env_passthrough=["TRACEPARENT", "TRACESTATE"])
    for span in ("1" * 16, "2" * 16, "3" * 16):
        parent = f"00-{'a' * 32}-{span}-01"
        with belonging_to(Trace(TraceContext(parent, "vendor=1", "user=alice"))):
            assert (await bench.run(asking)).output == f"{parent} vendor=1 None\n"
            assert (await bench.run(bench.case.python(source))).output == "None None None\n"


async def test_standard_input_arrives_byte_for_byte(bench: Bench) -> None:
    data = bytes(range(256)) * 4096
    source = "import hashlib, sys; d = sys.stdin.buffer.read(); print(len(d), hashlib.sha256(d).hexdigest())"
    contract = stdin_of(bench.case.python(source))
    if await bench.refuses(contract, data=b64(data)):
        return
    result = await bench.run(contract, data=b64(data))
    assert result.output.split() == [str(len(data)), hashlib.sha256(data).hexdigest()]


async def test_standard_input_that_nobody_reads_is_not_an_error(bench: Bench) -> None:
    contract = stdin_of(bench.case.sh("echo done"))
    if await bench.refuses(contract, data=b64(b"x")):
        return
    assert (await bench.run(contract, data=b64(b"x" * 2_000_000))).output == "done\n"


async def test_large_input_and_output_flow_at_once(bench: Bench) -> None:
    size = bench.case.bulk
    contract = stdin_of(bench.case.sh("exec cat"))
    if await bench.refuses(contract, data=b64(b"x")):
        return
    result = await bench.run(contract, data=b64(b"ab" * (size // 2)))
    assert (result.exit_code, result.stdout.total) == (0, size)
    assert set(re.findall(b"..", result.stdout.head)) == {b"ab"}


async def test_without_standard_input_a_tool_reads_its_end_at_once(bench: Bench) -> None:
    result = await bench.run(bench.case.python("import sys; print(repr(sys.stdin.read()))"))
    assert result.output == "''\n"


async def test_files_of_a_call_hold_what_was_given(bench: Bench) -> None:
    data = bytes(range(256)) * 64
    source = "import hashlib; print(hashlib.sha256(open('/praxis-in/data.bin', 'rb').read()).hexdigest())"
    contract = with_parameter(bench.case.python(source), Binding(kind=BindKind.FILE, target="/praxis-in/data.bin"))
    if await bench.refuses(contract, data=b64(data)):
        return
    assert (await bench.run(contract, data=b64(data))).output.strip() == hashlib.sha256(data).hexdigest()


async def test_a_tool_starts_in_its_working_directory(bench: Bench, tmp_path: Path) -> None:
    contract = bench.case.sh("pwd -P", working_dir="/usr")
    assert (await bench.run(contract)).output == "/usr\n"


@pytest.mark.demands(Capability.USER)
async def test_a_tool_runs_as_the_user_of_its_contract(bench: Bench) -> None:
    contract = bench.case.python("import os; print(os.getuid(), os.getgid())", user="1234:2345")
    if await bench.refuses(contract):
        return
    assert (await bench.run(contract)).output == "1234 2345\n"


@pytest.mark.demands(Capability.USER)
async def test_a_user_that_is_not_there_is_named(bench: Bench) -> None:
    contract = bench.case.sh("true", user="no-such-user-here")
    if await bench.refuses(contract):
        return
    with pytest.raises(ExecutionError, match=r'no user "no-such-user-here" in the image|no-such-user-here is a name'):
        await bench.run(contract)


# --- mounts -----------------------------------------------------------------------------------------------------------


async def test_a_mount_can_be_read_and_not_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("from the host")
    contract = bench.case.sh(
        "cat /praxis-ro/note.txt; echo no > /praxis-ro/new.txt", mounts={str(tmp_path): "/praxis-ro"}
    )
    if await bench.refuses(contract):
        return
    result = await bench.run(contract)
    assert result.output == "from the host"
    assert result.exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    assert result.changed_files == ()


async def test_a_writable_mount_is_written_and_its_changes_are_reported(bench: Bench, tmp_path: Path) -> None:
    for name in ("kept", "changed", "removed"):
        (tmp_path / name).write_text("before")
    script = "cd /praxis-rw; echo longer after > changed; rm removed; mkdir -p sub; echo new > sub/new"
    contract = bench.case.sh(script, mounts={str(tmp_path): "/praxis-rw:rw"})
    if await bench.refuses(contract):
        return
    result = await bench.run(contract)
    assert result.exit_code == 0, result.stderr.text
    assert (tmp_path / "sub" / "new").read_text() == "new\n"
    assert (tmp_path / "changed").read_text() == "longer after\n"
    assert not (tmp_path / "removed").exists()
    assert {str(path.relative_to(tmp_path)) for path in result.changed_files} == {"changed", "removed", "sub/new"}


async def test_files_that_come_and_go_in_a_mount_fail_no_call(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "stays").write_text("here")
    contract = bench.case.sh(
        "cat /praxis-busy/stays; echo x > /praxis-busy/out", mounts={str(tmp_path): "/praxis-busy:rw"}
    )
    if await bench.refuses(contract):
        return
    if not bench.case.mounts_may_change:
        pytest.skip("a mount that changes all the time finds nothing that was started before")
    ended = threading.Event()

    def churn() -> None:
        while not ended.wait(0.001):
            for number in range(20):
                place = tmp_path / f"d{number}"
                place.mkdir()
                (place / "file").write_text("x" * number)
                (place / "file").rename(place / "file~")
                shutil.rmtree(place)

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(5):
            result = await bench.run(contract)
            assert (result.exit_code, result.output) == (0, "here")
    finally:
        ended.set()
        writer.join()
    assert (tmp_path / "out").read_text() == "x\n"


async def test_a_single_file_can_be_mounted(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    contract = bench.case.sh("cat /praxis-file/data.csv", mounts={str(tmp_path / "data.csv"): "/praxis-file/data.csv"})
    if await bench.refuses(contract):
        return
    assert (await bench.run(contract)).output == "a,b\n"


async def test_artifacts_come_back_and_nothing_else_does(bench: Bench, tmp_path: Path) -> None:
    script = """
        cd "$PRAXIS_OUTPUT_DIR" && mkdir -p charts/deep
        printf one > a.png; printf four > charts/deep/b.png
        echo no > c.txt; ln -s /etc/passwd link.png; mkfifo pipe.png
    """
    contract = bench.case.sh(script, artifacts=["/praxis-out/*.png", "/praxis-out/**/*.png"])
    if await bench.refuses(contract):
        return
    result = await bench.run(contract, ExecutionContext(directory=tmp_path))
    assert result.exit_code == 0, result.stderr.text
    assert {item.name: (item.size, item.file.read_text()) for item in result.artifacts} == {
        "a.png": (3, "one"),
        "charts/deep/b.png": (4, "four"),
    }
    kept = (path for path in (tmp_path / "artifacts").rglob("*") if not path.is_dir())
    assert sorted(str(path.relative_to(tmp_path / "artifacts")) for path in kept) == ["a.png", "charts/deep/b.png"]


# --- what a tool writes -----------------------------------------------------------------------------------------------


async def test_the_two_streams_are_kept_apart(bench: Bench) -> None:
    result = await bench.run(bench.case.sh("echo to stdout; echo to stderr >&2; echo more"))
    assert (result.stdout.text, result.stderr.text) == ("to stdout\nmore\n", "to stderr\n")


async def test_binary_output_arrives_byte_for_byte(bench: Bench) -> None:
    source = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 16)"
    assert (await bench.run(bench.case.python(source))).stdout.data == bytes(range(256)) * 16


async def test_large_output_is_counted_and_kept_in_bounded_memory(bench: Bench) -> None:
    lines = bench.case.bulk // 10
    source = f"""
for start in range(0, {lines}, 10_000):
    print("\\n".join(map("{{:09d}}".format, range(start, start + 10_000))))
"""
    contract = bench.case.python(source, max_output=64 * 1024)
    with measured_growth() as growth:
        result = await bench.run(contract)
    assert result.stdout.total == lines * 10
    assert result.stdout.head.startswith(b"000000000\n000000001\n")
    assert result.stdout.tail.endswith(f"{lines - 2:09d}\n{lines - 1:09d}\n".encode())
    assert len(result.stdout.data) <= 64 * 1024
    assert growth() <= 32 * 1024 * 1024


@pytest.mark.parametrize("trouble", ["no directory", "no room"])
async def test_output_that_cannot_be_kept_is_an_error_that_says_so(bench: Bench, tmp_path: Path, trouble: str) -> None:
    directory = tmp_path / "run"
    if trouble == "no room":
        directory.mkdir()
        (directory / "stdout").symlink_to("/dev/full")
    contract = bench.case.sh("head -c 3000000 /dev/zero; echo done >&2", max_output=1024)
    with pytest.raises(ExecutionError, match="output could not be kept") as failure:
        await bench.run(contract, ExecutionContext(directory=directory))
    assert "records.directory" in (failure.value.remedy or "")


async def test_output_is_received_while_the_tool_runs(bench: Bench) -> None:
    contract = bench.case.python(f"print('first', flush=True); {FOREVER}")
    received = anyio.Event()
    pieces: list[tuple[StreamName, bytes]] = []

    def listen(name: StreamName, data: bytes) -> None:
        pieces.append((name, data))
        received.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, ExecutionContext(on_output=listen))
        with anyio.fail_after(CALL_LIMIT):
            await received.wait()
        tasks.cancel_scope.cancel()  # it would run for ever
    assert pieces == [("stdout", b"first\n")]


async def test_secrets_are_masked_in_all_that_is_kept_and_passed_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFORMANCE_TOKEN", 's3cr3t-"lue"')
    received = bytearray()
    escaped = """printf '{"k":"%s"}' "$(printf %s "$TOKEN" | sed 's/"/\\\\"/g')\""""
    contract = bench.case.sh(
        f'printf %s "$TOKEN" | wc -c; echo "token=$TOKEN"; {escaped}; echo "$TOKEN" >&2',
        env={"TOKEN": {"secret": "CONFORMANCE_TOKEN"}},
    )
    result = await bench.run(contract, ExecutionContext(on_output=lambda _, data: received.extend(data)))
    assert result.output.split() == ["12", "token=***", '{"k":"***"}']
    assert result.stderr.text == "***\n"
    assert b"s3cr3t" not in received


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.demands(Capability.IMAGES)
async def test_a_missing_image_is_named_with_a_remedy(bench: Bench) -> None:
    contract = bench.case.sh("exit 0", image="localhost:1/praxis-mcp/no-such-image:1")
    with pytest.raises(ImageError, match="no-such-image") as failure:
        await bench.run(contract)
    assert failure.value.remedy


@pytest.mark.demands(Capability.IMAGES)
async def test_an_image_without_a_shell_works(bench: Bench) -> None:
    contract = bench.case.contract(
        ["/tool", "two words", "--env", "X", "--err", "oops", "--exit", "4"],
        image="scratch-tool:latest",
        env={"X": "value"},
    )
    result = await bench.run(contract)
    assert (result.exit_code, result.output, result.stderr.text) == (4, "two words\nvalue\n", "oops\n")


@pytest.mark.demands(Capability.IMAGES, Capability.READ_ONLY_ROOT)
async def test_a_read_only_root_cannot_be_written_and_tmp_can(bench: Bench) -> None:
    script = "echo x > /tmp/x && cat /tmp/x; echo x > /usr/x || echo refused"
    contract = bench.case.sh(script, read_only=True)
    if await bench.refuses(contract):
        return
    assert (await bench.run(contract)).output == "x\nrefused\n"


@pytest.mark.demands(Capability.IMAGES)
async def test_a_root_that_must_be_writable_is(bench: Bench) -> None:
    contract = bench.case.sh('echo x > "$1"/x && cat "$1"/x', bench.case.writable_place, read_only=False)
    assert (await bench.run(contract)).output == "x\n"


@pytest.mark.demands(Capability.IMAGES, Capability.CACHE_DIRS)
async def test_a_cache_directory_outlives_a_call(bench: Bench) -> None:
    place = f"/cache-{uuid4().hex}"
    await check_cache(bench, bench.case.sh('cat "$1"/x; echo said > "$1"/x', place, cache_dirs=[place]))


@pytest.mark.demands(Capability.USER)
async def test_a_cache_directory_belongs_to_the_tools_user(bench: Bench) -> None:
    place = f"/cache/{uuid4().hex}"
    await check_cache(bench, bench.case.sh('cat "$1"/x; echo said > "$1"/x', place, cache_dirs=[place], user="12345"))


@pytest.mark.demands(Capability.IMAGES, Capability.CACHE_DIRS)
@pytest.mark.parametrize("other", ["project", "contract", "caller"])
async def test_a_cache_directory_is_not_shared_with_another_project_or_caller(bench: Bench, other: str) -> None:
    place = f"/cache-{uuid4().hex}"
    mine = bench.case.sh('ls "$1"; echo said > "$1"/x', place, cache_dirs=[place])
    plans = [build_plan(mine, {}, bench.settings, caller="one")]
    if other == "project":
        elsewhere = bench.settings.model_copy(update={"root": bench.settings.root / "elsewhere"})
        plans.append(build_plan(mine, {}, elsewhere, caller="one"))
    elif other == "contract":
        named = mine.model_copy(update={"source": bench.settings.root / "contract.yaml"})
        plans.append(build_plan(named, {}, bench.settings, caller="one"))
    else:
        plans.append(build_plan(mine, {}, bench.settings, caller="two"))
    if plans[0].demands & bench.case.lacks:
        return
    try:
        outputs = [(await bench.run_plan(plan)).output for plan in (*plans, plans[0])]
        assert outputs == ["", "", "x\n"]
    finally:
        for plan in plans:
            bench.case.remove_caches(plan.blueprint)


# --- the engine itself ------------------------------------------------------------------------------------------------


async def test_an_engine_that_can_be_used_says_so_and_once_it_was_used_its_version(bench: Bench) -> None:
    async def probe() -> EngineStatus:
        with anyio.fail_after(10):
            return await bench.engine.probe()

    unused = await probe()
    assert (unused.engine, unused.available) == (bench.engine.name, True), unused
    assert (await bench.run(bench.case.sh("exit 0"))).exit_code == 0
    assert (await probe()).version


async def test_an_engine_can_be_used_again_after_its_cleanup(bench: Bench) -> None:
    async with bench.case.engine(bench.settings) as engine:
        again = Bench(bench.case, engine, bench.settings)
        assert (await again.run(bench.case.sh("echo one"))).output == "one\n"
        await engine.cleanup()
        assert (await again.run(bench.case.sh("echo two"))).output == "two\n"
