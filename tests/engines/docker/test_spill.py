"""Calls that would wait for a container of a real daemon, and run in real sandboxes instead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from praxis_mcp.engines.base import ExecutionResult, PinnedImage
from praxis_mcp.engines.docker.spec import is_usual
from praxis_mcp.engines.host import taken_images
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.mounts.layout import MAX_SIBLINGS
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.images.store import ImageStore
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from tests.engines.docker.bench import BUSYBOX
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.sandbox, pytest.mark.native]

CONTRACT = """
name: shown
description: Say which image this is.
image: {image}
command: [/bin/sh, -c, 'echo ${{WHICH:-busybox}}']
"""


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def remove(image: str) -> None:
    """Remove a name or an image, unless it went with the other."""
    subprocess.run(["docker", "rmi", "--force", image], check=False, capture_output=True)


@pytest.fixture
def image() -> Iterator[str]:
    """A name of this test's own for busybox."""
    name = f"localhost/praxis-test-spill:{uuid4().hex}"
    docker("tag", BUSYBOX, name)
    yield name
    remove(name)


@contextmanager
def changed(*changes: str, files: Path | None = None) -> Iterator[str]:
    """Busybox, changed by instructions and by files that lie over it; the image's id."""
    container = docker("create", BUSYBOX, "true")
    try:
        if files is not None:
            docker("cp", f"{files}/.", f"{container}:/")
        ident = docker("commit", *(word for change in changes for word in ("--change", change)), container)
    finally:
        docker("rm", container)
    try:
        yield ident
    finally:
        remove(ident)


@pytest.fixture
def other() -> Iterator[str]:
    """Another small image: that one with a variable."""
    with changed("ENV WHICH=other") as ident:
        yield ident


@asynccontextmanager
async def toolbox_of(
    tmp_path: Path, image: str, more: str = "", launcher: str = "own", **values: Any
) -> AsyncIterator[Toolbox]:
    (tmp_path / "tools").mkdir(exist_ok=True)
    (tmp_path / "tools" / "contract.yaml").write_text(CONTRACT.format(image=image) + more)
    engines = {"order": ["docker", "sandbox"], "sandbox": {"store": tmp_path / "store", "launcher": launcher}}
    settings = {"root": tmp_path, "tools": [tmp_path / "tools"], "engines": engines, "warm": {"enabled": False}}
    async with open_toolbox(Settings.model_validate({**settings, **values})) as toolbox:
        yield toolbox


async def spilled(toolbox: Toolbox) -> ExecutionResult:
    """Call until one has run in the sandbox."""

    async def called() -> ExecutionResult | None:
        result = await toolbox.call("shown")
        return result if result.engine == "sandbox" else None

    result = await until(called)
    assert result is not None
    return result


async def test_a_call_runs_in_the_sandbox_once_that_has_taken_the_image_with_the_same_result(
    tmp_path: Path, image: str
) -> None:
    async with toolbox_of(tmp_path, image) as toolbox:
        first = await toolbox.call("shown")
        there = await spilled(toolbox)
    assert (first.engine, first.output, first.exit_code) == ("docker", "busybox\n", 0)
    assert (there.output, there.exit_code, there.image) == (first.output, 0, first.image)


async def test_a_name_that_means_another_image_runs_that_one_from_the_next_call_on(
    tmp_path: Path, image: str, other: str
) -> None:
    async with toolbox_of(tmp_path, image) as toolbox:
        await toolbox.call("shown")
        await spilled(toolbox)
        old = {item.reference for item in ImageStore(tmp_path / "store").names()}
        docker("tag", other, image)
        result = await toolbox.call("shown")
        assert (result.engine, result.output) == ("docker", "other\n")
        there = await spilled(toolbox)
        assert (there.output, there.image) == ("other\n", result.image)
        new = {item.reference for item in ImageStore(tmp_path / "store").names()}
        assert (len(old), len(new), old & new) == (1, 1, set())


@pytest.mark.parametrize(
    ("changed", "runtime"),
    [
        ({"DefaultRuntime": "runsc"}, None),
        ({}, "kata"),
        ({"KernelVersion": "5.10.0-of-a-virtual-machine"}, None),
        ({"Plugins": {"Authorization": ["opa-docker-authz"]}}, None),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, None),
        ({"SecurityOptions": ["name=seccomp,profile=/etc/docker/ours.json"]}, None),
    ],
)
def test_what_the_user_has_chosen_for_docker_keeps_its_calls_there(
    changed: dict[str, Any], runtime: str | None
) -> None:
    info = json.loads(docker("info", "--format", "{{json .}}"))
    assert is_usual(info, None)
    assert not is_usual({**info, **changed}, runtime)


