"""The MCP server: what each method does, whatever the transport and the protocol era."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import anyio
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    SERVER_INFO_META_KEY,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    NotificationParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourcesCapability,
    ServerCapabilities,
    SubscriptionsListenRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from praxis_mcp.errors import ExecutionError, PraxisError, UnknownToolError
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.serving.access import ANYONE, FIND_TOOL, SCOPE_KEY, Caller
from praxis_mcp.serving.greeting import DISCOVERY_KEPT, TASKS, identity_of
from praxis_mcp.serving.mcp.changes import ChangeNotifier
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.page_watch import PageWatch, client_name
from praxis_mcp.serving.mcp.progress import ProgressReporter, reporting
from praxis_mcp.serving.mcp.relay import Relay
from praxis_mcp.serving.mcp.resources import RunResources
from praxis_mcp.serving.mcp.results import ResultWriter, error_result, refusal
from praxis_mcp.serving.mcp.search_tools import TOOLS as SEARCH_TOOLS
from praxis_mcp.serving.mcp.search_tools import SearchTools, always_loaded
from praxis_mcp.serving.mcp.task_calls import TaskCalls, ToolCall
from praxis_mcp.serving.mcp.task_listening import TaskListening
from praxis_mcp.serving.mcp.task_methods import TaskMethods, TaskParams, UpdateParams, speaks_tasks, task_facts
from praxis_mcp.serving.mcp.task_tools import RESULT, TOOLS, TaskTools, started
from praxis_mcp.serving.mcp.tools import BadCursor, ToolLister, with_origin
from praxis_mcp.serving.mcp.tracing import RequestTraces
from praxis_mcp.serving.toolsets import TOOLSET_KEY, Toolsets, View
from praxis_mcp.support.logs import logger, places, report_defect
from praxis_mcp.support.mcp_sdk import ReadStream, WriteStream
from praxis_mcp.support.tasks import unwrapped
from praxis_mcp.upstreams.loops import continuing, read_hops

UNASKED = 2.0
"""Seconds after which a server that no client has asked for its tools looks for what killed ones left all the same."""
CACHE_HINTS: dict[CacheableMethod, CacheHint] = {
    "resources/templates/list": CacheHint(3_600_000, "public"),
    "server/discover": CacheHint(DISCOVERY_KEPT, "public"),
}

Context = ServerRequestContext[Any, Any]


class PraxisServer:
    """Serves a toolbox to any number of clients, over any transport; see `open`.

    It answers ``initialize`` and ``server/discover`` at once, while the catalog is still being scanned.

    Attributes:
        mcp: the SDK's server, for transports to run.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        always = (*TOOLS,) if toolbox.settings.tasks.tools else ()
        self.toolsets = Toolsets(toolbox.settings, self._find, always)
        self._notifier = ChangeNotifier(self._toolsets_of, self._shown)
        self._tools = ToolLister(toolbox.settings)
        self._pages = PageWatch()
        self._resources = RunResources(toolbox.records, str(toolbox.settings.root))
        self._relay = Relay(toolbox)
        self._task_calls = TaskCalls(toolbox, self._perform)
        self._task_methods = TaskMethods(self._task_calls, toolbox.settings.tasks)
        self._task_tools = TaskTools(self._task_calls)
        self._search = SearchTools(toolbox, self._tools)
        self._listed = anyio.Event()
        self._own = frozenset(toolbox.settings.server.toolsets)
        own, instructions = identity_of(toolbox.settings, self._own)
        self.mcp = _LowLevelServer(
            own["name"],
            version=own["version"],
            title=own.get("title"),
            instructions=instructions,
            cache_hints={**CACHE_HINTS, "tools/list": self._freshness()},
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscriptions_listen=self._notifier.listen,
        )
        self.mcp.add_request_handler("tools/call", CallToolRequestParams, self._call_tool)
        self._traces = RequestTraces(self._has_handler)
        self.mcp.middleware[:] = [self._traces, self._say_who] if toolbox.settings.toolsets else [self._traces]
        self.mcp.add_notification_handler(
            "notifications/initialized", NotificationParams, self._notifier.on_initialized
        )
        if self._task_calls.is_possible:
            self._serve_tasks()

    def _serve_tasks(self) -> None:
        methods, add = self._task_methods, self.mcp.add_request_handler
        self.mcp.extensions[TASKS] = {}
        add("tasks/get", TaskParams, lambda ctx, params: methods.get(ctx, params, self._caller_of(ctx)))
        add("tasks/update", UpdateParams, lambda ctx, params: methods.update(ctx, params, self._caller_of(ctx)))
        add("tasks/cancel", TaskParams, lambda ctx, params: methods.cancel(ctx, params, self._caller_of(ctx)))
        settings = self._toolbox.settings.tasks
        listening = TaskListening(self._notifier.listen, self._task_calls, methods, settings, self._caller_of)
        add("subscriptions/listen", SubscriptionsListenRequestParams, listening)

    @property
    def legacy_sessions(self) -> int:
        """Clients of the older era that are connected now."""
        return self._notifier.legacy_sessions

    def take_nothing_new(self) -> None:
        """The server is about to go: end the streams on which clients listen for changes, as the specification has it,
        and leave tasks of servers that are gone to others."""
        self._notifier.close()
        self._task_calls.take_no_more()

    async def serve(
        self, incoming: ReadStream[SessionMessage | Exception], outgoing: WriteStream[SessionMessage]
    ) -> None:
        """Serve one client over a pair of streams, in the era that it opens with, until it leaves."""
        await self.mcp.run(incoming, outgoing, self.mcp.create_initialization_options())

    @classmethod
    @asynccontextmanager
    async def open(cls, toolbox: Toolbox) -> AsyncIterator[Self]:
        """A server over a toolbox, and meanwhile what goes on next to its calls."""
        server = cls(toolbox)
        notifier, settings = server._notifier, toolbox.settings
        with unwrapped():
            async with anyio.create_task_group() as tasks:

                def begin(what: str, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
                    tasks.start_soon(server._guarded, what, partial(work, *arguments))

                if server._traces.open():
                    begin("exporting spans", server._traces.load)
                tasks.start_soon(notifier.run)
                begin("republishing tools of upstreams", toolbox.upstreams.run, notifier.changed)
                if settings.reload:
                    begin("watching contracts", toolbox.watch, notifier.on_change)
                begin("removing what killed servers left", server._once_listed, toolbox.reap_periodically)
                begin("comparing tools with the lock", server._once_listed, toolbox.report_refused)
                begin("reporting to doctor", toolbox.keep_status)
                if server._task_calls.is_possible:
                    begin("running tasks", server._task_calls.run, server._until_listed)
                if settings.prefetch:
                    begin("pulling images ahead of calls", server._prefetch)
                try:
                    yield server
                finally:
                    await server._traces.close()
                notifier.close()
                tasks.cancel_scope.cancel()

    def _freshness(self) -> CacheHint:
        # Clients that listen for changes drop their copy when notified; the others must look again before long. Where
        # callers have credentials, the list is one caller's own.
        return CacheHint(5_000, "private" if self._toolbox.settings.http.auth.required else "public")

    async def _once_listed(self, work: Callable[[], Awaitable[None]]) -> None:
        # Not before the client has its tools: SDKs of engines are imported for it, or every contract's files are read.
        await self._until_listed()
        await work()

    async def _until_listed(self) -> None:
        # No server may wait for ever for its first client with what others left.
        with anyio.move_on_after(UNASKED):
            await self._listed.wait()

    async def tasks_ended(self) -> None:
        """Wait until no task of the tasks extension runs here."""
        await self._task_calls.idle()

    async def _prefetch(self) -> None:
        # Pulling before the client has its tools would take from the little time that it waits for them.
        await self._listed.wait()
        await self._toolbox.prefetch()

    @staticmethod
    async def _guarded(what: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as exc:  # noqa: BLE001 - a comfort that fails must not take the calls down with it
            logger.error("{} has ended: {}", what, places(exc))

    def _has_handler(self, method: str) -> bool:
        known = (self.mcp.get_request_handler, self.mcp.get_notification_handler)
        return any(find(method) is not None for find in known)

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        try:
            return self._toolbox.catalog.get(name).input_schema
        except UnknownToolError:
            found = self._toolbox.upstreams.served(name) or SEARCH_TOOLS.get(name)
            return found.input_schema if found is not None else None

    async def _list_tools(self, ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        await self._toolbox.loaded()
        await self._toolbox.upstreams.ready()
        cursor = params.cursor if params else None
        entries = self._toolbox.upstreams.merged_with(self._toolbox.catalog.entries())
        caller = self._caller_of(ctx)
        if self._has_task_tools:
            entries = self._task_tools.merged_with(entries)
        entries = self._search.merged_with(entries)
        is_shown, is_searched = self._search.filter_for(entries, caller) or (None, False)
        try:
            page = self._tools.page(entries, cursor, Dialect(ctx.protocol_version), caller, is_shown)
        except BadCursor as exc:
            raise MCPError(INVALID_PARAMS, "The cursor was not given out by this server.") from exc
        self._pages.listed(ctx, caller.name, cursor, page)
        self._listed.set()
        if is_searched:
            page.tools = always_loaded(page.tools)
        if read_hops(ctx.meta):
            page.tools = with_origin(page.tools, self._toolbox)
        return page

    @property
    def _has_task_tools(self) -> bool:
        return self._toolbox.settings.tasks.tools and self._task_calls.is_possible

    async def _call_tool(self, ctx: Context, params: CallToolRequestParams) -> CallToolResult | dict[str, Any]:
        await self._toolbox.loaded()
        caller = self._caller_of(ctx)
        self._pages.called(ctx, caller.name)
        if params.name in SEARCH_TOOLS and self._search.serves(caller):
            return await self._search_or_call(ctx, params, caller)
        return await self._call_named(ctx, params, caller)

    async def _search_or_call(
        self, ctx: Context, params: CallToolRequestParams, caller: Caller
    ) -> CallToolResult | dict[str, Any]:
        try:
            if params.name == FIND_TOOL:
                return await self._search.find(params.arguments or {}, caller, Dialect(ctx.protocol_version))
            called = self._search.called(params)
        except PraxisError as exc:
            return error_result(exc)
        except Exception as exc:  # noqa: BLE001 - one call's defect must not look like the server's to the client
            return refusal(report_defect("tools were searched", exc))
        try:
            return await self._call_named(ctx, called, caller)
        except _NotCallable as exc:
            # What a model can do better is a result.
            return refusal(f"{exc.error.message} {FIND_TOOL} finds tools by words.")

    async def _call_named(
        self, ctx: Context, params: CallToolRequestParams, caller: Caller
    ) -> CallToolResult | dict[str, Any]:
        if caller.view is not None and self._toolbox.catalog.find(params.name) is None:
            await self._toolbox.upstreams.wait_for(params.name)
        if not caller.sees(params.name):
            self._toolbox.runner.tally.refuse(params.name, caller.name, "unknown_tool", client_name(ctx))
            raise _NotCallable(INVALID_PARAMS, f'There is no tool "{params.name[:128]}".')
        if not caller.covers(params.name):
            self._toolbox.runner.tally.refuse(params.name, caller.name, "forbidden", client_name(ctx))
            # Whether there is such a tool is not theirs to know.
            raise _NotCallable(INVALID_PARAMS, f'Your credentials do not cover the tool "{params.name[:128]}".')
        try:
            with continuing(read_hops(ctx.meta)):
                return await self._run(ctx, params, caller)
        except UnknownToolError as exc:
            self._toolbox.runner.tally.refuse(params.name, caller.name, "unknown_tool", client_name(ctx))
            # The error names similar tools, among which there may be some that are not theirs to know.
            text = str(exc) if caller.calls_all_tools else f'There is no tool "{params.name[:128]}".'
            raise _NotCallable(INVALID_PARAMS, text) from exc
        except PraxisError as exc:
            return error_result(exc)
        except MCPError:
            raise
        except Exception as exc:  # noqa: BLE001 - one call's defect must not look like the server's to the client
            return refusal(report_defect(f"{params.name[:128]} was called", exc))

    async def _run(
        self, ctx: Context, params: CallToolRequestParams, caller: Caller
    ) -> CallToolResult | dict[str, Any]:
        dialect, arguments = Dialect(ctx.protocol_version), params.arguments or {}
        try:
            contract = self._toolbox.catalog.get(params.name).contract
        except UnknownToolError:
            try:
                remote = await self._toolbox.relays.find(params.name)
            except ExecutionError:
                self._toolbox.runner.tally.refuse(params.name, caller.name, "held_back", client_name(ctx))
                raise
            if remote is None:
                if params.name in TOOLS and self._has_task_tools:
                    return await self._task_tools.call(params.name, arguments, caller, dialect)
                raise
            reporter = self._reporter(ctx)
            async with reporting(reporter):
                on_output = reporter.on_output if reporter else None
                return await self._relay.call(remote, arguments, dialect, on_output, caller.name, client_name(ctx))
        call = ToolCall(contract, arguments, caller.name, client_name(ctx))
        if contract.execution != "call" and (task := await self._as_task(ctx, call, caller)) is not None:
            return task
        reporter = self._reporter(ctx, stdout_is_data=contract.output == "json")
        async with reporting(reporter):
            return await self._perform(call, dialect, reporter)

    async def _perform(self, call: ToolCall, dialect: Dialect, reporter: ProgressReporter | None) -> CallToolResult:
        result = await self._toolbox.runner.call(
            call.contract.name,
            call.arguments,
            caller=call.caller,
            client=call.client,
            on_output=reporter.on_output if reporter else None,
            on_status=reporter.on_status if reporter else None,
        )
        return await ResultWriter(self._toolbox.settings, dialect).write(call.contract, result)

    async def _as_task(self, ctx: Context, call: ToolCall, caller: Caller) -> CallToolResult | dict[str, Any] | None:
        """The answer to a call that has become a task; None where it is to be answered with its result."""
        if not self._task_calls.is_possible:
            return None
        is_spoken = speaks_tasks(ctx)
        can_follow = call.contract.execution == "task" and self._has_task_tools and caller.may_call(RESULT)
        if not (is_spoken or can_follow):
            return None
        task = await self._task_calls.begin(call)
        if task is None:
            return None
        if not is_spoken:
            return started(task)
        return {"resultType": "task", **task_facts(task, self._toolbox.settings.tasks)}

    def _reporter(self, ctx: Context, *, stdout_is_data: bool = False) -> ProgressReporter | None:
        if not ctx.meta or "progress_token" not in ctx.meta:
            return None
        heartbeat = self._toolbox.settings.calls.heartbeat
        return ProgressReporter(ctx.session.report_progress, heartbeat=heartbeat, stdout_is_data=stdout_is_data)

    def _caller_of(self, ctx: Context) -> Caller:
        """Who made a request, and what they see. Over stdio it is the user who started this process."""
        caller, requested = ANYONE, None
        if ctx.request is not None:
            # A request that no authenticator has seen has no such key, and fails here instead of passing for anyone's.
            caller, requested = ctx.request.scope[SCOPE_KEY], ctx.request.scope.get(TOOLSET_KEY)
        view = self.toolsets.view(requested, caller.toolsets)
        return caller if view is None else replace(caller, view=view)

    def _toolsets_of(self, ctx: Context) -> frozenset[str] | None:
        view = self._caller_of(ctx).view
        return view.names if isinstance(view, View) else None

    def _find(self, name: str) -> Entry | None:
        return self._toolbox.catalog.find(name) or self._toolbox.upstreams.served(name)

    def _shown(self, names: frozenset[str] | None) -> tuple[object, ...] | None:
        if not self._toolbox.is_loaded:
            return None
        entries = self._toolbox.upstreams.merged_with(self._toolbox.catalog.entries())
        return self.toolsets.listed(entries, names)

    async def _say_who(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Middleware: clients of other toolsets than the server's own learn what those say of themselves."""
        result = await call_next(ctx)
        names = self._toolsets_of(ctx)
        if not isinstance(result, dict) or names is None or names == self._own:
            return result
        own, instructions = identity_of(self._toolbox.settings, names)
        meta = result.get("_meta") or {}
        if SERVER_INFO_META_KEY in meta:
            result = {**result, "_meta": {**meta, SERVER_INFO_META_KEY: own}}
        if ctx.method == "initialize":
            return {**result, "serverInfo": own, "instructions": instructions}
        if ctx.method == "server/discover":
            return {**result, "instructions": instructions, "cacheScope": "private"}
        return result

    async def _list_resources(self, ctx: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        if params and params.cursor is not None:
            raise MCPError(INVALID_PARAMS, "resources/list has one page only, and gave out no cursor.")
        return await self._resources.list(self._caller_of(ctx))

    async def _list_templates(self, ctx: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        if params and params.cursor is not None:
            raise MCPError(INVALID_PARAMS, "resources/templates/list has one page only, and gave out no cursor.")
        return self._resources.templates()

    async def _read_resource(self, ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        dialect = Dialect(ctx.protocol_version)
        caller = self._caller_of(ctx)
        try:
            linked = await self._relay.read(params.uri, dialect, caller)
            return linked or await self._resources.read(params.uri, dialect, caller)
        except MCPError:
            raise
        except Exception as exc:  # noqa: BLE001 - the SDK would log its message, which may hold a secret
            raise MCPError(INTERNAL_ERROR, report_defect("a resource was read", exc)) from None


class _NotCallable(MCPError):
    """There is no such tool for the caller."""


class _LowLevelServer(Server[Any]):
    """The SDK's server, saying of itself what is true here: the list of tools changes, that of resources is not
    watched. Some transports ask for these options without arguments, and clients drop notifications that were not
    announced."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> ServerCapabilities:
        capabilities = super().get_capabilities(
            notification_options, experimental_capabilities, extensions, protocol_version=protocol_version
        )
        capabilities.resources = ResourcesCapability(subscribe=False, list_changed=False)
        if protocol_version not in MODERN_PROTOCOL_VERSIONS:
            capabilities.extensions = None
        return capabilities
