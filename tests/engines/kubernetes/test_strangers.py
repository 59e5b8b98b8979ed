"""What somebody else may make in the namespace, without a right to change what this server has made: nothing of it is
taken for this server's, and nothing of it keeps the server from its work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.engines.kubernetes import client, lease
from praxis_mcp.engines.kubernetes.sandboxes import SANDBOX_NOTE
from praxis_mcp.errors import ExecutionError
from tests.agent_sandbox import SERVED
from tests.engines.kubernetes.doubled import Doubled, doubled
from tests.kubernetes_double import Answer, Asked

pytestmark = [pytest.mark.anyio, pytest.mark.native]

OURS = {"app.kubernetes.io/managed-by": "praxis-mcp"}


def before(on: Doubled, verb: str, resource: str, change: Callable[[Asked], object]) -> None:
    """Have something done just before the first request of a kind."""
    left = [change]

    def answer(asked: Asked) -> Answer | None:
        if (asked.verb, asked.resource) == (verb, resource) and left:
            left.pop()(asked)
        return None

    on.double.on_request = answer


async def test_a_config_map_with_our_name_and_another_content_reaches_no_pod(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:

        def poison(asked: Asked) -> None:
            on.double.store.create("configmaps", {**asked.body, "binaryData": {"praxis-init": "ZXZpbA=="}})

        before(on, "create", "configmaps", poison)
        with pytest.raises(ExecutionError, match="another content") as caught:
            await on.call()
        assert "kubectl delete configmap" in str(caught.value.remedy)
        assert not on.double.pods
        (name,) = on.double.store.names("configmaps")
        on.double.delete("configmaps", name.partition("/")[2])
        assert await on.call() == "hello\n"


async def test_a_config_map_of_ours_whose_answer_was_lost_is_used(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:
        before(on, "create", "configmaps", lambda asked: on.double.store.create("configmaps", asked.body))
        assert await on.call() == "hello\n"


async def test_a_pod_that_has_the_name_of_one_that_was_removed_gets_no_call(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:
        store = on.double.store

        def replace(asked: Asked) -> None:
            found = store.get("pods", asked.name)
            store.remove("pods", asked.name)
            store.create("pods", found)

        before(on, "get", "pods/portforward", replace)
        assert await on.call() == "hello\n"
        assert len(on.double.pods) == 2


async def test_leases_of_strangers_hide_none_of_servers_however_large_and_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with doubled(tmp_path) as on:
        on.double.serves = dict(SERVED)
        assert await on.call() == "hello\n"
        monkeypatch.setattr(client, "MAX_API_ANSWER", 100_000)  # of which each has a tenth
        for number in range(40):
            annotations = {SANDBOX_NOTE: "\x1b[2J" + "x" * 9_000}
            metadata = {"name": f"stranger-{number}", "labels": OURS, "annotations": annotations}
            on.double.store.create("leases", {"metadata": metadata, "spec": {"leaseDurationSeconds": 30}})
        dead: dict[str, Any] = {"metadata": {"name": "zz-dead", "labels": OURS}, "spec": {"leaseDurationSeconds": 30}}
        on.double.store.create("leases", dead)
        status = await on.engine.probe()
        assert status.available
        assert len(status.detail) < 10_000
        assert "\x1b" not in status.detail
        watchman = on.engine._lease
        assert watchman is not None
        clock = [0.0]
        monkeypatch.setattr(watchman._watchman, "_clock", lambda: clock[0])
        removed: tuple[str, ...] = ()
        while "zz-dead" not in removed:
            removed = await on.engine.reap()
            clock[0] += lease.LEASE_SECONDS / 2
            assert clock[0] < 10 * lease.LEASE_SECONDS
