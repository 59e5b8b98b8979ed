"""Which calls go to another engine than the first, and why the others stay; over engines that run nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import EngineCapabilities, ExecutionContext, ExecutionEngine, ExecutionResult, PinnedImage
from praxis_mcp.engines.outcomes import NotBegun
from praxis_mcp.engines.warm.call import Claim
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ImageError, LimitUnsupported, RecordsUnavailable
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.plans.model import DEFAULT_PIDS, Blueprint, Capability, Plan
from praxis_mcp.serving.http.metrics import render
from praxis_mcp.settings.model import Settings
from tests.execution.engines import AnsweringEngine, Engines
from tests.kit.records import database_in
from tests.kit.until import until

pytestmark = pytest.mark.anyio

IMAGE = PinnedImage("busybox:1.36", f"sha256:{'1' * 64}", f"busybox@sha256:{'2' * 64}")


class Waiting(AnsweringEngine):
    """An engine whose calls begin at once where something waits for them; its starts are slow."""

    name: ClassVar[str] = "docker"

    def __init__(self, waiting: int = 0) -> None:
        super().__init__(lambda plan: ExecutionResult(plan.call.run_id, "docker", "container", 0))
        self.waiting = waiting
        self.image: PinnedImage | None = IMAGE
        self.hangs = False
        self.claims: list[SpyClaim] = []
        self.default_pids: int | None = DEFAULT_PIDS

    @contextmanager
    def claim(self, plan: Plan, context: ExecutionContext) -> Iterator[Claim]:
        self.claims.append(SpyClaim(begins_now=self.waiting > 0))
        self.waiting = max(0, self.waiting - 1)
        yield self.claims[-1]
        self.claims[-1].is_over = True

    async def pin_image(self, blueprint: Blueprint) -> PinnedImage | None:
        if self.hangs:
            await anyio.sleep_forever()
        return self.image

    async def get_capabilities(self) -> EngineCapabilities:
        return EngineCapabilities(self.name, "none", frozenset(Capability), default_pids=self.default_pids)


@dataclass
class SpyClaim(Claim):
    went: list[str] = field(default_factory=list)
    is_over: bool = False

    def run_elsewhere(self) -> None:
        self.went.append("elsewhere")


class StandingIn(AnsweringEngine):
    """An engine that begins every call at once."""

    name: ClassVar[str] = "sandbox"
    stands_in_for: ClassVar[frozenset[str]] = frozenset({"docker"})

    def __init__(self) -> None:
        super().__init__()
        self.has = {IMAGE.id}
        self.taken: list[str] = []
        self.ran: list[PinnedImage | None] = []
        self.fails_with: Exception | None = None
        self.default_pids: int | None = DEFAULT_PIDS
        self.differs: tuple[str, ...] = ()

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        self.ran.append(context.image)
        if self.fails_with is not None:
            raise self.fails_with
        return ExecutionResult(plan.call.run_id, "sandbox", "praxis-init", 0)

    def has_image(self, image: PinnedImage) -> bool:
        return image.id in self.has

    async def find_differences(self, blueprint: Blueprint, image: PinnedImage) -> Sequence[str]:
        return self.differs

    def take_image(self, image: PinnedImage) -> None:
        self.taken.append(image.id)

    async def get_capabilities(self) -> EngineCapabilities:
        enforces = frozenset(Capability) - self.lacks
        return EngineCapabilities(self.name, "none", enforces, default_pids=self.default_pids)


@dataclass
class Bench:
    """A runner over the two engines, and a contract."""

    docker: Waiting
    sandbox: StandingIn
    toolbox: Toolbox

    @property
    def runner(self) -> ToolRunner:
        return self.toolbox.runner

    def runner_over(self, docker: ExecutionEngine, sandbox: ExecutionEngine) -> ToolRunner:
        """The same over other engines."""
        engines = Engines(docker=docker, sandbox=sandbox)
        return ToolRunner(self.toolbox.catalog, engines, self.toolbox.records, self.toolbox.settings)

    async def call(self, contract: ToolContract | None = None) -> str:
        return (await self.runner.run(contract or tool(), {})).engine

    def choices(self) -> list[str]:
        """Why each call ran where it did, the last one first."""
        return [str(record.summary()["choice"]) for record in self.toolbox.records.entries()]


def stored(records: Path) -> list[tuple[str, float | None]]:
    """The engine of each run in the store, once there is one, and when it ended."""
    try:
        database = database_in(records, create=False)
    except RecordsUnavailable:
        return []
    try:
        return [(run.engine, run.ended) for run in database.select(Filters())]
    finally:
        database.close()


def tool(name: str = "t", **fields: Any) -> ToolContract:
    return ToolContract.create_dagger_tool(name, "busybox:1.36", ["true"], **fields)


@asynccontextmanager
async def bench(
    tmp_path: Path, tools: Sequence[Path] = (), records: Path | None = None, **engines: Any
) -> AsyncIterator[Bench]:
    values: Mapping[str, Any] = {
        "engines": {"order": ["docker", "sandbox"], **engines}, "root": tmp_path, "records": {"directory": records}
    }  # fmt: skip
    settings = Settings.model_validate({"tools": tools, "policy": {"privileged": True, "host_network": True}, **values})
    docker, sandbox = Waiting(), StandingIn()
    async with open_toolbox(settings) as toolbox:
        toolbox.engines = Engines(docker=docker, sandbox=sandbox)
        toolbox.runner = ToolRunner(toolbox.catalog, toolbox.engines, toolbox.records, settings)
        yield Bench(docker, sandbox, toolbox)


async def test_a_call_runs_on_the_first_engine_where_something_waits_for_it_and_else_on_the_next(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.docker.waiting = 1
        assert [await made.call() for _ in range(3)] == ["docker", "sandbox", "sandbox"]
        assert made.sandbox.ran == [IMAGE, IMAGE]
        assert [claim.went for claim in made.docker.claims] == [[], ["elsewhere"], ["elsewhere"]]
        passed_over = [record.about.passed_over for record in made.toolbox.records.entries()]
        assert passed_over == [*([(("docker", "nothing waited for the call"),)] * 2), ()]
        assert made.choices() == [
            "sandbox instead of docker, where nothing waited for the call",
            "sandbox instead of docker, where nothing waited for the call",
            "docker: the first that can run it",
        ]
        line = 'praxis_calls_spilled_total{tool="t",engine="sandbox",instead_of="docker"} 2'
        assert line in render(made.toolbox, {}, "1").splitlines()


async def test_a_call_that_runs_elsewhere_is_recorded_so_at_once_and_is_demand_of_the_first_engine_until_its_end(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, records=tmp_path / "records") as made:
        begun = anyio.Event()

        class Lasting(StandingIn):
            async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
                begun.set()
                await anyio.sleep_forever()
                raise AssertionError

        runner = made.runner_over(made.docker, Lasting())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run, tool(), {})
            with anyio.fail_after(30):
                await begun.wait()
            assert [claim.is_over for claim in made.docker.claims] == [False]
            await until(lambda: stored(tmp_path / "records") == [("sandbox", None)])
            tasks.cancel_scope.cancel()
        assert ("t", "sandbox", "cancelled") in runner.tally.ended


async def test_with_the_setting_off_every_call_waits_for_the_first_engine(tmp_path: Path) -> None:
    async with bench(tmp_path, spill=False) as made:
        assert await made.call() == "docker"
        assert made.choices() == [
            "docker: the first that can run it; nothing waited for the call, and engines.spill is false"
        ]


async def test_a_contract_that_names_its_engine_keeps_to_it(tmp_path: Path) -> None:
    named = {"name": "t", "engine": "docker", "engine_spec": {"image": "busybox:1.36", "command": ["true"]}}
    async with bench(tmp_path) as made:
        assert await made.call(ToolContract.model_validate(named)) == "docker"
        assert "no other engine may run it" in made.choices()[0]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"network": "bridge"}, "network: bridge"),
        ({"network": "host"}, "network: host"),
        ({"cache_dirs": ["/cache"]}, "cache_dirs"),
        ({"privileged": True}, "privileged"),
        ({"drop_capabilities": False}, "drop_capabilities: false"),
        ({"read_only": False}, "read_only: false"),
        ({"user": "1000:1000"}, "its user"),
    ],
)
async def test_what_another_engine_would_do_differently_stays(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    async with bench(tmp_path) as made:
        assert await made.call(tool(**fields)) == "docker"
        assert f"another engine would run it differently ({named})" in made.choices()[0]
        assert made.sandbox.taken == []


async def test_what_the_engine_that_would_stand_in_does_differently_here_stays_too(tmp_path: Path) -> None:
    mounts = {str(tmp_path): "/work"}
    async with bench(tmp_path) as made:
        assert await made.call(tool(mounts=mounts)) == "sandbox"
        made.sandbox.differs = ("mounts, in some way", "something else")
        assert await made.call(tool(mounts=mounts)) == "docker"
        assert "run it differently (mounts, in some way, something else)" in made.choices()[0]
        assert made.sandbox.taken == []


async def test_a_demand_that_the_other_engine_cannot_enforce_stays(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.sandbox.lacks = frozenset({Capability.MEMORY_LIMIT})
        assert await made.call() == "sandbox"
        assert await made.call(tool(memory_limit="64Mi")) == "docker"
        assert "sandbox cannot enforce memory_limit" in made.choices()[0]


async def test_an_engine_that_does_not_bound_processes_as_the_first_does_takes_no_call_without_a_limit(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.sandbox.default_pids = None
        assert await made.call() == "docker"
        assert "sandbox cannot bound its processes" in made.choices()[0]
        assert await made.call(tool(pids_limit=50)) == "sandbox"


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (None, "does not say which image"),
        (PinnedImage("busybox:1.36", IMAGE.id, IMAGE.digest, user="nobody"), "the image's own user"),
        (PinnedImage("busybox:1.36", IMAGE.id, IMAGE.digest, has_volumes=True), "the image's volumes"),
    ],
)
async def test_an_image_that_would_run_differently_stays(tmp_path: Path, image: PinnedImage | None, why: str) -> None:
    async with bench(tmp_path) as made:
        made.docker.image = image
        assert await made.call() == "docker"
        assert why in made.choices()[0]


async def test_an_image_that_is_not_there_stays_and_is_taken(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.sandbox.has.clear()
        assert await made.call() == "docker"
        assert "sandbox does not have its image (busybox@sha256:2" in made.choices()[0]
        assert made.sandbox.taken == [IMAGE.id]
        made.sandbox.has.add(IMAGE.id)
        assert await made.call() == "sandbox"


async def test_a_name_that_means_another_image_now_stays_until_that_one_is_there(tmp_path: Path) -> None:
    other = PinnedImage("busybox:1.36", f"sha256:{'3' * 64}", f"sha256:{'3' * 64}")
    async with bench(tmp_path) as made:
        assert await made.call() == "sandbox"
        made.docker.image = other
        assert await made.call() == "docker"
        made.sandbox.has.add(other.id)
        assert await made.call() == "sandbox"
        assert made.sandbox.ran[-1] == other


async def test_a_daemon_that_does_not_say_its_image_in_time_keeps_its_call(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.docker.hangs = True
        assert await made.call() == "docker"


@pytest.mark.parametrize(
    "error",
    [ImageError("removed just now"), EngineUnavailable("gone"), LimitUnsupported("no group"), NotBegun("no namespace")],
)
async def test_where_the_other_engine_cannot_begin_the_first_one_runs_the_call(
    tmp_path: Path, error: ExecutionError
) -> None:
    async with bench(tmp_path) as made:
        made.sandbox.fails_with = error
        assert await made.call(tool(artifacts=["/out/*"])) == "docker"
        assert "sandbox could not stand in for it" in made.choices()[0]
        made.sandbox.fails_with = None
        assert await made.call() == "docker"  # and is not asked again at once
        assert "sandbox has failed just now" in made.choices()[0]
        assert await made.call(tool(name="another")) == "sandbox"
        assert made.runner.tally.spilled == {("another", "sandbox", "docker"): 1}


async def test_a_tool_that_fails_there_is_not_run_a_second_time(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.sandbox.fails_with = ExecutionError("its sandbox ended before the call did")
        with pytest.raises(ExecutionError, match="before the call did"):
            await made.call()
        assert made.docker.plans == []


async def test_explain_says_where_a_call_would_go_and_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "contract.json").write_text(
        json.dumps({"name": "t", "description": "T.", "image": "busybox:1.36", "command": ["true"]})
    )
    async with bench(tmp_path, tools=(tmp_path / "t",)) as made:
        found = await made.runner.explain("t", {})
        assert (found.decision.engine, found.standby.engine, found.standby.image) == ("docker", "sandbox", IMAGE)
        made.sandbox.has.clear()
        for _ in range(3):
            found = await made.runner.explain("t", {})
        assert (found.standby.engine, made.sandbox.taken) == (None, [])
        assert "sandbox does not have its image" in found.standby.reason


async def test_an_engine_of_another_package_that_knows_nothing_of_this_keeps_its_calls_and_takes_none(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        for engines in ((AnsweringEngine(), made.sandbox), (made.docker, AnsweringEngine())):
            assert (await made.runner_over(*engines).run(tool(), {})).engine != "sandbox"
        assert made.sandbox.ran == []
