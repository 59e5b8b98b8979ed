"""Contract + arguments + settings → plan."""

from __future__ import annotations

import gc
import os
import socket
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Network, parse_size
from praxis_mcp.errors import ExecutionError, LimitUnsupported, SettingsError
from praxis_mcp.plans.build import build_blueprint, build_plan, check_mounts, find_problems, needs_io
from praxis_mcp.plans.model import Capability
from praxis_mcp.plans.paths import why_sensitive
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.tracing import Trace, TraceContext, belonging_to


def image_tool(**fields: Any) -> ToolContract:
    return ToolContract.create_dagger_tool("t", "python:3.11-slim", ["python", "main.py"], **fields)


def test_equal_calls_share_one_blueprint_and_differ_in_run_id() -> None:
    contract, settings = image_tool(), Settings()
    first, second = build_plan(contract, {}, settings), build_plan(contract, {}, settings)
    assert first.blueprint is second.blueprint
    assert hash(first.blueprint) == hash(second.blueprint)
    assert first.call.run_id != second.call.run_id


def test_a_plan_shows_no_value_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    contract = image_tool(env={"API": {"secret": "TOKEN"}}, parameters=[{"name": "text"}])
    plan = build_plan(contract, {"text": "very private"}, Settings())
    assert plan.call.env["API"] == "hunter2hunter2"
    assert "hunter2" not in repr(plan)
    assert "private" not in repr(plan)


def test_relative_mounts_start_at_the_root_and_contract_dir_at_the_contract(tmp_path: Path) -> None:
    (tmp_path / "root" / "shared").mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    contract = image_tool(
        mounts={"./shared": "/shared", "{contract_dir}": "/tool:rw"}, source=tmp_path / "tools" / "contract.yaml"
    )
    mounts = build_plan(contract, {}, Settings(root=tmp_path / "root")).blueprint.mounts
    assert [(str(item.source), item.target, item.writable) for item in mounts] == [
        (str(tmp_path / "root" / "shared"), "/shared", False),
        (str(tmp_path / "tools"), "/tool", True),
    ]


def test_a_missing_mount_is_refused_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="does not exist"):
        build_plan(image_tool(mounts={"./gone": "/data"}), {}, Settings(root=tmp_path))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("source", ["/home", "/root", "/root/.aws"])
