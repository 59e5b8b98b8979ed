"""Trees of a call, carried to a real praxis-init and back: the host has what the tool left, all of it or nothing."""

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import anyio
import anyio.from_thread
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praxis_mcp.engines.init.framing import FramingError, WaitFile
from praxis_mcp.engines.init.trees import (
    Found,
    FoundData,
    FoundDirectory,
    FoundEnd,
    FoundFile,
    FoundGone,
    FoundHole,
    FoundLink,
    FoundTree,
    ReturningTrees,
    Shortfall,
    TreeBounds,
)
from praxis_mcp.engines.init.waiter import WaiterLost
from praxis_mcp.engines.mounts.bring_back import bring_back
from praxis_mcp.engines.mounts.trees import CarriedTree
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.support.praxis_init import Ended, EndKind
from praxis_mcp.support.rooted import identity_of
from praxis_mcp.testing.bench import CALL_LIMIT, processes
from tests.engines.mounts.carrying import look_at, open_file_count, run, waiting

pytestmark = [pytest.mark.anyio, pytest.mark.native]
EXIT_0 = Ended(EndKind.EXIT, 0)
SHORT_TIMEOUT = 8.0
"""Seconds within which the usual call ends on a busy machine too."""


class Ground:
    """A directory of the host, another in which the tool sees it, and one for what comes back."""

    def __init__(self, place: Path) -> None:
        self.base = place
        self.host = place / "host"
        self.there = place / "there" / "work"
        self.staging = place / "staging"
        for each in (self.host, self.staging):
            each.mkdir()

    def mount(self, *, writable: bool = True) -> Mount:
        return Mount(self.host, str(self.there), writable=writable, identity=identity_of(self.host.stat()))

    def tree(self, **fields: object) -> CarriedTree:
        given = {"source": self.host, "staging": self.staging, **fields}
        return CarriedTree(str(self.there), **given)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def fill(top: Path) -> None:
    """Some of everything."""
    (top / "kept").write_text("kept")
    (top / "changed").write_text("old")
    (top / "script").write_text("#!/bin/sh\n")
    (top / "script").chmod(0o755)
    (top / "gone").write_text("gone")
    (top / "name with \n a line").write_text("odd")
    (top / os.fsdecode(b"bytes \xff")).write_text("bytes")
    (top / "link").symlink_to("kept")
    (top / "nowhere").symlink_to("/nowhere/at/all")
    (top / "empty").mkdir()
    (top / "deep" / "er" / "still").mkdir(parents=True)
    (top / "deep" / "er" / "still" / "file").write_text("deep")
    (top / "deep" / "beside").write_text("beside")
    (top / "closed").mkdir()
    (top / "closed" / "inside").write_text("inside")
    (top / "closed").chmod(0o550)
    (top / "older").write_text("older")
    os.utime(top / "older", ns=(1_000_000_007, 1_500_000_000_123_456_789))


