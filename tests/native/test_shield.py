"""A command that shares its pid namespace with praxis-init (`--parent`) cannot end it, and so leaves nothing behind."""

import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from praxis_mcp.engines.init.seccomp import filter_program
from praxis_mcp.support.praxis_init import praxis_init_path, run_prefix
from tests.kit.until import until_blocking
from tests.native.harness import PATIENCE

pytestmark = pytest.mark.native

MACHINE = platform.machine()

ATTACK = """
import ctypes, errno, fcntl, json, os, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
init, marker, way = os.getppid(), sys.argv[1], sys.argv[2]
ready, told = os.pipe()
os.set_inheritable(told, True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # a daemon that nothing but its descent tells from others
        os.close(ready)
        os.execve(sys.executable, [sys.executable, "-c", "import os, sys, time; os.write(int(sys.argv[2]), b'x')\\n"
                                   "for fd in range(64):\\n try: os.close(fd)\\n except OSError: pass\\n"
                                   "time.sleep(1000)", marker, str(told)], {})
    os._exit(0)
os.close(told)
os.wait()
def call(number, *words):
    if libc.syscall(*map(ctypes.c_long, (number, *words))) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
def by_owner():
    # The owner of a descriptor gets a signal of one's choice when there is something to read.
    one, other = socket.socketpair()
    fcntl.fcntl(one, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(one, fcntl.F_SETOWN, init)
    fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
    other.send(b"x")
def by_owner_of_a_kind():
    one, other = socket.socketpair()
    fcntl.fcntl(one, 10, signal.SIGKILL)
    fcntl.fcntl(one, 15, struct.pack("ii", 1, init))  # F_SETOWN_EX, F_OWNER_PID
    fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
    other.send(b"x")
def by_owner_through_ioctl():
    one, other = socket.socketpair()
    fcntl.fcntl(one, 10, signal.SIGKILL)
    fcntl.ioctl(one, 0x8901, struct.pack("i", init))  # FIOSETOWN
    fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
    other.send(b"x")
queued = ctypes.create_string_buffer(struct.pack("iii", signal.SIGKILL, 0, -1), 128)
ways = {
    "kill": lambda: os.kill(init, signal.SIGKILL),
    "kill of its group": lambda: os.killpg(os.getpgid(init), signal.SIGKILL),
    "tkill": lambda: call(200 if x86 else 130, init, 9),
    "tgkill": lambda: call(234 if x86 else 131, init, init, 9),
    "rt_sigqueueinfo": lambda: call(129 if x86 else 138, init, 9, ctypes.addressof(queued)),
    "rt_tgsigqueueinfo": lambda: call(297 if x86 else 240, init, init, 9, ctypes.addressof(queued)),
    "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(init), signal.SIGKILL),
    "an open /proc/PID": lambda: signal.pidfd_send_signal(os.open(f"/proc/{init}", os.O_DIRECTORY), signal.SIGKILL),
    "the owner of a descriptor": by_owner,
    "the owner of a descriptor, by its kind": by_owner_of_a_kind,
    "the owner of a descriptor, through ioctl": by_owner_through_ioctl,
    "no descriptors left to it": lambda: call(302 if x86 else 261, init, 7, ctypes.addressof(limits), 0),
    "ptrace": lambda: call(101 if x86 else 117, 16, init, 0, 0),
}
limits = (ctypes.c_ulong * 2)(0, 0)
assert os.read(ready, 1) == b"x"
try:
    ways[way]()
except OSError as exc:
    print(errno.errorcode[exc.errno], flush=True)
time.sleep(0.2)  # a signal of the last ways comes a moment later
"""

WAYS = [
    "kill",
    "kill of its group",
    "tkill",
    "tgkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd",
    "an open /proc/PID",
    "the owner of a descriptor",
    "the owner of a descriptor, by its kind",
    "the owner of a descriptor, through ioctl",
    "no descriptors left to it",
    "ptrace",
]


