"""The Helm chart: it renders, refuses what would be open to everyone, and is secure by default."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.engines.kubernetes.rights import SANDBOX_RIGHTS, needed_rights, role
from praxis_mcp.engines.kubernetes.spec import CHANNEL_PORT
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.settings.model import Settings
from tests.cluster.cluster import Cluster
from tests.cluster.objects import namespace
from tests.deploy.charts import AUTH, CHART, DATABASE, VALUES, helm, rendered

pytestmark = pytest.mark.helm
DOCS = Path(__file__).parents[2] / "docs/kubernetes.md"
PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
}


def by_kind(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in found}


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    done = helm("lint", "--strict", str(CHART), values=VALUES[name], place=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "Everyone who reaches the port could call every tool"),
        ({"auth": AUTH, "replicaCount": 2}, "Several servers need one database"),
        ({"auth": AUTH, "autoscaling": {"enabled": True}}, "Several servers need one database"),
        ({"auth": AUTH, "replicaCoun": 2}, "replicaCoun"),
        ({"auth": {"tokens": {"ci": {"sha256": "the token itself"}}}}, "sha256"),
        ({"auth": AUTH, "records": {"url": "mysql://db/records"}}, "records"),
        ({"auth": {"proxyAuthenticates": True}}, "every Pod of the cluster could call every tool"),
        (
            {"auth": AUTH, "settings": {"http": {"proxy_authenticates": True}}},
            "every Pod of the cluster could call every tool",
        ),
        (
            {
                "auth": {"proxyAuthenticates": True},
                "networkPolicy": {"enabled": False, "from": [{"podSelector": {}}]},
            },
            "every Pod of the cluster could call every tool",
        ),
        (
            {"auth": AUTH, "settings": {"http": {"auth": {"tokens": None}}}},
            "Everyone who reaches the port could call every tool",
        ),
        ({"auth": AUTH, "records": {"url": "postgresql://me:secret@db/records"}}, "would lie in a ConfigMap"),
        ({"auth": AUTH, "records": {"url": "postgresql://me@db/records?password=secret"}}, "would lie in a ConfigMap"),
        ({"auth": AUTH, "settings": {"records": {"url": "postgresql://me:secret@db/records"}}}, "lie in a ConfigMap"),
    ],
)
def test_what_would_be_open_to_everyone_or_cannot_work_is_refused(
    values: dict[str, Any], why: str, tmp_path: Path
) -> None:
    done = helm("template", "x", str(CHART), values=values, place=tmp_path)
    assert done.returncode == 1
    assert why in done.stderr


def texts(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the chart takes a text, as keys of its values."""
    for name, part in schema.get("properties", {}).items():
        if "string" in part.get("type", ()):
            yield (*path, name)
        yield from texts(part, (*path, name))


SCHEMA = json.loads((CHART / "values.schema.json").read_text())
EVERYTHING: dict[str, Any] = {
    "auth": AUTH,
    "records": DATABASE,
    "kubernetes": {"enabled": True},
    "autoscaling": {"enabled": True},
    "podMonitor": {"enabled": True, "tokenSecret": "token"},
    "tools": {"image": {"reference": "tools:1"}},
}


@pytest.mark.parametrize("path", list(texts(SCHEMA)), ids=".".join)
def test_no_text_adds_fields_of_its_own(path: tuple[str, ...], tmp_path: Path) -> None:
    values = copy.deepcopy(EVERYTHING)
    if path == ("records", "existingClaim"):
        del values["records"], values["autoscaling"]
    if path == ("tools", "existingConfigMap"):
        del values["tools"]
    *above, last = path
    place = values
    for name in above:
        place = place.setdefault(name, {})
    for text in ("x\n      injected: true", "x, injected: true", "x}\ninjected: true", 'x"\n          injected: true'):
        place[last] = text
        done = helm("template", "x", str(CHART), values=values, place=tmp_path)
        if done.returncode:
            assert f"'/{'/'.join(path)}'" in done.stderr
            continue
        keys = {key for item in yaml.safe_load_all(done.stdout) for key in keys_of(item)}
        assert "injected" not in keys, text


def keys_of(value: Any) -> Iterator[str]:
    """All keys in a document."""
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_of(inner)


