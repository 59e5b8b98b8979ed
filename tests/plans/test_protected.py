"""What no writable mount may hold: refused where it lies in it, read-only on top where it holds it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.discovery import find_contracts
from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.plans.paths import hidden_places, why_sensitive
from praxis_mcp.plans.protected import find_forbidden, guard_mounts
from praxis_mcp.settings.model import Settings


def settings(root: Path, **values: Any) -> Settings:
    return Settings.model_validate({"root": root, **values})


def laid(mounts: list[Mount], given: Settings) -> list[tuple[str, str, bool]]:
    found = guard_mounts(mounts, given, None, "tool")
    return sorted((mount.target, str(mount.source.relative_to(given.root)), mount.writable) for mount in found)


def test_contracts_lie_read_only_on_top_and_the_directories_on_the_way_are_pinned(tmp_path: Path) -> None:
    (tmp_path / "a/b/tools").mkdir(parents=True)
    given = settings(tmp_path, tools=["a/b/tools"])
    assert laid([Mount(tmp_path, "/p", writable=True)], given) == [
        ("/p", ".", True),
        ("/p/a", "a", True),
        ("/p/a/b", "a/b", True),
        ("/p/a/b/tools", "a/b/tools", False),
    ]
    assert laid([Mount(tmp_path, "/p")], given) == [("/p", ".", False)]


def test_no_tool_writes_to_the_lock_file_its_signature_or_the_key_of_that(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("praxis.lock", "praxis.lock.sigstore.json", "lock.pub"):
        (tmp_path / name).touch()
    given = settings(tmp_path, locked=True, lock_key="lock.pub")
    assert laid([Mount(tmp_path, "/p", writable=True)], given) == [
        ("/p", ".", True),
        ("/p/lock.pub", "lock.pub", False),
        ("/p/praxis.lock", "praxis.lock", False),
        ("/p/praxis.lock.sigstore.json", "praxis.lock.sigstore.json", False),
        ("/p/tools", "tools", False),
    ]


def test_what_the_contract_itself_lays_over_contracts_stays(tmp_path: Path) -> None:
    for name in ("tools", "empty"):
        (tmp_path / name).mkdir()
    mounts = [Mount(tmp_path, "/p", writable=True), Mount(tmp_path / "empty", "/p/tools")]
    assert laid(mounts, settings(tmp_path)) == [("/p", ".", True), ("/p/tools", "empty", False)]


def test_a_place_within_a_protected_one_is_pinned_no_more(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    given = settings(tmp_path, tools=["a", "a/b"])
    assert laid([Mount(tmp_path, "/p", writable=True)], given) == [("/p", ".", True), ("/p/a", "a", False)]


@pytest.mark.parametrize("source", ["tools", "tools/own", "tools/own/data"])
def test_nothing_among_contracts_is_mounted_writable_without_consent(tmp_path: Path, source: str) -> None:
    (tmp_path / source).mkdir(parents=True)
    mount = Mount(tmp_path / source, "/t", writable=True)
    with pytest.raises(LimitUnsupported, match="holds contracts") as refusal:
        guard_mounts([mount], settings(tmp_path), None, "tool")
    assert "without :rw" in (refusal.value.remedy or "")
    allowed = settings(tmp_path, policy={"sensitive_paths": [tmp_path / source]})
    assert guard_mounts([mount], allowed, None, "tool") == (mount,)


@pytest.mark.parametrize("source", ["tools/own/.data", "tools/.data/deep"])
def test_a_tool_may_write_where_no_contract_is_looked_for(tmp_path: Path, source: str) -> None:
    (tmp_path / source).mkdir(parents=True)
    (tmp_path / source / "contract.yaml").write_text("name: evil")
    mount = Mount(tmp_path / source, "/t", writable=True)
    assert guard_mounts([mount], settings(tmp_path), tmp_path / "tools/own", "tool") == (mount,)
    assert find_contracts([tmp_path / "tools"]) == ([], [])


def test_the_tools_own_directory_and_the_servers_program_are_protected_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/own").mkdir(parents=True)
    own = Mount(tmp_path / "elsewhere/own", "/t", writable=True)
    with pytest.raises(LimitUnsupported, match="the tool's own contract"):
        guard_mounts([own], settings(tmp_path / "root"), tmp_path / "elsewhere/own", "tool")
    program = Path(sys.modules["praxis_mcp"].__file__ or "").parent
    with pytest.raises(LimitUnsupported, match="the server's own program"):
        guard_mounts([Mount(program / "engines", "/t", writable=True)], settings(tmp_path), None, "tool")


def test_where_the_servers_python_finds_modules_no_tool_adds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("project/src/engine", "project/src/data", "project/tools"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project/src/engine/__init__.py").touch()
    (tmp_path / "project/src/single.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "project/src"))  # as `pip install -e` does
    given = settings(tmp_path / "project")
    assert laid([Mount(tmp_path / "project", "/p", writable=True)], given) == [
        ("/p", ".", True),
        ("/p/src", "src", False),
        ("/p/tools", "tools", False),
    ]
    for source in ("src", "src/engine", "src/single.py"):
        with pytest.raises(LimitUnsupported, match="finds modules") as refusal:
            guard_mounts([Mount(given.root / source, "/s", writable=True)], given, None, "tool")
        assert "environment of its own" in (refusal.value.remedy or "")
    data = Mount(given.root / "src/data", "/d", writable=True)  # what is no module there is the tool's to write
    assert guard_mounts([data], given, None, "tool") == (data,)
    monkeypatch.syspath_prepend(str(given.root / "later"))  # as PYTHONPATH may name it
    with pytest.raises(ExecutionError, match="could create"):
        guard_mounts([Mount(given.root, "/p", writable=True)], given, None, "tool")


def test_contracts_that_lie_where_modules_are_found_stay_protected_as_contracts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools/own").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "tools"))
    with pytest.raises(LimitUnsupported, match="holds contracts"):
        guard_mounts([Mount(tmp_path / "tools/own", "/t", writable=True)], settings(tmp_path), None, "tool")


def test_what_does_not_exist_yet_could_be_created_and_must_be_there_first(tmp_path: Path) -> None:
    mount = Mount(tmp_path, "/p", writable=True)
    for given, missing in (
        (settings(tmp_path, tools=["later"]), "later"),
        (settings(tmp_path, records={"directory": "runs"}), "runs"),
        (
            settings(tmp_path, upstreams={"x": {"address": "http://localhost:1/mcp", "pin": True}}),
            "praxis-upstreams.json",
        ),
    ):
        with pytest.raises(ExecutionError) as refusal:
            guard_mounts([mount], given, None, "tool")
        assert f"Create {tmp_path / missing} on the host" in (refusal.value.remedy or "")
    assert guard_mounts([mount], settings(tmp_path), None, "tool") == (mount,)


def test_no_tool_gets_the_store_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    store = tmp_path / "state/praxis-mcp/records"
    store.mkdir(parents=True)
    given = settings(tmp_path)
    assert str(store) in hidden_places(given)
    for path in (store, store / "files", tmp_path / "state"):
        assert "other calls" in (why_sensitive(path, given) or "")
    with pytest.raises(LimitUnsupported, match="holds the records of runs"):
        guard_mounts([Mount(store, "/r", writable=True)], given, None, "tool")


def test_a_link_to_contracts_in_a_writable_mount_is_refused_for_the_tool_could_turn_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/tools").symlink_to(tmp_path / "real")
    given = settings(tmp_path, tools=["work/tools"])
    with pytest.raises(LimitUnsupported, match="holds the link"):
        guard_mounts([Mount(tmp_path / "work", "/w", writable=True)], given, None, "tool")


def test_every_link_on_the_way_counts_also_those_that_other_links_lead_through(tmp_path: Path) -> None:
    for name in ("releases/5/tools", "deploy", "home"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/tools").symlink_to("../deploy/current/tools")
    (tmp_path / "deploy/current").symlink_to(tmp_path / "releases/5")
    given = settings(tmp_path, tools=["home/tools"])
    with pytest.raises(LimitUnsupported, match=r"holds the link .*/deploy/current"):
        guard_mounts([Mount(tmp_path / "deploy", "/w", writable=True)], given, None, "tool")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "tools").symlink_to("tools")
    with pytest.raises(LimitUnsupported, match="holds the link"):
        guard_mounts([Mount(tmp_path, "/p", writable=True)], settings(tmp_path), None, "tool")


def test_a_hidden_directory_among_the_tools_is_protected_where_a_link_makes_contracts_of_what_is_in_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "tools/.store/one").mkdir(parents=True)
    (tmp_path / "tools/.store/one/contract.yaml").write_text("name: one")
    (tmp_path / "tools/one").symlink_to(".store/one")
    mount = Mount(tmp_path / "tools/.store", "/t", writable=True)
    with pytest.raises(LimitUnsupported, match="holds contracts"):
        guard_mounts([mount], settings(tmp_path), None, "tool")


def test_files_that_the_settings_trust_and_programs_that_they_start_are_read_only(tmp_path: Path) -> None:
    files = ("keys/jwks.json", "keys/cert.pem", "bin/dagger", "images/a.tar", "servers/own", "servers/other.py")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "key.pem").touch()
    oauth = {"issuer": "https://a.example", "resource": "https://b.example/mcp", "jwks_file": files[0]}
    given = settings(
        tmp_path,
        http={"auth": {"oauth": oauth}, "tls_certificate": files[1], "tls_key": "key.pem"},
        engines={"dagger": {"cli": files[2], "images": {"a": files[3]}}},
        upstreams={
            "own": {"address": [f"./{files[4]}", "data.db"]},
            "other": {"address": ["python3", "-u", files[5], "servers"], "prefix": "z_"},
        },
    )
    read_only = [source for _, source, writable in laid([Mount(tmp_path, "/p", writable=True)], given) if not writable]
    assert read_only == sorted([*files, "key.pem"])


def test_the_python_that_an_environment_borrows_is_protected_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv/python/lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "uv/python"))
    assert ("/p/python", "uv/python", False) in laid([Mount(tmp_path / "uv", "/p", writable=True)], settings(tmp_path))


@pytest.mark.parametrize(
    ("changed", "gone", "is_forbidden"),
    [
        (["a/new", "x/"], [], False),
        (["a/"], [], False),
        (["a"], [], True),
        (["a/tools/evil/"], [], True),
        ([], ["a/"], True),
        ([], ["a/tools/"], True),
        ([], ["a/toolsets"], False),
    ],
)
def test_changes_that_would_move_a_protected_place_are_told_apart(
    tmp_path: Path, changed: list[str], gone: list[str], is_forbidden: bool
) -> None:
    mount = Mount(tmp_path, "/p", writable=True)
    shield = Mount(tmp_path / "a/tools", "/p/a/tools", guard=Guard.SHIELD)
    assert (find_forbidden(mount, [mount, shield], changed, gone) is not None) is is_forbidden
