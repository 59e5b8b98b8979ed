"""Execs that are started before their call: each a fresh container, for one call, and gone after it.

All that a blueprint fixes, and what its mounts hold, is in the exec already. What varies travels to praxis-init over
a Unix socket of this machine that Dagger forwards, and output and exit code come back the same way. Dagger's own
result of the exec is waited for only where files are to be brought back.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.call_socket import CallSocket, ForwardedChannel
from praxis_mcp.engines.dagger.cold import CallResult
from praxis_mcp.engines.dagger.errors import QueryFailed, SessionLost, no_answer
from praxis_mcp.engines.dagger.exec import (
    KILL_TIME,
    RUN_VARIABLE,
    cache_busting_step,
    check_started,
    container_steps,
    is_in_mount,
)
from praxis_mcp.engines.dagger.export import changes_fields, read_changes
from praxis_mcp.engines.dagger.images import ENGINE_VARIABLES, INIT, SOCKET, BaseContainer
from praxis_mcp.engines.dagger.mounts import Upload
from praxis_mcp.engines.dagger.query import Field, value_at
from praxis_mcp.engines.dagger.session import Session, SessionManager
from praxis_mcp.engines.init.framing import WaitCall
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.init.waiter import WAITER_PATIENCE, Waiter, WaiterLost, WaiterSilent, wait_call
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.engines.warm.call import WarmCalls, WarmKey
from praxis_mcp.engines.warm.pool import WarmBudget
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.settings.sections import WarmSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import DEFAULT_KILL_AFTER, EXIT_SIGNAL_BASE, Ended, EndKind, wait_words
from praxis_mcp.support.tasks import BackgroundTasks

DaggerKey = WarmKey[Session]
"""The key of warm execs."""
EXEC_END_TIMEOUT = 2.0
"""Seconds for an exec to end by itself after it was asked to, or has reported its end; then Dagger kills it."""
HELLO_TIMEOUT = 30.0
"""Seconds for an exec that is started ahead of its call to say hello."""
MAX_WAITING_EXECS = 24
"""Execs that wait at once, whatever the settings say: each holds one of the client's 100 connections, and so do calls
(64) and their other queries."""
FILE_MODE = 0o644
QUERIES_CLOSE_TIMEOUT = 5.0

Preparation = Callable[[Session, Blueprint], Awaitable[tuple[BaseContainer, list[Upload]]]]
"""Gives what an exec starts from: the contract's container, and its mounts as they are now."""


