"""The chart, installed on a cluster: two servers with one database behind them, and a real client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.objects import namespace
from tests.deploy.charts import AUTH, CHART, TOKEN, helm
from tests.deploy.server_image import run, server_image
from tests.kit.postgres import PostgresServer, running_server
from tests.kit.until import until
from tests.serving.clients import LIMIT, text_of
from tests.serving.http_server import http_client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.helm,
    pytest.mark.kubernetes,
    pytest.mark.docker,
    pytest.mark.postgres,
    pytest.mark.timeout(1500),
]

ROLLED_OUT = 300.0
"""Seconds within which Pods are replaced, and a ConfigMap reaches them, on a busy machine."""
LEAVES = "head -c 200000 /dev/zero | tr '\\0' y; printf whole >$PRAXIS_OUTPUT_DIR/report.txt"


def contract(name: str, script: str, more: str = "") -> str:
    return (
        f"name: {name}\ndescription: Test tool {name}.\nengine: local\nnetwork: host\n"
        f"command: [sh, -c, {script!r}]\n{more}"
    )


TOOLS = {
    "left.contract.yaml": contract("left", LEAVES, 'artifacts: ["/out/*.txt"]\n'),
    "slow.contract.yaml": contract("slow", "echo begun; sleep 8; hostname"),
}


@contextmanager
def database_for(network: IPv4Network) -> Iterator[str]:
    """The URL of a database that Pods of that network reach."""
    with running_server() as server:
        address = str(network[254])  # the host's own, in the network of the cluster
        rules = server.place / "rules"
        whole = network.supernet(new_prefix=15)
        rules.write_text(f"local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all {whole} trust\n")
        server.configure(f"listen_addresses = '127.0.0.1,{address}'\nhba_file = '{rules}'\n")
        _restart(server)
        name = server.database().partition("?")[0].rpartition("/")[2]
        yield f"postgresql://praxis@{address}:{server.port}/{name}?sslmode=disable"


def _restart(server: PostgresServer) -> None:
    server.stop()
    server.start()


def pods_of(api: Api, where: str) -> list[dict[str, Any]]:
    """Those that are ready and do not end."""
    found = api.get(f"/api/v1/namespaces/{where}/pods")["items"]
    return [
        pod
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    ]


@asynccontextmanager
async def client_of(pod: dict[str, Any], **options: Any) -> AsyncIterator[Client]:
    async with http_client(TOKEN) as http:
        line = streamable_http_client(f"http://{pod['status']['podIP']}:8000/mcp", http_client=http)
        async with Client(line, read_timeout_seconds=LIMIT, **options) as client:
            yield client


async def loaded_image(cluster: Cluster, place: Path) -> dict[str, str]:
    """Have the server's image on every node; the chart's value that names it."""
    reference = await anyio.to_thread.run_sync(server_image)
    archive = place / "image.tar"
    await anyio.to_thread.run_sync(run, "docker", "save", "--output", str(archive), reference)
    await anyio.to_thread.run_sync(cluster.load, archive)
    repository, _, tag = reference.partition(":")
    return {"repository": f"docker.io/library/{repository}", "tag": tag, "pullPolicy": "Never"}


def helm_on(cluster: Cluster, where: str, word: str, values: dict[str, Any] | None, place: Path) -> None:
    """Install, upgrade or, without values, uninstall the chart in a namespace."""
    words = (word, "x", *([] if values is None else [str(CHART)]), "--namespace", where)
    done = helm(*words, values=values, place=place, kubeconfig=cluster.kubeconfig)
    assert done.returncode == 0, done.stderr


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("channel", ["forward", "direct"])
async def test_a_server_on_the_cluster_runs_its_tools_in_pods_of_another_namespace(
    channel: str, kubernetes_cluster: Cluster, stand_in_images: dict[str, str], tmp_path: Path
) -> None:
    """With the token that the chart gives it, and no more rights than that has; and the policies let it through, which
    the cluster's network does not enforce."""
    cluster = kubernetes_cluster
    image = await loaded_image(cluster, tmp_path)
    busybox = await anyio.to_thread.run_sync(cluster.load_stand_in, "busybox:latest")
    tool = f"name: where\ndescription: Says where it is.\nimage: {busybox}\ncommand: [hostname]\n"
    with cluster.api() as api, namespace(api) as where, namespace(api) as elsewhere:
        values = {
            "auth": AUTH,
            "image": image,
            "resources": {},
            "kubernetes": {
                "enabled": True,
                "namespace": elsewhere,
                "settings": {"start_timeout": ROLLED_OUT, "channel": channel},
            },
            "tools": {"inline": {"where.contract.yaml": tool}},
        }
        await anyio.to_thread.run_sync(helm_on, cluster, where, "install", values, tmp_path)
        with _explained(api, where):
            await until(lambda: pods_of(api, where), within=ROLLED_OUT, every=0.5)
        (server,) = pods_of(api, where)
        async with client_of(server) as client:
            told = text_of(await client.call_tool("where", {}))
        assert told.startswith("praxis-mcp-where-"), told
        leases = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{elsewhere}/leases")["items"]
        assert len(leases) == 1
        next_pods = await until(lambda: api.get(f"/api/v1/namespaces/{elsewhere}/pods")["items"], every=0.5)
        networking = f"/apis/networking.k8s.io/v1/namespaces/{elsewhere}/networkpolicies"
        policy = api.get(f"{networking}/x-praxis-mcp-tools")["spec"]
        assert all(selects(policy["podSelector"], pod["metadata"]["labels"]) for pod in next_pods)
        lets_in = [
            source
            for rule in policy.get("ingress", ())
            for source in rule["from"]
            if selects(source["namespaceSelector"], api.get(f"/api/v1/namespaces/{where}")["metadata"]["labels"])
            and selects(source["podSelector"], server["metadata"]["labels"])
        ]
        assert len(lets_in) == (channel == "direct")
        # Asked to end, it removes all that it had made; uninstalled, it has lost the right to, and the cluster does it.
        if channel == "forward":
            api.delete(f"/apis/apps/v1/namespaces/{where}/deployments/x-praxis-mcp")
        else:
            await anyio.to_thread.run_sync(helm_on, cluster, where, "uninstall", None, tmp_path)

        def left() -> list[str]:
            ours = {"labelSelector": "app.kubernetes.io/managed-by=praxis-mcp"}
            paths = [f"/apis/coordination.k8s.io/v1/namespaces/{elsewhere}/leases"]
            paths += [f"/api/v1/namespaces/{elsewhere}/{kind}" for kind in ("configmaps", "pods")]
            return [item["metadata"]["name"] for path in paths for item in api.get(path, **ours)["items"]]

        await until(lambda: not left(), within=ROLLED_OUT, every=0.5)


