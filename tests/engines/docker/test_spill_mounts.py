"""Mounts of calls that run in the sandbox instead of Docker: what a tool sees of them, may do to them and leaves in
them is the same on both."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, PinnedImage
from praxis_mcp.engines.docker.spec import DockerInit, has_our_files
from praxis_mcp.plans.model import Mount, Plan
from praxis_mcp.testing.bench import Bench
from tests.engines.docker.spilled_case import CASE, SpillingEngine
from tests.engines.docker.test_spill import changed

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.sandbox, pytest.mark.native]

OTHER, GROUP = 12345, 23456
"""A user and a group of the host's that nobody is."""
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="mounts of a plain user's server stay with Docker")

LOOK = """
import json, os, sys

def tried(function, *arguments):
    try:
        return function(*arguments)
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"

def owner(path):
    found = os.lstat(path)
    return [found.st_uid, found.st_gid, oct(found.st_mode)]

def content(path):
    return sorted(os.listdir(path)) if os.path.isdir(path) else open(path).read()

def walk(top):
    found = {}
    for place, folders, files in os.walk(top):
        for path in [place, *(os.path.join(place, name) for name in (*folders, *files))]:
            found[path] = owner(path), tried(content, path)
            for mode in (os.R_OK, os.W_OK, os.X_OK):
                found[path] += (os.access(path, mode),)
    return found

facts = {"me": [os.getuid(), os.getgid(), os.getgroups()], "umask": oct(os.umask(0)), "seen": walk("/m")}
os.umask(int(facts["umask"], 8))
if os.path.isdir("/m/rw"):
    os.chdir("/m/rw")
    facts["made"] = [
        tried(lambda: open("new", "w").write("new") and owner("new")), tried(os.mkdir, "folder"), owner("folder"),
        tried(os.chmod, "new", 0o6755), owner("new"), tried(os.chown, "new", 12345, -1), tried(os.chown, "new", 0, 0),
        tried(os.chmod, "theirs", 0o777), tried(os.rename, "theirs", "moved"), tried(os.link, "mine", "linked"),
        tried(os.symlink, "/etc/passwd", "link"), tried(os.mkfifo, "pipe"), tried(os.mknod, "device", 0o20666, 0x103),
        tried(lambda: open("closed/x", "w")), tried(os.setxattr, "new", "user.x", b"1"), tried(os.remove, "mine"),
    ]
print(json.dumps(facts, sort_keys=True))
"""


@pytest.fixture
async def engine() -> AsyncIterator[SpillingEngine]:
    async with SpillingEngine(CASE.settings()) as engine:
        yield engine


