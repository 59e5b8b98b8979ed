"""`praxis-mcp doctor` knows the upstreams of the settings, and the servers that run on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.cli.doctor import examine_upstreams
from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.settings.model import Settings
from tests.kit import command_line
from tests.kit.ports import NOWHERE
from tests.kit.upstreams import ROOT, http_server, words
from tests.serving.clients import LIMIT
from tests.serving.http_server import running_http

pytestmark = pytest.mark.anyio

ECHO = """
name: echo
description: Say hi.
engine: local
command: [/bin/echo, hi]
"""
NOOP = """
name: noop
description: Do nothing.
engine: docker
image: busybox:1.36
command: ["true"]
"""


def doctor(directory: Path, *options: str, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"} | ({"TMPDIR": str(temporary)} if temporary else {})
    if (directory / "praxis.yaml").exists():
        environment["PRAXIS_CONFIG"] = str(directory / "praxis.yaml")
    return command_line.praxis("doctor", *options, cwd=directory, env=environment)


def test_upstreams_are_shown_with_whether_they_can_be_reached_and_what_is_served_and_held_back(tmp_path: Path) -> None:
    with http_server() as open_to_all:
        upstreams = {
            "all": {"address": open_to_all.url("http")},
            "gone": {"address": NOWHERE},
            "held": {"address": words("stdio", "--lie"), "pin": True, "env": {"PYTHONPATH": str(ROOT)}},
        }
        (tmp_path / "praxis.yaml").write_text(yaml.safe_dump({"tools": [], "upstreams": upstreams}))
        done = doctor(tmp_path, "--json")
        shown = doctor(tmp_path)
    assert done.returncode == 1, "one of them is down"
    found = {item.pop("upstream"): item for item in json.loads(done.stdout)["upstreams"]}
    assert found["all"]["reachable"]
    assert (found["all"]["protocol"], found["all"]["held_back"], found["all"]["trouble"]) == ("2026-07-28", 0, "")
    assert found["all"]["tools"] >= 13
    assert not found["gone"]["reachable"]
    assert "cannot be reached" in found["gone"]["trouble"]
    assert found["held"]["reachable"]
    assert (found["held"]["tools"], found["held"]["left_out"] > 0) == (0, True)
    assert found["held"]["held_back"] >= 13
    assert all(name in shown.stdout for name in ("Upstreams", "all", "gone", "held", "2026-07-28", "cannot be reached"))


async def test_upstreams_that_hang_are_waited_for_together_and_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(stream: Any) -> None:
        async with stream:
            await anyio.sleep_forever()

    found: dict[str, dict[str, Any]] = {}
    is_prompt = False
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, hang)
        silent = {"address": f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/mcp"}
        sleeping = {"address": ["/bin/sleep", "60"]}
        with http_server() as alive:
            upstreams = {"alive": {"address": alive.url("http")}, "one": silent, "two": silent, "asleep": sleeping}
            settings = Settings.model_validate({"root": tmp_path, "tools": [], "upstreams": upstreams})
            for timeout in (2.0, 10.0, 30.0):  # on a busy machine the one that is alive too needs more than the first
                monkeypatch.setattr("praxis_mcp.cli.doctor.UPSTREAM_TIMEOUT", timeout)
                began = anyio.current_time()
                with anyio.fail_after(4 * timeout + LIMIT):
                    async with open_toolbox(settings) as toolbox:
                        found |= {item["upstream"]: item for item in await examine_upstreams(toolbox)}
                assert all(f"within {timeout:g} s" in found[name]["trouble"] for name in ("one", "two", "asleep"))
                is_prompt = anyio.current_time() - began < 3 * timeout
                if found["alive"]["reachable"] and is_prompt:
                    break
        tasks.cancel_scope.cancel()
    assert [name for name, item in found.items() if item["reachable"]] == ["alive"]
    assert is_prompt, "they were waited for one after another, or for each to be closed"


async def told(directory: Path, temporary: Path, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What doctor says of the only server, once that fits."""
    with anyio.fail_after(LIMIT):
        while True:
            done = await anyio.to_thread.run_sync(lambda: doctor(directory, "--json", temporary=temporary))
            servers = json.loads(done.stdout)["servers"]
            if servers and fits(servers[0]):
                (server,) = servers
                return server


