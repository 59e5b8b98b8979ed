"""Pods that agent-sandbox makes, on the double of the API: how they are claimed, and what takes their place when
something is not as it should be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes import sandboxes
from praxis_mcp.errors import EngineUnavailable, ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.kubernetes import KubernetesSettings
from tests.agent_sandbox import SERVED, FakeController
from tests.engines.kubernetes.doubled import Doubled, doubled, hello
from tests.kit.until import WITHIN, until
from tests.kubernetes_double import Answer, Asked

pytestmark = [pytest.mark.anyio, pytest.mark.native]

Object = dict[str, Any]


@dataclass
class Sandboxed(Doubled):
    """An engine on a double that serves agent-sandbox, and its controller."""

    controller: FakeController

    @property
    def waiting(self) -> int:
        """How many pods wait for calls."""
        metrics = self.engine.warm()
        return 0 if metrics is None else metrics.waiting

    async def call_until_one_waits(self, contract: ToolContract | None = None) -> None:
        """Call, and wait until a pod waits for the next call."""
        assert await self.call(contract) == "hello\n"
        await until(lambda: self.waiting, what="a pod that waits")

    @property
    def waiting_pod(self) -> Object:
        """The pod that waits."""
        pool = self.engine._warm_pool
        assert pool is not None
        return self.double.store.get("pods", pool.waiting[0].pod.name)

    def created(self, resource: str) -> list[Object]:
        """What was made of a kind, as it was asked for."""
        return [dict(asked.body) for asked in self.double.asked if (asked.verb, asked.resource) == ("create", resource)]

    @property
    def held_pool(self) -> bool:
        """Whether there is a pool that claims can name."""
        return bool(self.double.store.names("sandboxwarmpools"))


@asynccontextmanager
async def sandboxed(place: Path, *, warm: Any = None, **options: Any) -> AsyncIterator[Sandboxed]:
    async with doubled(place, warm=warm or {"enabled": True}, empties=False, **options) as on:
        on.double.serves = dict(SERVED)
        async with FakeController(on.double.kubeconfig, "tools") as controller:
            yield Sandboxed(on.double, on.engine, controller)


def makers(pod: Object) -> list[str]:
    """The kinds of what owns a pod."""
    return [owner["kind"] for owner in pod["metadata"]["ownerReferences"]]


async def detail_of(on: Doubled) -> str:
    """What doctor says."""
    status = await on.engine.probe()
    assert status.available
    return status.detail


async def test_pods_that_wait_for_calls_are_claimed_and_each_claim_has_one_call(tmp_path: Path) -> None:
    async with sandboxed(tmp_path) as on:
        await on.call_until_one_waits()
        first = on.waiting_pod
        assert makers(first) == ["Sandbox"]
        assert await on.call() == "hello\n"
        await until(lambda: on.waiting and on.waiting_pod["metadata"]["name"] != first["metadata"]["name"])
        await until(lambda: f"pods/{first['metadata']['name']}" not in on.double.store.names("pods"))
        assert len(on.created("sandboxtemplates")) == len(on.created("sandboxwarmpools")) == 1
        assert "agent-sandbox makes the pods that wait" in await detail_of(on)


async def test_a_claim_says_when_it_ends_and_nothing_of_a_call(tmp_path: Path) -> None:
    async with sandboxed(tmp_path) as on:
        await on.call_until_one_waits(hello(env={"TOKEN": "canary"}, timeout=100.0))
        hold, claim, *_ = on.created("sandboxclaims")
        assert claim["spec"].keys() == {"warmPoolRef", "lifecycle"}
        lifecycle = claim["spec"]["lifecycle"]
        assert lifecycle["shutdownPolicy"] == "Delete"
        left = datetime.fromisoformat(lifecycle["shutdownTime"]) - datetime.now(UTC)
        assert timedelta(minutes=15) < left < timedelta(minutes=30)
        assert hold["spec"]["lifecycle"]["shutdownPolicy"] == "Delete"
        (template,) = on.created("sandboxtemplates")
        command = template["spec"]["podTemplate"]["spec"]["containers"][0]["command"]
        assert command[command.index("--caller") + 1] == command[command.index("--patience") + 1], (
            "it waits in its pool"
        )
        assert [owner["name"] for owner in claim["metadata"]["ownerReferences"]] == [hold["metadata"]["name"]]
        assert template["spec"]["envVarsInjectionPolicy"] == "Disallowed"
        assert template["spec"]["networkPolicyManagement"] == "Unmanaged"
        for kind in ("sandboxtemplates", "sandboxwarmpools", "sandboxclaims"):
            assert all("canary" not in str(body) for body in on.created(kind))


async def test_tools_have_a_template_each(tmp_path: Path) -> None:
    async with sandboxed(tmp_path) as on:
        await on.call_until_one_waits()
        await on.call(hello(memory_limit="64m"))
        await until(lambda: len(on.created("sandboxwarmpools")) == 2)
        await until(lambda: on.waiting == 2)


def without_groups(on: Sandboxed) -> None:
    on.double.serves = {}


def without_a_right(on: Sandboxed) -> None:
    def answer(asked: Asked) -> Answer | None:
        about = asked.body.get("spec", {}).get("resourceAttributes", {})
        if about.get("resource") == "sandboxclaims" and about["verb"] == "patch":
            return Answer(201, b'{"metadata": {}, "status": {"allowed": false}}')
        return None

    on.double.on_request = answer


def refusing(resource: str, status: int) -> Callable[[Sandboxed], None]:
    def prepare(on: Sandboxed) -> None:
        def answer(asked: Asked) -> Answer | None:
            if (asked.verb, asked.resource) == ("create", resource):
                return Answer.refusal(status, f"{resource} are refused")
            return None

        on.double.on_request = answer

    return prepare


def never_bound(on: Sandboxed) -> None:
    on.controller.binds = False


def changed(change: Callable[[Object], None]) -> Callable[[Sandboxed], None]:
    def prepare(on: Sandboxed) -> None:
        def on_pod(pod: Object) -> None:
            change(pod)

        on.controller.on_pod = on_pod

    return prepare


def another_image(pod: Object) -> None:
    pod["spec"]["containers"][0]["image"] = "evil:1"


def another_container(pod: Object) -> None:
    pod["spec"]["containers"].append({"name": "beside", "image": "evil:1"})


def the_nodes_network(pod: Object) -> None:
    pod["spec"]["hostNetwork"] = True


def no_labels(pod: Object) -> None:
    pod["metadata"]["labels"] = {}


def a_runtimes_annotation(pod: Object) -> None:
    pod["metadata"]["annotations"]["io.katacontainers.config.hypervisor.path"] = "/evil"


def another(on: Sandboxed) -> str:
    """The uid of something else."""
    return on.double.store.find("leases", {})[0]["metadata"]["uid"]


def anothers_pod(on: Sandboxed) -> None:
    on.controller.on_pod = lambda pod: pod["metadata"]["ownerReferences"][0].update(uid=another(on))


def anothers_sandbox(on: Sandboxed) -> None:
    on.controller.on_bound = lambda owner: owner.update(uid=another(on))


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        pytest.param(without_groups, "is not installed", id="not installed"),
        pytest.param(without_a_right, "may not patch sandboxclaims", id="a right is missing"),
        pytest.param(refusing("sandboxtemplates", 403), "sandboxtemplates are refused", id="no template"),
        pytest.param(refusing("sandboxwarmpools", 422), "sandboxwarmpools are refused", id="no pool"),
        pytest.param(refusing("sandboxclaims", 403), "sandboxclaims are refused", id="no claim"),
        pytest.param(refusing("sandboxclaims", 500), "sandboxclaims are refused", id="perhaps a claim"),
        pytest.param(never_bound, "given no pod within", id="never bound"),
        pytest.param(changed(another_image), "spec.containers[0].image", id="another image"),
        pytest.param(changed(another_container), "spec.containers[1]", id="another container"),
        pytest.param(changed(the_nodes_network), "spec.hostNetwork", id="the node's network"),
        pytest.param(changed(no_labels), "metadata.labels", id="no labels"),
        pytest.param(changed(a_runtimes_annotation), "metadata.annotations.io.kata", id="an annotation"),
        pytest.param(anothers_pod, "a pod that belongs to something else", id="another's pod"),
        pytest.param(anothers_sandbox, "a Sandbox that belongs to something else", id="another's sandbox"),
    ],
)
async def test_where_it_gives_no_pod_that_can_be_used_the_server_makes_one_and_doctor_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Sandboxed], None], why: str
) -> None:
    # A pool's pods have all the time that they need; a claim that nobody looks at need not have much.
    monkeypatch.setattr(sandboxes, "CLAIM_TIMEOUT", 0.5 if prepare is never_bound else WITHIN)
    async with sandboxed(tmp_path) as on:
        prepare(on)
        await on.call_until_one_waits()
        assert makers(on.waiting_pod) == ["Lease"]
        assert await on.call() == "hello\n"
        detail = await detail_of(on)
        assert "plain pods" in detail
        assert why in detail
        on.double.on_request = lambda asked: None


async def test_after_a_while_it_is_tried_again_and_doctor_says_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "USE_AGAIN_AFTER", 0.0)
    async with sandboxed(tmp_path) as on:
        refusing("sandboxclaims", 403)(on)
        await on.call_until_one_waits()
        assert "plain pods" in await detail_of(on)
        on.double.on_request = lambda asked: None
        await on.call()
        await until(lambda: on.waiting and makers(on.waiting_pod) == ["Sandbox"])

        async def says_no_more() -> bool:
            return "plain pods" not in await detail_of(on)

        await until(says_no_more)


async def test_a_claim_that_is_removed_in_mid_call_fails_the_call_which_is_not_repeated(tmp_path: Path) -> None:
    begun = anyio.Event()
    async with sandboxed(tmp_path) as on:
        words = f"echo >>{tmp_path}/ran; echo hello; test ! -e {tmp_path}/go || exec sleep 3600"
        endless = hello(command=["sh", "-c", words], timeout=3000.0)
        await on.call_until_one_waits(endless)
        assert makers(on.waiting_pod) == ["Sandbox"]
        (tmp_path / "go").touch()

        async def remove() -> None:
            await begun.wait()
            for name in on.double.store.names("sandboxclaims"):
                if "-hold-" not in name:
                    on.double.delete("sandboxclaims", name.partition("/")[2])

        with anyio.fail_after(2 * WITHIN):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(remove)
                plan = build_plan(endless, {}, on.engine.settings)
                context = ExecutionContext(on_output=lambda *_: begun.set())
                with pytest.raises(ExecutionError, match="may have run"):
                    await on.engine.run(plan, context)
        assert (tmp_path / "ran").read_text() == "\n\n"  # once in each call


async def test_a_pool_that_somebody_removes_is_made_again_for_the_next_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "CLAIM_TIMEOUT", WITHIN)
    async with sandboxed(tmp_path, agent_sandbox="require") as on:
        await on.call_until_one_waits()
        (pool,) = on.double.store.names("sandboxwarmpools")
        on.double.delete("sandboxwarmpools", pool.partition("/")[2])
        for _ in range(3):
            assert await on.call() == "hello\n"
        assert len(on.created("sandboxwarmpools")) == 2


async def test_a_pool_that_the_controller_has_not_seen_yet_is_claimed_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "CLAIM_TIMEOUT", WITHIN)  # it looks at that claim again in a minute
    async with sandboxed(tmp_path, agent_sandbox="require", warm={"enabled": False}) as on:
        on.controller.unseen = 1
        assert await on.call() == "hello\n"
        assert len(on.created("sandboxwarmpools")) == 1


async def test_a_pool_that_nobody_uses_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "TEND_EVERY", 0.1)
    monkeypatch.setattr("praxis_mcp.engines.kubernetes.lease.RENEW_EVERY", 0.1)
    async with sandboxed(tmp_path, warm={"enabled": True, "idle_seconds": 1.0}) as on:
        await on.call()
        await until(lambda: on.held_pool, what="a pool")
        await until(lambda: not on.double.store.names("sandboxwarmpools", "sandboxtemplates", "sandboxes"))


async def test_pools_of_a_server_that_is_gone_are_removed_by_the_controller_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "HOLD_FOR", 3.0)
    async with sandboxed(tmp_path) as on:
        await on.call()
        await until(lambda: on.held_pool, what="a pool")  # its claim is not renewed for a minute
        await until(lambda: not on.double.store.names("sandboxwarmpools", "sandboxtemplates"))


async def test_what_owns_the_pools_is_renewed_for_as_long_as_the_server_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "HOLD_FOR", 5.0)
    monkeypatch.setattr(sandboxes, "HOLD_EVERY", 0.5)
    monkeypatch.setattr(sandboxes, "TEND_EVERY", 0.1)
    async with sandboxed(tmp_path) as on:
        await on.call_until_one_waits()
        patched = [asked for asked in on.double.asked if asked.verb == "patch"]

        def renewals() -> int:
            hold = on.created("sandboxclaims")[0]["metadata"]["name"]
            return len([asked for asked in on.double.asked if (asked.verb, asked.name) == ("patch", hold)])

        before = renewals()
        await until(lambda: renewals() > before + 2, what=f"renewals; {len(patched)} patches were seen")


async def test_a_pod_that_has_waited_in_the_pool_waits_no_longer_for_a_call_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "CLAIM_TIMEOUT", 2 * WITHIN)
    old = (datetime.now(UTC) - timedelta(minutes=15)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with sandboxed(tmp_path) as on:
        on.controller.binds = False
        await on.call()

        def held() -> list[Object]:
            found = [pod for pod in on.double.store.find("pods", {}) if makers(pod) == ["Sandbox"]]
            return [pod for pod in found if pod["status"]["phase"] == "Running"]

        await until(lambda: len(held()) == sandboxes.POOL_REPLICAS)
        for pod in held():
            on.double.store.merge("pods", pod["metadata"]["name"], {"metadata": {"creationTimestamp": old}})
        on.controller.binds = True

        def discarded() -> bool:
            metrics = on.engine.warm()
            return metrics is not None and metrics.discarded > 0

        await until(discarded)


async def test_where_it_is_required_no_other_pod_runs(tmp_path: Path) -> None:
    async with sandboxed(tmp_path, agent_sandbox="require") as on:
        await on.call_until_one_waits()
        assert await on.call() == "hello\n"
        assert all(makers(body) == ["Sandbox"] for body in on.created("pods"))


async def test_where_it_is_required_and_gives_no_pod_the_call_fails_with_what_to_do(tmp_path: Path) -> None:
    async with sandboxed(tmp_path, agent_sandbox="require", warm={"enabled": False}) as on:
        refusing("sandboxclaims", 403)(on)
        with pytest.raises(EngineUnavailable, match="agent-sandbox gave no pod") as caught:
            await on.call()
        assert "agent_sandbox: auto" in str(caught.value.remedy)
        assert not on.created("pods")
        on.double.on_request = lambda asked: None
        on.double.serves = {}
        status = await on.engine.probe()
        assert not status.available
        assert "is not installed" in status.detail


async def test_where_the_settings_say_never_nobody_is_asked(tmp_path: Path) -> None:
    async with sandboxed(tmp_path, agent_sandbox="never") as on:
        await on.call_until_one_waits()
        assert makers(on.waiting_pod) == ["Lease"]
        mine = [asked for asked in on.double.asked if asked.target.startswith("/apis/agents") and not asked.name]
        assert not [asked for asked in mine if "namespaces" not in asked.target]
        assert "plain pods" not in await detail_of(on)


async def test_with_connections_to_the_pods_themselves_no_secret_is_shared(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="does not go with channel: direct"):
        KubernetesSettings(agent_sandbox="require", channel="direct")
    async with sandboxed(tmp_path, channel="direct") as on:
        assert "share one secret" in await detail_of(on)
