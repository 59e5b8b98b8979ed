"""A process that survives SIGKILL, as far as its parent can tell: who traces it must wait for it first (ptrace(2))."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_SEIZE = 0x4206  # PTRACE_SEIZE


def children_of(pid: int) -> list[int]:
    """The processes that a process of one thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def held(pid: int) -> Iterator[None]:
    """For the length of the block its parent never learns that it has ended; then it is killed. Of one thread."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("ptrace is called as glibc has it")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(_SEIZE, pid, None, None) != 0:
        pytest.skip(f"this machine lets nobody trace ({os.strerror(ctypes.get_errno())})")
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0x40000000)  # __WALL
