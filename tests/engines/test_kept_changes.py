"""What is kept of the files that a call changes in writable mounts: by the look around a call, and on every engine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines import changes, file_states
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.changes import ChangeKeeper, ChangeWatch
from praxis_mcp.engines.file_states import FileChange, FileState
from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.testing.bench import Bench

pytestmark = pytest.mark.anyio

LONG_AGO = 1_000_000_000


@pytest.fixture
def work(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    place.chmod(0o777)
    return place


def fill(work: Path, **contents: str | bytes) -> None:
    for name, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        (work / name).write_bytes(data)
        (work / name).chmod(0o644)


async def watch_for(work: Path, keeper: ChangeKeeper) -> ChangeWatch:
    return await ChangeWatch.start([Mount(work, "/work", writable=True)], keeper)


def by_name(found: tuple[FileChange, ...]) -> dict[str, tuple[FileState | None, FileState | None]]:
    return {item.path.name: (item.before, item.after) for item in found}


def text(content: str, mode: int = 0o644) -> FileState:
    return FileState("file", len(content.encode()), mode, content)


async def test_the_content_of_short_texts_is_kept_from_before_and_after(work: Path) -> None:
    fill(work, edited="old\n", gone="was", same="same", moved="moved\n")
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, edited="newer\n", made="made")
    (work / "gone").unlink()
    (work / "moved").rename(work / "there")
    (work / "same").chmod(0o600)
    found = await watch.changes()
    assert by_name(found.changes) == {
        "edited": (text("old\n"), text("newer\n")),
        "gone": (text("was"), None),
        "made": (None, text("made")),
        "moved": (text("moved\n"), None),
        "there": (None, text("moved\n")),
        "same": (text("same"), text("same", 0o600)),
    }
    assert tuple(item.path for item in found.changes) == found.paths


async def test_of_binary_and_long_files_hashes_are_kept(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_states, "CHANGE_TEXT_KEPT", 10)
    fill(work, binary=b"\0", latin="é".encode("latin-1"), long="x" * 11)
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, binary=b"\0\0", latin=b"\xe8!", long="y" * 12)
    found = (await watch.changes()).changes
    for before, after in by_name(found).values():
        assert before is not None
        assert after is not None
        assert (before.text, after.text) == (None, None)
        assert before.sha256 != after.sha256
        assert before.left_out in ("binary", "large")
    long = by_name(found)["long"][1]
    assert long is not None
    assert long.sha256 == hashlib.sha256(b"y" * 12).hexdigest()


@pytest.mark.parametrize(("keeps", "kept"), [("hashes", True), ("none", False)])
async def test_the_settings_say_whether_texts_or_hashes_or_nothing_is_kept(
    keeps: file_states.Keeps, kept: bool, work: Path
) -> None:
    fill(work, edited="old")
    watch = await watch_for(work, ChangeKeeper(keeps))
    fill(work, edited="new!")
    found = await watch.changes()
    assert found.paths == (work / "edited",)
    if kept:
        before, after = by_name(found.changes)["edited"]
        assert before is not None
        assert after is not None
        assert (before.text, before.sha256) == (None, hashlib.sha256(b"old").hexdigest())
        assert (after.text, after.sha256) == (None, hashlib.sha256(b"new!").hexdigest())
    else:
        assert found.changes == ()


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "server.pem", "id_ed25519", ".netrc", "credentials.json", "A.KEY"]
)
async def test_nothing_is_kept_of_what_is_named_like_credentials(name: str, work: Path) -> None:
    fill(work, **{name: "TOKEN=1"})
    keeper = ChangeKeeper("text")
    os.utime(work / name, (LONG_AGO, LONG_AGO))
    watch = await watch_for(work, keeper)
    fill(work, **{name: "TOKEN=22"})
    before, after = by_name((await watch.changes()).changes)[name]
    assert before == FileState("file", 7, 0o644, left_out="named like credentials")
    assert after == FileState("file", 8, 0o644, left_out="named like credentials")


async def test_files_of_version_control_and_packages_are_hashed_only(work: Path) -> None:
    (work / ".git").mkdir()
    fill(work / ".git", index="old")
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work / ".git", index="newer")
    before, after = by_name((await watch.changes()).changes)["index"]
    assert before == FileState("file", 3, 0o644, left_out="in a directory that programs keep")
    assert after is not None
    assert after.text is None
    assert after.sha256 == hashlib.sha256(b"newer").hexdigest()


async def test_a_project_in_such_a_directory_is_a_project(tmp_path: Path) -> None:
    work = tmp_path / "venv" / "project"
    work.mkdir(parents=True)
    fill(work, edited="old")
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, edited="newer")
    assert by_name((await watch.changes()).changes)["edited"] == (text("old"), text("newer"))


async def test_a_link_is_kept_as_where_it_leads_and_never_followed(work: Path, tmp_path: Path) -> None:
    fill(tmp_path, outside="secret of the host")
    fill(work, replaced="text")
    (work / "link").symlink_to("old-target")
    watch = await watch_for(work, ChangeKeeper("text"))
    (work / "replaced").unlink()
    (work / "replaced").symlink_to(tmp_path / "outside")
    (work / "link").unlink()
    fill(work, link="a file")
    found = by_name((await watch.changes()).changes)
    before, after = found["replaced"]
    assert before == text("text")
    assert after is not None
    assert (after.kind, after.text) == ("link", str(tmp_path / "outside"))
    before, after = found["link"]
    assert before is not None
    assert (before.kind, before.text) == ("link", "old-target")
    assert after == text("a file")


async def test_pipes_and_files_that_nobody_may_read_hold_nothing_up(work: Path) -> None:
    fill(work, other="x")
    watch = await watch_for(work, ChangeKeeper("text"))
    os.mkfifo(work / "pipe")
    fill(work, closed="text")
    (work / "closed").chmod(0)
    found = by_name((await watch.changes()).changes)
    assert found["pipe"][1] is not None
    assert (found["pipe"][1].kind, found["pipe"][1].text) == ("other", None)
    assert found["closed"][1] is not None
    if os.geteuid() != 0:
        assert found["closed"][1].left_out == "not read"


async def test_a_file_that_changes_or_vanishes_while_it_is_read_is_not_kept_wrongly(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, growing="12345", vanishing="12345", stays="12345")
    read = changes.HeldDirectory.read

    def interrupted(here: changes.HeldDirectory, name: str) -> int:
        descriptor = read(here, name)
        if name == "growing":
            fill(work, growing="1234567")
        if name == "vanishing":
            (work / name).unlink()
        return descriptor

    monkeypatch.setattr(changes.HeldDirectory, "read", interrupted)
    found = by_name((await watch.changes()).changes)
    assert found["growing"][1] is not None
    assert found["growing"][1].left_out == "not read"
    assert found["stays"] == (None, text("12345"))
    assert found["vanishing"][1] is not None
    assert found["vanishing"][1].text is None


async def test_what_is_kept_of_one_run_is_bounded_and_the_rest_has_hashes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHANGES_KEPT", 10)
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, a="12345", b="12345", c="1")
    found = by_name((await watch.changes()).changes)
    assert [state and state.text for _, state in found.values()] == ["12345", "12345", None]
    assert found["c"][1] is not None
    assert found["c"][1].left_out == "beyond what is kept of one run"
    assert found["c"][1].sha256 == hashlib.sha256(b"1").hexdigest()


async def test_changes_are_described_up_to_a_number_and_all_are_named(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_CHANGES_DESCRIBED", 2)
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, a="1", b="2", c="3")
    found = await watch.changes()
    assert len(found.paths) == 3
    assert len(found.changes) == 2


async def test_long_files_are_hashed_up_to_a_bound(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_states, "CHANGES_HASHED", 150_000)
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, one="x" * 100_000, two="y" * 100_000)
    found = [state.sha256 for _, state in by_name((await watch.changes()).changes).values() if state is not None]
    assert sorted(sha256 is None for sha256 in found) == [False, True]


async def test_before_a_call_only_so_many_files_are_read_and_each_once(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "READ_BEFORE_FILES", 2)
    fill(work, **{f"file{number}": "old" for number in range(4)})
    monkeypatch.setattr(changes, "_SETTLED", 0)
    keeper = ChangeKeeper("text")
    reads: list[str] = []
    read = changes.HeldDirectory.read
    monkeypatch.setattr(changes.HeldDirectory, "read", lambda here, name: (reads.append(name), read(here, name))[1])
    for seen in (2, 4, 4):
        watch = await watch_for(work, keeper)
        assert len(reads) == seen
    assert len(set(reads)) == 4
    fill(work, file0="newer")
    assert by_name((await watch.changes()).changes)["file0"] == (text("old"), text("newer"))


async def test_what_was_written_a_moment_ago_is_read_again(work: Path) -> None:
    """Within one tick of the file system's clock, a file can be written twice and look the same."""
    fill(work, fresh="one")
    keeper = ChangeKeeper("text")
    status = (work / "fresh").stat()
    stamp = file_states.stamp_of(status)
    await watch_for(work, keeper)
    assert keeper.recall(stamp) is None
    keeper.remember(stamp, b"one", status.st_ctime_ns + 10**10)
    assert keeper.recall(stamp) == b"one"