def project(directory: Path, contract: str) -> Path:
    (directory / "tool").mkdir(parents=True)
    (directory / "tool" / "contract.yaml").write_text(contract)
    (directory / "praxis.yaml").write_text(yaml.safe_dump({"tools": ["."]}))
    return directory


async def test_a_server_that_runs_is_shown_and_one_that_ended_or_was_killed_is_not(tmp_path: Path) -> None:
    tools = project(tmp_path / "project", ECHO)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with (
        running_http(tools, "--http", TMPDIR=str(temporary)) as server,
        Client(streamable_http_client(server.mcp)) as client,
    ):
        await client.call_tool("echo", {})
        about = await told(tools, temporary, lambda found: found["calls"] == {"ended": 1, "running": 0})
        assert about["pid"] == server.process.pid
        assert about["root"] == str(tools)
        assert about["warm"]["enabled"] is True
        assert set(about["warm"]["engines"]) <= {"local"}  # whose sandboxes wait, where it makes any
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    assert list(temporary.iterdir()) == []

    async with running_http(tools, "--http", TMPDIR=str(temporary)) as server:
        await told(tools, temporary, lambda found: found["pid"] == server.process.pid)
        server.signal(signal.SIGKILL)
        await server.exit_code()
    assert any("server" in path.name for path in temporary.iterdir()), "what it wrote is still there"
    done = await anyio.to_thread.run_sync(lambda: doctor(tools, "--json", temporary=temporary))
    assert json.loads(done.stdout)["servers"] == []


@pytest.mark.docker
@pytest.mark.native
async def test_hits_misses_and_fill_time_of_each_tool_of_a_server_are_shown(tmp_path: Path) -> None:
    tools = project(tmp_path / "project", NOOP)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with (
        running_http(tools, "--http", TMPDIR=str(temporary)) as server,
        Client(streamable_http_client(server.mcp), read_timeout_seconds=60) as client,
    ):
        await client.call_tool("noop", {})
        first = await told(
            tools, temporary, lambda found: bool(found["warm"]["engines"].get("docker", {}).get("waiting"))
        )
        assert first["warm"]["engines"]["docker"]["tools"]["noop"]["misses"] == 1
        await client.call_tool("noop", {})
        after = await told(tools, temporary, lambda found: found["warm"]["engines"]["docker"]["hits"] == 1)
        noop = after["warm"]["engines"]["docker"]["tools"]["noop"]
        assert (noop["hits"], noop["misses"], noop["fill_seconds"] > 0) == (1, 1, True)
        shown = (await anyio.to_thread.run_sync(lambda: doctor(tools, temporary=temporary))).stdout
        (row,) = (line.split() for line in shown.splitlines() if "noop" in line.split() and "ms" in line.split())
        assert row[:3] == ["noop", "1", "1"]


def test_the_settings_of_warm_starts_are_shown(tmp_path: Path) -> None:
    settings = {"tools": [], "warm": {"max_containers": 5, "max_per_tool": 3, "idle_seconds": 77}}
    (tmp_path / "praxis.yaml").write_text(yaml.safe_dump(settings))
    assert json.loads(doctor(tmp_path, "--json").stdout)["warm"]["max_containers"] == 5
    assert (
        "at most 5 containers and sandboxes wait (3 a tool, 512 MiB together), none after 77 s"
        in doctor(tmp_path).stdout
    )


def test_where_runs_are_recorded_is_shown_and_why_they_cannot_be(tmp_path: Path) -> None:
    project(tmp_path, ECHO)
    where = tmp_path / "kept"
    settings = tmp_path / "praxis.yaml"
    settings.write_text(yaml.safe_dump({"tools": ["."], "records": {"directory": str(where)}}))
    assert f"records  {where}\n" in doctor(tmp_path).stdout
    assert not where.exists(), "a look makes nothing"
    where.touch()
    done = doctor(tmp_path)
    assert done.returncode == 1
    assert f"✗ records cannot be kept: {where} is not a directory. → Name another place: records.dir" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 of 1 tools can run; runs cannot be recorded")
    where.unlink()
    where.mkdir()
    (where / "runs.db").write_bytes(b"not a database, and longer than a header of one is" * 4)
    assert json.loads(doctor(tmp_path, "--json").stdout)["records"]["why"].startswith(f"{where}/runs.db: ")
    settings.write_text(yaml.safe_dump({"tools": ["."], "records": {"enabled": False}}))
    assert "records  none: records.enabled is false\n" in doctor(tmp_path).stdout


