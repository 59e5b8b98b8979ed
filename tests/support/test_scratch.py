"""A call's directory is gone when the call is, whatever its tool left in it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from praxis_mcp.support.scratch import Scratch

# The interpreter may lie where nobody may read, so all that is needed is imported first.
LEAVE = """
import os, sys, tempfile
from praxis_mcp.support.scratch import Scratch, sweep_scratch

if os.geteuid() == 0:  # who may write to what is closed
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
tempfile.tempdir = sys.argv[1]
scratch = Scratch.make()
os.makedirs(scratch.path / "go/pkg/mod/x")  # as Go's module cache is: no directory in it may be written
open(scratch.path / "go/pkg/mod/x/y.go", "w").close()
os.makedirs(scratch.path / "closed/inner")
os.symlink(sys.argv[2], scratch.path / "go/pkg/link")
for name, mode in (("go/pkg/mod/x", 0o500), ("go/pkg/mod", 0o500), ("go/pkg", 0o500), ("closed", 0)):
    os.chmod(scratch.path / name, mode)
if sys.argv[3] == "sweep":
    scratch.release()
    sweep_scratch()
else:
    scratch.remove()
print(os.listdir(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="about modes")
@pytest.mark.parametrize("how", ["remove", "sweep"])
def test_directories_that_the_tool_closed_go_as_well(tmp_path: Path, how: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", LEAVE, place, str(outside), how], capture_output=True, text=True, timeout=30
        )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert outside.stat().st_mode & 0o777 == 0o500


@pytest.mark.skipif(os.name != "posix", reason="paths are short there")
def test_a_tree_of_any_depth_goes_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = Scratch.make()
    here = os.open(scratch.path, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    scratch.remove()
    assert list(tmp_path.iterdir()) == []