def test_what_a_process_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHANGES_REMEMBERED", 10_000)
    keeper = ChangeKeeper("text")
    for number in range(100):
        keeper.remember((1000, 0, 0, number, 0, 0), bytes(1000), 10**18)
    kept = [number for number in range(100) if keeper.recall((1000, 0, 0, number, 0, 0)) is not None]
    assert kept == list(range(93, 100)), "the newest ones"


async def test_of_one_look_only_so_much_is_held_in_memory_and_the_rest_has_hashes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CHANGES_READ", 10)
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, one="123456", other="654321")
    found = by_name((await watch.changes()).changes)
    kept = {state.text: (state.left_out, state.sha256) for _, state in found.values() if state is not None}
    (text,) = set(kept) - {None}
    hashed = hashlib.sha256(b"654321" if text == "123456" else b"123456").hexdigest()
    assert kept == {text: ("", None), None: ("beyond what is kept of one run", hashed)}


async def test_of_what_is_beyond_that_and_holds_a_secret_there_is_no_hash_by_which_it_could_be_guessed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CHANGES_READ", 0)
    keeper = ChangeKeeper("text")
    watch = await watch_for(work, keeper)
    fill(work, pin="pin 4711", plain="plain", other=b"\xff4711")

    def mask(text: str) -> str:
        return text.replace("4711", "***")

    looked = keeper.describe({}, keeper.look_at(sorted(work.iterdir()), mask), [work], mask)
    for found in ((await watch.changes(mask)).changes, looked):
        hashes = {name: state.sha256 for name, (_, state) in by_name(found).items() if state is not None}
        assert hashes == {"pin": None, "other": None, "plain": hashlib.sha256(b"plain").hexdigest()}