class WaitingQuery:
    """The query that runs a waiting exec, in flight until that has ended.

    Attributes:
        ended: set when the exec has ended, or the query failed.
    """

    def __init__(self, session: Session, steps: Sequence[Field], *selected: Field) -> None:
        """`steps`: the chain of fields to the exec; `selected`: what is asked of it."""
        self.ended = anyio.Event()
        self._session = session
        self._steps = steps
        self._selected = selected
        self._answer: Mapping[str, Any] | None = None
        self._failure: QueryFailed | EngineUnavailable | None = None
        self._life = anyio.CancelScope()

    async def run(self) -> None:
        """Send it, and wait for the answer."""
        try:
            with self._life:
                self._answer = await self._session.select(self._steps, *self._selected)
        except (QueryFailed, EngineUnavailable) as exc:
            self._failure = exc
        finally:
            self.ended.set()

    async def answer(self) -> Mapping[str, Any]:
        """What was asked of the exec, when it is there.

        Raises:
            QueryFailed, EngineUnavailable: there is none.
        """
        await self.ended.wait()
        if self._failure is not None:
            raise self._failure
        if self._answer is None:
            raise SessionLost("The Dagger engine was closed while the call was using it.")
        return self._answer

    async def end(self, *, at_once: bool = False) -> None:
        """Wait for the exec to end, unless `at_once`, and have Dagger kill it where it does not; bounded."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(0 if at_once else EXEC_END_TIMEOUT):
                await self.ended.wait()
                return
            self._life.cancel()
            await self.ended.wait()
            if not self._session.is_lost:
                await anyio.sleep(KILL_TIME)


def cold_reason(plan: Plan) -> str:
    """Why no exec can wait for a call, whatever its image; empty where one can."""
    if plan.blueprint.pure:
        return "Dagger answers equal calls from its cache (cache: pure)"
    if any(is_in_mount(plan.blueprint, file.path) for file in plan.call.files):
        # A waiting exec would have to write it into what it brings back.
        return "a file of the call is below a mount"
    return "" if hasattr(socket, "AF_UNIX") else "this system has no Unix sockets"


class WarmExec:
    """An exec whose praxis-init has said hello."""

    def __init__(
        self,
        key: DaggerKey,
        base: BaseContainer,
        uploads: Sequence[Upload],
        query: WaitingQuery,
        channel: ForwardedChannel,
        is_current: Callable[[Session], bool],
    ) -> None:
        self.key = key
        self.base = base
        self.uploads = uploads
        self.query = query
        self.waiter = Waiter(channel)
        self._is_current = is_current

    def is_fresh(self) -> bool:
        """See `WarmItem.is_fresh`. Not if a mount held something else when a call last looked."""
        session = self.key.session
        return (
            self.waiter.is_waiting()
            and not self.query.ended.is_set()
            and self._is_current(session)
            and all(item.is_latest(session) for item in self.uploads)
        )

    async def discard(self) -> None:
        """See `WarmItem.discard`."""
        await self.waiter.aclose()
        await self.query.end()


class WarmDagger(WarmCalls[Session, WarmExec]):
    """The warm execs of one engine.

    Args:
        sessions: the engine's sessions.
        prepare: see `Preparation`.
        directory: gives an existing directory for sockets, private to this user.
        settings: how many, and for how long.
        budget: what the engine shares with others.
    """

    log = "the Dagger engine's log"

    def __init__(
        self,
        sessions: SessionManager,
        prepare: Preparation,
        directory: Callable[[], Awaitable[Path]],
        settings: WarmSettings,
        budget: WarmBudget,
    ) -> None:
        super().__init__(settings, budget, QueryFailed)
        self._sessions = sessions
        self._prepare = prepare
        self._directory = directory
        self._queries = BackgroundTasks()

    @staticmethod
    def key(session: Session, plan: Plan, base: BaseContainer) -> DaggerKey | None:
        """The key of a plan's execs; None for a plan that takes the cold path always."""
        return None if not base.has_init or cold_reason(plan) else WarmKey.of(plan, session)

    async def run(
        self,
        session: Session,
        plan: Plan,
        base: BaseContainer,
        uploads: list[Upload],
        context: ExecutionContext,
        grace: float,
        cold: Callable[[], Awaitable[CallResult]],
    ) -> CallResult:
        """Run a call in an exec that waits for it, or in one that is started for it the same way; by `cold` where
        neither can be (see `WarmCalls.call`).

        One that has not been handed its call yet has nothing to run. So a call that is cancelled while its container
        starts leaves nothing, although Dagger goes on with a start that was cancelled in the wrong moment (seen with
        v0.21.8, in 2 of 100).

        Raises:
            CommandNotFound, ExecutionError: as the cold path's.
            ExecutionTimeout: nothing was there to take it within its timeout, two seconds and `grace`.
            QueryFailed: it ran, and Dagger does not give what it changed.
        """
        fixed = plan.blueprint
        bound = fixed.limits.timeout + DEFAULT_KILL_AFTER + grace
        is_current = self._sessions.is_current(session)
        key = self.key(session, plan, base) if is_current else None

        async def hand_over(found: WarmExec) -> CallResult:
            return await self._run_in(found, plan, context, grace)

        async def begin() -> CallResult:
            if key is None:
                return await cold()
            context.phases.enter(Phase.START)
            try:
                with self._sessions.use(session), anyio.fail_after(bound):
                    started = await self._start(key, base, uploads)
            except TimeoutError as exc:
                raise no_answer(fixed.tool, bound, grace) from exc
            except (QueryFailed, WaiterLost, SessionLost, OSError) as exc:
                if session.is_lost:
                    raise
                logger.debug("{}: no exec took its call, which begins without: {}", fixed.tool, exc)
                return await cold()
            end = await self._hand_over(started, fixed.tool, hand_over)
            return await cold() if end is None else end

        return await self.call(key if fixed.warm and context.is_served() else None, hand_over, begin)

    def forget(self, session: Session) -> None:
        """Remove those of a session, in the background; where another one has replaced it, they are started there."""
        current = self._sessions.current
        if current is None:
            self.pool.forget(lambda key: key.session is session)
        else:
            self.pool.move(lambda key: replace(key, session=current) if key.session is session else None)

    async def close_queries(self) -> None:
        """End what is left when the session is closed; bounded in time."""
        with anyio.CancelScope(shield=True):
            await self._queries.close(QUERIES_CLOSE_TIMEOUT)

    async def _run_in(self, waiting: WarmExec, plan: Plan, context: ExecutionContext, grace: float) -> CallResult:
        context.phases.enter(Phase.RUN)
        async with context.collectors(plan) as streams:
            try:
                end = await waiting.waiter.run(_call_of(waiting, plan), plan.call.stdin, *streams, grace=grace)
            except WaiterSilent as exc:
                raise no_answer(plan.blueprint.tool, exc.seconds, grace) from exc
            except WaiterLost as exc:
                end = await _end_after_loss(waiting, exc)
            if end.kind is EndKind.SETUP_FAILED:
                raise WaiterLost(f"praxis-init could not set up {end.step}", may_have_run=False)
            end = check_started(plan, end)
            context.phases.enter(Phase.COLLECT)
        done = CallResult(Finished(end, *streams.captured, waiting.base.image.name), waiting.uploads)
        return await self._add_files(waiting, plan, done, grace) if _returns_files(plan.blueprint) else done

    @staticmethod
    async def _add_files(waiting: WarmExec, plan: Plan, end: CallResult, grace: float) -> CallResult:
        try:
            with anyio.fail_after(grace):
                answer = await waiting.query.answer()
        except TimeoutError as exc:
            raise ExecutionTimeout(
                f"{plan.blueprint.tool} ended; the Dagger engine did not hand out its files within {grace:g} s.",
                remedy="Look at the Dagger engine's log and load, or raise engines.dagger.grace in the settings.",
            ) from exc
        return replace(end, container=str(answer["id"]), changes=read_changes(waiting.uploads, answer))

    async def start(self, key: DaggerKey) -> WarmExec:
        """See `WarmCalls.start`."""
        if len(self.pool.waiting) >= MAX_WAITING_EXECS:
            raise ExecutionError(f"There are {MAX_WAITING_EXECS} waiting Dagger execs already.")
        # Calls get another session: this one closes as soon as nobody uses it.
        with self._sessions.use(key.session):
            base, uploads = await self._prepare(key.session, key.blueprint)
            with anyio.fail_after(HELLO_TIMEOUT):
                return await self._start(key, base, uploads)

    async def _start(self, key: DaggerKey, base: BaseContainer, uploads: list[Upload]) -> WarmExec:
        query: WaitingQuery | None = None
        made: WarmExec | None = None
        place = CallSocket(await self._directory() / secrets.token_hex(8))
        try:
            steps = await self._steps(key, base, uploads, place.path)
            query = self._start_query(key.session, steps, *_result_fields(key.blueprint, uploads))
            made = await self._accept(key, base, uploads, query, place)
            return made
        finally:
            place.close()
            if made is None and query is not None:
                await query.end(at_once=True)

    async def _accept(
        self, key: DaggerKey, base: BaseContainer, uploads: list[Upload], query: WaitingQuery, place: CallSocket
    ) -> WarmExec:
        try:
            channel = await place.accept(query.ended)
        except WaiterLost:
            await query.answer()  # says why
            raise
        made = WarmExec(key, base, uploads, query, channel, self._sessions.is_current)
        try:
            await made.waiter.greet()
        except BaseException:
            await made.waiter.aclose()
            raise
        return made

    def _start_query(self, session: Session, steps: Sequence[Field], *selected: Field) -> WaitingQuery:
        """Gives the query only when it runs: one that the session refused would be waited for, and never end."""
        use = ExitStack()
        use.enter_context(self._sessions.use(session))  # here: in its task it would be too late to refuse
        query = WaitingQuery(session, steps, *selected)

        async def run() -> None:
            with use:
                await query.run()

        self._queries.start(run, "a waiting Dagger exec")
        return query

    @staticmethod
    async def _steps(key: DaggerKey, base: BaseContainer, uploads: list[Upload], path: Path) -> list[Field]:
        session, fixed = key.session, key.blueprint
        found = await session.query(Field("host", {}, (Field("unixSocket", {"path": str(path)}, (Field("id"),)),)))
        user = fixed.user or base.image.user
        # Sockets are their owner's alone; files are made here because their folders may be closed to the tool's user.
        owner = {"owner": user} if user else {}
        steps = container_steps(session, base, uploads)
        steps += [
            Field("withNewFile", {"path": file, "contents": "", "permissions": FILE_MODE, **owner})
            for file in key.files
        ]
        socket_id = value_at(found, "host", "unixSocket", "id")
        steps.append(Field("withUnixSocket", {"path": SOCKET, "source": socket_id, **owner}))
        steps.append(cache_busting_step("waiting"))
        arguments: dict[str, Any] = {"expect": "ANY", "noInit": True}
        arguments["args"] = wait_words(INIT, WAITER_PATIENCE, SOCKET, hide=ENGINE_VARIABLES)
        if fixed.privileged:
            arguments["insecureRootCapabilities"] = True
        steps.append(Field("withExec", arguments))
        return steps