SCRIPTS = {
    "nothing": "true",
    "content": "echo new > changed; echo more >> kept",
    "the same size in the same place": "printf new > changed",
    "new": "echo a > a; mkdir -p x/y/z; echo b > x/y/z/b; ln -s a l; mkdir e",
    "gone": "rm gone; rm -r deep; rmdir empty; rm link",
    "renamed": "mv changed other; mv deep moved; mv link link2",
    "permissions": "chmod 600 kept; chmod 700 empty; chmod 755 gone; chmod 1777 deep",
    "a file becomes a directory": "rm gone; mkdir gone; echo x > gone/x",
    "a directory becomes a file": "rm -r deep; echo x > deep",
    "a directory becomes a link": "rm -r deep; ln -s empty deep",
    "a link becomes a file": "rm link; echo x > link",
    "a link leads elsewhere": "ln -sfn other link",
    "a file becomes a link": "rm gone; ln -s /etc/passwd gone",
    "removed and made again": "rm -r deep; mkdir -p deep/er; echo new > deep/er/other",
    "closed by the tool": "mkdir c; echo x > c/x; chmod 0 c/x; chmod 100 c; chmod 400 changed; chmod 0 deep/er",
    "opened by the tool": "chmod 755 closed; echo y > closed/y",
    "odd names": "echo x > \"$(printf 'a\\nb')\"; echo y > \"$(printf 'b\\377c')\"; echo z > ' '; echo w > '-rf *'",
    "times": "touch -d '2001-02-03 04:05:06.789' new; echo x > t; touch -d 1999-01-01 t",
    "content and the old time": "printf X > older; touch -d @1500000000.123456789 older",
    "hard links": "ln kept second; echo z >> second",
    "pipes": "mkfifo pipe; echo x > x",
    "a pipe in the place of a file": "rm gone; mkfifo gone",
    "long": f"mkdir -p {'/'.join(['d' * 200] * 15)}; echo x > {'/'.join(['d' * 200] * 15)}/f",
    "holes": "truncate -s 5M hole; printf x | dd of=hole bs=1 seek=3000000 conv=notrunc 2>/dev/null",
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_the_host_has_what_the_tool_left(ground: Ground, name: str) -> None:
    """As if it had worked on the directory itself."""
    fill(ground.host)
    copy = ground.base / "copy"
    shutil.copytree(ground.host, copy, symlinks=True)
    mount = ground.mount()
    async with waiting(ground.base) as waiter:
        tree = ground.tree(identity=mount.identity)
        before = open_file_count()
        end, said = await run(waiter, f"set -e; cd {ground.there}; {SCRIPTS[name]}", [tree])
        assert (end, said) == (EXIT_0, b"")
        assert open_file_count() <= before
    assert look_at(ground.host) == look_at(copy)
    there = look_at(ground.there)
    await bring_back([mount], [tree.part()])
    await anyio.run_process(["/bin/sh", "-c", SCRIPTS[name]], cwd=copy)
    wanted = {path: found for path, found in look_at(copy).items() if found[0] != stat.S_IFIFO}
    assert without_times(look_at(ground.host)) == without_times(wanted)
    if name in ("times", "content", "holes", "new"):  # the times are those that the tool gave
        assert look_at(ground.host) == there


def without_times(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Where only the time changed, it stays as it was, as on Dagger."""
    return {path: each[:3] for path, each in found.items()}


async def test_what_arrives_is_what_the_host_has(ground: Ground) -> None:
    fill(ground.host)
    with (ground.host / "hole").open("wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"in the middle")
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        await run(waiter, "true", [tree])
    assert look_at(ground.there) == look_at(ground.host)
    assert (ground.there / "hole").stat().st_blocks * 512 < 1 << 20
    assert tree.part() is None


@pytest.mark.parametrize("seed", range(6))
async def test_any_series_of_changes_comes_back(ground: Ground, seed: int) -> None:
    dice = random.Random(seed)
    names = [f"{one}/{two}" for one in "abc" for two in "def"] + list("abcxyz")
    for name in dice.sample(names, 8):
        place = ground.host / name
        if not place.parent.is_dir() or place.exists():
            continue
        if dice.random() < 0.5 or "/" not in name:
            place.mkdir()
        else:
            place.write_text(name)
    steps = []
    for _ in range(25):
        one, two = dice.sample(names, 2)
        steps.append(
            dice.choice(
                [
                    f"echo {dice.random()} > {one}",
                    f"mkdir -p {one}",
                    f"rm -rf {one}",
                    f"mv -T {one} {two}",
                    f"ln -sfn {two} {one}",
                    f"cp -rT {one} {two}",
                    f"chmod {dice.choice(['700', '755', '711'])} {one}",
                ]
            )
        )
    script = "; ".join(f"{step} 2>/dev/null" for step in steps)
    mount = ground.mount()
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        await run(waiter, f"cd {ground.there}; {script}; true", [tree])
    await bring_back([mount], [tree.part()])
    assert without_times(look_at(ground.host)) == without_times(look_at(ground.there)), script


async def test_ten_thousand_files_go_there_and_their_changes_back(ground: Ground) -> None:
    for number in range(100):
        (ground.host / f"d{number}").mkdir()
        for other in range(100):
            (ground.host / f"d{number}" / f"f{other}").write_text(f"{number} {other}")
    mount = ground.mount()
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        script = f"cd {ground.there}; for d in d*; do echo changed > $d/f7; rm $d/f8; echo new > $d/new; done"
        assert (await run(waiter, script, [tree]))[0] == EXIT_0
    part = tree.part()
    assert part is not None
    assert (len(part.changes.added), len(part.changes.modified), len(part.changes.removed)) == (100, 100, 100)
    assert sum(1 for _ in ground.staging.rglob("f*")) == 100
    await bring_back([mount], [part])
    assert without_times(look_at(ground.host)) == without_times(look_at(ground.there))


async def test_a_hundred_megabytes_go_both_ways(ground: Ground) -> None:
    piece = random.Random(1).randbytes(1 << 20)
    (ground.host / "large").write_bytes(piece * 100)
    mount = ground.mount()
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        end, _ = await run(waiter, f"cd {ground.there}; cat large large | head -c 104857601 > larger; rm large", [tree])
        assert end == EXIT_0
    await bring_back([mount], [tree.part()])
    assert os.listdir(ground.host) == ["larger"]
    assert (ground.host / "larger").stat().st_size == 104_857_601
    with (ground.host / "larger").open("rb") as file:
        assert all(file.read(len(piece)) == piece for _ in range(100))


async def test_a_file_is_a_tree_too_under_any_name(ground: Ground) -> None:
    source = ground.host / "config.json"
    source.write_text("{}")
    (ground.host / "other").write_text("other")
    mount = Mount(source, str(ground.there / "settings"), writable=True, identity=identity_of(source.stat()))
    for script, wanted in (("true", "{}"), ("echo new > settings", "new\n"), ("echo x > y; mv y settings", "x\n")):
        shutil.rmtree(ground.there, ignore_errors=True)
        ground.there.mkdir(parents=True)
        shutil.rmtree(ground.staging)
        ground.staging.mkdir()
        async with waiting(ground.base) as waiter:
            tree = CarriedTree.of_mount(mount, [], ground.staging)
            assert (await run(waiter, f"cd {ground.there}; {script}", [tree]))[0] == EXIT_0
        await bring_back([mount], [tree.part()])
        assert (source.read_text(), sorted(os.listdir(ground.host))) == (wanted, ["config.json", "other"])
        mount = Mount(source, mount.target, writable=True, identity=identity_of(source.stat()))
    shutil.rmtree(ground.there)
    ground.there.mkdir()
    async with waiting(ground.base) as waiter:
        tree = CarriedTree.of_mount(mount, [], ground.staging)
        await run(waiter, f"rm {mount.target}", [tree])
    with pytest.raises(ExecutionError, match="removed"):
        tree.part()


async def test_directories_that_are_closed_count_once(ground: Ground) -> None:
    """They travel twice: open, and once more when all is in them."""
    for name in "ab":
        (ground.host / name).mkdir()
        (ground.host / name / "file").write_text(name)
        (ground.host / name).chmod(0o550)
    async with waiting(ground.base) as waiter:
        tree = ground.tree(bounds=TreeBounds(entries=4))
        assert await run(waiter, f"cat {ground.there}/?/file", [tree]) == (EXIT_0, b"ab")
    assert tree.part() is None


@pytest.mark.parametrize(("time", "wanted"), [(-1, 0), (2**64, 2**64 - 1), (2**63 - 2**60, 2**63 - 2**60)])
async def test_a_time_that_a_frame_cannot_say_becomes_the_nearest(time: int, wanted: int) -> None:
    seconds = 1_000_000_000
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:  # other file systems have no such times
        ground = Ground(Path(place))
        (ground.host / "sent").write_text("x")
        os.utime(ground.host / "sent", ns=(0, time))
        async with waiting(ground.base) as waiter:
            tree = ground.tree()
            script = f"import os; os.close(os.open('found', os.O_CREAT)); os.utime('found', ns=(0, {time}))"
            end, _ = await run(waiter, f'cd {ground.there}; {sys.executable} -I -c "{script}"', [tree])
        assert end == EXIT_0
        arrived = [(ground.there / "sent").stat().st_mtime_ns, (ground.staging / "found").stat().st_mtime_ns]
        assert [each // seconds for each in arrived] == [wanted // seconds] * 2


async def test_artifacts_come_into_a_directory_that_was_empty(ground: Ground) -> None:
    async with waiting(ground.base) as waiter:
        tree = ground.tree(source=None)
        script = (
            f"cd {ground.there}; mkdir -p a/b; echo x > a/b/c; chmod 0 a/b/c; chmod 0 a; ln -s /etc/passwd l; exit 3"
        )
        assert (await run(waiter, script, [tree]))[0] == Ended(EndKind.EXIT, 3)
    assert tree.part() is None
    assert (ground.staging / "a" / "b" / "c").read_text() == "x\n"
    assert (ground.staging / "l").is_symlink()


async def test_a_mount_without_rw_does_not_come_back(ground: Ground) -> None:
    (ground.host / "file").write_text("x")
    async with waiting(ground.base) as waiter:
        tree = CarriedTree.of_mount(ground.mount(writable=False), [], ground.staging)
        assert not tree.returns
        await run(waiter, f"echo y > {ground.there}/file", [tree])
    assert tree.part() is None
    assert (ground.host / "file").read_text() == "x"


async def test_nothing_comes_back_of_a_call_that_did_not_end_by_itself(ground: Ground) -> None:
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        end, _ = await run(waiter, f"echo x > {ground.there}/x; sleep 1000", [tree], timeout=0.3)
    assert (end.kind, tree.part()) == (EndKind.TIMEOUT, None)
    assert os.listdir(ground.staging) == []


async def test_the_way_there_does_not_count_against_the_timeout(ground: Ground) -> None:
    """A tree that takes longer than the tool may."""

    class Slow(CarriedTree):
        def frames(self) -> Generator[bytes]:
            threading.Event().wait(SHORT_TIMEOUT + 1)
            yield from super().frames()

    (ground.host / "file").write_bytes(b"x" * 300_000)
    async with waiting(ground.base) as waiter:
        tree = Slow(str(ground.there), source=ground.host, staging=ground.staging)
        end, said = await run(waiter, f"cat {ground.there}/file | wc -c", [tree], timeout=SHORT_TIMEOUT, grace=0.1)
    assert (end, said) == (EXIT_0, b"300000\n")


async def test_other_places_within_a_mount_are_neither_sent_nor_brought_back(ground: Ground) -> None:
    for name in ("inner", "way/to/inner"):
        (ground.host / name).mkdir(parents=True)
        (ground.host / name / "secret").write_text("x")
    mount = ground.mount()
    places = [f"{ground.there}/{name}" for name in ("inner", "way/to/inner", "out", "new/way", "call.txt")]
    async with waiting(ground.base) as waiter:
        tree = CarriedTree.of_mount(mount, places, ground.staging)
        files = [WaitFile(os.fsencode(f"{ground.there}/call.txt"), b"the call's")]
        script = f"cd {ground.there}; find . | sort; mkdir -p inner out new/way way/to/inner; echo y > inner/secret"
        _, said = await run(
            waiter, f"{script}; echo y > out/x; echo z > new/way/x; echo w > way/w", [tree], files=files
        )
    assert said.decode().split() == [".", "./call.txt", "./way", "./way/to"]
    await bring_back([mount], [tree.part()])
    assert sorted(look_at(ground.host)) == ["inner", "inner/secret", "way", "way/to", "way/to/inner",
                                             "way/to/inner/secret", "way/w"]  # fmt: skip
    assert (ground.host / "inner" / "secret").read_text() == "x"


async def test_what_no_tool_may_change_keeps_all_from_being_written(ground: Ground) -> None:
    (ground.host / "praxis.yaml").write_text("mine")
    mount = ground.mount()
    guard = Mount(ground.host / "praxis.yaml", f"{ground.there}/praxis.yaml", guard=Guard.SHIELD)
    async with waiting(ground.base) as waiter:
        tree = CarriedTree.of_mount(mount, [guard.target], ground.staging)
        await run(waiter, "true", [tree])
    async with waiting(ground.base) as waiter:
        shutil.rmtree(ground.there)
        tree = CarriedTree.of_mount(mount, [], ground.staging)
        await run(waiter, f"cd {ground.there}; echo theirs > praxis.yaml; echo x > x", [tree])
    with pytest.raises(ExecutionError, match=r"praxis\.yaml, which no tool may"):
        await bring_back([mount, guard], [tree.part()])
    assert sorted(os.listdir(ground.host)) == ["praxis.yaml"]
    assert (ground.host / "praxis.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("script", "bounds", "reason"),
    [
        ("for i in 1 2 3 4 5; do echo > $i; done", TreeBounds(entries=4), "more than 4 entries"),
        ("mkdir -p 1/2/3/4/5", TreeBounds(entries=4), "more than 4 entries"),
        ("head -c 1001 /dev/zero > x", TreeBounds(size=1000), "more than 1000 bytes"),
        ("truncate -s 1T x", TreeBounds(), "more than 2147483648 bytes"),
        ("for i in $(seq 205); do mkdir d; cd d; done", TreeBounds(), "too deep"),
    ],
)
async def test_a_limit_that_is_met_is_an_error_that_says_so_and_nothing_is_written(
    ground: Ground, script: str, bounds: TreeBounds, reason: str
) -> None:
    mount = ground.mount()
    async with waiting(ground.base) as waiter:
        tree = ground.tree(bounds=bounds)
        assert (await run(waiter, f"cd {ground.there}; {script}; exit 0", [tree]))[0] == EXIT_0
    with pytest.raises(ExecutionError, match=reason):
        await bring_back([mount], [tree.part()])
    assert os.listdir(ground.host) == []


@pytest.mark.parametrize(
    ("make", "bounds", "reason"),
    [
        (lambda top: [(top / name).touch() for name in "abcde"], TreeBounds(entries=4), "more than 4 entries"),
        (lambda top: (top / "x").write_bytes(b"x" * 1001), TreeBounds(size=1000), "more than 1000 bytes"),
        (lambda top: top.rmdir(), TreeBounds(), "No such file"),
        (lambda top: (top.rmdir(), top.symlink_to("/")), TreeBounds(), "neither a file nor a directory"),
        (lambda top: (top.rmdir(), top.mkdir()), TreeBounds(), "is not what was judged"),
    ],
)  # fmt: skip
async def test_what_cannot_be_sent_is_an_error_and_the_call_has_not_run(
    ground: Ground, make: object, bounds: TreeBounds, reason: str
) -> None:
    identity = identity_of(ground.host.stat())
    (ground.base / "keeps the number").mkdir()
    if "judged" in reason:
        ground.host.rename(ground.base / "elsewhere")
        ground.host.mkdir()
    assert callable(make)
    make(ground.host)
    ran = ground.base / "ran"
    async with waiting(ground.base) as waiter:
        tree = ground.tree(bounds=bounds, identity=identity)
        with pytest.raises(ExecutionError, match=reason):
            await run(waiter, f"touch {ran}", [tree])
    assert not ran.exists()


async def test_a_tree_that_cannot_be_made_stops_the_call_and_says_where(ground: Ground) -> None:
    (ground.host / "file").write_text("x")
    ground.there.mkdir(parents=True)
    (ground.there / "file").write_text("in the way")
    ran = ground.base / "ran"
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        end, _ = await run(waiter, f"touch {ran}", [tree])
        assert end == Ended(EndKind.SETUP_FAILED, errno.EEXIST, "tree")
        assert waiter.detail == "file: File exists"
    assert (ran.exists(), tree.part()) == (False, None)


async def test_what_cannot_be_kept_on_the_way_back_leaves_the_host_as_it_was(ground: Ground) -> None:
    (ground.host / "file").write_text("x")
    mount = ground.mount()
    ground.staging.rmdir()
    async with waiting(ground.base) as waiter:
        tree = ground.tree()
        with pytest.raises(ExecutionError, match="could not be kept, and nothing was written: No such file"):
            await run(waiter, f"echo y > {ground.there}/file", [tree])
    await bring_back([mount], [tree.part()])
    assert (ground.host / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
async def test_a_full_disk_on_the_way_back_leaves_the_host_as_it_was(ground: Ground) -> None:
    mount = ground.mount()
    small = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(ground.staging)]
    if subprocess.run(small, capture_output=True, timeout=CALL_LIMIT).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        async with waiting(ground.base) as waiter:
            tree = ground.tree()
            with pytest.raises(ExecutionError, match="nothing was written: No space left"):
                await run(waiter, f"head -c 200000 /dev/zero > {ground.there}/file", [tree])
    finally:
        subprocess.run(["umount", ground.staging], check=True, timeout=CALL_LIMIT)
    await bring_back([mount], [tree.part()])
    assert os.listdir(ground.host) == []


@pytest.mark.parametrize("how", ["killed", "cancelled"])
async def test_a_call_that_breaks_off_while_its_files_come_back_changes_nothing(ground: Ground, how: str) -> None:
    mount = ground.mount()
    (ground.host / "kept").write_text("kept")
    before = open_file_count()
    async with waiting(ground.base) as waiter:
        script = f"cd {ground.there}; rm kept; head -c 30000000 /dev/urandom > large; echo $PPID"

        class Breaking(CarriedTree):
            """Breaks off once part of a file has come."""

            def take(self, found: Sequence[Found]) -> None:
                super().take(found)
                if how == "killed":
                    os.kill(waiter_pid(ground.base), signal.SIGKILL)
                else:
                    anyio.from_thread.run_sync(scope.cancel)

        tree = Breaking(str(ground.there), source=ground.host, staging=ground.staging)
        with anyio.CancelScope() as scope:
            with pytest.raises(WaiterLost if how == "killed" else anyio.get_cancelled_exc_class()):
                await run(waiter, script, [tree])
    assert tree.part() is None
    await bring_back([mount], [tree.part()])
    assert os.listdir(ground.host) == ["kept"]
    assert open_file_count() <= before


def waiter_pid(place: Path) -> int:
    """The praxis-init that is connected to the socket in a directory."""
    (found,) = (each for each in processes(f"{place}/s") if " wait " in each)
    return int(found.partition(":")[0])


paths = st.sampled_from(["a", "a/b", "a/b/c", "d", "kept", "new", "new/x"])
parts = st.one_of(
    st.builds(FoundTree, st.integers(0, 2)),
    st.builds(FoundGone, paths),
    st.builds(FoundDirectory, paths, st.sampled_from([0o755, 0, 0o7777])),
    st.builds(FoundFile, paths, st.just(0o644), st.integers(0, 5), st.integers(0, 2**64 - 1)),
    st.builds(FoundData, st.binary(max_size=3)),
    st.builds(FoundHole, st.integers(0, 3)),
    st.builds(FoundLink, paths, st.sampled_from(["a", "/etc", ".."])),
    st.builds(FoundEnd, st.sampled_from(list(Shortfall))),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(parts, max_size=12))
def test_whatever_comes_back_is_taken_refused_and_never_beyond_its_directory(
    ground: Ground, found: list[Found]
) -> None:
    with tempfile.TemporaryDirectory(dir=ground.base) as place:
        staging = Path(place, "staging")
        staging.mkdir()
        for name in ("a/b", "d"):
            (ground.host / name).mkdir(parents=True, exist_ok=True)
        (ground.host / "kept").touch()
        tree = CarriedTree("/work", source=ground.host, staging=staging, bounds=TreeBounds(size=20))
        list(tree.frames())
        returning = ReturningTrees([tree])
        try:
            for part in found:
                if returning.add(part):
                    returning.deliver()
            returning.deliver()
        except (FramingError, ExecutionError):
            pass
        finally:
            tree.close()
        assert os.listdir(place) == ["staging"]
        if returning.is_whole:
            try:
                part = tree.part()
            except ExecutionError:
                part = None
            assert part is None or {*part.changes.added, *part.changes.modified, *part.changes.removed} <= {
                f"{path}{slash}" for path in ("a", "a/b", "a/b/c", "d", "kept", "new", "new/x") for slash in ("", "/")
            }
        subprocess.run(["chmod", "-R", "u+rwx", staging], check=True, capture_output=True, timeout=CALL_LIMIT)
