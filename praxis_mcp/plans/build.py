"""Contract + arguments + settings → `Plan`."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from praxis_mcp.contracts.model import EngineType, ToolContract, artifact_directory
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec
from praxis_mcp.contracts.values import Network, SecretRef
from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.binding import Bound, bind_arguments, ends_options
from praxis_mcp.plans.model import Blueprint, Call, Limits, Mount, Plan, RemoteTool, Where
from praxis_mcp.plans.paths import check_mount, host_path, parse_mount
from praxis_mcp.plans.secrets import resolve_secret
from praxis_mcp.settings import Settings

STRUCTURED_OUTPUT = 4 * 1024 * 1024
"""Bytes of standard output that are kept inline for a tool with `output: json`: cut JSON is no JSON."""


def new_run_id() -> str:
    """A fresh id for a run, safe in file names, labels and URIs."""
    return uuid.uuid4().hex


def build_plan(contract: ToolContract, arguments: Mapping[str, Any], settings: Settings, run_id: str = "") -> Plan:
    """The plan for one call.

    Args:
        contract: what to run.
        arguments: validated, defaults applied.
        settings: root, policy, defaults.
        run_id: id of the run; a fresh one when empty.

    Raises:
        ArgumentError: an argument cannot be carried to the tool.
        ExecutionError: a host path is missing or unusable.
        LimitUnsupported: the contract asks for something that the settings do not allow.
        SettingsError: a secret cannot be found.
    """
    blueprint = build_blueprint(contract, settings)
    check_mounts(blueprint, settings)
    secrets: list[str] = []
    spec = contract.engine_spec
    if isinstance(spec, RemoteMCPEngineSpec):
        headers = dict(_resolved(spec.headers, settings, contract.name, secrets))
        if spec.auth_token is not None:
            token = dict(_resolved({"token": spec.auth_token}, settings, contract.name, secrets))["token"]
            headers["Authorization"] = f"Bearer {token}"
        call = Call(
            run_id=run_id or new_run_id(),
            arguments=MappingProxyType(dict(arguments)),
            env=MappingProxyType(dict(_resolved(spec.env, settings, contract.name, secrets))),
            headers=MappingProxyType(headers),
            secrets=tuple(secrets),
        )
        return Plan(blueprint, call)
    bound = bind_arguments(contract, arguments)
    env = {name: os.environ[name] for name in spec.env_passthrough if name in os.environ}
    env |= dict(_resolved(spec.env, settings, contract.name, secrets))
    # Arguments come last: older contracts list their parameters among env_passthrough as well.
    env |= bound.env
    call = Call(
        run_id=run_id or new_run_id(),
        argv=_argv(spec, bound),
        env=MappingProxyType(env),
        stdin=bound.stdin,
        files=bound.files,
        arguments=MappingProxyType(dict(arguments)),
        secrets=tuple(secrets),
    )
    return Plan(blueprint, call)


def check_mounts(blueprint: Blueprint, settings: Settings) -> None:
    """Refuse mounts whose sources are missing or sensitive.

    Raises:
        ExecutionError: a source does not exist; it is never created.
        LimitUnsupported: a source is sensitive, and the settings do not allow it.
    """
    for mount in blueprint.mounts:
        check_mount(mount, settings, blueprint.tool)


@functools.lru_cache(maxsize=4096)
def _cached_blueprint(contract: _ById, settings: _ById) -> Blueprint:
    return _build_blueprint(contract.value, settings.value)


class _ById:
    """A cache key by identity: contracts and settings are frozen, but hold mappings, so they do not hash."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.value is other.value


def build_blueprint(contract: ToolContract, settings: Settings) -> Blueprint:
    """The fixed half of every plan of this contract.

    Raises:
        ExecutionError: a mount or directory is malformed.
        LimitUnsupported: the contract asks for something that the settings do not allow.
    """
    return _cached_blueprint(_ById(contract), _ById(settings))


