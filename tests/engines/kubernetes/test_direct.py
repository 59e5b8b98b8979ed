"""Connections to the pods' addresses: what is reached, and what is said where nothing is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.init.waiter import Waiter
from praxis_mcp.engines.kubernetes import reach
from praxis_mcp.engines.kubernetes.direct import DirectChannel, address_of
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.rights import needed_rights, role
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import praxis_init_path
from tests.cluster.cluster import Cluster
from tests.cluster.objects import account, namespace
from tests.engines.kubernetes.case import engine_settings
from tests.engines.kubernetes.doubled import doubled
from tests.kit.contracts import write_contract
from tests.kit.ports import is_bindable
from tests.kubernetes_double import KubernetesDouble
from tests.native.harness import PATIENCE
from tests.native.waiting import SECRET, listening

pytestmark = pytest.mark.anyio


@pytest.mark.native
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_pods_address_of_either_family_is_connected_to(address: str) -> None:
    if not is_bindable(address):
        pytest.skip("no IPv6 here")
    binary = praxis_init_path()
    assert binary is not None
    host = f"[{address}]" if ":" in address else address
    with listening(binary, host=host) as (process, port):
        waiter = Waiter(await DirectChannel.to(address_of({"status": {"podIP": address}}), port), SECRET)
        with anyio.fail_after(PATIENCE):
            await waiter.greet()
        assert waiter.is_waiting()
        await waiter.aclose()
        assert process.wait(PATIENCE) == 0


async def test_an_address_at_which_nobody_listens_is_an_error_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await DirectChannel.to("127.0.0.1", held.getsockname()[1])


async def test_a_connection_that_is_not_answered_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("praxis_mcp.engines.kubernetes.direct.DIRECT_CONNECT_TIMEOUT", 0.3)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # beyond its backlog, the kernel answers nobody
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        with anyio.fail_after(PATIENCE), pytest.raises(TimeoutError, match="does not answer"):
            await DirectChannel.to(*full.getsockname())


@pytest.mark.native
async def test_a_call_from_a_host_that_does_not_reach_pods_fails_in_time_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "DIRECT_REACH_TIMEOUT", 0.3)
    async with doubled(tmp_path, channel="direct") as found:
        begin = time.monotonic()
        with pytest.raises(EngineUnavailable, match="could not be reached from this host") as caught:
            await found.call()  # the double's pods have no address
        assert time.monotonic() - begin < PATIENCE
        assert caught.value.remedy is not None
        assert "channel: forward" in caught.value.remedy


@pytest.mark.kubernetes
@pytest.mark.native
@pytest.mark.timeout(600)
async def test_a_server_without_the_right_to_forward_ports_runs_calls(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        rules = yaml.safe_load(role(where, needed_rights(KubernetesSettings(channel="direct"))))["rules"]
        kubeconfig = account(kubernetes_cluster, api, where, rules)
        options: Any = {"kubernetes": engine_settings(kubeconfig=kubeconfig, namespace=where, channel="direct")}
        async with KubernetesExecutionEngine(Settings(root=tmp_path, engines=options)) as engine:
            status = await engine.probe()
            assert status.available, status.detail
            assert "not encrypted" in status.detail
            image = kubernetes_cluster.load_stand_in("busybox:latest")
            contract = ToolContract.create_dagger_tool("hello", image, ["env"])
            output = (await engine.execute(contract, {})).output
            assert "PATH=" in output
            assert "PRAXIS_POD_ADDRESS" not in output


@pytest.mark.native
async def test_the_server_and_explain_warn_of_a_channel_that_is_not_encrypted(tmp_path: Path) -> None:
    write_contract(tmp_path / "tools", "hi", engine="kubernetes", image="busybox:1.36", command=["echo", "hi"])

    async def praxis_mcp(*words: str, channel: str, kubeconfig: Path) -> str:
        kubernetes = json.dumps({"kubeconfig": str(kubeconfig), "channel": channel})
        environment = {**os.environ, "PRAXIS_ENGINES__KUBERNETES": kubernetes, "COLUMNS": "300", "NO_COLOR": "1"}
        command = [sys.executable, "-m", "praxis_mcp", *words]
        with anyio.fail_after(PATIENCE):
            done = await anyio.run_process(command, cwd=tmp_path, env=environment, input=b"", check=False)
        return " ".join((done.stdout + done.stderr).decode().split())

    async with KubernetesDouble(tmp_path) as double:
        for words in (["explain", "hi"], ["serve"]):
            said = [
                await praxis_mcp(*words, channel=way, kubeconfig=double.kubeconfig) for way in ("forward", "direct")
            ]
            assert ["not encrypted" in text for text in said] == [False, True], said
