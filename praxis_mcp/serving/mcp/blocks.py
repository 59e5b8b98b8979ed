"""Content blocks: what a run wrote and left, or another server answered, in a form that the client's protocol revision
knows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)
from pydantic import TypeAdapter, ValidationError

from praxis_mcp.engines.base import Artifact, ExecutionResult
from praxis_mcp.engines.output import Captured, StreamName
from praxis_mcp.serving.mcp.dialect import Dialect, content_for
from praxis_mcp.serving.mcp.media import IMAGES, clean, decode_text, media_type, mime_of_file
from praxis_mcp.serving.mcp.resources import artifact_uri, read_file, stream_uri
from praxis_mcp.support.text import NOT_FINITE, all_finite, counted

INLINE_MEDIA = 1024 * 1024
"""Bytes of one image or sound that a result carries itself; a larger one is linked."""
INLINE_TOTAL = 4 * 1024 * 1024
"""Bytes of all images together that a result carries itself."""
INLINE_BLOB = 64 * 1024
"""Bytes of other binary output that a result carries itself: no model reads them, so large ones are linked."""
MAX_NAMED_ARTIFACTS = 50
"""Artifacts that a result names one by one."""
_IMAGE_HEAD = 4096


def text_block(text: str) -> TextContent:
    """Text, made safe for JSON."""
    return TextContent(text=clean(text))


def link_block(uri: str, name: str, dialect: Dialect, mime_type: str | None, size: int | None) -> ContentBlock:
    """A link to a resource; a line of text for clients that do not know links."""
    if dialect.knows_links:
        return ResourceLink(uri=uri, name=clean(name), mime_type=mime_type, size=size)
    about = ", ".join(part for part in (mime_type, counted(size, "byte") if size is not None else None) if part)
    return text_block(f"{name} ({about}): {uri}")


def stream_text(captured: Captured, run_id: str, stream: StreamName, limit: int) -> str | None:
    """A stream as text: whole, or head and tail with the gap and the way to the whole between them.

    Args:
        captured: the stream.
        run_id: its run.
        stream: its name.
        limit: bytes of it to show.

    Returns:
        None where it is binary.
    """
    data = captured.data
    if not _is_cut(captured, limit):
        return decode_text(data)
    head, tail = (captured.head, captured.tail) if captured.omitted else (data, b"")
    if len(head) + len(tail) > limit:
        head, tail = (head + tail)[: limit // 2], (head + tail)[-(limit - limit // 2) :]
    first, last = decode_text(head, cut=True), decode_text(tail, begun=True)
    if first is None or last is None:
        return None
    omitted = captured.total - len(head) - len(tail)
    where = stream_uri(run_id, stream)
    return f"{first}\n[… {omitted} of {captured.total} bytes omitted; the whole is at {where} …]\n{last}"


def whole_link(captured: Captured, run_id: str, stream: StreamName, limit: int, dialect: Dialect) -> list[ContentBlock]:
    """A link to the whole of a stream of which `stream_text` shows a part, for clients that know links: the address in
    the text is for models, and one server that passes it on to another can follow links only."""
    if not dialect.knows_links or not _is_cut(captured, limit):
        return []
    return [link_block(stream_uri(run_id, stream), stream, dialect, "text/plain", captured.total)]


def _is_cut(captured: Captured, limit: int) -> bool:
    return bool(captured.omitted) or len(captured.data) > limit


async def stdout_blocks(captured: Captured, run_id: str, limit: int, dialect: Dialect) -> list[ContentBlock]:
    """Standard output as content: text, an image, sound, or a file; nothing where there was none."""
    if captured.total == 0:
        return []
    uri = stream_uri(run_id, "stdout")
    mime = media_type(captured.head)
    text = None if mime else stream_text(captured, run_id, "stdout", limit)
    if text is not None:
        return [text_block(text), *whole_link(captured, run_id, "stdout", limit, dialect)]
    mime = mime or "application/octet-stream"
    is_media = mime in IMAGES or mime.startswith("audio/")
    data = await _whole(captured) if captured.total <= (INLINE_MEDIA if is_media else INLINE_BLOB) else None
    if data is not None:
        return [_inline(data, mime, uri, dialect)]
    return [
        text_block(f"Standard output is {mime}, {counted(captured.total, 'byte')}: {uri}"),
        link_block(uri, "stdout", dialect, mime, captured.total),
    ]


async def artifact_blocks(artifacts: tuple[Artifact, ...], run_id: str, dialect: Dialect) -> list[ContentBlock]:
    """Artifacts as content: small images themselves, all else as links."""
    blocks: list[ContentBlock] = []
    room = INLINE_TOTAL
    for artifact in artifacts[:MAX_NAMED_ARTIFACTS]:
        uri = artifact_uri(run_id, artifact.name)
        head = await read_file(artifact.file, 0, _IMAGE_HEAD) or b""
        mime = mime_of_file(clean(artifact.name), head)
        if mime in IMAGES and artifact.size <= min(INLINE_MEDIA, room):
            data = await read_file(artifact.file, 0, INLINE_MEDIA)
            if data:
                room -= len(data)
                blocks.append(text_block(f"{artifact.name}: {uri}"))
                blocks.append(_inline(data, mime, uri, dialect))
                continue
        blocks.append(link_block(uri, artifact.name, dialect, mime, artifact.size))
    if len(artifacts) > MAX_NAMED_ARTIFACTS:
        more = len(artifacts) - MAX_NAMED_ARTIFACTS
        blocks.append(text_block(f"… and {more} more files; all are named in praxis://runs/{run_id}"))
    return blocks


def _inline(data: bytes, mime: str, uri: str, dialect: Dialect) -> ContentBlock:
    encoded = base64.b64encode(data).decode("ascii")
    if mime in IMAGES:
        return ImageContent(data=encoded, mime_type=mime)
    if mime.startswith("audio/") and dialect.knows_audio:
        return AudioContent(data=encoded, mime_type=mime)
    return EmbeddedResource(resource=BlobResourceContents(uri=uri, mime_type=mime, blob=encoded))


async def _whole(captured: Captured) -> bytes | None:
    if not captured.omitted:
        return captured.data
    data = await read_file(captured.file, 0, INLINE_MEDIA) if captured.file else None
    return data if data is not None and len(data) == captured.total else None


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


def failed_content(structured: Any, schema: dict[str, Any] | None, dialect: Dialect, *, fits: bool) -> Any:
    """The structured content of a remote answer that says it is an error.

    An output schema binds successes only, so what does not fit it is passed on all the same, as the tool's own server
    sent it. Version 1 of the TypeScript SDK checks errors as well, and refuses the same answer from that server.

    Args:
        structured: what was sent; None where there is none.
        schema: the tool's output schema, if it has one.
        dialect: the client's.
        fits: whether it fits that schema.
    """
    if structured is None or not all_finite(structured):
        return None
    return content_for(structured, schema if fits else None, dialect)


def not_finite_note(structured: Any) -> list[ContentBlock]:
    """What is said where structured content cannot be sent, because no JSON holds it."""
    return [] if all_finite(structured) else [text_block(f"Its structured content is left out: it {NOT_FINITE}.")]


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
