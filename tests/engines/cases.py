"""The engines that the conformance suite (`praxis_mcp.testing`) runs over here.

To add one: write a module with a `CASE` (an `EngineCase`), and name it in `MODULES`. Nothing else changes.
"""

import importlib

from praxis_mcp.testing import EngineCase

MODULES = (
    "tests.engines.docker.case",
    "tests.engines.docker.warm_case",
    "tests.engines.docker.spilled_case",
    "tests.engines.dagger.case",
    "tests.engines.dagger.warm_case",
    "tests.engines.kubernetes.case",
    "tests.engines.kubernetes.warm_case",
    "tests.engines.kubernetes.direct_case",
    "tests.engines.host.sandbox_case",
    "tests.engines.host.sandbox_waiting_case",
    "tests.engines.host.sandbox_bubblewrap_case",
    "tests.engines.host.local_case",
    "tests.engines.host.local_waiting_case",
    "tests.engines.host.local_bubblewrap_case",
    "tests.engines.host.local_plain_case",
)
"""One module for each engine, with its `CASE`."""


def all_cases() -> list[EngineCase]:
    """The case of every module, in their order."""
    return [importlib.import_module(module).CASE for module in MODULES]
