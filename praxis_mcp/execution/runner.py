"""One call's life, from a name and arguments to a result: the one place that knows the order."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from praxis_mcp.contracts.catalog.catalog import Catalog
from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.schemas.schema import compile_schemas, is_compiled, validate_arguments
from praxis_mcp.contracts.values import BindKind
from praxis_mcp.engines.artifacts import remove_artifact_directory
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult, StatusListener
from praxis_mcp.engines.outcomes import NotBegun, describe_end
from praxis_mcp.engines.output import OutputListener
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError, LimitUnsupported
from praxis_mcp.execution.admission import Admission, CallerLimits, rate_of
from praxis_mcp.execution.cache import ResultCache
from praxis_mcp.execution.masking import mask_error, mask_names
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.row import About
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.execution.selection import Decision, EngineSelector
from praxis_mcp.execution.spill import PIN_TIMEOUT, Spilling, Standby
from praxis_mcp.execution.tally import CallTally, Counted
from praxis_mcp.plans.build import new_run_id
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.plans.planning import check_again, plan_call, plan_image
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.workers import compute, size_of_json

if TYPE_CHECKING:
    from praxis_mcp.execution.locking.enforcing import Enforcement
    from praxis_mcp.execution.shared_limits import SharedLimits

START_ALLOWANCE = 660.0
"""Seconds that an engine may take in all, the tool's own timeout aside: a pull is bounded at 600, clean-up at 30."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a call would do: the plan, whole, and the engine that would run it.

    Attributes:
        standby: the engine that runs it instead where it would not begin at once on that one.
        placeholders: the required parameters that were not given; ``<name>`` stands for each.
        lacks_image: whether the engine would have to fetch the image first.
        cold_reason: why nothing can be started ahead of it on that engine; empty where something can, None where
            nobody knows.
    """

    contract: ToolContract
    plan: Plan
    decision: Decision
    standby: Standby = Standby()
    placeholders: tuple[str, ...] = ()
    lacks_image: bool = False
    cold_reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    """One call as it came.

    Attributes:
        contract, arguments: what is called.
        about: what its record says of it.
        caller, on_output, on_status, run_id: see `ToolRunner.call`.
    """

    contract: ToolContract
    arguments: Mapping[str, Any]
    about: About
    caller: str
    on_output: OutputListener | None
    on_status: StatusListener | None
    run_id: str = ""

    def noting(self, **facts: Any) -> _Request:
        """The same, with more in `about`."""
        return replace(self, about=replace(self.about, **facts))


class ToolRunner:
    """Runs calls. `call`, `explain`, `test` and the server all go through it."""

    def __init__(self, catalog: Catalog, engines: EngineRegistry, records: RunRecords, settings: Settings) -> None:
        self.admission = Admission(settings.calls)
        self.callers = CallerLimits(settings.calls, shared=_shared_limits(records.store, settings))
        self.tally = CallTally(records.refused)
        self.selector = EngineSelector(engines)
        self._spilling = Spilling(engines, self.selector, enabled=settings.engines.spill)
        self._catalog = catalog
        self._engines = engines
        self._records = records
        self._settings = settings
        self._cache = ResultCache()
        self.lock = _enforcement(settings)

    @property
    def has_tools(self) -> bool:
        """Whether there is any tool to run now."""
        return bool(self._catalog.entries())

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        caller: str = "",
        client: str = "",
        on_output: OutputListener | None = None,
        on_status: StatusListener | None = None,
        run_id: str = "",
    ) -> ExecutionResult:
        """Run a tool to its end. Cancelling the call kills what it started.

        Args:
            name: the tool.
            arguments: as the caller gave them.
            caller: who calls; the run's record is theirs. Empty is anonymous.
            client: name and version of the program that calls, as it gives them.
            on_output: receives output as it arrives, secrets masked.
            on_status: is called with what the engine is busy with.
            run_id: of `new_run_id`, for who must know it before the call begins; empty makes one.

        Raises:
            UnknownToolError: no such tool.
            ArgumentError: the arguments do not fit.
            ContractError, SettingsError: contract or settings keep it from running.
            ExecutionError: it could not be run; see the subclasses.
        """
        entry = self._catalog.get(name)
        about = About(client, str(self._settings.root), str(entry.source), entry.fingerprint)
        return await self._counted(_Request(entry.contract, arguments, about, caller, on_output, on_status, run_id))

    async def run(
        self,
        contract: ToolContract,
        arguments: Mapping[str, Any],
        *,
        caller: str = "",
        on_output: OutputListener | None = None,
        on_status: StatusListener | None = None,
    ) -> ExecutionResult:
        """As `call`, for a contract that need not be in the catalog: one that was built in code."""
        about = About(root=str(self._settings.root))
        return await self._counted(_Request(contract, arguments, about, caller, on_output, on_status))

    async def _counted(self, request: _Request) -> ExecutionResult:
        name, caller = request.contract.name, request.caller
        with (
            self.tally.call(name, caller, request.about.client) as counted,
            self.callers.hold(caller, name) as may_begin,
        ):
            result = await self._call(request, counted, may_begin)
            counted.ended(result)
            return result

    async def explain(self, name: str, arguments: Mapping[str, Any]) -> Explanation:
        """What `call` would do with these arguments, without doing it; raises what `call` would, except
        that an argument may be missing."""
        contract = self._catalog.get(name).contract
        filled, placeholders = fill_arguments(contract, arguments)
        plan = await self._locked(contract, lambda: plan_call(contract, filled, self._settings))
        decision = await self.selector.decide(plan)
        standby = await self._spilling.find(plan, decision, take=False)
        lacks = await self.lacks_image(decision.engine, plan.blueprint)
        reason = None
        if decision.engine is not None:
            with anyio.move_on_after(PIN_TIMEOUT), suppress(ExecutionError):
                reason = await self._engines.get(decision.engine).find_cold_reason(plan)
        return Explanation(contract, plan, decision, standby, placeholders, lacks, reason)

    async def plan_image(self, contract: ToolContract) -> Blueprint:
        """What is fixed for every call of the contract, with its image as it may run here; see `plan_image`.

        Raises:
            ContractError: only what is locked may run, and this is not.
        """
        if self.lock is not None:
            await self.lock.check_contract(contract)
        blueprint = await plan_image(contract, self._settings)
        return blueprint if self.lock is None else self.lock.pin_blueprint(blueprint)

    async def lacks_image(self, engine: str | None, blueprint: Blueprint) -> bool:
        """Whether that engine would have to fetch the image before a call could begin; False where nobody knows.

        Args:
            engine: the one that was chosen; None where none was.
            blueprint: what would run.
        """
        if engine is not None and blueprint.image is not None:
            with anyio.move_on_after(PIN_TIMEOUT), suppress(ExecutionError):
                return await self._engines.get(engine).lacks_image(blueprint)
        return False

    async def _call(
        self, request: _Request, counted: Counted, may_begin: Callable[[], Awaitable[None]]
    ) -> ExecutionResult:
        contract, caller = request.contract, request.caller
        name, phases = contract.name, counted.phases
        phases.enter(Phase.PLAN)
        run_id = counted.run_id = request.run_id or new_run_id()
        log = logger.bind(run=run_id)
        if not is_compiled(contract):
            await anyio.to_thread.run_sync(compile_schemas, contract)
        size = size_of_json(request.arguments)
        fitting = await compute(validate_arguments, contract, request.arguments, size=size)
        plan = await self._locked(
            contract, lambda: plan_call(contract, fitting, self._settings, run_id, caller, create=True)
        )
        log.debug("{}: arguments fit; planned as run {}", name, run_id)
        if (shown := await self._records.arguments(plan, contract.parameters)) is not None:
            request = request.noting(arguments=shown)
        await may_begin()
        key = await self._cache.key(plan, contract.directory)
        if key is not None and (known := self._cache.get(key)) is not None:
            log.debug("{}: answered from the cache", name)
            phases.enter(Phase.CACHE)
            record = await self._records.start(plan, known.engine, caller, request.about, phases)
            counted.is_recorded = True
            async with self._records.watched(record):
                again = replace(known, run_id=run_id, phases=MappingProxyType(phases.seconds))
                return await self._records.finish(record, again)
        phases.enter(Phase.QUEUE)
        async with self.admission.slot(name, contract.max_concurrency, self.callers.shares(caller)):
            phases.enter(Phase.CHOOSE)
            # Once more, now that the call runs at last: while it waited, a tool that may write there can have put a
            # link to something sensitive where a mount was approved.
            plan = await check_again(plan, self._settings)
            try:
                decision = await self.selector.choose(plan)
            except ExecutionError as exc:
                counted.is_recorded = True
                await self._records.refuse(plan, caller, request.about, phases, str(exc))
                raise
            if self.lock is not None:
                await self.lock.check_contract(contract)
                await self.lock.check_image(self._engines, decision.engine or "", plan.blueprint)
            log.debug(
                "{}: admitted after {:.1f} ms; engine {}", name, phases.seconds[Phase.QUEUE] * 1000, decision.engine
            )
            for verdict in decision.passed_over:
                log.debug("{}: not {}: {}", name, verdict.engine, verdict.reason)
            if decision.passed_over:
                request = request.noting(passed_over=tuple((item.engine, item.reason) for item in decision.passed_over))
            result = await self._run(request, plan, decision, counted)
        if key is not None:
            self._cache.put(key, result)
        return result

    async def _locked(self, contract: ToolContract, make: Callable[[], Awaitable[Plan]]) -> Plan:
        """The plan as it may run where only what is locked may: before that is known, no directory is made and no
        secret looked up.

        Raises:
            ContractError: it may not.
        """
        if self.lock is None:
            return await make()
        await self.lock.check_contract(contract)
        return self.lock.pin(await make())

    async def _run(self, request: _Request, plan: Plan, decision: Decision, counted: Counted) -> ExecutionResult:
        contract, engine, phases = request.contract, decision.engine or "", counted.phases
        counted.engine = engine
        phases.enter(Phase.START)
        record = await self._records.start(plan, engine, request.caller, request.about, phases)
        counted.is_recorded = True
        context = ExecutionContext(
            on_output=self._records.listener(record, request.on_output),
            on_status=request.on_status,
            directory=self._records.place_of(record),
            make_directory=partial(self._records.make_directory, record),
            max_stream=self._settings.records.max_stream,
            is_served=partial(self._catalog.serves, contract),
            phases=phases,
            changes=self._records.changes,
        )
        log = logger.bind(run=plan.call.run_id)
        bound = plan.blueprint.limits.timeout + START_ALLOWANCE
        masker = Masker(plan.call.secrets)
        async with self._records.watched(record):
            try:
                with anyio.fail_after(bound):
                    result = await self._run_or_spill(plan, decision, context, record, counted)
            except TimeoutError as exc:
                raise ExecutionTimeout(
                    f"The {record.engine} engine did not finish {contract.name} within {bound:g} s."
                ) from exc
            except ExecutionError as exc:
                mask_error(exc, masker)
                if isinstance(exc, EngineUnavailable):
                    self.selector.forget(record.engine)
                log.debug("{}: {}: {}", contract.name, type(exc).__name__, exc.message)
                raise
            phases.adopt(result.phases)
            if masker:
                result = await mask_names(result, masker, self._records.place_of(record) / "artifacts")
            result = replace(result, phases=MappingProxyType(phases.seconds))
            log.debug("{}: {} in {:.1f} ms", contract.name, describe_end(result), result.duration * 1000)
            return await self._records.finish(record, result)

    async def _run_or_spill(
        self, plan: Plan, decision: Decision, context: ExecutionContext, record: RunRecord, counted: Counted
    ) -> ExecutionResult:
        """Run it on the chosen engine, or on one that stands in for that where it would not begin at once there."""
        first = decision.engine or ""
        engine = self._engines.get(first)
        with engine.claim(plan, context) as claim:
            standby = Standby()
            if not claim.begins_now:
                context.phases.enter(Phase.CHOOSE)
                standby = await self._spilling.find(plan, decision)
                context.phases.enter(Phase.START)
            if standby.engine is not None:
                record.engine = counted.engine = standby.engine
                record.choice = f"{standby.engine} instead of {first}, where nothing waited for the call"
                about = record.about
                record.about = replace(about, passed_over=(*about.passed_over, (first, "nothing waited for the call")))
                self._records.update(record)  # while it runs, and where this server is killed meanwhile
                claim.run_elsewhere()
                try:
                    result = await self._engines.get(standby.engine).run(plan, replace(context, image=standby.image))
                except (EngineUnavailable, ImageError, LimitUnsupported, NotBegun) as exc:  # nothing has run
                    record.about = about
                    self._spilling.failed(standby.engine, plan.blueprint.tool)
                    await remove_artifact_directory(context)
                    mask_error(exc, Masker(plan.call.secrets))
                    logger.warning("{} could not stand in for {}: {}", standby.engine, first, exc.message)
                else:
                    self.tally.spilled[plan.blueprint.tool, standby.engine, first] += 1
                    return result
            record.engine = counted.engine = first
            record.choice = _why_first(first, standby, begins_now=claim.begins_now)
            if standby.engine is not None:
                self._records.update(record)
            return await engine.run(plan, replace(context, claim=claim))


def _enforcement(settings: Settings) -> Enforcement | None:
    if not settings.locked:
        return None
    from praxis_mcp.execution.locking.enforcing import Enforcement

    return Enforcement(settings)


def _shared_limits(store: RecordStore | None, settings: Settings) -> SharedLimits | None:
    most, rate = settings.calls.max_per_caller, rate_of(settings.calls)
    if store is None or (most is None and rate is None):
        return None
    from praxis_mcp.execution.shared_limits import SharedLimits

    # A database by its URL is for servers that agree on who callers are; the file of a user is for all of their
    # projects, whose callers have nothing to do with one another.
    return SharedLimits(store, most, rate, "" if store.is_shared else f"{settings.root}\n")


def _why_first(engine: str, standby: Standby, *, begins_now: bool) -> str:
    if begins_now:
        return f"{engine}: the first that can run it"
    why = standby.reason or f"{standby.engine} could not stand in for it"
    return f"{engine}: the first that can run it; nothing waited for the call, and {why}"


def fill_arguments(contract: ToolContract, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments, checked, defaults applied; and the names of the parameters that a placeholder stands for.

    Raises:
        ArgumentError: those that were given do not fit.
    """
    missing = [item for item in contract.parameters if item.required and item.name not in arguments]
    if not missing:
        return validate_arguments(contract, arguments), ()
    optional = tuple(item.model_copy(update={"required": False}) for item in contract.parameters)
    checked = validate_arguments(contract.model_copy(update={"parameters": optional}), arguments)
    checked |= {item.name: _placeholder(item) for item in missing}
    return checked, tuple(item.name for item in missing)


def _placeholder(parameter: ToolParameter) -> Any:
    text = f"<{parameter.name}>"
    if parameter.type == "boolean" and parameter.bind.kind is BindKind.FLAG:
        return True  # the flag itself
    if parameter.keywords.get("contentEncoding") == "base64":
        return base64.b64encode(text.encode()).decode()
    return text
