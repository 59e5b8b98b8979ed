"""The seam between praxis-mcp and everything that can run a tool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.schemas.schema import validate_arguments
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.engines.changes import NOTHING_KEPT, ChangeKeeper
from praxis_mcp.engines.file_states import FileChange
from praxis_mcp.engines.output import Captured, OutputListener, StreamCollector, Streams
from praxis_mcp.engines.phases import PhaseClock
from praxis_mcp.engines.warm.call import Claim
from praxis_mcp.engines.warm.counts import PoolMetrics
from praxis_mcp.engines.warm.pool import WarmBudget, WarmPool
from praxis_mcp.errors import ContractError, LimitUnsupported, PraxisError
from praxis_mcp.plans.build import draft_blueprint
from praxis_mcp.plans.model import Blueprint, Call, Capability, Plan
from praxis_mcp.plans.planning import find_all_problems, plan_call
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import find_missing

_ELSEWHERE = "Choose another engine, or remove the demand from the contract."

StatusListener = Callable[[str], None]
"""Is called with what an engine is busy with (``pulling python:3.11-slim: 40%``). Must not block."""


@dataclass(frozen=True, slots=True)
class EngineCapabilities:
    """What an engine can enforce and provide, here and now.

    Attributes:
        engine: its name.
        isolation: what stands between tool and host, in a word: ``container``, ``praxis-init``, ``bubblewrap``,
            ``process``, ``remote``.
        enforces: every `Capability` that a plan may demand of it.
        notes: why a capability is absent, by capability.
        without_init: what is absent only because this installation has no praxis-init.
        default_pids: how many processes and threads a tool may have whose contract has no `pids_limit`; None means
            no limit.
        caution: what is unsafe about how the settings have it run tools; empty: nothing.
    """

    engine: str
    isolation: str
    enforces: frozenset[Capability]
    notes: Mapping[Capability, str] = field(default_factory=dict)
    without_init: frozenset[Capability] = frozenset()
    default_pids: int | None = None
    caution: str = ""

    def lacks(self, plan: Plan) -> tuple[str, ...]:
        """What the plan demands and this engine cannot do, one phrase each, sorted."""
        missing = sorted(plan.demands - self.enforces)
        return tuple(f"{item.value} ({self.notes[item]})" if item in self.notes else item.value for item in missing)

    def remedy_for(self, plan: Plan) -> str:
        """How to have what the plan demands and this engine lacks; empty where nothing is known to help."""
        missing = plan.demands - self.enforces
        if Capability.BUILD in missing:
            return "Have Docker or Dagger on this machine, or build the image elsewhere, and name it by image:."
        if Capability.NETWORK_BRIDGE in missing:
            return "Write network: none in the contract, if the tool needs no network (older spellings mean bridge)."
        # What only praxis-init enforces, where this installation lacks that.
        init = find_missing() if missing & self.without_init else None
        return init.remedy if init is not None else ""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether an engine can be used now.

    Attributes:
        engine: its name.
        available: whether a call would find it.
        version: of the daemon, program or service.
        detail: what was found, or what is missing.
        remedy: how to fix it, when it is not available.
        silent: it gave no answer in time: it may be busy, and answer later.
    """

    engine: str
    available: bool
    version: str = ""
    detail: str = ""
    remedy: str = ""
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a call left behind as a result: its path below the artifact directory, and where it is now."""

    name: str
    file: Path
    size: int


@dataclass(frozen=True, slots=True)
class RemoteContent:
    """What a tool of another MCP server answered, as its JSON says, secrets masked.

    Attributes:
        blocks: the content blocks, of every kind.
        structured: its structured content; None where it has none.
        meta: what the server sent in addition, the protocol's own keys left out.
    """

    blocks: tuple[Mapping[str, Any], ...] = ()
    structured: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """A command that ran to its end, whatever that end was.

    Attributes:
        run_id: id of the run.
        engine: name of the engine that ran it.
        isolation: what stood between tool and host.
        exit_code: exit code; 128 + signal where a signal ended it; None where the engine cannot tell.
        stdout, stderr: see `Captured`.
        timed_out: the deadline passed, and the whole process tree was killed.
        out_of_memory: the memory limit was reached, and the kernel killed a process of the tool.
        phases: seconds by phase (``start``, ``run``, ``collect`` …).
        artifacts: see `Artifact`.
        artifacts_left_out: names of those that exceed what a call may hand back.
        changed_files: files in writable mounts that this call created, changed or removed, as paths on the host.
        changes: what is kept of them, where the context asks for that (`ExecutionContext.changes`).
        image: the image with its digest, where there is one.
        remote: what a tool of another MCP server answered; its text is `stdout` as well. An answer that says that it
            is an error has exit code 1.
    """

    run_id: str
    engine: str
    isolation: str
    exit_code: int | None
    stdout: Captured = Captured()
    stderr: Captured = Captured()
    timed_out: bool = False
    out_of_memory: bool = False
    phases: Mapping[str, float] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    artifacts_left_out: tuple[str, ...] = ()
    changed_files: tuple[Path, ...] = ()
    changes: tuple[FileChange, ...] = ()
    image: str | None = None
    remote: RemoteContent | None = None

    @property
    def success(self) -> bool:
        """Whether the command ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.timed_out and not self.out_of_memory

    @property
    def output(self) -> str:
        """Standard output as text, as far as it is kept inline."""
        return self.stdout.text

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return sum(self.phases.values())


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """The one image that an engine would run now, whatever its name comes to mean.

    Attributes:
        reference: as the contract names it.
        id: the digest by which the engine knows it.
        digest: as results name it (`ExecutionResult.image`).
        user: whom its commands run as, where the contract does not say; empty is root.
        has_volumes: whether it declares places of its own that can be written.
        size: bytes of its files.
        shares_files: whether what a contract mounts is there as it is on this machine: the same paths and owners, and
            nothing that decides about them in addition (SELinux).
    """

    reference: str
    id: str
    digest: str
    user: str = ""
    has_volumes: bool = False
    size: int = 0
    shares_files: bool = False