def test_homes_and_credentials_of_others_are_as_sensitive_as_ones_own(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert why_sensitive(Path(source), Settings()) is not None


@pytest.mark.parametrize("source", ["/", "~", "/var/run", "/proc", "/etc/ssh"])
def test_sensitive_paths_are_refused_unless_the_settings_allow_them(source: str) -> None:
    path = Path(source).expanduser().resolve()
    if not path.exists():
        pytest.skip(f"{path} does not exist here")
    contract = image_tool(mounts={source: "/data"})
    with pytest.raises(LimitUnsupported, match="sensitive_paths"):
        build_plan(contract, {}, Settings())
    assert build_plan(contract, {}, Settings.model_validate({"policy": {"sensitive_paths": [str(path)]}}))


def test_a_link_to_a_sensitive_path_is_sensitive(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/")
    with pytest.raises(LimitUnsupported, match="whole file system"):
        build_plan(image_tool(mounts={str(tmp_path / "innocent"): "/data"}), {}, Settings())


@pytest.mark.parametrize("target", ["data", "/", "/a/../b", "/data:rwx"])
def test_a_malformed_mount_target_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(ExecutionError, match="mount"):
        build_plan(image_tool(mounts={str(tmp_path): target}), {}, Settings())


def test_arguments_win_over_passed_through_and_fixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT", "from the server")
    monkeypatch.setenv("OTHER", "passed through")
    # In a contract of an older spelling; our own, and code, are refused one that does both.
    contract = image_tool(env={"text": "fixed"}, env_passthrough=["TEXT", "OTHER", "NOT_SET"])
    contract = contract.model_copy(update={"parameters": (ToolParameter(name="text"),)})
    env = build_plan(contract, {"text": "given"}, Settings()).call.env
    assert env == {"text": "given", "TEXT": "given", "OTHER": "passed through"}


@pytest.mark.parametrize("name", ["PATH", "Path", "HOME", "TMPDIR", "LD_PRELOAD", "PYTHONPATH", "VIRTUAL_ENV"])
def test_what_describes_this_machine_does_not_reach_an_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/of/the/host")
    monkeypatch.setenv("TZ", "UTC")
    assert build_plan(image_tool(env_passthrough=[name, "TZ"]), {}, Settings()).call.env == {"TZ": "UTC"}
    written = image_tool(env_passthrough=[name], env={name: "/of/the/image"})
    assert build_plan(written, {}, Settings()).call.env == {name: "/of/the/image"}
    local = ToolContract.create_local_tool("t", ["true"], env_passthrough=[name])
    assert build_plan(local, {}, Settings()).call.env == {name: "/of/the/host"}


def test_calls_of_different_traces_meet_the_same_warm_container_and_get_their_own_variables() -> None:
    contract = image_tool(env_passthrough=["TRACEPARENT", "TRACESTATE"])
    plans = []
    for span in ("1" * 16, "2" * 16):
        with belonging_to(Trace(TraceContext(f"00-{'a' * 32}-{span}-01"))):
            plans.append(build_plan(contract, {}, Settings()))
    first, second = plans
    assert first.blueprint == second.blueprint
    assert first.call.env == {"TRACEPARENT": f"00-{'a' * 32}-{'1' * 16}-01"}
    assert first.call.env != second.call.env


def test_flags_stand_before_the_word_that_ends_them() -> None:
    parameters = [{"name": "p", "bind": {"position": 1}}, {"name": "m", "bind": {"flag": "-m"}}]
    contract = ToolContract.create_local_tool("t", ["grep", "-n", "--"], parameters=parameters)
    assert build_plan(contract, {"p": "-x", "m": "3"}, Settings()).call.argv == ("grep", "-n", "-m", "3", "--", "-x")


def test_a_shell_gets_arguments_as_its_own_parameters_never_as_text() -> None:
    contract = ToolContract.create_local_tool(
        "t", ["echo", '"$1"'], shell=True, parameters=[{"name": "a", "bind": {"position": 1}}]
    )
    plan = build_plan(contract, {"a": "$(touch /tmp/x)"}, Settings())
    assert plan.call.argv == ("/bin/sh", "-c", 'echo "$1"', "sh", "$(touch /tmp/x)")


def test_privileges_need_the_settings_consent() -> None:
    for fields, policy in (({"privileged": True}, "privileged"), ({"network": "host"}, "host_network")):
        contract = image_tool(**fields)
        with pytest.raises(LimitUnsupported, match=f"policy.{policy}"):
            build_blueprint(contract, Settings())
        assert build_blueprint(contract, Settings.model_validate({"policy": {policy: True}}))


def test_a_timeout_above_the_settings_is_refused() -> None:
    with pytest.raises(LimitUnsupported, match="max_timeout"):
        build_blueprint(image_tool(timeout=7200), Settings())


def test_what_plans_share_keeps_neither_contract_nor_settings_alive() -> None:
    contract, settings, others = image_tool(), Settings(), Settings()
    assert build_blueprint(contract, settings) is not build_blueprint(contract, others)
    gone = weakref.ref(contract), weakref.ref(others)
    del others
    gc.collect()
    assert [item() is None for item in gone] == [False, True]
    del contract
    gc.collect()
    assert [item() is None for item in gone] == [True, True]


def test_demands_name_what_an_engine_must_enforce(tmp_path: Path) -> None:
    contract = image_tool(
        mounts={str(tmp_path): "/data:rw"},
        memory_limit="64Mi",
        read_only=True,
        artifacts=["/out/*.png"],
        parameters=[{"name": "s", "bind": "stdin"}],
    )
    demands = build_plan(contract, {"s": "x"}, Settings()).demands
    assert demands == {
        Capability.IMAGES,
        Capability.TIMEOUT,
        Capability.NETWORK_NONE,
        Capability.MEMORY_LIMIT,
        Capability.MOUNTS,
        Capability.WRITABLE_MOUNTS,
        Capability.READ_ONLY_ROOT,
        Capability.USER,
        Capability.ARTIFACTS,
        Capability.STDIN,
    }


def test_a_secret_comes_from_its_source_and_a_missing_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    contract = image_tool(env={"API": {"secret": "token"}})
    settings = Settings.model_validate({"secrets": {"token": {"file": str(file)}}})
    plan = build_plan(contract, {}, settings)
    assert plan.call.env["API"] == "from-a-file"
    assert plan.call.secrets == ("from-a-file",)
    with pytest.raises(SettingsError, match='"token"'):
        build_plan(contract, {}, Settings())


def test_secrets_are_masked_whole_and_short_ones_left_alone() -> None:
    masker = Masker(("secret", "secret-longer", "abc"))
    assert masker.text("abc secret-longer secret") == "abc *** ***"
    assert masker.data(b"x secret-longer") == b"x ***"
    assert not Masker(("abc",))


@pytest.mark.parametrize(
    ("text", "size"), [("512Mi", 512 << 20), ("512m", 512 << 20), ("1.5g", 3 << 29), (1024, 1024), ("2 GB", 2 << 30)]
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "0", True, "1x"])
def test_what_is_not_a_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("word", "network"), [("none", Network.NONE), (False, Network.NONE), ("outbound", Network.BRIDGE)]
)
def test_networks_have_the_names_people_write(word: object, network: Network) -> None:
    assert image_tool(network=word).engine_spec.network is network  # pyright: ignore[reportAttributeAccessIssue]


