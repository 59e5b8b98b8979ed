"""What of the results of pure tools is remembered."""

from __future__ import annotations

from praxis_mcp.engines.base import ExecutionResult, RemoteContent
from praxis_mcp.execution.cache import MAX_RESULT, ResultCache


def image(size: int) -> ExecutionResult:
    block = {"type": "image", "mimeType": "image/png", "data": "A" * size}
    return ExecutionResult("run", "remote-mcp", "remote", 0, remote=RemoteContent((block,)))


def test_a_large_image_of_a_remote_tool_is_not_remembered_and_a_small_one_is() -> None:
    cache = ResultCache()
    cache.put("large", image(MAX_RESULT))
    cache.put("small", image(1000))
    assert cache.get("large") is None
    assert cache.get("small") is not None
