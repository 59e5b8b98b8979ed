"""What /metrics says, in a format that Prometheus reads."""

from __future__ import annotations

import re

import pytest

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.serving.http.metrics import render
from tests.serving.clients import open_server, settings_for

SAMPLE = re.compile(r'^[a-z_]+(\{([a-z_]+="(\\[\\n"]|[^\\"\n])*",?)+\})? [0-9.e+-]+$')
pytestmark = pytest.mark.anyio


async def test_every_line_is_a_sample_or_a_description_whatever_a_tool_is_called(tmp_path) -> None:
    async with open_server(settings_for(tmp_path)) as (toolbox, _):
        for name in ("plain", 'quo"te', "back\\slash", "new\nline"):
            with toolbox.runner.tally.call(name) as counted:
                counted.phases.enter("run")
                counted.ended(ExecutionResult("r", "local", "process", 0))
        text = render(toolbox, {"stream": 2}, "1.2.3")
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.match(line), line
    assert 'praxis_calls_total{tool="quo\\"te",engine="local",outcome="ok"} 1' in text
    assert 'praxis_info{version="1.2.3"} 1' in text
    assert 'praxis_call_duration_seconds_count{engine="local"} 4' in text
    assert 'praxis_call_phase_seconds_count{engine="local",phase="run"} 4' in text
