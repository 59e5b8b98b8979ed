"""Tools of other MCP servers, called as if they were ours."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import (
    EngineCapabilities,
    EngineStatus,
    ExecutionContext,
    ExecutionEngine,
    ExecutionResult,
    RemoteContent,
)
from praxis_mcp.engines.output import OutputListener
from praxis_mcp.engines.phases import Phase
from praxis_mcp.plans.model import Capability, Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.processes import kill_orphans
from praxis_mcp.support.text import finite
from praxis_mcp.support.workers import compute, size_of_json
from praxis_mcp.upstreams.spec import ProgressListener, UpstreamSpec
from praxis_mcp.upstreams.upstream import UpstreamPool

ISOLATION = "remote"
_LONGEST_MESSAGE = 500
_PROTOCOL_KEYS = "io.modelcontextprotocol/"


class RemoteMCPEngine(ExecutionEngine):
    """Runs a plan on another MCP server, over one lasting connection to each.

    The arguments have been checked against our schema; the server's own check follows. Whether a server is there shows
    when it is called: the engine itself is always available.
    """

    name = "remote-mcp"

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._pool = UpstreamPool()

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See `ExecutionEngine.run`. A server that does not answer in time gives a result that says so; the call is
        cancelled there.

        Raises:
            EngineUnavailable: the server cannot be reached; the tool did not run.
            RemoteError: it answered with a protocol error.
            ExecutionError: the connection broke while the tool ran; it is not run again.
        """
        remote = plan.blueprint.remote
        assert remote is not None
        upstream = self._pool.get(self._spec(plan))
        context.phases.enter(Phase.START)
        if not upstream.is_connected:
            context.status(f"connecting to {upstream.spec.place}")
            await upstream.connect()
        context.phases.enter(Phase.RUN)
        try:
            answer = await upstream.call(
                remote.tool,
                plan.call.arguments,
                timeout=plan.blueprint.limits.timeout,
                on_progress=progress_lines(context.on_output) if context.on_output else None,
            )
        except TimeoutError:
            answer = None
        context.phases.enter(Phase.COLLECT)
        if answer is None:
            return ExecutionResult(
                plan.call.run_id, self.name, ISOLATION, None, timed_out=True, phases=context.phases.seconds
            )
        content = await compute(read_answer, answer, upstream.masker, size=size_of_json(answer))
        async with context.collectors(plan) as (stdout, _):
            await stdout.write(text_of(content).encode(errors="replace"))
        return ExecutionResult(
            run_id=plan.call.run_id,
            engine=self.name,
            isolation=ISOLATION,
            exit_code=1 if answer.get("isError") is True else 0,
            stdout=stdout.captured,
            phases=context.phases.seconds,
            remote=content,
        )

    async def get_capabilities(self) -> EngineCapabilities:
        """The time limit is ours: a call that exceeds it is cancelled there."""
        return EngineCapabilities(self.name, ISOLATION, frozenset({Capability.REMOTE_TOOLS, Capability.TIMEOUT}))

    async def probe(self) -> EngineStatus:
        """Always available: it needs nothing but the MCP SDK."""
        from importlib.metadata import version

        return EngineStatus(self.name, available=True, version=f"mcp {version('mcp')}")

    async def reap(self) -> tuple[str, ...]:
        """See `ExecutionEngine.reap`: servers that were started by command, for a contract or as an upstream."""
        return await anyio.to_thread.run_sync(kill_orphans)

    async def cleanup(self) -> None:
        """Close every connection, and end the servers that were started by command."""
        await self._pool.close()

    def _spec(self, plan: Plan) -> UpstreamSpec:
        remote, call = plan.blueprint.remote, plan.call
        assert remote is not None
        spec = UpstreamSpec(
            name="",
            address=remote.address,
            transport=remote.transport,  # pyright: ignore[reportArgumentType] - the contract's own choice of the same
            headers=tuple(sorted(call.headers.items())),
            env=tuple(sorted(call.env.items())),
            hidden=call.secrets,
            directory=self.settings.root if isinstance(remote.address, tuple) else None,
        )
        return dataclasses.replace(spec, name=f"the MCP server {spec.place}")


def read_answer(answer: Mapping[str, Any], masker: Masker) -> RemoteContent:
    """The parts of a ``tools/call`` result, secrets masked; what has no place in one is left out. Structured content
    may hold numbers that are not finite: the code that sends it on refuses them (see `all_finite`)."""
    content = answer.get("content")
    blocks = [block for block in (content if isinstance(content, list) else []) if isinstance(block, dict)]
    meta = answer.get("_meta")
    items = meta.items() if isinstance(meta, dict) else ()
    kept = finite({key: value for key, value in items if not key.startswith(_PROTOCOL_KEYS)})
    blocks = finite(blocks)
    structured = answer.get("structuredContent")
    if masker:
        blocks = [_masked_block(block, masker) for block in blocks]
        structured, kept = masker.json(structured), masker.json(kept)
    return RemoteContent(tuple(blocks), structured, kept)


def text_of(content: RemoteContent) -> str:
    """What an answer says as text: its text blocks, or else its structured content as JSON."""
    texts = [
        block["text"] for block in content.blocks if block.get("type") == "text" and isinstance(block.get("text"), str)
    ]
    if not texts and content.structured is not None:
        return json.dumps(content.structured, ensure_ascii=False)
    return "\n".join(texts)


def progress_lines(listener: OutputListener) -> ProgressListener:
    """Progress in the form that tools report it in, a line of JSON on standard error; passed on, but not kept."""

    def tell(progress: float, total: float | None, message: str | None) -> None:
        report = {"progress": progress, "total": total, "message": (message or "")[:_LONGEST_MESSAGE]}
        listener("stderr", json.dumps(report).encode() + b"\n")

    return tell


def masked_resource(resource: Mapping[str, Any], masker: Masker) -> dict[str, Any]:
    """The contents of a resource, secrets masked."""
    # Base64 is not text: masking would break it, and hides nothing.
    return {key: value if key == "blob" else masker.json(value) for key, value in finite(resource).items()}


def _masked_block(block: Mapping[str, Any], masker: Masker) -> dict[str, Any]:
    if block.get("type") in ("image", "audio"):
        return {key: value if key == "data" else masker.json(value) for key, value in block.items()}
    resource = block.get("resource")
    if isinstance(resource, dict):
        return {**masker.json({**block, "resource": None}), "resource": masked_resource(resource, masker)}
    return masker.json(block)