class TestSensitivePlaces:
    @staticmethod
    def refused(source: Path | str, **settings: Any) -> bool:
        try:
            build_plan(image_tool(mounts={str(source): "/data"}), {}, Settings(**settings))
        except LimitUnsupported:
            return True
        return False

    def test_a_home_that_is_a_link_is_as_sensitive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "data/u/.ssh").mkdir(parents=True)
        (tmp_path / "u").symlink_to(tmp_path / "data/u")
        monkeypatch.setenv("HOME", str(tmp_path / "u"))
        assert self.refused("~/.ssh")
        assert self.refused("~")
        assert self.refused(tmp_path / "data/u/.ssh")

    def test_keys_that_lie_elsewhere_are_as_sensitive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("home", "keys", "other"):
            (tmp_path / name).mkdir()
        (tmp_path / "home/.ssh").symlink_to(tmp_path / "keys")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert self.refused("~/.ssh")
        assert self.refused(tmp_path / "keys")
        assert not self.refused(tmp_path / "other")

    @pytest.mark.parametrize(
        "place", ["/var", "/var/lib", "/var/lib/docker", "/run", "/run/user", "/run/dbus", "/run/systemd", "/etc"]
    )
    def test_the_systems_own_places_are_sensitive(self, place: str) -> None:
        if not Path(place).exists():
            pytest.skip(f"{place} does not exist here")
        assert self.refused(place)

    def test_a_socket_and_the_folder_of_an_engines_socket_are_sensitive(self, tmp_path: Path) -> None:
        (tmp_path / "engine").mkdir()
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(tmp_path / "engine/any.name"))
            assert self.refused(tmp_path / "engine/any.name")
            assert not self.refused(tmp_path / "engine")
            named = {"engines": {"docker": {"host": f"unix://{tmp_path}/engine/any.name"}}}
            assert self.refused(tmp_path / "engine", **named)

    def test_a_file_that_holds_a_secret_is_sensitive(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("x")
        assert self.refused(tmp_path / "token", secrets={"T": {"file": str(tmp_path / "token")}})


class TestWhatIsApprovedIsMounted:
    def test_a_plan_holds_where_links_lead(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        (mount,) = build_plan(image_tool(mounts={"./link": "/d"}), {}, Settings(root=tmp_path)).blueprint.mounts
        assert mount.source == tmp_path / "real"

    def test_a_link_that_was_put_there_meanwhile_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "home/.ssh").mkdir(parents=True)
        (tmp_path / "work/sub").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        settings = Settings(root=tmp_path)
        plan = build_plan(image_tool(mounts={"./work/sub": "/d:rw"}), {}, settings)
        assert check_mounts(plan.blueprint, settings) == plan.blueprint
        (tmp_path / "work/sub").rmdir()
        (tmp_path / "work/sub").symlink_to(tmp_path / "home/.ssh")
        with pytest.raises(LimitUnsupported, match="credentials"):
            check_mounts(plan.blueprint, settings)

    def test_links_in_a_loop_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(ExecutionError, match="cannot be used"):
            build_plan(image_tool(mounts={"./a": "/d"}), {}, Settings(root=tmp_path))


class TestSecrets:
    def test_a_pipe_is_not_a_secret_and_nobody_waits_for_its_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        settings = Settings.model_validate({"secrets": {"S": {"file": str(tmp_path / "pipe")}}})
        with pytest.raises(SettingsError, match="not a regular file"):
            build_plan(image_tool(env={"X": {"secret": "S"}}), {}, settings)

    def test_one_too_short_to_be_masked_is_refused_and_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        contract = image_tool(env={"X": {"secret": "PIN"}})
        monkeypatch.setenv("PIN", "q7z")
        with pytest.raises(SettingsError, match="fewer than 4 characters") as refused:
            build_plan(contract, {}, Settings())
        assert "q7z" not in str(refused.value)
        for value in ("", "q7z8"):
            monkeypatch.setenv("PIN", value)
            assert build_plan(contract, {}, Settings()).call.env["X"] == value

    def test_a_secret_of_a_megabyte_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(b"x" * 100_000)
        settings = Settings.model_validate({"secrets": {"S": {"file": str(tmp_path / "big")}}})
        with pytest.raises(SettingsError, match="larger than 64 KiB"):
            build_plan(image_tool(env={"X": {"secret": "S"}}), {}, settings)


def test_only_plans_that_look_at_files_or_secrets_need_a_thread(tmp_path: Path) -> None:
    assert not needs_io(image_tool())
    assert needs_io(image_tool(mounts={"./a": "/a"}))
    assert needs_io(image_tool(env={"X": {"secret": "S"}}))
    assert needs_io(ToolContract.create_local_tool("t", ["x"], working_dir="."))


def test_what_a_binding_may_need_is_demanded_before_any_call() -> None:
    parameters = [{"name": "a", "bind": "stdin"}, {"name": "b", "bind": {"file": "/in/b"}}]
    demands = build_blueprint(image_tool(parameters=parameters), Settings()).demands
    assert {Capability.STDIN, Capability.FILES} <= demands


def test_every_problem_of_a_contract_is_found(tmp_path: Path) -> None:
    contract = image_tool(
        privileged=True, network="host", timeout=7200, mounts={"./gone": "/a", "/": "/b"}, env={"X": {"secret": "NO"}}
    )
    problems = " ".join(problem.message for problem in find_problems(contract, Settings(root=tmp_path)))
    for part in ("privileged", "network: host", "timeout", "gone, which does not exist", "whole file system", '"NO"'):
        assert part in problems