@dataclass(frozen=True, slots=True)
class ExecutionContext:
    """What surrounds one run.

    Attributes:
        on_output: is called with output as it arrives.
        on_status: is called with what the engine is busy with.
        directory: a directory of this run's own, for streams and artifacts that are kept; None keeps head and tail of
            streams only, and refuses artifacts. It exists, unless `make_directory` is there to make it.
        make_directory: makes `directory` where it is not there yet; called in a thread, before output goes to a file in
            it. Only a long stream needs that, and to make and remove a directory takes a busy disk milliseconds.
        max_stream: bytes of each stream that a file in `directory` may hold.
        is_served: whether the contract is still served: a call may have waited while it was changed, and then nothing
            is started ahead of a next one. Must not block.
        phases: the call's clock. An engine says when its command starts (``context.phases.enter("run")``) and when it
            has ended (``"collect"``); where it says neither, its result's own `phases` are taken.
        claim: what the engine has for this run already, by `ExecutionEngine.claim`.
        image: the image to run, whatever the plan's reference means to this engine; `ExecutionEngine.has_image` has
            found it.
        changes: what is kept of files that the run changes in writable mounts; nothing, by default.
    """

    on_output: OutputListener | None = None
    on_status: StatusListener | None = None
    directory: Path | None = None
    make_directory: Callable[[], object] = lambda: None
    max_stream: int = 128 * 1024 * 1024
    is_served: Callable[[], bool] = lambda: True
    phases: PhaseClock = field(default_factory=PhaseClock)
    claim: Claim | None = None
    image: PinnedImage | None = None
    changes: ChangeKeeper = NOTHING_KEPT

    def status(self, text: str) -> None:
        """Tell the listener, if there is one."""
        if self.on_status is not None:
            self.on_status(text)

    def collectors(self, plan: Plan) -> Streams:
        """What takes in the output of a command of this plan: ``async with context.collectors(plan) as streams``
        around what runs it; then `Streams.captured` is what was kept."""
        masker = Masker(plan.call.secrets)

        def collector(name: Any) -> StreamCollector:
            return StreamCollector(
                name,
                keep=plan.blueprint.limits.max_output,
                masker=masker,
                listener=self.on_output,
                file=self.directory / name if self.directory else None,
                make_directory=self.make_directory,
                max_file=self.max_stream,
            )

        return Streams(collector("stdout"), collector("stderr"))


