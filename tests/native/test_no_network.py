"""`--no-network`: no way out of the process tree but unix sockets, as root and as nobody, privileges or none."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from praxis_mcp.support.praxis_init import praxis_init_path
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE, PraxisInit, landlock_version

NO_NETWORK = ["--no-network"]
REFUSED = ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"]

PROBE = textwrap.dedent("""
    import ctypes, errno, json, os, socket, sys
    libc = ctypes.CDLL(None, use_errno=True)

    def attempt(call, *arguments):
        result = call(*arguments)
        return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]

    found = {}
    for family in sys.argv[1:]:
        number = getattr(socket, family)
        found[family] = attempt(libc.socket, number, socket.SOCK_DGRAM, 0)
        # The kernel reads an int: garbage above it must not fool the filter.
        found[family + " high"] = attempt(libc.syscall, ctypes.c_long(SOCKET), ctypes.c_long(number | 1 << 40), 2, 0)
        found[family + " pair"] = attempt(libc.socketpair, number, socket.SOCK_DGRAM, 0, (ctypes.c_int * 2)())
    for name, number in ("io_uring_setup", 425), ("io_uring_enter", 426), ("io_uring_register", 427):
        found[name] = attempt(libc.syscall, number, 8, ctypes.create_string_buffer(256), 0, 0, 0, 0)
    found["pidfd_getfd"] = attempt(libc.syscall, 438, 0, 0, 0)
    print(json.dumps(found))
""").replace("SOCKET", "41" if platform.machine() == "x86_64" else "198")


def test_only_unix_sockets_are_left(placed: PraxisInit, user: int | None, python: str) -> None:
    done = placed.run(python, "-c", PROBE, "AF_UNIX", *REFUSED, options=NO_NETWORK, cwd="/", user=user)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {family: found[family] for family in REFUSED} == dict.fromkeys(REFUSED, "EAFNOSUPPORT")
    assert {family: found[f"{family} high"] for family in REFUSED} == dict.fromkeys(REFUSED, "EAFNOSUPPORT")
    assert {family: found[f"{family} pair"] for family in REFUSED} == dict.fromkeys(REFUSED, "EAFNOSUPPORT")
    assert {found["AF_UNIX"], found["AF_UNIX high"], found["AF_UNIX pair"]} == {"ok"}
    assert {found["io_uring_setup"], found["io_uring_enter"], found["io_uring_register"]} == {"ENOSYS"}
    assert found["pidfd_getfd"] == "EPERM"


def test_the_probe_finds_a_network_where_it_is_left(init: PraxisInit, user: int | None, python: str) -> None:
    """The test above would pass on a machine without networks; this one tells."""
    found = json.loads(init.run(python, "-c", PROBE, "AF_INET", "AF_NETLINK", cwd="/", user=user).stdout)
    assert (found["AF_INET"], found["AF_INET high"], found["AF_NETLINK"]) == ("ok", "ok", "ok")


def test_what_the_command_starts_is_without_network_too(init: PraxisInit, user: int | None, python: str) -> None:
    outer = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], start_new_session=True).returncode)"
    inner = "import socket; socket.socketpair(); socket.socket(socket.AF_INET)"
    done = init.run(python, "-c", outer, python, "-c", inner, options=NO_NETWORK, cwd="/", user=user)
    assert done.code == 1
    assert b"Address family not supported by protocol" in done.stderr


def test_unix_sockets_still_carry_bytes(init: PraxisInit, user: int | None, python: str, tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, socket, tempfile
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            for address in os.path.join(folder, "socket"), "\\0praxis-" + os.path.basename(folder):
                with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
                    listener.bind(address)
                    listener.listen()
                    caller.connect(address)
                    accepted, _ = listener.accept()
                    accepted.sendall(b"hello")
                    assert caller.recv(5) == b"hello"
                    accepted.close()
    """)
    done = init.run(python, "-c", script, options=NO_NETWORK, cwd="/", user=user)
    assert done.code == 0, done.stderr


def test_name_lookups_fail_cleanly(init: PraxisInit, python: str) -> None:
    script = textwrap.dedent("""
        import socket
        try:
            socket.create_connection(("localhost", 9), timeout=5)
        except OSError as error:
            print(type(error).__name__)
    """)
    done = init.run(python, "-c", script, options=NO_NETWORK)
    assert (done.code, done.stderr) == (0, b"")
    assert done.stdout in (b"OSError\n", b"gaierror\n")