async def test_what_no_tool_may_change_is_not_looked_at(work: Path) -> None:
    """A person who edits the settings while a tool runs has them in no record."""
    for name in ("tools", "state"):
        (work / name).mkdir()
        fill(work / name, inner="old")
    fill(work, settings="token: old", other="old")
    shields = [Mount(work / name, f"/work/{name}", guard=Guard.SHIELD) for name in ("tools", "settings")]
    mounts = [Mount(work, "/work", writable=True), *shields, Mount(work / "state", "/work/state", guard=Guard.PIN)]
    watch = await ChangeWatch.start(mounts, ChangeKeeper("text"))
    fill(work, settings="token: newer", other="newer")
    fill(work / "tools", inner="newer", made="new")
    fill(work / "state", inner="newer")
    found = await watch.changes()
    assert found.paths == (work / "other", work / "state" / "inner")
    assert "token" not in repr(found)


@pytest.mark.parametrize("keeps", ["text", "hashes"])
async def test_a_file_with_a_secret_has_no_hash_that_would_let_it_be_guessed(
    keeps: file_states.Keeps, work: Path
) -> None:
    watch = await watch_for(work, ChangeKeeper(keeps))
    fill(work, binary=b"\0pin=1234\xff", text="pin=1234", other=b"\0pin=4321")
    found = by_name((await watch.changes(lambda value: value.replace("1234", "***"))).changes)
    binary, plain, other = (found[name][1] for name in ("binary", "text", "other"))
    assert binary is not None
    assert plain is not None
    assert other is not None
    assert (binary.text, binary.sha256) == (None, None)
    assert binary.left_out.endswith("with a secret")
    assert (plain.text, plain.sha256) == ("pin=***" if keeps == "text" else None, None)
    assert other.sha256 == hashlib.sha256(b"\0pin=4321").hexdigest()


async def test_secrets_are_masked_in_what_is_kept(work: Path) -> None:
    fill(work, edited="key=hunter22\n")
    watch = await watch_for(work, ChangeKeeper("text"))
    fill(work, edited="key=hunter22!\n")
    (work / "link").symlink_to("to-hunter22")
    found = await watch.changes(lambda value: value.replace("hunter22", "***"))
    assert "hunter22" not in repr(found)
    assert "key=***!" in repr(found)


def contract_of(bench: Bench, work: Path, source: str) -> ToolContract:
    return bench.case.python(f"import os; os.chdir('/praxis-w')\n{source}", mounts={str(work): "/praxis-w:rw"})


async def test_every_engine_with_writable_mounts_keeps_what_was_there_before_and_after(
    bench: Bench, work: Path
) -> None:
    fill(work, edited="old\n", gone="was\n", moved="moved\n", same="same")
    for path in work.iterdir():
        path.chmod(0o666)
    source = """
open('edited', 'w').write('newer\\n')
os.remove('gone')
open('made', 'w').write('made\\n')
os.chmod('made', 0o640)
os.rename('moved', 'there')
"""
    contract = contract_of(bench, work, source)
    if await bench.refuses(contract):
        return
    result = await bench.run(contract, context=ExecutionContext(changes=ChangeKeeper("text")))
    assert result.exit_code == 0, result.stderr.text
    assert by_name(result.changes) == {
        "edited": (text("old\n", 0o666), text("newer\n", 0o666)),
        "gone": (text("was\n", 0o666), None),
        "made": (None, text("made\n", 0o640)),
        "moved": (text("moved\n", 0o666), None),
        "there": (None, text("moved\n", 0o666)),
    }
    assert tuple(item.path for item in result.changes) == result.changed_files
