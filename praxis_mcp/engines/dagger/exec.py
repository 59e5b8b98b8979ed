"""The query that runs one call's command: from the container that is fixed for the contract to the finished command."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.dagger.nesting import in_order
from praxis_mcp.engines.dagger.prefix import (
    ENGINE_VARIABLES,
    INIT,
    REPORT,
    STDERR,
    STDIN,
    STDOUT,
    Prefix,
    carried_name,
)
from praxis_mcp.engines.dagger.query import Field
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.dagger.workspace import Upload
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.support.praxis_init import run_prefix

RUN_VARIABLE = "PRAXIS_RUN_ID"
"""Differs in every call, so that no call is answered from Dagger's cache; absent from pure ones."""

_INLINE = 256 * 1024
"""Bytes up to which text travels in the query itself; longer text, and what is not text, goes through a file."""
_SALT = secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One call, with all that it needs in the engine.

    Attributes:
        prefix: the container that lacks nothing but the call.
        plan: what to run.
        uploads: the plan's mounts.
        scratch: an existing directory of the host, for this call.
    """

    prefix: Prefix
    plan: Plan
    uploads: Sequence[Upload]
    scratch: Path


async def bring_in(session: Session, request: CallRequest) -> Mapping[str, str]:
    """Bring the call's secrets and larger files into the engine.

    Returns:
        Ids of them, by ``secret:NAME``, ``file:PATH`` and ``stdin``.
    """
    plan = request.plan
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
        if _fits(item.content) and is_mounted_over(plan.blueprint, item.path)
    }
    if plan.call.stdin and not _fits(plan.call.stdin):
        contents["stdin"] = plan.call.stdin
    for index, (key, content) in enumerate(contents.items()):
        place = request.scratch / f"in{index}"
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


def exec_steps(session: Session, request: CallRequest, ids: Mapping[str, str], *, fresh: bool) -> list[Field]:
    """The chain of fields from the prefix to the finished command.

    Args:
        session: where the prefix is.
        request: the call.
        ids: what `bring_in` gave.
        fresh: whether the call must not be answered from a cache.
    """
    prefix, plan = request.prefix, request.plan
    fixed, call = plan.blueprint, plan.call
    steps = mounted_steps(session, prefix, request.uploads)
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
        carried = carried_name(name) if prefix.has_init else name
        if secret is None:
            steps.append(Field("withEnvVariable", {"name": carried, "value": value}))
        else:
            steps.append(Field("withSecretVariable", {"name": carried, "secret": secret}))
    if fresh:
        steps.append(run_step(call.run_id))
    arguments: dict[str, Any] = {"args": _words(prefix, plan), "expect": "ANY"}
    if prefix.has_init:
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


def mounted_steps(session: Session, prefix: Prefix, uploads: Sequence[Upload]) -> list[Field]:
    """The chain of fields from the prefix to a container that has its mounts."""
    start = Field("loadContainerFromID", {"id": prefix.id})
    return [start, *in_order(session, uploads, prefix.own)]


def run_step(name: str) -> Field:
    """What keeps an exec from being answered from Dagger's cache; `name` begins the variable's value."""
    return Field("withEnvVariable", {"name": RUN_VARIABLE, "value": f"{name}-{secrets.token_hex(8)}"})


def is_mounted_over(blueprint: Blueprint, path: str) -> bool:
    """Whether a path is in one of the mounts."""
    return any(path.startswith(f"{mount.target}/") for mount in blueprint.mounts)


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
        seccomp=filter_for(fixed, prefix.image.machine, has_capabilities=True),
        report=REPORT,
        output=(STDOUT, STDERR),
        hide=ENGINE_VARIABLES,
        plain_status=True,  # 128 to 191 would be a failure for Dagger, which keeps 100 KiB of its output
    )
    return [*ours, *words]


def _fits(content: bytes) -> bool:
    """Whether it can travel as text."""
    if len(content) > _INLINE:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
