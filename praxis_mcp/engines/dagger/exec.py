"""One call's command: the query that runs it, from the container that is fixed for the contract, and what the answer
means."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.dagger.errors import QueryFailed, run_failed
from praxis_mcp.engines.dagger.export import changes_fields, read_changes
from praxis_mcp.engines.dagger.images import (
    ENGINE_VARIABLES,
    INIT,
    REPORT,
    STDERR,
    STDIN,
    STDOUT,
    BaseContainer,
    carried_name,
)
from praxis_mcp.engines.dagger.logs import LogTap, PieceListener
from praxis_mcp.engines.dagger.mounts import Upload, mount_steps
from praxis_mcp.engines.dagger.query import Field
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.engines.outcomes import end_failure
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.support.praxis_init import (
    EXIT_CANNOT_RUN,
    EXIT_NOT_FOUND,
    EXIT_SETUP_FAILED,
    EXIT_TIMED_OUT,
    Ended,
    EndKind,
    parse_report,
    run_prefix,
)

RUN_VARIABLE = "PRAXIS_RUN_ID"
"""Differs in every call, so that no call is answered from Dagger's cache; absent from pure ones."""

_INLINE = 256 * 1024
"""Bytes up to which text travels in a query or its answer; longer text, and what is not text, goes through a file. In
an answer it would be in memory several times, here and in the CLI."""
_SALT = secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One call, with all that it needs in the engine.

    Attributes:
        base: the container that lacks nothing but the call.
        plan: what to run.
        uploads: the plan's mounts.
        scratch: an existing directory of the host, for this call.
    """

    base: BaseContainer
    plan: Plan
    uploads: Sequence[Upload]
    scratch: Path


async def upload_inputs(session: Session, request: CallRequest) -> Mapping[str, str]:
    """Bring the call's secrets and larger files into the engine.

    Returns:
        Ids of them, by ``secret:NAME``, ``file:PATH`` and ``stdin``.
    """
    plan = request.plan
    wanted: dict[str, Field] = {}
    only_id = (Field("id"),)
    for name, value in plan.call.env.items():
        if value and value in plan.call.secrets:
            # Named by what it holds, so that equal secrets are one, but not in a way that could be turned around.
            named = hashlib.blake2b(value.encode(), key=_SALT, digest_size=16).hexdigest()
            wanted[f"secret:{name}"] = Field("setSecret", {"name": f"praxis-{named}", "plaintext": value}, only_id)
    contents = {
        f"file:{item.path}": item.content
        for item in plan.call.files
        if not _fits_inline(item.content) or is_in_mount(plan.blueprint, item.path)
    }
    if plan.call.stdin and not _fits_inline(plan.call.stdin):
        contents["stdin"] = plan.call.stdin
    for index, (key, content) in enumerate(contents.items()):
        place = request.scratch / f"in{index}"
        await anyio.Path(place).write_bytes(content)
        wanted[key] = Field("host", {}, (Field("file", {"path": str(place), "noCache": True}, only_id),))
    if not wanted:
        return {}
    aliased = [Field(item.name, item.arguments, item.fields, f"a{index}") for index, item in enumerate(wanted.values())]
    answer = await session.query(*aliased)
    ids: dict[str, str] = {}
    for index, key in enumerate(wanted):
        found = answer[f"a{index}"]
        ids[key] = str(found["file"]["id"] if "file" in found else found["id"])
    return ids


def exec_steps(session: Session, request: CallRequest, ids: Mapping[str, str], *, fresh: bool) -> list[Field]:
    """The chain of fields from the base container to the finished command.

    Args:
        session: where the base container is.
        request: the call.
        ids: what `upload_inputs` gave.
        fresh: whether the call must not be answered from a cache.
    """
    base, plan = request.base, request.plan
    fixed, call = plan.blueprint, plan.call
    steps = container_steps(session, base, request.uploads)
    owner = {"owner": fixed.user} if fixed.user else {}
    for item in call.files:
        source = ids.get(f"file:{item.path}")
        if source is None:
            text = {"path": item.path, "contents": item.content.decode()}
            steps.append(Field("withNewFile", {**text, **owner}))
        else:
            # Mounted, so that it does not become part of a directory that is written back to the host.
            steps.append(Field("withMountedFile", {"path": item.path, "source": source, **owner}))
    for name, value in call.env.items():
        secret = ids.get(f"secret:{name}")
        carried = carried_name(name) if base.has_init else name
        if secret is None:
            steps.append(Field("withEnvVariable", {"name": carried, "value": value}))
        else:
            steps.append(Field("withSecretVariable", {"name": carried, "secret": secret}))
    if fresh:
        steps.append(cache_busting_step(call.run_id))
    arguments: dict[str, Any] = {"args": _exec_words(base, plan), "expect": "ANY"}
    if base.has_init:
        # praxis-init is an init, and does without 13 ms. It keeps the output as well: large output takes Dagger's own
        # redirection nine times as long.
        arguments["noInit"] = True
    else:
        arguments |= {"redirectStdout": STDOUT, "redirectStderr": STDERR}
    if fixed.privileged:
        arguments["insecureRootCapabilities"] = True
    if "stdin" in ids:
        steps.append(Field("withMountedFile", {"path": STDIN, "source": ids["stdin"], **owner}))
        arguments["redirectStdin"] = STDIN
    elif call.stdin:
        arguments["stdin"] = call.stdin.decode()
    steps.append(Field("withExec", arguments))
    return steps


def container_steps(session: Session, base: BaseContainer, uploads: Sequence[Upload]) -> list[Field]:
    """The chain of fields from the base container to one that has its mounts."""
    start = Field("loadContainerFromID", {"id": base.id})
    return [start, *mount_steps(session, uploads, base.own)]


def cache_busting_step(name: str) -> Field:
    """What keeps an exec from being answered from Dagger's cache; `name` begins the variable's value."""
    return Field("withEnvVariable", {"name": RUN_VARIABLE, "value": f"{name}-{secrets.token_hex(8)}"})


def is_in_mount(blueprint: Blueprint, path: str) -> bool:
    """Whether a path is in one of the mounts."""
    return any(path.startswith(f"{mount.target}/") for mount in blueprint.mounts)


def _exec_words(base: BaseContainer, plan: Plan) -> list[str]:
    fixed = plan.blueprint
    words = [*(base.image.entrypoint if fixed.use_entrypoint else ()), *plan.call.argv]
    if not base.has_init:
        return words
    ours = run_prefix(
        INIT,
        timeout=fixed.limits.timeout,
        no_network=fixed.network is Network.NONE,
        no_new_privileges=not fixed.privileged,
        seccomp=filter_for(fixed, base.image.machine, has_capabilities=True),
        report=REPORT,
        output=(STDOUT, STDERR),
        hide=ENGINE_VARIABLES,
        plain_status=True,  # 128 to 191 would be a failure for Dagger, which keeps 100 KiB of its output
    )
    return [*ours, *words]


def _fits_inline(content: bytes) -> bool:
    """Whether it can travel as text."""
    if len(content) > _INLINE:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


_AMBIGUOUS = (EXIT_TIMED_OUT, EXIT_SETUP_FAILED, EXIT_CANNOT_RUN, EXIT_NOT_FOUND)
_STREAMS = {"out": STDOUT, "err": STDERR}
KILL_TIME = 0.5
"""Seconds after which a cancelled command is gone: Dagger takes 0.05 to kill it, and does not say when it has."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream after the command: its length, what the answer held of it, and whether that is all of it."""

    size: int
    text: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that came to an end, its output still in the engine.

    Attributes:
        end: how it ended.
        stdout, stderr: see `Stream`.
        container: id of the container as the command left it; empty where the engine gives none.
        changes: of each writable directory, by target.
    """

    end: Ended
    stdout: Stream
    stderr: Stream
    container: str
    changes: Mapping[str, Changes]


async def run_call(
    session: Session, request: CallRequest, *, fresh: bool, listener: PieceListener | None = None
) -> Outcome:
    """Run a call's command to its end. Cancelling it kills the command by SIGKILL, and returns when it is gone.

    Args:
        session: where the base container is.
        request: the call.
        fresh: whether it must not be answered from a cache.
        listener: is called with what the command writes, as far as Dagger reports it while it runs.

    Raises:
        CommandNotFound: there is no such command in the image.
        ExecutionError: the engine could not run it.
    """
    try:
        steps = exec_steps(session, request, await upload_inputs(session, request), fresh=fresh)
        sizes = (Field("file", {"path": path}, (Field("size"),), name) for name, path in _STREAMS.items())
        wanted = (Field("id"), Field("exitCode"), *sizes, *changes_fields(request.uploads))
        done = await _select(session, steps, wanted, listener)
    except QueryFailed as exc:
        return _failed(request.plan, exc)
    end = Ended.by_code(int(done["exitCode"]))
    if request.base.has_init and end.exit_code in _AMBIGUOUS:
        report = await _read_report(session, request.plan, str(done["id"]))
        if report is None and end.exit_code == EXIT_SETUP_FAILED:
            raise ExecutionError(
                f"{request.plan.blueprint.tool} was not started: praxis-init failed in its container, and could not "
                "report why.",
                remedy="Run the tool on another engine; if it fails there too, install praxis-mcp again.",
            )
        end = report or end
    changes = read_changes(request.uploads, done)
    container = str(done["id"])
    stdout, stderr = await _read_streams(session, container, {name: int(done[name]["size"]) for name in _STREAMS})
    return Outcome(end, stdout, stderr, container, changes)


async def _select(
    session: Session, steps: Sequence[Field], wanted: Sequence[Field], listener: PieceListener | None
) -> Mapping[str, Any]:
    try:
        if listener is None:
            return await session.select(steps, *wanted)
        tap = LogTap(listener)
        with session.logs.listen(tap):
            return await session.select(steps, *wanted, traceparent=tap.traceparent)
    except anyio.get_cancelled_exc_class():
        # The closed request makes the engine kill the command, and nothing reports when that is done.
        if not session.is_lost:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(KILL_TIME)
        raise


async def _read_streams(session: Session, container: str, sizes: Mapping[str, int]) -> list[Stream]:
    """What the streams hold, as far as it fits an answer."""
    wanted = [
        Field("file", {"path": path}, (Field("contents"),), name)
        for name, path in _STREAMS.items()
        if 0 < sizes[name] <= _INLINE
    ]
    texts: Mapping[str, Any] = {}
    if wanted:
        texts = await session.select([Field("loadContainerFromID", {"id": container})], *wanted)
    return [_stream(size, texts.get(name)) for name, size in sizes.items()]


def _stream(size: int, answer: Mapping[str, Any] | None) -> Stream:
    text = str(answer["contents"]) if answer is not None else ""
    # Bytes that are not UTF-8 arrive as U+FFFD: then it must be fetched as a file.
    return Stream(size, text, len(text.encode()) == size and "\ufffd" not in text)


async def _read_report(session: Session, plan: Plan, container: str) -> Ended | None:
    """How a command ended whose exit code praxis-init may have made; None where that does not say."""
    steps = [Field("loadContainerFromID", {"id": container}), Field("file", {"path": REPORT})]
    end = parse_report(str((await session.select(steps, Field("contents")))["contents"]))
    return None if end is None else check_started(plan, end)


def check_started(plan: Plan, end: Ended) -> Ended:
    """The end of a call that praxis-init has reported, if the command was started.

    Raises:
        CommandNotFound: there is no such command in the image.
        ExecutionError: it was never started.
    """
    if end.kind is EndKind.SETUP_FAILED and end.step == "output":
        raise ExecutionError(
            f"{plan.blueprint.tool} ran, and its output could not all be kept in the Dagger engine: {end.reason}.",
            remedy="The engine's disk must have room; or have the tool write less.",
        )
    failure = end_failure(plan, end, "The Dagger engine's kernel is too old, or forbids it; choose another engine.")
    if failure is not None:
        failure.exit_code = end.exit_code
        raise failure
    return end


def _failed(plan: Plan, failure: QueryFailed) -> Outcome:
    """A command that the engine takes for failed: its exit code is above 127, or it never began."""
    code = failure.extensions.get("exitCode")
    if failure.is_exec_error and isinstance(code, int) and code >= 0:
        # Without praxis-init, or where that was killed itself: the last 100 KiB of each stream, white space at the
        # ends cut off, are all that Dagger keeps.
        kept = [str(failure.extensions.get(name, "")) for name in ("stdout", "stderr")]
        streams = [Stream(len(text.encode()), text, True) for text in kept]
        return Outcome(Ended.by_code(code), streams[0], streams[1], "", {})
    raise run_failed(plan.blueprint, failure, plan.call.argv[0]) from failure
