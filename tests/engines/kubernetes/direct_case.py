"""The Kubernetes engine with connections to the pods' addresses, as a case of the conformance suite."""

from typing import Any

from praxis_mcp.settings.model import Settings
from tests.engines.kubernetes.case import KubernetesCase, engine_settings


class DirectKubernetesCase(KubernetesCase):
    name = "kubernetes-direct"

    def settings(self, **values: Any) -> Settings:
        options = {"engines": {"kubernetes": engine_settings(channel="direct")}, "warm": {"enabled": False}}
        return Settings(**{**options, **values})


CASE = DirectKubernetesCase()
