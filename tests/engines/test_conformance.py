"""What every engine does alike. One body for each behaviour; the engines are listed in cases.py.

Tests whose contract may exceed an engine's powers begin with `if await bench.refuses(contract): return`: an engine
that cannot enforce a demand must refuse it.
"""

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.errors import CommandNotFound, ImageError
from praxis_mcp.plans.model import Capability
from tests.engines.cases import EngineCase
from tests.engines.conftest import CALL_LIMIT, Bench, processes

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [0, 3, 124, 137, 255])
async def test_an_exit_code_comes_back_as_it_is(bench: Bench, status: int) -> None:
    result = await bench.run(bench.case.sh(f"exit {status}"))
    assert (result.exit_code, result.timed_out, result.out_of_memory) == (status, False, False)
    assert result.success is (status == 0)


async def test_a_tool_ended_by_a_signal_gives_128_and_the_signal(bench: Bench) -> None:
    result = await bench.run(
        bench.case.python("import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()")
    )
    assert (result.exit_code, result.timed_out) == (128 + 15, False)