def _returns_files(blueprint: Blueprint) -> bool:
    return blueprint.artifact_dir is not None or any(mount.writable for mount in blueprint.mounts)


def _result_fields(blueprint: Blueprint, uploads: list[Upload]) -> list[Field]:
    if not _returns_files(blueprint):
        return [Field("exitCode")]
    return [Field("id"), Field("exitCode"), *changes_fields(uploads)]


def _call_of(waiting: WarmExec, plan: Plan) -> WaitCall:
    fixed = plan.blueprint
    call = wait_call(
        plan,
        env={RUN_VARIABLE: f"{plan.call.run_id}-{secrets.token_hex(8)}"},
        no_network=fixed.network is Network.NONE,
        kill_after=DEFAULT_KILL_AFTER,
        seccomp=filter_for(fixed, waiting.base.image.machine, has_capabilities=True),
    )
    entrypoint = [word.encode() for word in waiting.base.image.entrypoint] if fixed.use_entrypoint else []
    files = [replace(file, mode=FILE_MODE) for file in call.files]
    return replace(call, argv=[*entrypoint, *call.argv], files=files)


async def _end_after_loss(waiting: WarmExec, loss: WaiterLost) -> Ended:
    """praxis-init is gone without a word: killed, by the kernel for memory, say; or the session is, with all in it.

    Raises:
        SessionLost: that.
        WaiterLost: nobody can tell how the call ended, or it surely has not run.
    """
    if not loss.may_have_run:
        raise loss
    try:
        with anyio.fail_after(EXEC_END_TIMEOUT):
            await waiting.query.answer()
    except QueryFailed as exc:
        code = exc.extensions.get("exitCode")
        if exc.is_exec_error and isinstance(code, int) and code > EXIT_SIGNAL_BASE:
            return Ended(EndKind.SIGNAL, code - EXIT_SIGNAL_BASE)
        raise loss from exc
    except TimeoutError:
        pass
    raise loss
