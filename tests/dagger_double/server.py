"""The double's session over HTTP: queries, checked against the API's schema, and logs."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo, execute, parse, validate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.dagger_double import schema
from tests.dagger_double.api import Query
from tests.dagger_double.execs import Execs
from tests.dagger_double.store import Store

HANG = "praxis-double-hang"
"""A query with this word among its values is never answered."""


class Server:
    def __init__(self, state: Path, token: str) -> None:
        self._schema = schema.load((state / "schema.graphql").read_text())
        self._authorization = "Basic " + base64.b64encode(f"{token}:".encode()).decode()
        self._listeners: set[asyncio.Queue[str]] = set()
        self._execs = Execs(Store(state), self._publish)
        self._root = Query(self._execs)

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/query", self.query, methods=["POST"]), Route("/v1/logs", self.logs, methods=["GET"])]
        )

    async def close(self) -> None:
        await self._execs.close()

    async def query(self, request: Request) -> Response:
        if request.headers.get("authorization") != self._authorization:
            return Response(status_code=401)
        body = await request.json()
        if HANG in json.dumps(body):
            await self._until_closed(request)
        answering = asyncio.ensure_future(self._answer(body, request.headers.get("traceparent", "")))
        closed = asyncio.ensure_future(self._until_closed(request))
        try:
            await asyncio.wait([answering, closed], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return Response(status_code=499)
            return JSONResponse(answering.result())
        finally:
            for task in (answering, closed):
                task.cancel()
            await asyncio.gather(answering, closed, return_exceptions=True)

    async def _until_closed(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, body: dict[str, Any], traceparent: str) -> dict[str, Any]:
        try:
            document = parse(body["query"])
        except GraphQLError as exc:
            return {"errors": [exc.formatted]}
        if errors := validate(self._schema, document):
            return {"errors": [error.formatted for error in errors]}
        self._root.trace.set(traceparent.split("-")[1] if traceparent.count("-") == 3 else "")
        result = execute(
            self._schema,
            document,
            root_value=self._root,
            variable_values=body.get("variables"),
            field_resolver=resolve,
        )
        answer = result if not asyncio.iscoroutine(result) else await result
        return answer.formatted  # type: ignore[union-attr,return-value]

    async def logs(self, request: Request) -> Response:
        if request.headers.get("authorization") != self._authorization:
            return Response(status_code=401)
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=200)
        self._listeners.add(queue)
        try:
            yield "id: \nevent: subscribed\ndata\n\n"
            number = 0
            while True:
                data = await queue.get()
                number += 1
                yield f"id: {number}\nevent: logs\ndata: {data}\n\n"
        finally:
            self._listeners.discard(queue)

    def _publish(self, trace: str, stream: int, data: bytes) -> None:
        """A piece of a command's output, as a log record; dropped, like Dagger's, where it is not UTF-8."""
        if not trace:
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return
        record = {
            "body": {"stringValue": text},
            "attributes": [{"key": "stdio.stream", "value": {"intValue": str(stream)}}],
            "traceId": base64.b64encode(bytes.fromhex(trace)).decode(),
        }
        scope = {"scope": {"name": "dagger.io/engine.buildkit"}, "logRecords": [record]}
        event = json.dumps({"resourceLogs": [{"scopeLogs": [scope]}]})
        for queue in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)


def resolve(source: Any, info: GraphQLResolveInfo, /, **arguments: Any) -> Any:
    """The method of that name; the schema knows many that the double does not."""
    method = getattr(source, f"do_{info.field_name}", None)
    if method is None:
        raise GraphQLError(f"the double does not support {info.parent_type.name}.{info.field_name}")
    return method(**arguments)
