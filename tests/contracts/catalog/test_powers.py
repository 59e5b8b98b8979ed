"""What a change of a contract adds to what it may do; what only takes away, or changes how it looks, is not held up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.catalog.approvals import gained_powers, notable_powers, powers_of
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_bytes
from praxis_mcp.contracts.specs import DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec

IMAGE: dict[str, Any] = {
    "name": "it",
    "description": "Does it.",
    "image": "busybox:1.36",
    "command": ["cat", "/in"],
    "network": "bridge",
    "user": "1000",
    "mounts": {"./data": "/data", "./empty": "/data/secrets", "./out": "/out:rw"},
    "env": {"MODE": "fast", "KEY": {"secret": "API_KEY"}},
    "env_passthrough": ["LANG"],
    "parameters": {"text": {"type": "string", "maxLength": 10}, "more": "string"},
}


def contract(**changes: Any) -> ToolContract:
    values = {name: value for name, value in {**IMAGE, **changes}.items() if value is not None}
    loaded = load_bytes(yaml.safe_dump(values).encode(), Path("/tools/it/contract.yaml"))
    assert loaded.contract is not None, loaded.diagnostics
    return loaded.contract


def more(**changes: Any) -> tuple[str, ...]:
    return gained_powers(powers_of(contract()), powers_of(contract(**changes)))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"network": "host"}, "network: host (before: bridge)"),
        ({"image": "evil:1"}, "image: evil:1 (before: busybox:1.36)"),
        ({"command": ["sh", "-c", "cat /in"]}, "command: another one"),
        ({"engine": "local", "image": None, "user": None}, "engine: local (before: dagger)"),
        ({"engine": "docker"}, "engine: docker (before: dagger)"),
        ({"mounts": {**IMAGE["mounts"], "./data": "/data:rw"}}, "mount /data of ./data, writable"),
        ({"mounts": {**IMAGE["mounts"], "~/.ssh": "/ssh"}}, "mount /ssh of ~/.ssh"),
        ({"mounts": {"/etc": "/data", "./empty": "/data/secrets", "./out": "/out:rw"}}, "mount /data of /etc"),
        ({"mounts": {"./data": "/data", "./out": "/out:rw"}}, "mount /data/secrets is no longer of ./empty"),
        ({"env": {**IMAGE["env"], "OTHER": {"secret": "OTHER_KEY"}}}, "secret OTHER_KEY as variable OTHER"),
        ({"env": {**IMAGE["env"], "MODE": "slow"}}, "variable MODE: another one"),
        ({"env_passthrough": ["LANG", "AWS_PROFILE"]}, "server variable AWS_PROFILE passed on"),
        ({"privileged": True}, "privileged"),
        ({"user": "0"}, "user: 0 (before: 1000)"),
        ({"user": None}, "user is no longer 1000"),
        ({"cache_dirs": ["/root/.cache"]}, "cache directory /root/.cache kept"),
        ({"parameters": {"text": "string", "more": "string"}}, "parameter text: another one"),
        ({"parameters": {**IMAGE["parameters"], "extra": {"type": "string", "bind": {"flag": "--x"}}}}, "extra: new"),
        ({"use_entrypoint": True}, "use entrypoint"),
        ({"drop_capabilities": False}, "drop capabilities off"),
        ({"read_only": False}, "read only off"),
    ],
)
def test_whatever_lets_a_tool_do_more_is_named(changes: dict[str, Any], word: str) -> None:
    assert any(word in line for line in more(**changes)), more(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "Does it better.", "title": "It", "timeout": 5, "memory_limit": "64Mi", "max_output": 2048},
        {"examples": [{"arguments": {"text": "a"}}], "tags": ["a"]},
        {"network": "none"},
        {"network": None},
        {"mounts": {"./data": "/data", "./empty": "/data/secrets", "./out": "/out"}},
        {"mounts": {"./data": "/data", "./empty": "/data/secrets"}},
        {"env": {"MODE": "fast"}, "env_passthrough": None},
        {"parameters": {"text": {"type": "string", "maxLength": 10, "description": "What."}}},
    ],
)
def test_what_takes_away_or_changes_only_how_it_looks_adds_nothing(changes: dict[str, Any]) -> None:
    assert more(**changes) == ()


def test_to_keep_capabilities_is_more_than_to_drop_them_or_to_leave_it_to_the_engine() -> None:
    kept, dropped, left = (powers_of(contract(drop_capabilities=value)) for value in (False, True, None))
    assert gained_powers(dropped, kept) == ("drop capabilities off (before: true)",)
    assert gained_powers(left, kept) == ("drop capabilities off",)
    assert gained_powers(kept, left) == ()
    assert gained_powers(dropped, left) == ("drop capabilities is no longer true",)
    assert "drop capabilities off" in notable_powers(kept)
    assert not any("capabilities" in line for line in (*notable_powers(dropped), *notable_powers(left)))


def test_what_is_notable_of_a_new_contract_is_what_a_bare_container_has_not() -> None:
    plain = contract(network=None, mounts=None, env={"MODE": "fast"}, env_passthrough=None, user=None)
    assert notable_powers(powers_of(plain)) == ()
    found = notable_powers(powers_of(contract()))
    assert {"network: bridge", "mount /out of ./out, writable", "secret API_KEY as variable KEY"} <= set(found)
    assert "server variable LANG passed on" in found


def test_no_value_of_a_variable_is_kept() -> None:
    assert "hunter2" not in str(powers_of(contract(env={"PASSWORD": "hunter2"})))


def test_every_field_of_a_specification_is_a_power_or_known_to_be_none() -> None:
    """A field that is added to the format counts until somebody decides otherwise."""
    unlike: dict[str, Any] = {
        "image": "other:1", "command": ("x",), "env": {"A": "b"}, "env_passthrough": ("A",), "mounts": {"/a": "/b"},
        "network": "host", "working_dir": "/w", "privileged": True, "user": "0", "read_only": True,
        "use_entrypoint": True, "cache_dirs": ("/c",), "drop_capabilities": True, "shell": True, "cwd": "/d",
        "address": ("y",), "tool": "z", "headers": {"A": "b"}, "auth_token": "t", "transport": "stdio",
    }  # fmt: skip
    bounds = {"timeout", "memory_limit", "cpu_limit", "pids_limit", "warm", "capture_output"}
    for spec in (DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec):
        assert set(spec.model_fields) - bounds <= set(unlike), "decide whether the new field is a power"