def test_a_records_database_is_shown_without_its_password(tmp_path: Path) -> None:
    project(tmp_path, ECHO)
    for url in ("postgresql://u:secret@127.0.0.1:9/runs", "postgresql://127.0.0.1:9/runs?user=u&password=secret"):
        (tmp_path / "praxis.yaml").write_text(yaml.safe_dump({"tools": ["."], "records": {"url": url}}))
        done = doctor(tmp_path, "--json")
        report = json.loads(done.stdout)["records"]
        assert (done.returncode, report["where"]) == (1, "postgresql://127.0.0.1:9/runs")
        assert report["why"], "nobody listens there"
        assert "secret" not in done.stdout
    for url in ("postgresql://u:se@cret@h/runs", "postgresql://u:se?cret@h/runs", "postgresql://h/r?password=se@cret"):
        shown = Settings.model_validate({"records": {"url": url}}).records.shown_url
        assert "se" not in shown
        assert "cret" not in shown


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({}, "on all servers of this project on this machine together"),
        (
            {"url": "postgresql://praxis@127.0.0.1:9/records"},
            "on all servers that share postgresql://127.0.0.1:9/records together",
        ),
        ({"enabled": False}, "on each server alone, because no records are kept"),
    ],
)
def test_on_which_servers_together_a_caller_is_limited_is_shown(
    records: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "praxis.yaml").write_text(json.dumps({"records": records, "calls": {"max_per_caller": 3}}))
    assert f"of each caller 3 calls at once, {said}" in doctor(tmp_path).stdout
    (tmp_path / "praxis.yaml").write_text(json.dumps({"records": records}))
    assert "of each caller" not in doctor(tmp_path).stdout


def test_an_engine_that_no_tool_needs_is_called_optional_and_a_verdict_ends_the_report(tmp_path: Path) -> None:
    project(tmp_path, ECHO)
    (tmp_path / "praxis.yaml").write_text("tools: [.]\nengines: {dagger: {cli: /nowhere/dagger}}\n")
    done = doctor(tmp_path)
    (row,) = (line for line in done.stdout.splitlines() if "dagger" in line.split()[:2])
    assert row.split() == ["-", "dagger", "-", "optional:", "no", "tool", "here", "needs", "it"]
    # Others may be missing on this machine as well: they are named in the order of the rows.
    *most, last = (line.split()[1] for line in done.stdout.splitlines() if line.split()[:1] == ["-"])
    names = f"{', '.join(most)} and {last} are" if most else f"{last} is"
    assert done.stdout.splitlines()[-1].startswith(f"1 of 1 tools can run; {names} optional and missing")


def test_what_was_found_of_an_engine_that_works_is_shown_and_so_is_that_local_tools_have_no_sandbox(
    tmp_path: Path,
) -> None:
    project(tmp_path, ECHO)
    (tmp_path / "praxis.yaml").write_text("tools: [.]\nengines: {local: {sandbox: 'off'}}\n")
    (row,) = (line for line in doctor(tmp_path).stdout.splitlines() if line.split()[:2] == ["✓", "local"])
    assert "plain processes, no sandbox: the settings say engines.local.sandbox: off → Set" in row


def test_a_launcher_that_is_missing_is_named_with_how_to_get_it_and_how_to_do_without(tmp_path: Path) -> None:
    project(tmp_path, NOOP.replace("docker", "sandbox"))
    (tmp_path / "praxis.yaml").write_text("tools: [.]\nengines: {sandbox: {launcher: bubblewrap}}\n")
    environment = {**os.environ, "COLUMNS": "400", "PATH": "/nowhere", "PRAXIS_CONFIG": str(tmp_path / "praxis.yaml")}
    done = command_line.praxis("doctor", cwd=tmp_path, env=environment)
    (row,) = (line for line in done.stdout.splitlines() if line.split()[:2] == ["✗", "sandbox"])
    assert "Or set engines.sandbox.launcher: auto." in row


