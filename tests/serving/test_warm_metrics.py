"""`/metrics` tells of what waits for calls."""

from pathlib import Path

import anyio
import pytest

from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.serving.http.metrics import render
from praxis_mcp.settings.model import Settings
from tests.kit.contracts import write_contract
from tests.kit.until import until


@pytest.mark.anyio
@pytest.mark.docker
@pytest.mark.native
async def test_metrics_count_calls_that_met_a_container_and_those_that_did_not(tmp_path: Path) -> None:
    write_contract(tmp_path / "tools", "noop", image="busybox:1.36", command=["true"])
    settings = Settings.model_validate({"root": tmp_path, "engines": {"order": ["docker"]}})
    async with open_toolbox(settings) as toolbox:
        assert "praxis_warm_waiting{" not in render(toolbox, {}, "1")
        with anyio.fail_after(60):
            await toolbox.runner.call("noop", {})
            await until(lambda: 'praxis_warm_waiting{engine="docker"} 1' in render(toolbox, {}, "1"))
            await toolbox.runner.call("noop", {})
        lines = render(toolbox, {}, "1").splitlines()
    assert 'praxis_warm_calls_total{engine="docker",met="yes"} 1' in lines
    assert 'praxis_warm_calls_total{engine="docker",met="no"} 1' in lines
    assert 'praxis_warm_started_total{engine="docker",outcome="failed"} 0' in lines
