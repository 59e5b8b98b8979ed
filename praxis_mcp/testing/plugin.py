"""The conformance suite's pytest plugin: ``pytest_plugins = ["praxis_mcp.testing.plugin"]`` in the root conftest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.bench import Bench, EngineCase, parameters


def pytest_configure(config: pytest.Config) -> None:
    """Make the suite's marker known."""
    config.addinivalue_line("markers", "demands(*capabilities): the test's contract demands these of its engine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make each test of a module for each of its `CASES`."""
    cases = getattr(metafunc.module, "CASES", None)
    if cases is not None:
        run_over(metafunc, cases)


def run_over(metafunc: pytest.Metafunc, cases: Sequence[EngineCase]) -> None:
    """Make a test with a parameter `case` (or what depends on it) for each of these that can express its demands."""
    if "case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("demands")
    demanded = frozenset(marker.args if marker else ())
    chosen = [case for case in cases if not demanded & case.inexpressible]
    metafunc.parametrize("case", parameters(chosen), scope="module")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Engines run under asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
def settings(case: EngineCase, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the engine and of the plans."""
    return case.settings(root=tmp_path_factory.mktemp("root"), policy={"privileged": True, "host_network": True})


@pytest.fixture(scope="module")
async def bench(case: EngineCase, settings: Settings, anyio_backend: str) -> AsyncIterator[Bench]:
    """The engine under test, opened once for a module; what it leaves behind fails the module."""
    async with case.engine(settings) as engine:
        yield Bench(case, engine, settings)
    left = case.leftovers()
    assert not left, f"left behind by the {case.name} engine: {left}"
