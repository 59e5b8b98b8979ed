"""Which system calls a tool is denied, on every engine, and that ordinary programs do not miss them."""

import errno
import json
import platform
import struct
from pathlib import Path

import pytest

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.init.seccomp import (
    CLONE,
    CLONE3,
    DENIED,
    FAMILIES,
    IOCTL,
    MACHINES,
    NEW_NAMESPACES,
    NEWEST,
    PERSONALITY,
    PRLIMIT,
    SETRLIMIT,
    SOCKET,
    SOCKETPAIR,
    UNASSIGNED,
    WITH_CAPABILITIES,
    filter_for,
    filter_program,
)
from praxis_mcp.plans.model import Blueprint, Capability, Limits, Where
from praxis_mcp.support.praxis_init import normalize_machine
from praxis_mcp.testing.bench import Bench
from tests.engines.init.denied_calls import ABSENT, denied_calls

pytestmark = pytest.mark.anyio

ATTACK = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    # Of zeros most calls do nothing where they are not denied, or fail otherwise.
    words = (*words, 0, 0, 0, 0, 0, 0)[:7]
    return errno.errorcode.get(ctypes.get_errno()) if libc.syscall(*map(ctypes.c_long, words)) < 0 else "done"
found = {name: call(*words) for name, words in json.loads(sys.argv[1]).items()}
found["prlimit of another"] = call(*json.loads(sys.argv[2]), os.getppid(), 7, 0, 0)
families = {}
for family in range(1, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind).close()
            families[family] = "open"
        except OSError as exc:
            if families.get(family) != "open" and exc.errno != errno.EAFNOSUPPORT:
                families[family] = errno.errorcode[exc.errno]
print(json.dumps([found, families]))
"""

ORDINARY = """
import ctypes, json, os, resource, signal, socket, subprocess, sys, tempfile, threading
from concurrent.futures import ThreadPoolExecutor
done = []
threading.stack_size(1 << 20)
with ThreadPoolExecutor(40) as pool:  # as many and as small as a Java or Go runtime has them
    done.append(sum(pool.map(lambda number: number, range(400))))
done.append(subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout.strip())
if (pid := os.fork()) == 0:
    os._exit(5)
done.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
left, right = socket.socketpair()
left.sendall(b"x")
done.append(right.recv(1).decode())
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
done.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
with tempfile.NamedTemporaryFile() as file:
    os.chmod(file.name, 0o600)
    done.append(os.stat(file.name).st_size)