async def test_two_servers_share_what_they_do_lose_no_call_when_one_ends_and_take_up_new_tools(
    kubernetes_cluster: Cluster, stand_in_images: dict[str, str], tmp_path: Path
) -> None:
    cluster = kubernetes_cluster
    image = await loaded_image(cluster, tmp_path)
    with cluster.api() as api, namespace(api) as where, database_for(cluster.network) as url:
        values: dict[str, Any] = {
            "replicaCount": 2,
            "auth": AUTH,
            "image": image,
            "records": {"url": url},
            "settings": {"engines": {"local": {"sandbox": "off"}}},
            "resources": {},
            "drainDelay": 1,
            "tools": {"inline": TOOLS},
        }

        def apply(word: str) -> None:
            helm_on(cluster, where, word, values, tmp_path)

        await anyio.to_thread.run_sync(apply, "install")
        with _explained(api, where):
            await until(lambda: len(pods_of(api, where)) == 2, within=ROLLED_OUT, every=0.5)
        one, two = pods_of(api, where)
        async with client_of(one) as client:
            links = [
                block.uri for block in (await client.call_tool("left", {})).content if block.type == "resource_link"
            ]
        async with client_of(two) as client:

            async def read() -> list[Any] | None:
                try:
                    return [(await client.read_resource(uri)).contents[0] for uri in links]
                except MCPError:  # a busy server answers before the database has all of it
                    return None

            texts = await until(read, every=0.5)
            assert texts is not None
        assert {text.text for text in texts[1:]} == {"whole"}
        assert len(texts[0].text) > 100_000

        names: list[str] = []

        async def call_slowly() -> None:
            async with client_of(one, mode="legacy") as client:
                names.append(text_of(await client.call_tool("slow", {}, progress_callback=hear)))

        begun = anyio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_slowly)
            with anyio.fail_after(LIMIT):
                await begun.wait()
            api.delete(f"/api/v1/namespaces/{where}/pods/{one['metadata']['name']}")
            await until(lambda: one["metadata"]["name"] not in {pod["metadata"]["name"] for pod in pods_of(api, where)})
        assert names == [f"begun\n{one['metadata']['name']}\n"]

        values["tools"]["inline"] = {**TOOLS, "new.contract.yaml": contract("new", "echo new")}
        await anyio.to_thread.run_sync(apply, "upgrade")
        async with client_of(two) as client:

            async def has_it() -> bool:
                return "new" in [tool.name for tool in (await client.list_tools()).tools]

            await until(has_it, within=ROLLED_OUT, every=1.0)
            assert text_of(await client.call_tool("new", {})) == "new\n"


@contextmanager
def _explained(api: Api, where: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as exc:
        events = [item["message"] for item in api.get(f"/api/v1/namespaces/{where}/events")["items"]]
        logs = []
        for pod in api.get(f"/api/v1/namespaces/{where}/pods")["items"]:
            with contextlib.suppress(Exception):
                logs.append(api.text(f"/api/v1/namespaces/{where}/pods/{pod['metadata']['name']}/log", tailLines="20"))
        raise AssertionError("\n".join([*events, *logs])) from exc