def _build_blueprint(contract: ToolContract, settings: Settings) -> Blueprint:
    spec = contract.engine_spec
    if spec.timeout > settings.calls.max_timeout:
        raise LimitUnsupported(
            f"{contract.name} asks for a timeout of {spec.timeout:g} s, above the settings' "
            f"{settings.calls.max_timeout:g} s.",
            remedy="Lower it in the contract, or raise calls.max_timeout in the settings.",
        )
    limits = Limits(timeout=spec.timeout, max_output=_max_output(contract, settings))
    if isinstance(spec, RemoteMCPEngineSpec):
        return Blueprint(
            tool=contract.name,
            where=Where.REMOTE,
            engines=(EngineType.REMOTE_MCP.value,),
            limits=limits,
            remote=RemoteTool(spec.address, spec.tool or contract.name, spec.transport),
        )
    limits = Limits(spec.timeout, spec.memory_limit, spec.cpu_limit, spec.pids_limit, limits.max_output)
    shared: dict[str, Any] = {
        "tool": contract.name,
        "limits": limits,
        "network": spec.network,
        "mounts": _mounts(contract, spec, settings),
        "artifact_dir": artifact_directory(contract.artifacts[0]) if contract.artifacts else None,
        "artifacts": contract.artifacts,
        "pure": contract.cache == "pure",
    }
    if isinstance(spec, LocalEngineSpec):
        cwd = str(host_path(spec.cwd, settings.root, contract.directory)) if spec.cwd else None
        return Blueprint(
            where=Where.HOST,
            engines=(EngineType.LOCAL.value,),
            working_dir=cwd,
            capture_output=spec.capture_output,
            **shared,
        )
    assert isinstance(spec, DaggerEngineSpec)
    _check_policy(contract, spec, settings)
    engines = settings.engines.order if contract.engine is EngineType.DAGGER else (contract.engine.value,)
    return Blueprint(
        where=Where.CONTAINER,
        engines=engines,
        image=spec.image,
        user=spec.user or _owner_of_writable_mounts(shared["mounts"], shared["artifact_dir"]),
        privileged=spec.privileged,
        read_only=spec.read_only,
        drop_capabilities=spec.drop_capabilities,
        use_entrypoint=spec.use_entrypoint,
        cache_dirs=spec.cache_dirs,
        warm=spec.warm,
        working_dir=spec.working_dir,
        **shared,
    )


def _check_policy(contract: ToolContract, spec: DaggerEngineSpec, settings: Settings) -> None:
    if spec.privileged and not settings.policy.privileged:
        raise LimitUnsupported(
            f"{contract.name} asks for privileged: true, which the settings do not allow.",
            remedy="Remove it from the contract, or set policy.privileged: true.",
        )
    if spec.network is Network.HOST and not settings.policy.host_network:
        raise LimitUnsupported(
            f"{contract.name} asks for network: host, which the settings do not allow.",
            remedy="Use network: bridge in the contract, or set policy.host_network: true.",
        )


def _max_output(contract: ToolContract, settings: Settings) -> int:
    if contract.max_output is not None:
        return contract.max_output
    return STRUCTURED_OUTPUT if contract.output == "json" else settings.calls.max_output


def _mounts(contract: ToolContract, spec: CommandSpec, settings: Settings) -> tuple[Mount, ...]:
    return tuple(
        parse_mount(source, target, settings.root, contract.directory) for source, target in spec.mounts.items()
    )


def _owner_of_writable_mounts(mounts: tuple[Mount, ...], artifact_dir: str | None) -> str | None:
    # Files on the host must belong to whoever started the server; and root in a container without capabilities
    # cannot even write to another user's directory.
    if hasattr(os, "getuid") and (artifact_dir or any(mount.writable for mount in mounts)):
        return f"{os.getuid()}:{os.getgid()}"
    return None


def _argv(spec: CommandSpec, bound: Bound) -> tuple[str, ...]:
    if isinstance(spec, LocalEngineSpec) and spec.shell:
        # The shell's text is the contract's alone; arguments are its "$1", "$2", …
        return ("/bin/sh", "-c", " ".join(spec.command), "sh", *bound.words)
    if ends_options(spec):
        return (*spec.command[:-1], *bound.flags, spec.command[-1], *bound.operands)
    return (*spec.command, *bound.words)


def _resolved(
    values: Mapping[str, str | SecretRef], settings: Settings, tool: str, secrets: list[str]
) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, SecretRef):
            value = resolve_secret(value.secret, settings, tool)
            secrets.append(value)
        yield name, value