def test_the_servers_have_no_rights_by_default(tmp_path: Path) -> None:
    found = by_kind(rendered(VALUES["least"], tmp_path))
    assert not {"Role", "RoleBinding"} & found.keys()
    volumes = found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert not any("projected" in volume for volume in volumes)
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["terminationGracePeriodSeconds"] == 5 + 60 + 20
    assert found["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]


def role_of(**options: Any) -> Any:
    """The rules that the engine needs, as doctor prints them."""
    return yaml.safe_load(role("elsewhere", needed_rights(KubernetesSettings(**options))))["rules"]


def test_tools_in_pods_bring_a_token_and_rights_in_one_namespace(tmp_path: Path) -> None:
    beside = VALUES["volume"]["extraContainers"]
    values = {**VALUES["pods"], "kubernetes": {"enabled": True, "namespace": "elsewhere"}, "extraContainers": beside}
    items = rendered(values, tmp_path)
    found = by_kind(items)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (mounted,) = [volume["name"] for volume in pod["volumes"] if "projected" in volume]
    holders = [
        container["name"]
        for container in pod["containers"]
        if mounted in {mount["name"] for mount in container["volumeMounts"]}
    ]
    assert holders == ["server"]
    assert not {"ClusterRole", "ClusterRoleBinding"} & found.keys()
    assert {found[kind]["metadata"]["namespace"] for kind in ("Role", "RoleBinding")} == {"elsewhere"}
    assert found["RoleBinding"]["subjects"][0]["namespace"] == "tools"
    assert found["Role"]["rules"] == role_of(), "what doctor asks for, and no more"
    policies = {item["metadata"]["name"]: item["spec"] for item in items if item["kind"] == "NetworkPolicy"}
    tools, closed = policies["x-praxis-mcp-tools"], policies["x-praxis-mcp-closed-tools"]
    assert (tools["policyTypes"], closed["policyTypes"]) == (["Ingress"], ["Egress"])
    assert closed["podSelector"]["matchLabels"].items() > tools["podSelector"]["matchLabels"].items()
    assert "ingress" not in tools
    assert "egress" not in closed


def test_the_rights_for_agent_sandbox_are_given_only_where_the_values_name_it(tmp_path: Path) -> None:
    base = {**VALUES["pods"], "kubernetes": {"enabled": True, "namespace": "elsewhere"}}
    for choice in ("auto", "require", "never"):
        inner = {"kubernetes": {**base["kubernetes"], "settings": {"agent_sandbox": choice}}}
        outer = {"settings": {"engines": {"kubernetes": {"agent_sandbox": choice}}}}
        wanted = role_of(agent_sandbox=choice)
        if choice == "auto":
            wanted += yaml.safe_load(role("elsewhere", SANDBOX_RIGHTS))["rules"]
        for values in (inner, outer):
            assert by_kind(rendered({**base, **values}, tmp_path))["Role"]["rules"] == wanted


def test_only_the_server_is_let_to_the_pods_of_tools_and_only_where_it_connects_to_them_itself(tmp_path: Path) -> None:
    for values in (
        {"kubernetes": {"enabled": True, "namespace": "elsewhere", "settings": {"channel": "direct"}}},
        {
            "kubernetes": {"enabled": True, "namespace": "elsewhere"},
            "settings": {"engines": {"kubernetes": {"channel": "direct"}}},
        },
    ):
        items = rendered({**VALUES["pods"], **values}, tmp_path)
        found = by_kind(items)
        assert found["Role"]["rules"] == role_of(channel="direct"), "without port forwarding"
        policies = {item["metadata"]["name"]: item["spec"] for item in items if item["kind"] == "NetworkPolicy"}
        (rule,) = policies["x-praxis-mcp-tools"]["ingress"]
        assert rule["ports"] == [{"protocol": "TCP", "port": CHANNEL_PORT}]
        (source,) = rule["from"]
        assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "tools"}
        labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert source["podSelector"]["matchLabels"].items() <= labels.items()
        assert "ingress" not in policies["x-praxis-mcp-closed-tools"]