def test_an_inherited_socket_is_closed_unless_it_is_a_stream(init: PraxisInit) -> None:
    with socket.socket(socket.AF_INET) as extra:
        number = extra.fileno()
        script = f"test -e /proc/self/fd/{number}"
        assert init.run("sh", "-c", script, pass_fds=[number]).code == 0
        assert init.run("sh", "-c", script, pass_fds=[number], options=NO_NETWORK).code == 1
    ours, theirs = socket.socketpair()
    with ours, theirs, init.start("cat", options=NO_NETWORK, stdin=theirs, stdout=theirs) as running:
        theirs.close()
        ours.settimeout(PATIENCE)
        ours.sendall(b"through")
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b"through"
        assert running.wait() == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and int 0x80 are of x86-64")
@pytest.mark.parametrize("way", ["x32", "int 0x80"])
def test_a_foreign_system_call_kills(init: PraxisInit, way: str) -> None:
    x32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 41, 2, 1, 0); print('alive')"
    int_0x80 = textwrap.dedent("""
        import ctypes, mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
        page.write(b"\\x53\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\x5b\\xc3")
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        print("alive")
    """)
    script = {"x32": x32, "int 0x80": int_0x80}[way]
    if init.run(sys.executable, "-c", script).stdout != b"alive\n":
        pytest.skip("this kernel does not know such calls at all")
    done = init.run(sys.executable, "-c", script, options=NO_NETWORK)
    assert (done.code, done.stdout) == (128 + signal.SIGSYS, b"")


@pytest.mark.parametrize(("options", "shown"), [([], "0"), (["--no-new-privileges"], "1"), (NO_NETWORK, "1")])
def test_new_privileges_are_dropped_on_request(
    init: PraxisInit, user: int | None, options: list[str], shown: str
) -> None:
    done = init.run("grep", "NoNewPrivs", "/proc/self/status", options=options, user=user)
    assert done.stdout.split() == [b"NoNewPrivs:", shown.encode()]


@pytest.mark.skipif(not IS_ROOT, reason="only root has capabilities to lose")
def test_root_loses_the_network_capabilities_and_no_other(init: PraxisInit) -> None:
    network = 1 << 12 | 1 << 13  # CAP_NET_ADMIN, CAP_NET_RAW

    def effective(options: list[str]) -> int:
        return int(init.run("grep", "CapEff", "/proc/self/status", options=options).stdout.split()[1], 16)

    assert effective(NO_NETWORK) == effective([]) & ~network


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to become nobody")
@pytest.mark.skipif(landlock_version() < 6, reason="needs Landlock of Linux 6.12")
def test_a_process_outside_cannot_be_made_to_do_it(init: PraxisInit, binary: Path) -> None:
    """The same user, unfiltered: the container's own PID 1 under Dagger."""
    name = f"praxis-{uuid.uuid4().hex}"
    outsider = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('\\0' + sys.argv[1]); s.listen();"
    outsider += " print('ready', flush=True); sys.stdin.read()"
    script = textwrap.dedent("""
        import os, socket, sys
        pid, name = int(sys.argv[1]), sys.argv[2]
        def memory():
            open(f"/proc/{pid}/mem", "r+b").close()
        def sockets():
            s = socket.socket(socket.AF_UNIX); s.connect("\\0" + name)
        for attempt in memory, sockets, lambda: os.kill(pid, 0), lambda: os.kill(os.getppid(), 0):
            try:
                attempt()
                print("done")
            except OSError as error:
                print(type(error).__name__)
    """)
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        pytest.skip("needs the system's Python")
    with subprocess.Popen(
        [python, "-c", outsider, name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        words = [python, "-c", script, str(process.pid), name]
        without = init.run(*words, user=NOBODY, cwd="/")
        within = init.run(*words, user=NOBODY, cwd="/", options=NO_NETWORK)
        process.communicate(timeout=PATIENCE)
    assert without.stdout.split()[1:] == [b"done"] * 3
    assert within.stdout.split() == [b"PermissionError"] * 4


def test_the_binary_under_test_is_the_packages(binary: Path) -> None:
    own = praxis_init_path()
    assert own is not None
    assert binary.read_bytes() == own.read_bytes()
