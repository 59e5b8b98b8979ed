"""What API servers do that are away, busy, slow or strange, against the client's requests."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import anyio
import anyio.abc
import pytest

from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.settings.kubernetes import KubernetesSettings
from tests.kit.until import WITHIN

pytestmark = pytest.mark.anyio


async def test_a_request_that_is_cancelled_while_tls_begins_leaves_no_connection(tmp_path: Path) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def never_answers(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            begun.set()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            ended.set()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, never_answers)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        cluster = await Cluster.connect(
            KubernetesSettings(kubeconfig=kubeconfig(tmp_path, f"https://127.0.0.1:{port}"))
        )
        gc.disable()  # it would close what is left
        try:
            async with anyio.create_task_group() as calls:
                calls.start_soon(cluster.get, "/version")
                await begun.wait()
                calls.cancel_scope.cancel()
            with anyio.fail_after(WITHIN):
                await ended.wait()
        finally:
            gc.enable()
        await cluster.close()
        tasks.cancel_scope.cancel()


def kubeconfig(place: Path, server: str) -> Path:
    """A configuration for a server that nobody has checked."""
    path = place / "kubeconfig"
    named = {"name": "it"}
    found = {
        "clusters": [{**named, "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{**named, "user": {"token": "token"}}],
        "contexts": [{**named, "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    path.write_text(json.dumps(found))
    return path
