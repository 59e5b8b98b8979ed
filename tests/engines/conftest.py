"""Ground of the engine tests: the fixtures of `praxis_mcp.testing`, over every engine's case."""

import pytest

from praxis_mcp.testing.plugin import bench, pytest_configure, run_over, settings
from tests.engines.cases import all_cases

__all__ = ["bench", "pytest_configure", "settings"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run_over(metafunc, all_cases())
