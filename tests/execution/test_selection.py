"""Refuse or route, never ignore."""

from __future__ import annotations

from typing import Any, ClassVar

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import EngineStatus
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import EngineUnavailable, LimitUnsupported
from praxis_mcp.execution import selection
from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Capability, Plan
from praxis_mcp.settings.model import Settings
from tests.execution.engines import AnsweringEngine, Engines

pytestmark = pytest.mark.anyio

NO_MEMORY_LIMIT = frozenset({Capability.MEMORY_LIMIT})


def plan(order: tuple[str, ...] = ("dagger", "docker"), **fields: Any) -> Plan:
    settings = Settings.model_validate({"engines": {"order": order}})
    return build_plan(ToolContract.create_dagger_tool("t", "image", ["x"], **fields), {}, settings)


async def test_the_first_engine_of_the_order_that_is_there_runs_it() -> None:
    selector = EngineSelector(Engines(dagger=AnsweringEngine(), docker=AnsweringEngine()))
    assert (await selector.choose(plan())).engine == "dagger"
    assert (await selector.choose(plan(("docker", "dagger")))).engine == "docker"


async def test_a_missing_engine_is_passed_over_with_the_reason() -> None:
    selector = EngineSelector(Engines(dagger=AnsweringEngine(available=False), docker=AnsweringEngine()))
    decision = await selector.choose(plan())
    assert decision.engine == "docker"
    assert [(item.engine, item.reason) for item in decision.passed_over] == [("dagger", "is switched off")]


async def test_a_limit_that_the_first_engine_cannot_enforce_goes_to_one_that_can() -> None:
    selector = EngineSelector(Engines(dagger=AnsweringEngine(lacks=NO_MEMORY_LIMIT), docker=AnsweringEngine()))
    assert (await selector.choose(plan())).engine == "dagger"
    decision = await selector.choose(plan(memory_limit="64Mi"))
    assert decision.engine == "docker"
    assert "memory_limit" in decision.passed_over[0].reason


async def test_a_limit_that_no_engine_can_enforce_is_refused() -> None:
    selector = EngineSelector(Engines(dagger=AnsweringEngine(lacks=NO_MEMORY_LIMIT)))
    with pytest.raises(LimitUnsupported, match="memory_limit"):
        await selector.choose(plan(("dagger",), memory_limit="64Mi"))


async def test_a_network_that_the_only_engine_there_lacks_may_not_be_needed_says_the_remedy() -> None:
    lacking = AnsweringEngine(lacks=frozenset({Capability.NETWORK_BRIDGE}))
    selector = EngineSelector(Engines(dagger=AnsweringEngine(available=False), docker=lacking))
    with pytest.raises(LimitUnsupported) as caught:
        await selector.choose(plan(network="bridge"))
    assert caught.value.remedy is not None
    assert "- dagger: Wait.\n- docker: Write network: none in the contract" in caught.value.remedy


async def test_with_no_engine_available_the_error_names_each_and_its_remedy() -> None:
    engines = Engines(dagger=AnsweringEngine(available=False), docker=AnsweringEngine(available=False))
    with pytest.raises(EngineUnavailable) as caught:
        await EngineSelector(engines).choose(plan())
    assert "dagger: is switched off; docker: is switched off" in caught.value.message
    assert caught.value.remedy == "Wait."


async def test_engines_that_are_missing_for_several_reasons_have_a_remedy_each_and_one_is_enough() -> None:
    engines = Engines(
        dagger=AnsweringEngine(available=False, remedy="Install dagger."),
        docker=AnsweringEngine(available=False, remedy="Start Docker."),
    )
    with pytest.raises(EngineUnavailable) as caught:
        await EngineSelector(engines).choose(plan())
    assert caught.value.remedy == "One of these is enough:\n- dagger: Install dagger.\n- docker: Start Docker."


async def test_nobody_is_sent_to_install_an_engine_that_could_not_enforce_what_the_contract_demands() -> None:
    class Unlimited(AnsweringEngine):
        never: ClassVar[frozenset[Capability]] = NO_MEMORY_LIMIT

    dagger = Unlimited(available=False, remedy="Install dagger.")
    selector = EngineSelector(Engines(dagger=dagger, docker=AnsweringEngine(available=False, remedy="Start Docker.")))
    with pytest.raises(EngineUnavailable) as caught:
        await selector.choose(plan(memory_limit="64Mi"))
    assert "dagger: cannot enforce memory_limit; docker: is switched off" in caught.value.message
    assert caught.value.remedy == "Start Docker."


async def test_what_an_engine_never_enforces_is_nothing_that_it_does_enforce_here() -> None:
    registry = EngineRegistry(Settings())
    assert registry.get("dagger").never >= NO_MEMORY_LIMIT
    for name in registry.names():
        engine = registry.get(name)
        if engine.never and ((await engine.probe()).available or name == "dagger"):
            assert not engine.never & (await engine.get_capabilities()).enforces, name
    await registry.cleanup()


async def test_an_engine_is_probed_once_until_it_fails() -> None:
    engine = AnsweringEngine()
    selector = EngineSelector(Engines(dagger=engine))
    for _ in range(3):
        await selector.choose(plan(("dagger",)))
    assert engine.probes == 1
    selector.forget("dagger")
    await selector.choose(plan(("dagger",)))
    assert engine.probes == 2


class BusyEngine(AnsweringEngine):
    """Gives no answer in time to the first so many probes."""

    silent_probes = 0

    async def probe(self) -> EngineStatus:
        status = await super().probe()
        if self.probes > self.silent_probes:
            return status
        return EngineStatus(self.name, available=False, detail="did not answer within 3 s", silent=True)


async def test_the_only_engine_is_asked_again_while_it_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ABSENCE_KEPT", 0.05)
    busy, missing = BusyEngine(), AnsweringEngine(available=False)
    busy.silent_probes = 2
    selector = EngineSelector(Engines(dagger=missing, docker=busy))
    with anyio.fail_after(30):
        assert (await selector.choose(plan())).engine == "docker"
    assert busy.probes == 3


async def test_no_call_waits_for_an_engine_that_gives_no_answer_where_another_can_run_it() -> None:
    busy = BusyEngine()
    busy.silent_probes = 1
    selector = EngineSelector(Engines(dagger=busy, docker=AnsweringEngine()))
    assert (await selector.choose(plan())).engine == "docker"
    assert busy.probes == 1


async def test_an_engine_that_never_answers_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ABSENCE_KEPT", 0.05)
    monkeypatch.setattr(selection, "SILENCE_BORNE", 1.0)
    busy = BusyEngine()
    busy.silent_probes = 1000
    selector = EngineSelector(Engines(docker=busy))
    with anyio.fail_after(30), pytest.raises(EngineUnavailable, match="did not answer within 3 s"):
        await selector.choose(plan(("docker",)))
    assert busy.probes > 1


async def test_a_contract_that_insists_on_docker_gets_nothing_else() -> None:
    contract = ToolContract.model_validate(
        {"name": "t", "engine": "docker", "engine_spec": {"image": "image", "command": ["x"]}}
    )
    insisting = build_plan(contract, {}, Settings())
    selector = EngineSelector(Engines(dagger=AnsweringEngine(), docker=AnsweringEngine(available=False)))
    with pytest.raises(EngineUnavailable):
        await selector.choose(insisting)
