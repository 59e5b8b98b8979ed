"""What becomes of all that a tool does to a writable mount, on every engine.

Most engines bind the directory itself. Dagger and Kubernetes work on a copy and bring changes back: what cannot come
back is named here, and in docs/dagger.md.
"""

import os
import stat
from pathlib import Path

import pytest

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.plans.model import Capability
from praxis_mcp.serving.mcp.failures import failure_sentences
from praxis_mcp.testing.bench import Bench

pytestmark = pytest.mark.anyio

LONG_AGO = 1_000_000_000


@pytest.fixture
def work(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    (place / "old" / "deep").mkdir(parents=True)
    (place / "old" / "deep" / "a").write_text("a")
    for name in ("first", "second", "third"):
        (place / name).write_text(name)
    for path in (place, *place.rglob("*")):
        path.chmod(0o777)
    return place


async def do(bench: Bench, work: Path, source: str) -> ExecutionResult | None:
    """Run Python in the mount, which must end well; None where the engine has no writable mounts."""
    contract = bench.case.python(
        f"import os, shutil, socket; os.chdir('/praxis-w')\n{source}", mounts={str(work): "/praxis-w:rw"}
    )
    if await bench.refuses(contract):
        return None
    result = await bench.run(contract)
    assert result.exit_code == 0, result.stderr.text
    return result


def is_copy(bench: Bench) -> bool:
    return bench.engine.name in ("dagger", "kubernetes")


def names(work: Path) -> set[str]:
    return {str(path.relative_to(work)) for path in work.rglob("*")}


async def test_a_directory_is_moved(bench: Bench, work: Path) -> None:
    result = await do(bench, work, "shutil.move('old', 'new'); os.mkdir('made'); os.rename('made', 'moved')")
    if result is None:
        return
    assert names(work) == {"new", "new/deep", "new/deep/a", "moved", "first", "second", "third"}
    assert (work / "new" / "deep" / "a").read_text() == "a"


async def test_rename_alone_moves_a_directory_of_the_mount_except_on_dagger(bench: Bench, work: Path) -> None:
    """Dagger's copies are overlays (rename(2): EXDEV), in which only mv and the like move what was there before."""
    source = """
try:
    os.rename('old', 'new')
except OSError as error:
    print(error.errno, end='')
"""
    result = await do(bench, work, source)
    if result is None:
        return
    assert result.output in ("", "18" if is_copy(bench) else "")
    assert (work / ("old" if result.output else "new") / "deep" / "a").read_text() == "a"


@pytest.mark.demands(Capability.IMAGES)
async def test_what_a_tool_in_an_image_makes_is_readable_whatever_the_servers_own_files_are(
    bench: Bench, work: Path
) -> None:
    """A container begins with umask 022 on every daemon; a server, and what it starts, may have another."""
    before = os.umask(0o077)
    try:
        result = await do(bench, work, "open('made', 'w'); os.mkdir('folder'); print(oct(os.umask(0)), end='')")
    finally:
        os.umask(before)
    if result is None:
        return
    assert result.output == "0o22"
    assert [oct((work / name).stat().st_mode & 0o777) for name in ("made", "folder")] == ["0o644", "0o755"]


async def test_permissions_alone_come_back_and_are_reported(bench: Bench, work: Path) -> None:
    before = (work / "first").stat().st_mtime_ns
    result = await do(bench, work, "os.chmod('first', 0o640); os.chmod('old', 0o700)")
    if result is None:
        return
    assert stat.S_IMODE((work / "first").stat().st_mode) == 0o640
    assert stat.S_IMODE((work / "old").stat().st_mode) == 0o700
    assert (work / "first").stat().st_mtime_ns == before
    assert result.changed_files == (work / "first",)


async def test_a_time_comes_back_with_content_and_alone_except_on_dagger(bench: Bench, work: Path) -> None:
    source = f"""
open('first', 'w').write('edited')
for name in ('first', 'second'):
    os.utime(name, ({LONG_AGO}, {LONG_AGO}))
"""
    before = (work / "second").stat().st_mtime
    if await do(bench, work, source) is None:
        return
    assert (work / "first").stat().st_mtime == LONG_AGO
    assert (work / "second").stat().st_mtime == (before if is_copy(bench) else LONG_AGO)


async def test_a_file_that_is_edited_keeps_its_owner_and_its_attributes(bench: Bench, work: Path) -> None:
    if os.geteuid() == 0:
        os.chown(work / "first", 4242, 4243)
    try:
        os.setxattr(work / "first", "user.origin", b"here")
        has_attributes = True
    except OSError:
        has_attributes = False
    before = (work / "first").stat()
    if await do(bench, work, "open('first', 'r+').write('edited')") is None:
        return
    after = (work / "first").stat()
    assert (work / "first").read_text() == "edited"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert not has_attributes or os.getxattr(work / "first", "user.origin") == b"here"


async def test_a_file_full_of_holes_takes_no_room(bench: Bench, work: Path) -> None:
    size = 32 * 1024 * 1024
    result = await do(bench, work, f"file = open('sparse', 'wb'); file.seek({size}); file.write(b'x'); file.close()")
    if result is None:
        return
    found = (work / "sparse").stat()
    assert found.st_size == size + 1
    assert found.st_blocks * 512 < size / 8


async def test_pipes_and_sockets_of_the_host_stay_what_they_are(bench: Bench, work: Path) -> None:
    os.mkfifo(work / "pipe")
    if await do(bench, work, "open('first', 'w').write('edited')") is None:
        return
    assert (work / "first").read_text() == "edited"
    assert stat.S_ISFIFO((work / "pipe").stat().st_mode)


async def test_what_only_a_bind_can_bring_back(bench: Bench, work: Path) -> None:
    """New FIFOs and sockets, second names of a file, its attributes and its set-user-id bit."""
    source = """
os.mkfifo('pipe')
socket.socket(socket.AF_UNIX).bind('socket')
os.link('first', 'again')
os.chmod('second', 0o4755)
try:
    os.setxattr('third', 'user.origin', b'there')
except OSError as error:
    print(error)
"""
    result = await do(bench, work, source)
    if result is None:
        return

    def bound(name: str) -> set[str]:
        return set() if is_copy(bench) else {name}

    assert {path.name for path in work.iterdir() if stat.S_ISFIFO(path.lstat().st_mode)} == bound("pipe")
    assert {path.name for path in work.iterdir() if stat.S_ISSOCK(path.lstat().st_mode)} == bound("socket")
    assert (work / "again").read_text() == "first"
    assert (work / "first").samefile(work / "again") is not is_copy(bench)
    assert stat.S_IMODE((work / "second").stat().st_mode) == (0o755 if is_copy(bench) else 0o4755)
    if not result.output:
        assert os.listxattr(work / "third") == ([] if is_copy(bench) else ["user.origin"])


async def test_the_hint_on_what_is_read_only_says_what_the_engine_really_does(bench: Bench, work: Path) -> None:
    source = """
for place in / "$PWD" /tmp /praxis-w; do
    if touch "$place/praxis-hint"; then rm "$place/praxis-hint"; echo "$place"; fi
done
exit 1
"""
    contract = bench.case.sh(source, mounts={str(work): "/praxis-w"})
    if await bench.refuses(contract):
        return
    result = await bench.run(contract)
    _, hint = failure_sentences(contract, result)
    may = set(result.output.split())
    assert "/tmp" in may
    assert "/praxis-w" not in may
    assert ":rw" in hint
    assert ("file system is read-only" in hint) is ("/" not in may)
    if "working directory" in hint:  # of the host, which is read-only for the tool
        assert len(may) == 2


async def test_the_hint_on_a_rename_that_dagger_refuses_names_what_works(bench: Bench, work: Path) -> None:
    contract = bench.case.python(
        "import os; os.rename('/praxis-w/old', '/praxis-w/new')", mounts={str(work): "/praxis-w:rw"}
    )
    if await bench.refuses(contract):
        return
    result = await bench.run(contract)
    if result.exit_code != 0:
        assert "shutil.move" in failure_sentences(contract, result)[1]
