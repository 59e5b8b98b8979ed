"""The Helm chart as tests use it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from praxis_mcp.serving.access import hash_token
from tests.cluster.programs import HELM

CHART = Path(__file__).parents[2] / "deploy/chart/praxis-mcp"
TOKEN = "praxis_of_the_chart"
AUTH: dict[str, Any] = {"tokens": {"ci": {"sha256": hash_token(TOKEN), "scopes": ["tools:*", "metrics:read"]}}}
DATABASE = {"url": "postgresql://praxis@db.example/records", "passwordSecret": "database"}
CONTRACT = "name: hi\ndescription: Says hi.\nengine: local\ncommand: [echo, hi]\n"
VALUES: dict[str, dict[str, Any]] = {
    "least": {"auth": AUTH},
    "proxy": {"auth": {"proxyAuthenticates": True}, "networkPolicy": {"from": [{"podSelector": {}}]}},
    "several": {"auth": AUTH, "replicaCount": 3, "records": DATABASE, "allowedHosts": ["mcp.example.com"]},
    "scaled": {
        "auth": AUTH,
        "autoscaling": {"enabled": True},
        "records": DATABASE,
        "networkPolicy": {"egress": [{"ports": [{"port": 5432, "protocol": "TCP"}]}]},
        "settings": {"calls": {"max_concurrency": 4}},
    },
    "pods": {"auth": AUTH, "kubernetes": {"enabled": True}, "tools": {"inline": {"hi.contract.yaml": CONTRACT}}},
    "claim": {"auth": AUTH, "records": {"existingClaim": "state"}, "tools": {"existingConfigMap": "tools"}},
    "volume": {
        "auth": AUTH,
        "tools": {"volume": {"emptyDir": {}}},
        "extraContainers": [
            {"name": "git", "image": "git-sync", "volumeMounts": [{"name": "tools", "mountPath": "/git"}]}
        ],
    },
    "image": {"auth": AUTH, "tools": {"image": {"reference": "registry.example.com/tools:1"}}},
}
"""Ways to use it, by name."""


def helm(*words: str, values: Mapping[str, Any] | None, place: Path, kubeconfig: Path | None = None) -> Any:
    """Run helm with these values; what it did.

    Args:
        values: of the chart; None: the command takes none.
        place: a directory for the file of values, and for what helm keeps.
        kubeconfig: of the cluster that it may use.
    """
    program = HELM.find()
    assert program is not None, "the marker helm has looked"
    file = place / "values.yaml"
    if values is not None:
        file.write_text(yaml.safe_dump(dict(values)))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
    }
    command = [str(program / "helm"), *words, *(["--values", str(file)] if values is not None else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def rendered(values: Mapping[str, Any], place: Path, namespace: str = "tools") -> list[dict[str, Any]]:
    """What the chart makes of these values."""
    done = helm("template", "x", str(CHART), "--namespace", namespace, values=values, place=place)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]
