"""The join form: a command that begins its life in control groups and namespaces."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from praxis_mcp.support.praxis_init import (
    EXIT_CANNOT_RUN,
    EXIT_NOT_FOUND,
    EXIT_SETUP_FAILED,
    join_words,
    praxis_init_path,
)
from tests.native.harness import PATIENCE, PraxisInit


@pytest.fixture
def groups(tmp_path: Path) -> list[Path]:
    """Files that stand for those of two groups: what is written to them can be read."""
    files = [tmp_path / name for name in ("tasks", "odd name")]
    for file in files:
        file.touch()
    return files


def join(files: list[Path], *command: str) -> subprocess.CompletedProcess[bytes]:
    words = [*join_words(str(praxis_init_path()), files), *command]
    return subprocess.run(words, capture_output=True, timeout=PATIENCE, check=False)


@pytest.mark.usefixtures("init")
def test_every_group_is_entered_before_the_command_begins(groups: list[Path]) -> None:
    done = join(groups, "cat", *map(str, groups))
    assert (done.returncode, done.stdout) == (0, b"00")


@pytest.mark.usefixtures("init")
def test_the_command_is_the_same_process_and_its_words_and_exit_code_are_its_own(groups: list[Path]) -> None:
    words = [*join_words(str(praxis_init_path()), groups), "sh", "-c", 'echo $$ "$@"; exit 7', "sh", "--", "a b", ""]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"{process.pid} -- a b \n".encode()
        assert process.wait(PATIENCE) == 7


@pytest.mark.usefixtures("init")
def test_no_descriptor_of_a_group_reaches_the_command(groups: list[Path]) -> None:
    assert join(groups, "sh", "-c", "ls /proc/self/fd | wc -l").stdout.split() == [b"4"]  # three, and ls's own


@pytest.mark.usefixtures("init")
def test_a_command_that_could_not_enter_a_group_does_not_run(groups: list[Path], tmp_path: Path) -> None:
    done = join([*groups, tmp_path / "none"], "echo", "ran")
    assert (done.returncode, done.stdout) == (EXIT_SETUP_FAILED, b"")
    assert b"the control group cannot be entered" in done.stderr
    assert b"none': No such file or directory" in done.stderr


@pytest.mark.parametrize(("command", "code"), [("no-such-program-here", EXIT_NOT_FOUND), ("/etc", EXIT_CANNOT_RUN)])
@pytest.mark.usefixtures("init")
def test_a_command_that_cannot_be_executed_has_the_shells_exit_codes(command: str, code: int) -> None:
    done = join([], command)
    assert done.returncode == code
    assert command.encode() in done.stderr


@pytest.mark.parametrize("words", [["join"], ["join", "file"], ["join", "file", "--"]])
def test_without_a_command_it_is_refused(init: PraxisInit, words: list[str]) -> None:
    done = subprocess.run([str(praxis_init_path()), *words], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == EXIT_SETUP_FAILED
    assert b"no command given" in done.stderr


@pytest.mark.parametrize("size", [[], ["1e9"], ["-1"], [""], ["9" * 19]])
def test_an_overlay_of_no_sensible_size_is_refused(init: PraxisInit, tmp_path: Path, size: list[str]) -> None:
    words = [str(praxis_init_path()), "join", "--overlay", str(tmp_path), *size]
    done = subprocess.run([*words, "--", "echo", "ran"], capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (EXIT_SETUP_FAILED, b"")


@pytest.mark.usefixtures("init")
def test_a_command_whose_overlay_cannot_be_made_does_not_run(tmp_path: Path) -> None:
    words = join_words(str(praxis_init_path()), overlay=(tmp_path / "none", 4096))
    done = subprocess.run([*words, "echo", "ran"], capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (EXIT_SETUP_FAILED, b"")
    assert b"no layer can be mounted over" in done.stderr


@pytest.mark.usefixtures("init")
def test_what_is_written_to_an_overlay_goes_with_the_command_and_has_a_bound(tmp_path: Path) -> None:
    for name in ("rootfs", "layer"):
        (tmp_path / name).mkdir()
    (tmp_path / "rootfs/old").write_text("old")
    source = "rm layer/root/old && echo new > layer/root/new && ls layer/root && stat -f -c %c layer && "
    source += "head -c 1M /dev/zero > layer/root/big"
    words = join_words(str(praxis_init_path()), overlay=(tmp_path, 256 * 1024))
    done = subprocess.run([*words, "sh", "-c", source], capture_output=True, timeout=PATIENCE, check=False)
    if b"no layer can be mounted" in done.stderr:
        pytest.skip("the kernel lets no user namespace mount an overlay")
    assert done.stdout == b"new\n262144\n", "files are bounded in number as well"
    assert b"No space left on device" in done.stderr
    assert [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("rootfs", "layer")] == [["old"], []]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of version 2. Systems of version 1 have that hierarchy, too: without controllers."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    top = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    place = (top or Path("/none")) / f"praxis-test-{uuid.uuid4().hex}"
    try:
        place.mkdir()
    except OSError as exc:
        pytest.skip(f"this user may make no control group of version 2: {exc.strerror}")
    try:
        yield place
    finally:
        give_up = time.monotonic() + PATIENCE
        while place.exists():
            with contextlib.suppress(OSError):  # until the kernel has finished with what was killed in it
                place.rmdir()
            assert time.monotonic() < give_up, (place / "cgroup.procs").read_text()


@pytest.mark.usefixtures("init")
@pytest.mark.parametrize(("end", "code"), [("exit 5", 5), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_a_command_in_a_group_of_version_2_has_its_streams_and_its_end_is_reported(
    group: Path, end: str, code: int
) -> None:
    words = join_words(str(praxis_init_path()), group=group)
    source = f"cat; cat /proc/self/cgroup; {end}"
    done = subprocess.run([*words, "sh", "-c", source], capture_output=True, timeout=PATIENCE, check=False, input=b"in")
    assert done.returncode == code
    assert done.stdout.startswith(b"in")
    assert group.name.encode() in done.stdout


@pytest.mark.usefixtures("init")
def test_a_stream_that_it_closes_is_closed(group: Path) -> None:
    words = join_words(str(praxis_init_path()), group=group)
    with subprocess.Popen([*words, "sh", "-c", "exec sleep 600 >&-"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], PATIENCE)[0]
        assert process.stdout.read() == b""
        assert process.poll() is None
        process.kill()


@pytest.mark.usefixtures("init")
@pytest.mark.parametrize("victim", ["praxis-init", "its caller"])
def test_it_is_killed_with_praxis_init_and_with_the_process_that_started_that(group: Path, victim: str) -> None:
    words = [*join_words(str(praxis_init_path()), group=group), "sh", "-c", "echo started; exec sleep 600"]
    # By one write: the command's own line may come in between the number and its end.
    source = f"import os, subprocess; p = subprocess.Popen({words!r}); os.write(1, b'%d\\n' % p.pid); p.wait()"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        lines = [caller.stdout.readline(), caller.stdout.readline()]
        assert "started\n" in lines
        pid = next(int(line) for line in lines if line.strip().isdecimal())
        os.kill(pid if victim == "praxis-init" else caller.pid, signal.SIGKILL)
        assert select.select([caller.stdout], [], [], PATIENCE)[0]
        assert caller.stdout.read() == ""  # whoever held it is gone


@pytest.mark.usefixtures("init")
def test_a_group_that_is_not_one_of_the_kernels_is_an_error(tmp_path: Path) -> None:
    words = join_words(str(praxis_init_path()), group=tmp_path / "none")
    done = subprocess.run([*words, "echo", "ran"], capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (EXIT_SETUP_FAILED, b"")
    assert b"the control group cannot be entered" in done.stderr
