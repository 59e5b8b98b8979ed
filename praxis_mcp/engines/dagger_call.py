"""One call in a container: what is asked of the engine, in one query, and what its answer means."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.dagger_errors import QueryFailed, run_failed
from praxis_mcp.engines.dagger_export import Changes, changes_field, read_changes
from praxis_mcp.engines.dagger_prefix import INIT, REPORT, STDERR, STDIN, STDOUT, Prefix
from praxis_mcp.engines.dagger_query import Field, chain, value_at
from praxis_mcp.engines.dagger_session import Session
from praxis_mcp.engines.dagger_workspace import Upload
from praxis_mcp.engines.native import (
    EXIT_CANNOT_RUN,
    EXIT_NOT_FOUND,
    EXIT_SETUP_FAILED,
    EXIT_TIMED_OUT,
    EndKind,
    parse_report,
    run_prefix,
)
from praxis_mcp.errors import CommandNotFound, ExecutionError, ImageError
from praxis_mcp.plans.model import Plan

RUN_VARIABLE = "PRAXIS_RUN_ID"
"""Differs in every call, so that no call is answered from Dagger's cache; absent from pure ones."""

_INLINE = 256 * 1024
"""Bytes up to which text travels in the query itself; longer text, and what is no text, goes through a file."""
_LINES = 2000
"""Lines of a stream that the query itself asks for; a longer one is fetched as a file."""
_AMBIGUOUS = (EXIT_TIMED_OUT, EXIT_SETUP_FAILED, EXIT_CANNOT_RUN, EXIT_NOT_FOUND)
_SALT = secrets.token_bytes(16)
_EXEC_FAILED = {2: "does not exist", 8: "is no program", 13: "may not be executed", 20: "does not exist"}
"""Linux's errno of a failed exec, in words."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream after the command: its length, what the answer held of it, and whether that is all of it."""

    size: int
    text: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that came to an end.

    Attributes:
        exit_code: 128 + signal where a signal ended it; None where it was ended by its deadline from outside.
        timed_out: its deadline passed.
        stdout, stderr: see `Stream`.
        container: id of the container as the command left it; empty where the engine gives none.
        changes: of each writable directory, by target.
    """

    exit_code: int | None
    timed_out: bool
    stdout: Stream
    stderr: Stream
    container: str
    changes: Mapping[str, Changes]


async def run_call(
    session: Session,
    prefix: Prefix,
    plan: Plan,
    uploads: Sequence[Upload],
    scratch: Path,
    *,
    fresh: bool,
) -> Outcome:
    """Run a call's command to its end. Cancelling it kills the command by SIGKILL.

    Args:
        session: where the prefix is.
        prefix: what is fixed.
        plan: what to run.
        uploads: the plan's mounts.
        scratch: an existing directory for this call.
        fresh: whether it must not be answered from a cache.

    Raises:
        CommandNotFound: there is no such command in the image.
        ExecutionError: the engine could not run it.
    """
    try:
        ids = await _prepare(session, plan, scratch)
        steps = _steps(session, prefix, plan, uploads, ids, fresh)
        writable = {f"mount{index}": item for index, item in enumerate(uploads) if item.mount.writable}
        wanted = [changes_field(item, alias) for alias, item in writable.items() if item.is_directory]
        answer = await session.query(chain(steps, Field("id"), Field("exitCode"), *_stream_fields(), *wanted))
    except QueryFailed as exc:
        return _failed(plan, exc)
    done: Mapping[str, Any] = value_at(answer, *(step.alias or step.name for step in steps))
    code, timed_out = int(done["exitCode"]), False
    if prefix.has_init and code in _AMBIGUOUS:
        code, timed_out = await _ask_report(session, plan, str(done["id"]), code)
    changes = {item.mount.target: read_changes(done[alias]) for alias, item in writable.items() if item.is_directory}
    return Outcome(code, timed_out, _stream(done["out"]), _stream(done["err"]), str(done["id"]), changes)


async def _prepare(session: Session, plan: Plan, scratch: Path) -> Mapping[str, str]:
    """Ids of the secrets and files of the call, by ``secret:NAME``, ``file:PATH`` and ``stdin``."""
    asked: dict[str, Field] = {}
    only_id = (Field("id"),)
    for name, value in plan.call.env.items():
        if value and value in plan.call.secrets:
            # Named by what it holds, so that equal secrets are one, but not in a way that could be turned around.
            named = hashlib.blake2b(value.encode(), key=_SALT, digest_size=16).hexdigest()
            asked[f"secret:{name}"] = Field("setSecret", {"name": f"praxis-{named}", "plaintext": value}, only_id)
    contents = {f"file:{item.path}": item.content for item in plan.call.files if not _fits(item.content)}
    contents |= {
        f"file:{item.path}": item.content
        for item in plan.call.files
        if _fits(item.content) and _mounted_over(plan, item.path)
    }
    if plan.call.stdin and not _fits(plan.call.stdin):
        contents["stdin"] = plan.call.stdin
    for index, (key, content) in enumerate(contents.items()):
        place = scratch / f"in{index}"
        await anyio.Path(place).write_bytes(content)
        asked[key] = Field("host", {}, (Field("file", {"path": str(place), "noCache": True}, only_id),))
    if not asked:
        return {}
    aliased = [Field(item.name, item.arguments, item.fields, f"a{index}") for index, item in enumerate(asked.values())]
    answer = await session.query(*aliased)
    ids: dict[str, str] = {}
    for index, key in enumerate(asked):
        found = answer[f"a{index}"]
        ids[key] = str(found["file"]["id"] if "file" in found else found["id"])
    return ids


def _steps(
    session: Session, prefix: Prefix, plan: Plan, uploads: Sequence[Upload], ids: Mapping[str, str], fresh: bool
) -> list[Field]:
    fixed, call = plan.blueprint, plan.call
    steps = [Field("loadContainerFromID", {"id": prefix.id})]
    steps += [item.steps(session) for item in sorted(uploads, key=lambda item: item.mount.target)]
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
        if secret is None:
            steps.append(Field("withEnvVariable", {"name": name, "value": value}))
        else:
            steps.append(Field("withSecretVariable", {"name": name, "secret": secret}))
    if fresh:
        steps.append(Field("withEnvVariable", {"name": RUN_VARIABLE, "value": f"{call.run_id}-{secrets.token_hex(8)}"}))
    arguments: dict[str, Any] = {
        "args": _words(prefix, plan),
        "expect": "ANY",
        "redirectStdout": STDOUT,
        "redirectStderr": STDERR,
    }
    if prefix.has_init:
        arguments["noInit"] = True  # praxis-init is one, and does without 13 ms
    if fixed.privileged:
        arguments["insecureRootCapabilities"] = True
    if "stdin" in ids:
        steps.append(Field("withMountedFile", {"path": STDIN, "source": ids["stdin"], **owner}))
        arguments["redirectStdin"] = STDIN
    elif call.stdin:
        arguments["stdin"] = call.stdin.decode()
    steps.append(Field("withExec", arguments))
    return steps


def _words(prefix: Prefix, plan: Plan) -> list[str]:
    fixed = plan.blueprint
    words = [*(prefix.image.entrypoint if fixed.use_entrypoint else ()), *plan.call.argv]
    if not prefix.has_init:
        return words
    ours = run_prefix(
        INIT,
        timeout=fixed.limits.timeout,
        no_network=fixed.network is Network.NONE,
        no_new_privileges=not fixed.privileged,
        report=REPORT,
        plain_status=True,  # 128 to 191 would be a failure for Dagger, which keeps 100 KiB of its output
    )
    return [*ours, *words]


def _stream_fields() -> tuple[Field, Field]:
    selected = (Field("size"), Field("contents", {"limitLines": _LINES}))
    return (
        Field("file", {"path": STDOUT}, selected, "out"),
        Field("file", {"path": STDERR}, selected, "err"),
    )


def unread_stream() -> Stream:
    """What is known of a stream of a command that was ended from outside: nothing."""
    return Stream(0, "", True)


def _stream(answer: Mapping[str, Any]) -> Stream:
    size, text = int(answer["size"]), str(answer["contents"])
    # Bytes that are no UTF-8 arrive as U+FFFD, and a stream of more lines is cut: either way it must be fetched whole.
    whole = len(text.encode()) == size and "\ufffd" not in text
    return Stream(size, text, whole)


async def _ask_report(session: Session, plan: Plan, container: str, code: int) -> tuple[int, bool]:
    """What an exit code that praxis-init may have made means: the exit code, and whether the deadline passed."""
    steps = [Field("loadContainerFromID", {"id": container}), Field("file", {"path": REPORT})]
    answer = await session.query(chain(steps, Field("contents")))
    end = parse_report(str(value_at(answer, steps[0].name, steps[1].name, "contents")))
    tool = plan.blueprint.tool
    if end is None:
        return code, False
    match end.kind:
        case EndKind.TIMEOUT:
            return end.exit_code, True
        case EndKind.EXEC_FAILED:
            why = _EXEC_FAILED.get(end.number or 0, f"cannot be executed (errno {end.number})")
            raise CommandNotFound(
                f'{tool} runs "{plan.call.argv[0]}", which {why} in the image {plan.blueprint.image}.',
                exit_code=end.exit_code,
                remedy="Mend `command` in the contract, or use an image that has it.",
            )
        case EndKind.SETUP_FAILED:
            raise ExecutionError(
                f"{tool} was not started: praxis-init could not set up {end.step} (errno {end.number}).",
                remedy="The Dagger engine's kernel is too old, or forbids it; choose another engine.",
            )
        case _:
            return end.exit_code, False


def _failed(plan: Plan, failure: QueryFailed) -> Outcome:
    """A command that the engine takes for failed: its exit code is above 127, or it never began."""
    said = failure.message
    code = failure.extensions.get("exitCode")
    if failure.is_exec_error and isinstance(code, int) and code >= 0:
        # Without praxis-init, or where that was killed itself: the last 100 KiB of each stream, white space at the
        # ends cut off, are all that Dagger keeps.
        kept = [str(failure.extensions.get(name, "")) for name in ("stdout", "stderr")]
        streams = [Stream(len(text.encode()), text, True) for text in kept]
        return Outcome(code, False, streams[0], streams[1], "", {})
    if "executable file not found" in said or ("no such file or directory" in said and plan.call.argv[0] in said):
        raise CommandNotFound(
            f'{plan.blueprint.tool} runs "{plan.call.argv[0]}", which does not exist in the image '
            f"{plan.blueprint.image}.",
            remedy="Mend `command` in the contract, or use an image that has it.",
        ) from failure
    error = run_failed(plan.blueprint.tool, failure)
    assert isinstance(error, ExecutionError | ImageError)
    raise error from failure


def _fits(content: bytes) -> bool:
    """Whether it can travel as text."""
    if len(content) > _INLINE:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _mounted_over(plan: Plan, path: str) -> bool:
    return any(path.startswith(f"{mount.target}/") for mount in plan.blueprint.mounts)
