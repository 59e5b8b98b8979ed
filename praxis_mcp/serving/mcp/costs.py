"""What the definitions of tools cost an agent: bytes of ``tools/list``, and tokens of its model's context."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_types import Tool
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.tools import ToolLister
from praxis_mcp.settings.model import Settings

BYTES_PER_TOKEN = 4
"""Of names, descriptions and schemas as compact JSON. Measured on this repository's sample tools: 4.04 by the tokenizer
that Anthropic has published (anthropic 0.38), 4.10 by OpenAI's o200k; of single tools 3.5 to 4.7."""
_READ_BY_MODELS = ("name", "description", "inputSchema")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one definition costs.

    Attributes:
        bytes: of it in ``tools/list``, as JSON without blanks.
        tokens: of a model's context, estimated, for what clients hand on to it: name, description and input schema.
            Output schemas and annotations stay with the client.
    """

    bytes: int = 0
    tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.tokens + other.tokens)


def costs_of(entries: Sequence[Entry | Tool], settings: Settings) -> dict[str, Cost]:
    """The cost of each tool by its name, as clients of the newest revision with sessions (2025-11-25) get it; without
    those tools that such clients are not sent.

    Args:
        entries: the tools, sorted by name.
        settings: by which they are listed.
    """
    whole = settings.model_copy(update={"server": settings.server.model_copy(update={"page_size": len(entries) + 1})})
    page = ToolLister(whole).page(entries, None, Dialect(HANDSHAKE_PROTOCOL_VERSIONS[-1]))
    return {tool.name: _cost(tool.model_dump(by_alias=True, mode="json", exclude_none=True)) for tool in page.tools}


def _cost(tool: Mapping[str, Any]) -> Cost:
    read = {key: tool[key] for key in _READ_BY_MODELS if key in tool}
    return Cost(_size(tool), -(-_size(read) // BYTES_PER_TOKEN))


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace"))
