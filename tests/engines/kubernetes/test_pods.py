"""What happens to pods before their call: another takes their place, or the call fails with what helps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from praxis_mcp.engines.kubernetes import warm
from praxis_mcp.errors import ExecutionError, ExecutionTimeout, ImageError, LimitUnsupported
from tests.engines.kubernetes.doubled import doubled, hello
from tests.kubernetes_double import DoublePod

pytestmark = [pytest.mark.anyio, pytest.mark.native]

LOW = "The node was low on resource: memory."
Life = Callable[[DoublePod], Awaitable[None]]


def waits_for(reason: str, message: str = "") -> Life:
    """The life of a pod whose container never runs."""

    async def life(pod: DoublePod) -> None:
        pod.wait_for(reason, message)

    return life


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"]
)
async def test_an_image_that_no_node_gets_fails_the_call_at_once(tmp_path: Path, reason: str) -> None:
    async with doubled(tmp_path) as on:
        on.double.life = waits_for(reason, "pull access denied")
        with pytest.raises(ImageError, match=f"busybox:1.36 .{reason}: pull access denied") as caught:
            await on.call()
        assert "image_pull_secrets" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("reason", "message", "kind", "remedy"),
    [
        ("CreateContainerConfigError", "container has runAsNonRoot and image runs as root", LimitUnsupported, "user"),
        ("CreateContainerError", "context deadline exceeded", ExecutionError, "memory_limit"),
        ("RunContainerError", "no such file or directory", ExecutionError, "working directory"),
    ],
)
async def test_a_container_that_cannot_be_made_fails_the_call_at_once(
    tmp_path: Path, reason: str, message: str, kind: type[ExecutionError], remedy: str
) -> None:
    async with doubled(tmp_path) as on:
        on.double.life = waits_for(reason, message)
        with pytest.raises(kind, match=message) as caught:
            await on.call()
        assert remedy in str(caught.value.remedy)


async def test_a_pod_that_no_node_takes_fails_the_call_in_time_with_the_schedulers_reason(tmp_path: Path) -> None:
    async def life(pod: DoublePod) -> None:
        pod.report(phase="Pending", no_node="0/2 nodes are available: 2 Insufficient cpu.")

    async with doubled(tmp_path, start_timeout=1) as on:
        on.double.life = life
        with pytest.raises(ExecutionError, match=r"no node of the cluster takes its pod .*Insufficient cpu"):
            await on.call()


async def test_a_pod_that_does_not_start_fails_the_call_in_time(tmp_path: Path) -> None:
    async with doubled(tmp_path, start_timeout=1) as on:
        on.double.life = waits_for("ContainerCreating")
        with pytest.raises(ExecutionTimeout, match="within 1 s") as caught:
            await on.call()
        assert "start_timeout" in str(caught.value.remedy)


async def evicted(pod: DoublePod) -> None:
    pod.report(phase="Failed", reason="Evicted", message=LOW)


async def removed(pod: DoublePod) -> None:
    pod.wait_for("ContainerCreating")
    pod.delete()


async def ended(pod: DoublePod) -> None:
    pod.terminate(0)


@pytest.mark.parametrize("life", [evicted, removed, ended])
async def test_a_pod_that_is_lost_before_its_call_is_replaced_some_times(tmp_path: Path, life: Life) -> None:
    async with doubled(tmp_path) as on:

        async def first_are_lost(pod: DoublePod) -> None:
            await (life(pod) if len(on.double.pods) < warm.MOST_PODS else pod.live())

        on.double.life = first_are_lost
        assert await on.call() == "hello\n"
        assert len(on.double.pods) == warm.MOST_PODS
        on.double.life = life
        with pytest.raises(ExecutionError) as caught:
            await on.call()
        assert caught.value.remedy
        assert len(on.double.pods) == 2 * warm.MOST_PODS


async def test_memory_that_does_not_suffice_for_the_start_is_not_tried_again(tmp_path: Path) -> None:
    async def life(pod: DoublePod) -> None:
        pod.terminate(0, "OOMKilled")

    async with doubled(tmp_path) as on:
        on.double.life = life
        with pytest.raises(ExecutionError, match="OOMKilled") as caught:
            await on.call(hello(memory_limit="8m"))
        assert "memory_limit" in str(caught.value.remedy)
        assert len(on.double.pods) == 1
