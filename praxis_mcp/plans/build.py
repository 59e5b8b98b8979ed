"""Contract + arguments + settings → `Plan`."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from praxis_mcp.contracts.commands import (
    CONTRACT_DIR,
    expand,
    folder_for_command,
    is_plain_in_shell,
    is_shell_text,
    named_code,
)
from praxis_mcp.contracts.model import Derived, EngineType, ToolContract
from praxis_mcp.contracts.reading.bindings import misplaced as misplaced_fields
from praxis_mcp.contracts.specs import (
    CommandSpec,
    DaggerEngineSpec,
    HttpEngineSpec,
    LocalEngineSpec,
    RemoteMCPEngineSpec,
)
from praxis_mcp.contracts.values import BindKind, Network, artifact_directory
from praxis_mcp.contracts.variables import is_of_the_host
from praxis_mcp.errors import ExecutionError, LimitUnsupported, PraxisError
from praxis_mcp.plans.binding import Bound, bind_arguments, ends_options
from praxis_mcp.plans.builds import check_build, describe_build
from praxis_mcp.plans.http_request import build_request
from praxis_mcp.plans.model import Blueprint, Call, HttpTarget, Limits, Mount, Plan, RemoteTool, Where
from praxis_mcp.plans.paths import (
    Maker,
    check_mount,
    check_working_directory,
    host_path,
    identify_mount,
    make_directory,
    parse_mount,
)
from praxis_mcp.plans.protected import guard_mounts
from praxis_mcp.plans.public_hosts import host_refusals
from praxis_mcp.plans.secrets import resolve_headers, resolve_secret, resolve_values
from praxis_mcp.plans.view import check_places
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.tracing import VARIABLES, trace_variables

STRUCTURED_OUTPUT = 4 * 1024 * 1024
"""Bytes of standard output that are kept inline for a tool with `output: json`: cut JSON is not JSON."""


def new_run_id() -> str:
    """A fresh id for a run, safe in file names, labels and URIs."""
    return uuid.uuid4().hex


def build_plan(
    contract: ToolContract,
    arguments: Mapping[str, Any],
    settings: Settings,
    run_id: str = "",
    caller: str = "",
    *,
    create: bool = False,
) -> Plan:
    """The plan for one call.

    Args:
        contract: what to run.
        arguments: validated, defaults applied.
        settings: root, policy, defaults.
        run_id: id of the run; a fresh one when empty.
        caller: who calls, on a server that tells callers apart: what is kept between calls is kept for each of them.
        create: see `check_mounts`.

    Raises:
        ArgumentError: an argument cannot be carried to the tool.
        ExecutionError: a host path is missing or unusable.
        LimitUnsupported: the contract asks for something that the settings do not allow.
        SettingsError: a secret cannot be found.
    """
    blueprint = check_build(build_blueprint(contract, settings), settings)
    blueprint = check_mounts(blueprint, settings, create=create)
    if caller and blueprint.cache_owner:
        owner = _digest(blueprint.cache_owner, caller) if blueprint.cache_dirs else ""
        blueprint = replace(blueprint, cache_owner=owner)
    check_places(blueprint, _maker(blueprint, settings, create=create))
    secrets: list[str] = []
    spec = contract.engine_spec
    if isinstance(spec, RemoteMCPEngineSpec):
        headers = resolve_headers(spec.headers, spec.auth_token, settings, contract.name, secrets)
        call = Call(
            run_id=run_id or new_run_id(),
            arguments=MappingProxyType(dict(arguments)),
            env=MappingProxyType(_env(contract, spec, settings, secrets)),
            headers=MappingProxyType(headers),
            secrets=tuple(secrets),
        )
        return Plan(blueprint, call)
    if isinstance(spec, HttpEngineSpec):
        request = build_request(contract, spec, arguments, settings, secrets)
        call = Call(
            run_id=run_id or new_run_id(),
            arguments=MappingProxyType(dict(arguments)),
            url=request.url,
            headers=MappingProxyType(request.headers),
            body=request.body,
            secrets=tuple(secrets),
        )
        return Plan(blueprint, call)
    bound = bind_arguments(contract, arguments)
    env = _home(contract, spec, blueprint) | _passed_through(spec, blueprint)
    env |= _env(contract, spec, settings, secrets)
    # Arguments come last: older contracts list their parameters among env_passthrough as well.
    env |= bound.env
    call = Call(
        run_id=run_id or new_run_id(),
        argv=_argv(spec, _command(contract, spec), bound),
        env=MappingProxyType(env),
        stdin=bound.stdin,
        files=bound.files,
        arguments=MappingProxyType(dict(arguments)),
        secrets=tuple(secrets),
    )
    return Plan(blueprint, call)


def _home(contract: ToolContract, spec: CommandSpec, blueprint: Blueprint) -> dict[str, str]:
    """A home for an older contract whose command does not run as the image's own user, which it was written for: what
    `pip install` cannot put into the system goes there."""
    if not contract.is_older or blueprint.where is not Where.CONTAINER or blueprint.user in (None, "0:0"):
        return {}
    return {} if blueprint.user == getattr(spec, "user", None) else {"HOME": "/tmp"}  # noqa: S108 - the container's own


def _passed_through(spec: CommandSpec, blueprint: Blueprint) -> dict[str, str]:
    if not spec.env_passthrough:
        return {}
    of_trace = trace_variables()
    found: dict[str, str] = {}
    for name in spec.env_passthrough:
        if name in VARIABLES and (of_trace or blueprint.pure):
            # The call's own, never in part the server's. An answer that is kept for other calls belongs to no trace.
            if name in of_trace and not blueprint.pure:
                found[name] = of_trace[name]
        elif name in os.environ and (blueprint.where is Where.HOST or not is_of_the_host(name)):
            found[name] = os.environ[name]
    return found


def needs_io(contract: ToolContract) -> bool:
    """Whether `build_plan` looks at files or asks a keyring for this contract, and may block."""
    spec = contract.engine_spec
    if isinstance(spec, DaggerEngineSpec) and spec.build is not None:
        return True
    if isinstance(spec, CommandSpec) and (spec.mounts or (isinstance(spec, LocalEngineSpec) and spec.cwd)):
        return True
    return any(isinstance(value, SecretRef) for value in _values_of(contract))


def _values_of(contract: ToolContract) -> Sequence[str | SecretRef | None]:
    spec = contract.engine_spec
    if isinstance(spec, RemoteMCPEngineSpec):
        return (*spec.headers.values(), *spec.env.values(), spec.auth_token)
    if isinstance(spec, HttpEngineSpec):
        auth = (spec.auth_token, spec.basic_user, spec.basic_password)
        return (*spec.query.values(), *spec.headers.values(), *auth)
    return (*spec.env.values(),)


def check_mounts(blueprint: Blueprint, settings: Settings, *, create: bool = False) -> Blueprint:
    """The blueprint with links in the sources of its mounts, and in a working directory on the host, resolved, so that
    what was approved is what the tool gets. Looks at files, so it may block.

    What it returns can be checked again: a call may have waited, and meanwhile a tool that may write there can have
    put a link where a directory was.

    Args:
        blueprint: what is to be checked.
        settings: root and policy.
        create: make the directories that a contract in an older spelling takes for granted; else they are marked.

    Raises:
        ExecutionError: a source or the directory does not exist (in our spelling it is never created), or cannot be
            looked at.
        LimitUnsupported: one is sensitive, and the settings do not allow it.
    """
    if not blueprint.mounts and (blueprint.where is not Where.HOST or blueprint.working_dir is None):
        return blueprint
    make = _maker(blueprint, settings, create=create)
    own = (_provided(mount, make) for mount in blueprint.own_mounts)
    checked = tuple(mount if mount.is_missing else check_mount(mount, settings, blueprint.tool) for mount in own)
    contract_dir = Path(blueprint.contract_dir) if blueprint.contract_dir else None
    laid = guard_mounts(checked, settings, contract_dir, blueprint.tool, blueprint.code)
    mounts = tuple(mount if mount.is_missing else identify_mount(mount, blueprint.tool) for mount in laid)
    user = blueprint.user
    if user is None and blueprint.where is Where.CONTAINER:
        user = _owner_of_writable_mounts(tuple(replace(mount, is_older=False) for mount in mounts), None)
    working_dir = blueprint.working_dir
    if blueprint.where is Where.HOST and working_dir is not None:
        working_dir = str(check_working_directory(Path(working_dir), settings, blueprint.tool))
    if not mounts and working_dir == blueprint.working_dir:
        return blueprint
    return replace(blueprint, mounts=mounts, working_dir=working_dir, user=user)


def _maker(blueprint: Blueprint, settings: Settings, *, create: bool) -> Maker:
    contract_dir = Path(blueprint.contract_dir) if blueprint.contract_dir else None
    return partial(make_directory, settings=settings, contract_dir=contract_dir, tool=blueprint.tool, create=create)


def _provided(mount: Mount, make: Maker) -> Mount:
    """The mount; where it is missing, and its contract takes it for granted, it is made, or marked."""
    if not mount.is_older or os.path.lexists(mount.source):
        return mount
    place = make(mount.source)
    return mount if place is None else replace(mount, source=place, is_missing=not place.is_dir())


def find_problems(contract: ToolContract, settings: Settings) -> list[PraxisError]:
    """Everything for which no call of this contract would be planned, whatever its arguments. May block."""
    problems: list[PraxisError] = list(_refusals(contract, settings))
    try:
        blueprint = draft_blueprint(contract, settings)
    except PraxisError as exc:
        return [*problems, exc]
    parts = [replace(blueprint, mounts=(mount,), working_dir=None) for mount in blueprint.mounts]
    for part in (*parts, replace(blueprint, mounts=())):
        try:
            check_mounts(part, settings)
        except PraxisError as exc:
            problems.append(exc)
    try:
        check_build(blueprint, settings)
    except PraxisError as exc:
        problems.append(exc)
    misplaced = find_misplaced(blueprint, settings)
    if misplaced is not None:
        problems.append(misplaced)
    for value in _values_of(contract):
        try:
            if isinstance(value, SecretRef):
                resolve_secret(value.secret, settings, contract.name)
        except PraxisError as exc:
            problems.append(exc)
    return problems


def find_misplaced(blueprint: Blueprint, settings: Settings) -> PraxisError | None:
    """Why something that the blueprint lays has no place, see `check_places`. Makes nothing."""
    make = _maker(blueprint, settings, create=False)
    try:
        provided = tuple(_provided(mount, make) for mount in blueprint.mounts)
        check_places(replace(blueprint, mounts=provided), make)
    except PraxisError as exc:
        return exc
    return None


_blueprints: Derived[ToolContract, Derived[Settings, Blueprint]] = Derived()


def build_blueprint(contract: ToolContract, settings: Settings) -> Blueprint:
    """The fixed half of every plan of this contract.

    Raises:
        ExecutionError: a mount or directory is malformed.
        LimitUnsupported: the contract asks for something that the settings do not allow.
    """

    def make() -> Blueprint:
        for refusal in _refusals(contract, settings):
            raise refusal
        return draft_blueprint(contract, settings)

    return _blueprints.get(contract, Derived).get(settings, make)


def draft_blueprint(contract: ToolContract, settings: Settings) -> Blueprint:
    """As `build_blueprint`, be it allowed or not.

    Raises:
        ExecutionError: a mount or directory is malformed.
    """
    spec = contract.engine_spec
    limits = Limits(timeout=spec.timeout, max_output=_max_output(contract, settings))
    if isinstance(spec, RemoteMCPEngineSpec):
        return Blueprint(
            tool=contract.name,
            where=Where.REMOTE,
            engines=(EngineType.REMOTE_MCP.value,),
            limits=limits,
            remote=RemoteTool(_address(contract, spec), spec.tool or contract.name, spec.transport),
        )
    if isinstance(spec, HttpEngineSpec):
        return Blueprint(
            tool=contract.name,
            where=Where.HTTP,
            engines=(EngineType.HTTP.value,),
            limits=limits,
            http=HttpTarget(spec.method, spec.url, spec.follow_redirects, spec.max_response, spec.has_secrets),
        )
    limits = Limits(spec.timeout, spec.memory_limit, spec.cpu_limit, spec.pids_limit, limits.max_output)
    shared: dict[str, Any] = {
        "tool": contract.name,
        "limits": limits,
        "network": spec.network,
        "mounts": _mounts(contract, spec, settings),
        "code": named_code(spec) if contract.is_older and spec.mounts else (),
        "artifact_dir": artifact_directory(contract.artifacts),
        "artifacts": contract.artifacts,
        "stdin": any(parameter.bind.kind is BindKind.STDIN for parameter in contract.parameters),
        "files": any(parameter.bind.kind is BindKind.FILE for parameter in contract.parameters),
        "pure": contract.cache == "pure",
        "warm": spec.warm,
    }
    if isinstance(spec, LocalEngineSpec):
        cwd = str(host_path(spec.cwd, settings.root, contract.directory)) if spec.cwd else None
        return Blueprint(
            where=Where.HOST,
            engines=(contract.engine.value,),
            working_dir=cwd,
            contract_dir=str(contract.directory) if contract.directory else None,
            capture_output=spec.capture_output,
            **shared,
        )
    assert isinstance(spec, DaggerEngineSpec)
    engines = settings.engines.order if contract.engine is EngineType.DAGGER else (contract.engine.value,)
    return Blueprint(
        where=Where.CONTAINER,
        engines=engines,
        image=spec.image,
        build=describe_build(contract, spec, settings),
        user=spec.user or _owner_of_writable_mounts(shared["mounts"], shared["artifact_dir"]),
        privileged=spec.privileged,
        read_only=spec.read_only,
        drop_capabilities=spec.drop_capabilities,
        use_entrypoint=spec.use_entrypoint,
        cache_dirs=spec.cache_dirs,
        cache_owner=_digest(str(settings.root), str(contract.source or "")),
        working_dir=_expanded(contract, spec.working_dir) if spec.working_dir else None,
        **shared,
    )


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _refusals(contract: ToolContract, settings: Settings) -> Iterator[PraxisError]:
    spec = contract.engine_spec
    if spec.timeout > settings.calls.max_timeout:
        yield LimitUnsupported(
            f"{contract.name} asks for a timeout of {spec.timeout:g} s, above the settings' "
            f"{settings.calls.max_timeout:g} s.",
            remedy="Lower it in the contract, or raise calls.max_timeout in the settings.",
        )
    for _, _, problem in misplaced_fields(contract):
        yield ExecutionError(f"{contract.name}: {problem}", remedy="Choose another place.")
    if isinstance(spec, HttpEngineSpec):
        yield from host_refusals(spec.url, settings.policy.private_hosts)
    if not isinstance(spec, DaggerEngineSpec):
        return
    if spec.privileged and not settings.policy.privileged:
        yield LimitUnsupported(
            f"{contract.name} asks for privileged: true, which the settings do not allow.",
            remedy="Remove it from the contract, or set policy.privileged: true.",
        )
    if spec.network is Network.HOST and not settings.policy.host_network:
        yield LimitUnsupported(
            f"{contract.name} asks for network: host, which the settings do not allow.",
            remedy="Use network: bridge in the contract, or set policy.host_network: true.",
        )


def _max_output(contract: ToolContract, settings: Settings) -> int:
    if contract.max_output is not None:
        return contract.max_output
    return STRUCTURED_OUTPUT if contract.output == "json" else settings.calls.max_output


def _mounts(contract: ToolContract, spec: CommandSpec, settings: Settings) -> tuple[Mount, ...]:
    return tuple(
        replace(parse_mount(source, target, settings.root, contract.directory), is_older=contract.is_older)
        for source, target in spec.mounts.items()
    )


def _owner_of_writable_mounts(mounts: tuple[Mount, ...], artifact_dir: str | None) -> str | None:
    # Files on the host must belong to the user who started the server; and root in a container without capabilities
    # cannot even write to another user's directory.
    # What an older contract has writable may yet be read-only: that is known once it is looked at.
    if hasattr(os, "getuid") and (artifact_dir or any(mount.writable and not mount.is_older for mount in mounts)):
        return f"{os.getuid()}:{os.getgid()}"
    return None


def _argv(spec: CommandSpec, command: tuple[str, ...], bound: Bound) -> tuple[str, ...]:
    if isinstance(spec, LocalEngineSpec) and spec.shell:
        # The shell's text is the contract's alone; arguments are its "$1", "$2", …
        return ("/bin/sh", "-c", " ".join(command), "sh", *bound.words)
    if ends_options(spec):
        return (*command[:-1], *bound.flags, command[-1], *bound.operands)
    return (*command, *bound.words)


def _command(contract: ToolContract, spec: CommandSpec) -> tuple[str, ...]:
    return tuple(
        _expanded(contract, word, in_shell=is_shell_text(spec, index)) if CONTRACT_DIR in word else word
        for index, word in enumerate(spec.command)
    )


def _address(contract: ToolContract, spec: RemoteMCPEngineSpec) -> str | tuple[str, ...]:
    if isinstance(spec.address, str):
        return spec.address
    return tuple(_expanded(contract, word) for word in spec.address)


def _env(
    contract: ToolContract, spec: CommandSpec | RemoteMCPEngineSpec, settings: Settings, secrets: list[str]
) -> dict[str, str]:
    # Before secrets are looked up: what they hold is nothing to look for placeholders in.
    values = {name: _expanded(contract, value) if isinstance(value, str) else value for name, value in spec.env.items()}
    return dict(resolve_values(values, settings, contract.name, secrets))


def _expanded(contract: ToolContract, text: str, *, in_shell: bool = False) -> str:
    if CONTRACT_DIR not in text:
        return text
    folder = folder_for_command(contract)
    if folder is None:
        raise ExecutionError(
            f"{contract.name} names {CONTRACT_DIR}, the contract's own folder, but its command cannot see that.",
            remedy=f'Load the contract from a file, and for a command in an image mount it: "{CONTRACT_DIR}": /tool.',
        )
    if in_shell and not is_plain_in_shell(folder):
        raise ExecutionError(
            f"{contract.name} has {CONTRACT_DIR} in a shell's text, where {folder} would be read as more than a path.",
            remedy="Move the tools to a path without spaces and special characters, or give the folder in env:.",
        )
    return expand(text, folder)