async def test_what_the_sandbox_means_by_a_name_stays_as_it_was(tmp_path: Path, image: str, other: str) -> None:
    async with toolbox_of(tmp_path, image) as toolbox:
        sandbox = toolbox.engines.get("sandbox")
        assert isinstance(sandbox, SandboxExecutionEngine)
        own = await sandbox.images.ensure(image)
        docker("tag", other, image)
        await toolbox.call("shown")
        assert (await spilled(toolbox)).output == "other\n"
        assert await sandbox.images.ensure(image) == own


async def test_a_closed_loop_of_eight_runs_in_the_sandbox_and_starts_no_containers_meanwhile(
    tmp_path: Path, image: str
) -> None:
    engines: Counter[str] = Counter()
    async with toolbox_of(tmp_path, image, warm={}) as toolbox:
        await toolbox.call("shown")
        await spilled(toolbox)

        async def calls(number: int) -> None:
            for _ in range(number):
                result = await toolbox.call("shown")
                assert result.output == "busybox\n"
                engines[result.engine] += 1

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(calls, 10)
        pool = toolbox.engines.warm()["docker"]
    # Those that waited when the loop began, and one that was being made.
    assert engines["docker"] <= 5
    assert engines["sandbox"] >= 75
    assert pool.misses >= engines["sandbox"]


async def test_where_the_sandbox_has_no_room_for_a_mount_docker_runs_the_call(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts of a plain user's server stay with Docker")
    (tmp_path / "files" / "many").mkdir(parents=True)
    for number in range(MAX_SIBLINGS + 1):
        (tmp_path / "files" / "many" / str(number)).touch()
    (tmp_path / "note").write_text("from the host")
    with changed(files=tmp_path / "files") as image:
        more = f'mounts: {{"{tmp_path}/note": "/many/new"}}\n'
        async with toolbox_of(tmp_path, image, more) as toolbox:
            await toolbox.call("shown")
            assert await until(lambda: ImageStore(tmp_path / "store").names())
            result = await toolbox.call("shown")
            record = toolbox.records.entries()[0].summary()
    assert (result.engine, result.output) == ("docker", "busybox\n")
    assert "sandbox could not stand in for it" in str(record["choice"])


@pytest.mark.bubblewrap
async def test_where_bubblewrap_makes_no_sandbox_any_more_docker_runs_the_call(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = shutil.which("bwrap"), tmp_path / "broken"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "bwrap"
    program.write_text(f'#!/bin/sh\n[ -e {broken} ] && echo "bwrap: No space left" >&2 && exit 1\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    async with toolbox_of(tmp_path, image, launcher="bubblewrap") as toolbox:
        await toolbox.call("shown")
        assert (await spilled(toolbox)).isolation == "bubblewrap"
        broken.touch()
        result = await toolbox.call("shown")
        record = toolbox.records.entries()[0].summary()
        later = await toolbox.call("shown")
    assert (result.engine, result.output, result.isolation) == ("docker", "busybox\n", "container")
    assert "sandbox could not stand in for it" in str(record["choice"])
    assert later.engine == "docker"


@pytest.mark.parametrize("kept", ["full", "no room"])
async def test_an_image_is_not_taken_beyond_the_bounds(
    tmp_path: Path, image: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taken_images, *(("MOST_TAKEN", 1000) if kept == "full" else ("ROOM", 10**12)))
    facts = docker("image", "inspect", "--format", "{{.Id}} {{.Size}}", image).split()
    pinned = PinnedImage(image, facts[0], facts[0], size=int(facts[1]))
    settings = Settings.model_validate({"engines": {"sandbox": {"store": tmp_path / "store"}}})
    monkeypatch.setattr(taken_images, "TAKE_AFTER", 0.0)
    messages: list[str] = []
    sink = logger.add(messages.append, format="{message}", filter=lambda record: image in record["message"])
    try:
        async with SandboxExecutionEngine(settings) as sandbox:
            sandbox.take_image(pinned)
            await until(lambda: messages)
            assert f"{image} is not taken for the sandbox" in messages[0]
            assert not sandbox.has_image(pinned)
    finally:
        logger.remove(sink)
    monkeypatch.undo()
    async with SandboxExecutionEngine(settings) as sandbox:
        sandbox.take_image(pinned)
        await until(lambda: sandbox.has_image(pinned))


async def test_an_engine_that_is_closed_takes_no_more(tmp_path: Path, image: str) -> None:
    ident = docker("image", "inspect", "--format", "{{.Id}}", image)
    pinned = PinnedImage(image, ident, ident)
    settings = Settings.model_validate({"engines": {"sandbox": {"store": tmp_path / "store"}}})
    async with SandboxExecutionEngine(settings) as sandbox:
        sandbox.take_image(pinned)
        await anyio.wait_all_tasks_blocked()
    assert not sandbox.has_image(pinned)
    async with sandbox:
        sandbox.take_image(pinned)
        await until(lambda: sandbox.has_image(pinned))