class ExecutionEngine(ABC):
    """Runs tools. Opened lazily, closed by `cleanup` or by leaving ``async with``; belongs to the process.

    A new engine implements `run`, `get_capabilities` and `probe`. A command that fails is a result; an engine that
    cannot do its job raises an `ExecutionError`.

    Attributes:
        settings: the settings.
        warm_budget: what it may have waiting for calls, and whom it shares that with.
        never: what it can enforce on no machine, so that installing it helps no plan that demands that.
        stands_in_for: engines whose calls it runs with the same result, but for what `execution.spill` keeps from it:
            what a contract leaves open (a root that is read-only, capabilities, the number of processes) is the same.
    """

    name: ClassVar[str]
    never: ClassVar[frozenset[Capability]] = frozenset()
    stands_in_for: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.warm_budget = WarmBudget(self.settings.warm)

    async def execute(
        self,
        contract: ToolContract,
        args: Mapping[str, Any],
        context: ExecutionContext | None = None,
    ) -> ExecutionResult:
        """Run a tool.

        Args:
            contract: the tool.
            args: its arguments; they are checked, and defaults applied.
            context: see `ExecutionContext`.

        Raises:
            ArgumentError: the arguments do not fit.
            LimitUnsupported: the contract demands what this engine cannot enforce.
            ExecutionError: the engine cannot do its job; see the subclasses.
        """
        if context is None:
            context = ExecutionContext()
        elif not isinstance(context, ExecutionContext):
            raise TypeError(f"context is an ExecutionContext, not a {type(context).__name__}")
        plan = await plan_call(contract, validate_arguments(contract, args), self.settings)
        await self.check_demands(plan)
        return await self.run(plan, context)

    async def check_demands(self, plan: Plan) -> None:
        """Refuse a plan that this engine cannot enforce.

        Raises:
            LimitUnsupported: it demands what the engine lacks here and now.
        """
        capabilities = await self.get_capabilities()
        if lacking := capabilities.lacks(plan):
            raise LimitUnsupported(
                f"The {self.name} engine cannot run {plan.blueprint.tool}: it cannot enforce {', '.join(lacking)}.",
                remedy=capabilities.remedy_for(plan) or _ELSEWHERE,
            )

    @abstractmethod
    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """Run a plan whose demands this engine meets (see `check_demands`), within the plan's deadline; leave nothing
        behind, whether it ends, fails or is cancelled. The plan alone says what runs, and under which name."""

    @abstractmethod
    async def get_capabilities(self) -> EngineCapabilities:
        """What this engine can enforce here and now; cheap after the first call."""

    @abstractmethod
    async def probe(self) -> EngineStatus:
        """Whether the engine can be used now; bounded in time, raises nothing of its own."""

    def claim(self, plan: Plan, context: ExecutionContext) -> AbstractContextManager[Claim]:
        """Around a call of this plan, on this engine or on one that stands in for it: whether it would begin at once,
        and what waits for it, kept for it (`ExecutionContext.claim`). Must not block. By default every call begins at
        once, and none goes elsewhere."""
        return nullcontext(Claim())

    async def pin_image(self, blueprint: Blueprint) -> PinnedImage | None:
        """The image that a call which begins now would run; None where that is not known, or where it would not run on
        this very machine. Then no other engine stands in."""
        return None

    def has_image(self, image: PinnedImage) -> bool:
        """Whether that very image is there to be run at once (`ExecutionContext.image`). Must not block. Never, by
        default."""
        return False

    async def find_differences(self, blueprint: Blueprint, image: PinnedImage) -> Sequence[str]:
        """What of a call this engine would do differently from the one that it would stand in for (`stands_in_for`),
        here and now, in the contract's words. Nothing by default."""
        return ()

    async def lacks_image(self, blueprint: Blueprint) -> bool:
        """Whether the image would have to be fetched before a call could begin. False, by default too, where that is
        not known."""
        return False

    async def name_by_digest(self, image: str) -> str | None:
        """The image that the engine has under that name, by its digest (``python@sha256:…``), or by its id
        (``sha256:…``) where it came from no registry. None, by default too, where it has none, or nobody can know.

        Raises:
            ExecutionError: the engine cannot be asked.
        """
        return None

    def take_image(self, image: PinnedImage) -> None:
        """Take an image that another engine has, in the background and within bounds, so that `has_image` finds it some
        day. Nothing by default."""

    async def prepare(self, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        """Do ahead of a call what needs no call: pull the image, say. Nothing by default."""

    async def reap(self) -> tuple[str, ...]:
        """Remove what servers left behind that were killed, never anything of a server that lives; names what was
        removed. Nothing by default."""
        return ()

    async def find_cold_reason(self, plan: Plan) -> str:
        """Why such a call is always run from the beginning, in words for people; empty where it may be run in what was
        started ahead of it. By default nothing is."""
        return f"the {self.name} engine starts nothing ahead of calls"

    @property
    def _warm_pool(self) -> WarmPool[Any, Any] | None:
        """Where what it has started ahead of calls waits for them; None by default."""
        return None

    def warm(self) -> PoolMetrics | None:
        """What has been started ahead of calls, and how often that met one; None where nothing is."""
        return self._warm_pool.metrics if self._warm_pool is not None else None

    def retire(self, tools: Collection[str]) -> None:
        """Let go of what has been started ahead of calls of these tools, whose contracts have changed or are gone: it
        holds what the old ones allowed. Must be called on the event loop."""
        if self._warm_pool is not None:
            self._warm_pool.retire(tools)

    async def validate_contract(self, contract: ToolContract) -> bool:
        """True where this engine, here and now, would run every call of the contract whose arguments fit: mounts,
        secrets and working directory are there and allowed, and all that it demands can be enforced. Runs nothing, and
        makes nothing.

        Raises:
            ContractError: it would refuse them; its diagnostics give every reason, each with how to fix it.
            EngineUnavailable: the engine is not there, so that nothing is known.
        """
        capabilities = await self.get_capabilities()
        problems = await find_all_problems(contract, self.settings)
        found = [Diagnostic(item.message, item.remedy or "", path=contract.source) for item in problems]
        with suppress(PraxisError):  # which is among the problems already
            plan = Plan(draft_blueprint(contract, self.settings), Call(run_id=""))
            remedy = capabilities.remedy_for(plan) or _ELSEWHERE
            found += [
                Diagnostic(f"The {self.name} engine cannot enforce {lack}.", remedy, path=contract.source)
                for lack in capabilities.lacks(plan)
            ]
        if found:
            raise ContractError(f"{contract.name}: {' '.join(item.message for item in found)}", diagnostics=found)
        return True

    async def cleanup(self) -> None:
        """Release what the engine holds; it may be used again afterwards. Nothing by default."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.cleanup()
