"""What a command writes and reads, in callbacks of the event loop as far as nothing has to wait, and in tasks."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.host.pipes import PipeReader
from praxis_mcp.engines.host.process import Launch, run_process
from praxis_mcp.engines.output import Captured, StreamCollector
from praxis_mcp.support.praxis_init import Ended
from praxis_mcp.support.processes import MarkedTree

pytestmark = pytest.mark.anyio

KEPT = 1000
LIMIT = 60.0
"""Seconds for a command that takes none."""


async def run(code: str, stdout: StreamCollector, stdin: bytes | None = None) -> Ended:
    """Run a Python program, whose standard error must stay empty."""

    def tree(process: subprocess.Popen[bytes]) -> MarkedTree:
        return MarkedTree(process, "PRAXIS_TEST=none")

    launch = Launch((sys.executable, "-I", "-c", code), {}, stdin=stdin)
    with anyio.fail_after(LIMIT):
        async with stdout, StreamCollector("stderr", keep=KEPT) as stderr:
            ended = await run_process(launch, tree, timeout=LIMIT, stdout=stdout, stderr=stderr)
    assert stderr.captured == Captured()
    return ended


@pytest.mark.parametrize("size", [KEPT, KEPT + 1, 3_000_000])
async def test_a_stream_is_kept_whole_and_in_order_however_long_it_is(size: int, tmp_path: Path) -> None:
    content = (b"%08d" * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]
    (tmp_path / "content").write_bytes(content)
    code = f"import sys; sys.stdout.buffer.write(open({str(tmp_path / 'content')!r}, 'rb').read())"
    out = StreamCollector("stdout", keep=KEPT, file=tmp_path / "stdout", max_file=size)
    assert (await run(code, out)).exit_code == 0
    assert out.captured.total == size
    assert out.captured.data == (content if size == KEPT else content[: KEPT // 2] + content[-KEPT // 2 :])
    assert (out.captured.file is None) == (size == KEPT)
    if out.captured.file is not None:
        assert out.captured.file.read_bytes() == content


async def test_a_listener_that_fails_ends_the_command_and_its_error_is_the_callers(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    place = tmp_path / "pid"
    code = (
        f"import os, time; open({str(place)!r}, 'w').write(str(os.getpid())); print('hi', flush=True); time.sleep(600)"
    )
    with pytest.raises(ZeroDivisionError):
        await run(code, StreamCollector("stdout", keep=KEPT, listener=fail))
    assert not Path(f"/proc/{place.read_text()}").exists()


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
@pytest.mark.parametrize(
    ("code", "taken"),
    [("import sys; print(len(sys.stdin.buffer.read()))", str), ("import os; os.close(0); print('-')", lambda _: "-")],
    ids=["read", "closed"],
)
async def test_input_is_read_to_its_end_or_as_far_as_the_command_wants(
    size: int, code: str, taken: Callable[[int], str]
) -> None:
    out = StreamCollector("stdout", keep=KEPT)
    assert (await run(code, out, stdin=b"x" * size)).exit_code == 0
    assert out.captured.text.strip() == taken(size)


@pytest.mark.skipif(sys.platform != "linux", reason="pipes of a size of one's own are Linux's")
async def test_what_is_in_a_pipe_that_the_command_made_larger_is_read_though_somebody_holds_it() -> None:
    ours, theirs = os.pipe()
    size = fcntl.fcntl(theirs, 1031, 1024 * 1024)  # F_SETPIPE_SZ
    out = StreamCollector("stdout", keep=2 * size)
    with os.fdopen(ours, "rb", 0) as stream, os.fdopen(theirs, "wb", 0) as command, anyio.fail_after(LIMIT):
        async with out, anyio.create_task_group() as tasks:
            assert command.write(b"x" * size) == size
            reader = PipeReader(stream, out, tasks)
            await reader.finish(at_once=True)
            reader.close()
    assert out.captured == Captured(b"x" * size, total=size)
