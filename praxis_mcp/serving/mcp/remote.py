"""What a tool of another MCP server answered, passed on in the words that this client knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ResourceLink,
)
from pydantic import TypeAdapter, ValidationError

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.serving.mcp.blocks import link_block, stream_text, text_block, whole_link
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.structured import content_for
from praxis_mcp.support.numbers import NOT_FINITE, all_finite

_BLOCK: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)


def remote_blocks(
    result: ExecutionResult, limit: int, dialect: Dialect, *, links_are_here: bool = False
) -> list[ContentBlock]:
    """The content blocks of a remote answer.

    Args:
        result: a result with a remote answer.
        limit: bytes of text to pass on; longer text becomes its head and tail, and the whole a resource.
        dialect: the client's. A block of a kind that it does not know, or that we do not, becomes text.
        links_are_here: whether the addresses that the answer links can be read here; else a link becomes a line that
            says so.
    """
    assert result.remote is not None
    raw = result.remote.blocks if links_are_here else map(_unlinked, result.remote.blocks)
    blocks = [content_block(block, dialect) for block in raw]
    if result.stdout.total <= limit:
        return blocks
    text = stream_text(result.stdout, result.run_id, "stdout", limit)
    whole = whole_link(result.stdout, result.run_id, "stdout", limit, dialect)
    return [text_block(text or ""), *whole, *(block for block in blocks if block.type != "text")]


def failed_answer(
    blocks: list[ContentBlock], structured: Any, schema: dict[str, Any] | None, dialect: Dialect, *, fits: bool
) -> CallToolResult:
    """A remote answer that says it is an error, with its structured content.

    An output schema binds successes only, so what does not fit it goes along all the same, as the tool's own server
    sent it. Version 1 of the TypeScript SDK checks errors as well, and refuses the same answer from that server.

    Args:
        blocks: the content.
        structured: the structured content; None where there is none.
        schema: the tool's output schema, if it has one.
        dialect: the client's.
        fits: whether the structured content fits that schema.
    """
    if not all_finite(structured):
        blocks, structured = [*blocks, text_block(f"Its structured content is left out: it {NOT_FINITE}.")], None
    shaped = None if structured is None else content_for(structured, schema if fits else None, dialect)
    return CallToolResult(content=blocks, structured_content=shaped, is_error=True)


def _unlinked(block: Mapping[str, Any]) -> Mapping[str, Any]:
    uri = block.get("uri")
    if block.get("type") != "resource_link" or not isinstance(uri, str):
        return block
    name = block.get("title") or block.get("name") or "resource"
    return {"type": "text", "text": f"{name}: {uri} (of the tool's own MCP server; it cannot be read through this one)"}


def content_block(raw: Mapping[str, Any], dialect: Dialect) -> ContentBlock:
    """A block as its server sent it → one that this client knows; what we do not know becomes text."""
    try:
        block = _BLOCK.validate_python(raw, by_name=False)
    except ValidationError:
        return text_block(json.dumps(raw, ensure_ascii=False, default=str))
    match block:
        case ResourceLink() if not dialect.knows_links:
            return link_block(block.uri, block.name, dialect, block.mime_type, block.size)
        case AudioContent() if not dialect.knows_audio:
            contents = BlobResourceContents(uri="about:blank", mime_type=block.mime_type, blob=block.data)
            return EmbeddedResource(resource=contents)
        case _:
            return block