# A plain user to all that runs in it, for whom the kernel makes no more namespaces.
WITHOUT_NAMESPACES = """
import ctypes, os, sys
uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000) != 0:
    sys.exit("no user namespaces here")
for name, text in (("uid_map", f"1000 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"1000 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.sandbox
def test_a_user_who_may_make_no_namespaces_learns_which_step_failed_and_who_can_change_that(tmp_path: Path) -> None:
    project(tmp_path, ECHO)
    command = [sys.executable, "-c", WITHOUT_NAMESPACES, sys.executable, "-m", "praxis_mcp", "doctor", "--json"]
    environment = {**os.environ, "PRAXIS_TOOLS": json.dumps([str(tmp_path)])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path, env=environment)
    engines = {item["engine"]: item for item in json.loads(done.stdout)["engines"]}
    for name in ("sandbox", "local"):
        assert "praxis-init: user-namespace: No space left on device." in engines[name]["detail"]
        assert "raise user.max_user_namespaces (sysctl)" in engines[name]["detail"]
        assert "by sudo or through an administrator of this machine" in engines[name]["remedy"]
    assert engines["local"]["isolation"] == "process"
    assert not engines["sandbox"]["available"]


def test_an_engine_that_a_tool_misses_is_shown_with_how_to_get_it(tmp_path: Path) -> None:
    project(tmp_path, NOOP)
    settings = "tools: [.]\nengines: {docker: {host: 'unix:///nowhere.sock'}}\n"
    (tmp_path / "praxis.yaml").write_text(settings)
    done = doctor(tmp_path)
    assert done.returncode == 1
    (row,) = (line for line in done.stdout.splitlines() if "docker" in line.split()[:2])
    assert row.startswith("✗")
    assert "→" in row
    (tool,) = (line for line in done.stdout.splitlines() if "nothing" in line.split()[:3])
    assert tool.endswith("needs docker, see above")  # not the engine's story once more for each tool
    assert done.stdout.splitlines()[-1].startswith("0 of 1 tools can run")


def test_a_missing_directory_of_tools_comes_before_the_engines(tmp_path: Path) -> None:
    done = doctor(tmp_path, "nowhere")
    lines = [line for line in done.stdout.splitlines() if "nowhere" in line or line.startswith("Engines")]
    assert lines[0].startswith("root ")
    assert "does not exist" in lines[1]
    assert lines[-1].startswith("Engines")
    assert done.returncode == 1


@pytest.mark.sandbox
def test_an_engines_row_names_what_it_lacks_only_where_a_tool_asks_for_it(tmp_path: Path) -> None:
    contract = 'name: reach\ndescription: R.\nimage: busybox:1.36\ncommand: ["true"]\n'

    def said() -> str:
        return " ".join(doctor(tmp_path).stdout.split())

    project(tmp_path, contract)
    (tmp_path / "praxis.yaml").write_text("tools: [.]\nengines: {order: [sandbox]}\n")
    assert "images in " in said()
    assert "cannot enforce" not in said()
    (tmp_path / "tool" / "contract.yaml").write_text(contract + "network: bridge\n")
    assert "cannot enforce network: bridge: a sandbox has no network of its own" in said()


def test_toolsets_are_shown_with_what_they_hold_and_what_they_name_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "echo.contract.yaml").write_text(f"{ECHO}tags: [words]\n")
    toolsets = {"some": {"tools": ["ec*", "gone_*"], "tags": ["words", "lost"]}, "none": {"tools": ["other"]}}
    search = {"above": 0, "core": ["ech*", "typo"]}
    (tmp_path / "praxis.yaml").write_text(yaml.safe_dump({"toolsets": toolsets, "search": search}))
    report = json.loads(doctor(tmp_path, "--json").stdout)
    assert report["toolsets"] == [
        {"toolset": "none", "tools": 0, "unmatched": ["other"]},
        {"toolset": "some", "tools": 1, "unmatched": ["gone_*", "lost (tag)"]},
    ]
    assert report["search"] == {"possible": True, "shown": 3, "unmatched": ["typo"]}
    said = doctor(tmp_path).stdout
    assert "toolset  some: 1 tool; nothing has the name gone_* or lost (tag)" in said
    assert "search   on: a client is shown 3 tools; nothing has the name typo" in said