def hide_landlock() -> None:
    """As on a kernel before 5.13: landlock_create_ruleset does not exist for this process and all it starts."""
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
    libc = ctypes.CDLL(None, use_errno=True)
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, described, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def running(marker: str) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("before", [None, hide_landlock], ids=["Landlock", "no Landlock"])
@pytest.mark.parametrize("way", WAYS)
def test_a_command_cannot_end_its_supervisor_whatever_it_tries(way: str, before: Callable[[], None] | None) -> None:
    init, marker = praxis_init_path(), f"shield-{uuid.uuid4().hex}"
    assert init is not None
    filtered = filter_program("x86_64" if MACHINE == "x86_64" else "aarch64", any_family=True)
    prefix = run_prefix(
        str(init), timeout=PATIENCE, no_network=False, kill_after=0, parent=os.getpid(), seccomp=filtered
    )
    command = [*prefix, sys.executable, "-c", ATTACK, marker, way]
    done = subprocess.run(
        command, capture_output=True, timeout=PATIENCE * 2, preexec_fn=before, start_new_session=True, check=False
    )
    try:
        assert done.returncode == 0, (done.returncode, done.stderr.decode())
        until_blocking(lambda: not running(marker), within=PATIENCE, what="all of it is gone")
    finally:
        for pid in running(marker):
            os.kill(pid, 9)


@pytest.mark.parametrize("before", [None, hide_landlock], ids=["Landlock", "no Landlock"])
def test_signals_among_its_own_processes_work(before: Callable[[], None] | None) -> None:
    source = """
import json, os, signal, subprocess, sys, threading
done = []
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
os.killpg(child.pid, signal.SIGTERM)
done.append(child.wait())
child = subprocess.Popen(["sleep", "1000"])
child.kill()
done.append(child.wait())
signal.signal(signal.SIGUSR1, lambda *_: done.append("signal"))
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
print(json.dumps(done))
"""
    init = praxis_init_path()
    assert init is not None
    prefix = run_prefix(str(init), timeout=PATIENCE, no_network=False, parent=os.getpid())
    done = subprocess.run([*prefix, sys.executable, "-c", source], capture_output=True, preexec_fn=before, check=False)
    assert json.loads(done.stdout) == [-15, -9, "signal"], done.stderr


def test_a_command_that_may_gain_privileges_is_as_free_as_without_praxis_init() -> None:
    """A server that is started by command (see `transports.process`): no Landlock, no filter, no limit of its own."""
    init = praxis_init_path()
    assert init is not None
    prefix = run_prefix(str(init), timeout=PATIENCE, no_network=False, no_new_privileges=False, parent=os.getpid())
    script = 'grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status; kill -0 "$1" && echo heard'
    done = subprocess.run([*prefix, "sh", "-c", script, "sh", str(os.getpid())], capture_output=True, check=False)
    own = subprocess.run(["grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"], capture_output=True, check=True)
    assert done.stdout == own.stdout + b"heard\n"


SEPARATE = """
import json, os, sys
try:
    os.close(os.open("/dev/tty", os.O_RDWR))
    terminal = True
except OSError:
    terminal = False
own = os.getpid()
print(json.dumps([os.getsid(0) == own, os.getpgid(0) == own, os.getsid(0) == os.getsid(os.getppid()), terminal]))
"""
# Gives itself a session, with a new terminal where asked, and runs the rest below it.
CALLER = """
import fcntl, os, pty, subprocess, sys, termios
os.setsid()
if sys.argv[1] == "terminal":
    fcntl.ioctl(pty.openpty()[1], termios.TIOCSCTTY, 0)
sys.exit(subprocess.call(["sh", "-c", 'exec "$@"', "sh", *sys.argv[2:]], process_group=0))
"""


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
def test_a_command_has_a_process_group_of_its_own_and_no_terminal_of_the_callers(terminal: bool) -> None:
    """A session of its own only where that keeps a terminal from it: it costs a turn of the scheduler."""
    init = praxis_init_path()
    assert init is not None
    # The process that starts praxis-init is the caller's child, whose number only it knows: sh puts it in.
    words = run_prefix(str(init), timeout=PATIENCE, no_network=False, parent=424242)
    line = " ".join("$PPID" if word == "424242" else f"'{word}'" for word in [*words, sys.executable, "-c", "$CODE"])
    line = line.replace("'$CODE'", '"$CODE"')
    done = subprocess.run(
        [sys.executable, "-c", CALLER, "terminal" if terminal else "none", "sh", "-c", f"exec {line}"],
        capture_output=True,
        env={**os.environ, "CODE": SEPARATE},
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    own_session, own_group, callers_session, has_terminal = json.loads(done.stdout)
    assert own_group
    assert not has_terminal
    assert (own_session, callers_session) == (terminal, not terminal)