signal.signal(signal.SIGUSR1, lambda *_: done.append("signal"))
ctypes.CDLL(None).personality.restype = ctypes.c_int
done.append(ctypes.CDLL(None).personality(ctypes.c_ulong(0xFFFFFFFF)) & 0xFF)
os.kill(os.getpid(), signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
child = subprocess.Popen(["sleep", "1000"])
child.terminate()
done.append(child.wait())
print(json.dumps(done))
"""


@pytest.mark.native
async def test_calls_that_reach_beyond_a_tool_are_denied(bench: Bench) -> None:
    machine = normalize_machine(platform.machine())
    assert machine is not None
    words = json.dumps(denied_calls(machine)), json.dumps([PRLIMIT[MACHINES.index(machine)]])
    result = await bench.run(bench.case.python(ATTACK, *words))
    assert result.success, result.stderr.text
    found, families = json.loads(result.output)
    assert {found.pop(name) for name in ABSENT} == {"ENOSYS"}
    keeps = WITH_CAPABILITIES if Capability.DROP_CAPABILITIES in bench.case.lacks else frozenset[str]()
    assert {name for name, answer in found.items() if answer != "EPERM"} == keeps
    assert {int(family) for family, state in families.items() if state == "open"} <= set(FAMILIES), families


async def test_ordinary_programs_run(bench: Bench) -> None:
    result = await bench.run(bench.case.python(ORDINARY))
    assert result.success, result.stderr.text
    assert json.loads(result.output) == [79800, "42", 5, "x", 64, 0, 0, "signal", "signal", -15]


# --- the filter itself, as the kernel reads it ------------------------------------------------------------------------

EPERM, ENOSYS, EAFNOSUPPORT = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x50000 | 97
ALLOW = 0x7FFF0000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
HALVES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}
BOTH = [(machine, half) for machine, halves in HALVES.items() for half in halves]


def judged(program: bytes, architecture: int, number: int, *arguments: int, most_steps: int = 1000) -> int:
    """What a filter says of a call: classic BPF (linux/filter.h), as far as these filters use it."""
    data = struct.pack("<iIQ6Q", number if number < 2**31 else number - 2**32, architecture, 0,
                       *(arguments + (0,) * 6)[:6])  # fmt: skip
    accumulator, position = 0, 0
    code = list(struct.iter_unpack("<HBBI", program))
    for _ in range(most_steps):
        operation, yes, no, operand = code[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x05:
                position += operand
            case 0x06:
                return operand
            case 0x15 | 0x35 | 0x45:
                met = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: accumulator & operand}
                position += yes if met[operation] else no
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")
    raise AssertionError(f"call {number} is not judged in {most_steps} steps")


@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_every_call_of_the_table_is_denied_on_every_machine(machine: str, half: str) -> None:
    program, column = filter_program(machine), MACHINES.index(half)
    for group in DENIED:
        for name, numbers in group.calls.items():
            if (number := numbers[column]) is not None:
                assert judged(program, AUDIT[half], number) == (ENOSYS if group.absent else EPERM), name
    assert judged(program, AUDIT[half], CLONE3[column] or 0) == ENOSYS
    assert judged(program, AUDIT[half], CLONE[column] or 0, 17) == ALLOW
    for bit in range(32):
        if NEW_NAMESPACES >> bit & 1:
            assert judged(program, AUDIT[half], CLONE[column] or 0, 17 | 1 << bit) == EPERM
    assert judged(program, AUDIT[half], PRLIMIT[column] or 0, 0) == ALLOW
    assert judged(program, AUDIT[half], PRLIMIT[column] or 0, 1) == EPERM
    for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX
        assert judged(program, AUDIT[half], IOCTL[column] or 0, 0, request | 1 << 40) == EPERM
    assert judged(program, AUDIT[half], IOCTL[column] or 0, 0, 0x5401) == ALLOW


@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_setting_the_limit_of_cores_does_nothing_and_succeeds(machine: str, half: str) -> None:
    column, nothing, cores, files = MACHINES.index(half), 0x50000, 4, 7
    prlimit, setrlimit = PRLIMIT[column] or 0, SETRLIMIT[column] or 0
    for pointer in (1, 1 << 31, 1 << 32):
        assert judged(filter_program(machine), AUDIT[half], prlimit, 0, cores, pointer) == nothing
        assert judged(filter_program(machine), AUDIT[half], prlimit, 0, files, pointer) == ALLOW
        assert judged(filter_program(machine), AUDIT[half], prlimit, 1, cores, pointer) == EPERM
        assert judged(filter_program(machine), AUDIT[half], setrlimit, cores, pointer) == nothing
        assert judged(filter_program(machine), AUDIT[half], setrlimit, files, pointer) == ALLOW
    assert judged(filter_program(machine), AUDIT[half], prlimit, 0, cores, 0) == ALLOW  # reads it


@pytest.mark.parametrize("has_capabilities", [False, True])
@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_no_call_is_denied_but_those_of_the_table(machine: str, half: str, has_capabilities: bool) -> None:
    column = MACHINES.index(half)
    denied = {numbers[column]: ENOSYS if group.absent else EPERM
              for group in DENIED for name, numbers in group.calls.items()
              if not (has_capabilities and name in WITH_CAPABILITIES)}  # fmt: skip
    by_argument = {call[column] for call in (CLONE3, CLONE, IOCTL, PERSONALITY, PRLIMIT, SETRLIMIT, SOCKET, SOCKETPAIR)}
    program = filter_program(machine, has_capabilities=has_capabilities)
    for number in (*range(NEWEST + 1), *([0xF0002, 0xF0005] if half == "arm" else [])):
        gap = any(first <= number <= last for first, last in UNASSIGNED.get(half, ()))
        if number not in by_argument:
            expected = ENOSYS if gap else denied.get(number, ALLOW)
            assert judged(program, AUDIT[half], number) == expected, number


@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_a_call_that_nobody_has_judged_does_not_exist(machine: str, half: str) -> None:
    """Among the numbers from 512 on are x32's, which some kernels take without its bit: ioctl is 514 there."""
    program = filter_program(machine)
    for number in (*range(NEWEST + 1, 1024), 2**16, 2**29, 2**30 | 16, 2**31):
        assert judged(program, AUDIT[half], number) == (ALLOW if half == "arm" and number > 0xF0000 else ENOSYS)
    assert judged(program, AUDIT[half], 0xFFFFFFFF) == ALLOW  # how a tracer skips a call
    if half in ("x86_64", "aarch64"):
        assert judged(program, AUDIT[half], 400) == ENOSYS


@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_a_tool_may_be_nothing_but_an_ordinary_program(machine: str, half: str) -> None:
    """As containers are allowed; the kernel reads no more than the lower half of the word."""
    program, number = filter_program(machine), PERSONALITY[MACHINES.index(half)] or 0
    words = (*range(64), *(1 << bit for bit in range(32)), 0x20008, 0x40008, 0xFFFFFFFF)
    allowed = {word for word in words if judged(program, AUDIT[half], number, word | 1 << 40) == ALLOW}
    assert allowed == {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}
    assert judged(program, AUDIT[half], number, 0x0040000) == EPERM  # the same addresses every time


def test_a_filter_judges_any_call_in_few_steps() -> None:
    """The kernel runs it once for each call that there is, whenever a tool starts."""
    for half in HALVES["x86_64"]:
        for number in range(512):
            judged(filter_program("x86_64"), AUDIT[half], number, most_steps=40)


@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_families_of_sockets_depend_on_the_network(machine: str, half: str) -> None:
    number = SOCKET[MACHINES.index(half)] or 0

    def allowed(**options: bool) -> set[int]:
        program = filter_program(machine, **options)
        answers = {family: judged(program, AUDIT[half], number, family | 1 << 40) for family in range(64)}
        assert set(answers.values()) == {ALLOW, EAFNOSUPPORT}
        return {family for family, answer in answers.items() if answer == ALLOW}

    assert allowed() == set(FAMILIES)
    assert allowed(has_capabilities=True) == {*FAMILIES, 17}
    assert allowed(any_family=True) == set(range(64)) - {38, 40}


@pytest.mark.parametrize(("machine", "half"), BOTH)
def test_who_keeps_capabilities_may_change_the_root_and_nothing_more(machine: str, half: str) -> None:
    without, with_them = filter_program(machine), filter_program(machine, has_capabilities=True)
    column = MACHINES.index(half)
    freed = {
        name
        for group in DENIED
        for name, numbers in group.calls.items()
        if (number := numbers[column]) is not None
        and judged(without, AUDIT[half], number) != judged(with_them, AUDIT[half], number)
    }
    assert freed == WITH_CAPABILITIES


def test_another_architecture_and_another_abi_do_not_exist() -> None:
    program = filter_program("x86_64")
    assert judged(program, AUDIT["aarch64"], 39) == ENOSYS
    assert judged(program, AUDIT["x86_64"], 0x40000000 | 39) == ENOSYS
    assert judged(program, AUDIT["x86_64"], 39) == ALLOW


def test_the_filter_of_a_tool_follows_its_contract() -> None:
    def tool(**fields: object) -> Blueprint:
        return Blueprint("tool", Where.CONTAINER, ("docker",), Limits(60), **fields)  # pyright: ignore[reportArgumentType]

    assert filter_for(tool(), "amd64") == filter_program("x86_64")
    assert filter_for(tool(network=Network.HOST), "arm64") == filter_program("aarch64", any_family=True)
    assert filter_for(tool(drop_capabilities=False), "x86_64") == filter_program("x86_64", has_capabilities=True)
    assert filter_for(tool(privileged=True), "x86_64") is None
    assert filter_for(tool(), "s390x") is None


HEADERS = {"x86_64": "unistd_64.h", "i386": "unistd_32.h"}


@pytest.mark.parametrize("half", HEADERS)
def test_the_numbers_are_those_of_this_machines_headers(half: str) -> None:
    places = [Path("/usr/include/x86_64-linux-gnu/asm"), Path("/usr/include/asm")]
    header = next((place / HEADERS[half] for place in places if (place / HEADERS[half]).is_file()), None)
    if header is None:
        pytest.skip("no Linux headers for x86 here")
    known = {
        words[1].removeprefix("__NR_"): int(words[2])
        for words in map(str.split, header.read_text().splitlines())
        if len(words) == 3 and words[1].startswith("__NR_") and words[2].isdecimal()
    }
    column = MACHINES.index(half)
    for group in DENIED:
        for name, numbers in group.calls.items():
            assert known.get(name, numbers[column]) == numbers[column], name