@pytest.fixture
def umask() -> Iterator[None]:
    """A server whose own files are its own."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def furnish(place: Path) -> Path:
    """A directory with files of several owners."""
    place.mkdir()
    for name, owner, group, mode in (
        ("mine", 0, 0, 0o644), ("theirs", OTHER, GROUP, 0o644), ("theirs-alone", OTHER, GROUP, 0o600),
        ("of-the-group", OTHER, 0, 0o640), ("of-group-5", OTHER, 5, 0o640), ("program", 0, 0, 0o6755),
    ):  # fmt: skip
        (place / name).write_text(name)
        os.chown(place / name, owner, group)
        (place / name).chmod(mode)
    for name, mode in (("closed", 0o700), ("sticky", 0o1777)):
        (place / name).mkdir()
        os.chown(place / name, OTHER, GROUP)
        (place / name).chmod(mode)
    (place / "link").symlink_to("theirs")
    return place


def left(place: Path) -> dict[str, tuple[int, int, str, str]]:
    """What is there afterwards."""
    found: dict[str, tuple[int, int, str, str]] = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        text = path.read_text() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(place))] = status.st_uid, status.st_gid, oct(status.st_mode), text
    return found


def plan_of(engine: SpillingEngine, contract: ToolContract) -> Plan:
    return Bench(CASE, engine, engine.settings).plan(contract)


@as_root
@pytest.mark.parametrize("writable", [False, True])
async def test_owners_rights_and_what_is_left_are_the_same_as_on_docker(
    engine: SpillingEngine, tmp_path: Path, umask: None, writable: bool
) -> None:
    outcomes: dict[str, Any] = {}
    for name, run in (("docker", engine.run_here), ("sandbox", engine.run)):
        place = furnish(tmp_path / name)
        mounts = {str(place): "/m/rw:rw" if writable else "/m/ro", str(place / "mine"): "/m/file"}
        result = await run(plan_of(engine, CASE.python(LOOK, mounts=mounts)), ExecutionContext())
        assert result.exit_code == 0, result.stderr.text
        changed = sorted(str(path.relative_to(place)) for path in result.changed_files)
        outcomes[name] = json.loads(result.output), left(place), changed
    assert engine.stayed == ""
    assert outcomes["sandbox"] == outcomes["docker"]
    assert outcomes["docker"][0]["umask"] == "0o22"


@as_root
async def test_the_groups_that_an_image_has_its_root_in_are_there_as_on_docker(
    engine: SpillingEngine, tmp_path: Path
) -> None:
    """As Alpine's has it in a dozen: they open files of a mount."""
    place = furnish(tmp_path / "place")
    (tmp_path / "files" / "etc").mkdir(parents=True)
    (tmp_path / "files" / "etc" / "group").write_text("root:x:0:\ntty:x:5:daemon,root\n")
    script = "cd /m; cat of-group-5 of-the-group theirs-alone; grep Groups /proc/self/status"
    with changed(files=tmp_path / "files") as image:
        contract = CASE.sh(script, image=image, mounts={str(place): "/m"})
        results = [await run(plan_of(engine, contract), ExecutionContext()) for run in (engine.run_here, engine.run)]
    assert engine.stayed == ""
    on_docker, in_sandbox = ((result.output, result.exit_code) for result in results)
    assert on_docker == in_sandbox
    assert on_docker[0].startswith("of-group-5of-the-groupGroups:\t0 5"), on_docker


@as_root
@pytest.mark.parametrize("source", ["/dev/null", "/dev", "/dev/pts", "/"])
async def test_a_mount_of_the_machines_devices_or_of_what_is_around_them_stays_with_docker(
    engine: SpillingEngine, source: str
) -> None:
    blueprint = plan_of(engine, CASE.sh("true", mounts={})).blueprint
    blueprint = replace(blueprint, mounts=(Mount(Path(source), "/m/hidden"),))
    image = PinnedImage("x", "x", "x", shares_files=True)
    assert list(await engine.sandbox.find_differences(blueprint, image)) == ["a device among its mounts"]


@as_root
@pytest.mark.parametrize("why", ["other users, labels or paths", "a server that is root only", "a device"])
async def test_mounts_stay_with_docker_where_the_sandbox_would_show_them_otherwise(
    engine: SpillingEngine, tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint = plan_of(engine, CASE.sh("true", mounts={str(tmp_path): "/m"})).blueprint
    if why == "a device":
        blueprint = replace(blueprint, mounts=(Mount(Path("/dev/null"), "/m/hidden"),))
    image = PinnedImage("x", "x", "x", shares_files=why != "other users, labels or paths")
    if why == "a server that is root only":
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert why in ", ".join(await engine.sandbox.find_differences(blueprint, image))
    without = plan_of(engine, CASE.sh("true")).blueprint
    assert not await engine.sandbox.find_differences(without, image)


@pytest.mark.parametrize("option", ["name=rootless", "name=selinux", "name=userns"])
def test_a_daemon_whose_containers_see_files_as_other_users_keeps_calls_with_mounts(option: str) -> None:
    usual = {"SecurityOptions": ["name=apparmor", "name=seccomp,profile=default", "name=cgroupns"]}
    init = DockerInit(Path("/praxis-init"), is_mounted=True)
    assert has_our_files(usual, init)
    assert not has_our_files({"SecurityOptions": [*usual["SecurityOptions"], option]}, init)
    assert not has_our_files(usual, init.other_way)  # it sees other files
    assert not has_our_files(usual, None)
