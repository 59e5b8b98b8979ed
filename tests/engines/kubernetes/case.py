"""The Kubernetes engine on a cluster of this machine, as a case of the conformance suite."""

import os
import secrets
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.shared import shared_cluster
from tests.kit.until import until_blocking