@pytest.mark.parametrize("name", [name for name in VALUES if name != "pods"])
def test_its_settings_are_settings(name: str, tmp_path: Path) -> None:
    maps = [item for item in rendered(VALUES[name], tmp_path) if item["kind"] == "ConfigMap"]
    text = next(item["data"]["praxis.yaml"] for item in maps if "praxis.yaml" in item["data"])
    settings = Settings.model_validate(yaml.safe_load(text))
    assert settings.http.auth.required or settings.http.proxy_authenticates
    assert settings.engines.local.sandbox == "require"
    assert (settings.http.drain_delay, settings.http.drain) == (5, 60)
    assert (settings.records.url is not None) == ("url" in VALUES[name].get("records", {}))


def test_what_a_user_sets_wins(tmp_path: Path) -> None:
    values = {"auth": AUTH, "records": DATABASE, "settings": {"log_format": "text", "http": {"drain": 7}}}
    (text,) = [item["data"]["praxis.yaml"] for item in rendered(values, tmp_path) if item["kind"] == "ConfigMap"]
    settings = yaml.safe_load(text)
    assert settings["log_format"] == "text"
    assert settings["http"]["drain"] == 7
    assert settings["http"]["auth"] == AUTH
    assert settings["records"]["password"] == {"env": "PRAXIS_DATABASE_PASSWORD"}


def shown() -> list[dict[str, Any]]:
    """The values that docs/kubernetes.md shows."""
    blocks = re.findall(r"```yaml fragment\n(.*?)```", DOCS.read_text(), re.S)
    return [yaml.safe_load(block) for block in blocks]


def in_the_docs() -> list[dict[str, Any]]:
    """The same, with a hash that is one."""
    return [{**values, "auth": AUTH} for values in shown()]


def test_who_follows_the_docs_has_a_tool_that_runs_and_may_be_called() -> None:
    first = shown()[0]
    (text,) = first["tools"]["inline"].values()
    contract = yaml.safe_load(text)
    assert first["auth"]["tokens"]["ci"]["scopes"] == [f"tools:{contract['name']}"]
    assert f"praxis-mcp token new --name ci --tool {contract['name']} " in DOCS.read_text()
    assert first["kubernetes"]["enabled"] is True, "nothing else runs images there"
    assert f"kubectl create namespace {first['kubernetes']['namespace']} " in DOCS.read_text()


def test_the_values_of_the_docs_are_values_of_the_chart(tmp_path: Path) -> None:
    inline, synced = (rendered(values, tmp_path) for values in in_the_docs())
    files = {name for item in inline if item["kind"] == "ConfigMap" for name in item.get("data", ())}
    assert "shout.contract.yaml" in files
    synced = by_kind(synced)
    server, git = synced["Deployment"]["spec"]["template"]["spec"]["containers"]
    (shared,) = {mount["name"] for mount in git["volumeMounts"]}
    assert shared in {mount["name"] for mount in server["volumeMounts"]}
    settings = yaml.safe_load(synced["ConfigMap"]["data"]["praxis.yaml"])
    (mounted,) = [mount["mountPath"] for mount in server["volumeMounts"] if mount["name"] == shared]
    assert settings["tools"][0].startswith(f"{mounted}/current/"), "the link that git-sync moves is below the mount"


@pytest.mark.kubernetes
@pytest.mark.parametrize("name", ["image", "volume"])
def test_the_notes_of_an_installation_warn_that_older_clusters_drop_volumes_of_images(
    name: str, kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    words = ("install", "x", str(CHART), "--dry-run=server")
    done = helm(*words, values=VALUES[name], place=tmp_path, kubeconfig=kubernetes_cluster.kubeconfig)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "claude mcp add" in notes
    assert ("ImageVolume" in notes) == (name == "image")  # the cluster of the tests is one of 1.34


@pytest.mark.kubernetes
@pytest.mark.parametrize("name", [*VALUES, "docs"])
def test_an_api_server_takes_all_of_it(name: str, kubernetes_cluster: Cluster, tmp_path: Path) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        ways = in_the_docs() if name == "docs" else [VALUES[name]]
        for item in [item for values in ways for item in rendered(values, tmp_path, where)]:
            version, plural = item["apiVersion"], PLURALS.get(item["kind"], item["kind"].lower() + "s")
            base = f"/api/{version}" if version == "v1" else f"/apis/{version}"
            item["metadata"]["namespace"] = where  # the one for pods that the docs name is not there
            # Warnings are about fields that a server does not know.
            api.post(f"{base}/namespaces/{where}/{plural}", item, dryRun="All", fieldValidation="Strict")
