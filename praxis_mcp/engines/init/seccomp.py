"""The filter of system calls around a tool (seccomp(2), classic BPF), made from the table in `syscalls`.

It looks at numbers and at arguments that travel in registers, never at memory, so nothing can be changed between the
check and the use.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from functools import cache

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.init.syscalls import (
    AF_PACKET,
    CLONE,
    CLONE3,
    DENIED,
    FAMILIES,
    IOCTL,
    MACHINES,
    NEW_NAMESPACES,
    NOT_EVEN_ON_THE_HOSTS_NETWORK,
    PRLIMIT,
    SOCKET,
    SOCKETPAIR,
    TERMINAL_INPUT,
    WITH_CAPABILITIES,
)
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.support.praxis_init import normalize_machine

# <linux/seccomp.h>, <linux/audit.h>, <linux/bpf_common.h>
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_JEQ, BPF_JGE, BPF_JSET, all with BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_RETURN = 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, (16, 24)  # offsets in struct seccomp_data; lower halves of the arguments
_X32 = 0x40000000

_REFUSE, _UNKNOWN, _NO_FAMILY = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS, _ERRNO | 97  # Linux's EAFNOSUPPORT

# How the kernel names a call's architecture (linux/audit.h), for a machine and for the 32-bit programs that it runs.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
_HALVES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: `struct sock_filter`."""


def filter_for(
    blueprint: Blueprint, machine: str | None = None, *, has_capabilities: bool | None = None
) -> bytes | None:
    """The filter for a tool, as an array of `struct sock_filter`; None for a privileged one, and for a machine that
    there is none for.

    Args:
        blueprint: the tool.
        machine: where it runs, in any spelling; None is this machine.
        has_capabilities: whether it keeps an engine's capabilities; None: where its contract says so.
    """
    name = normalize_machine(machine or platform.machine())
    if name is None or blueprint.privileged:
        return None
    return filter_program(
        name,
        any_family=blueprint.network is Network.HOST,
        has_capabilities=blueprint.drop_capabilities is False if has_capabilities is None else has_capabilities,
    )


@cache
def filter_program(machine: str, *, any_family: bool = False, has_capabilities: bool = False) -> bytes:
    """The filter for a machine.

    Denied calls fail with EPERM. A socket of a denied family fails with EAFNOSUPPORT, as on a kernel without it. Calls
    of another architecture or ABI fail with ENOSYS, and so does clone3, whose flags no filter can see.

    Args:
        machine: ``x86_64`` or ``aarch64``.
        any_family: the tool has the host's network, and nearly every family of sockets.
        has_capabilities: the tool keeps an engine's capabilities, and what is denied for lack of them alone.
    """
    program: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for half in _HALVES[machine]:
        section = list(_section(half, any_family=any_family, has_capabilities=has_capabilities))
        # To the next section; a conditional jump reaches no further than 255 instructions.
        program += [(_EQUAL, 1, 0, _AUDIT[half]), (_JUMP, 0, 0, len(section)), *section]
    program.append((_RETURN, 0, 0, _UNKNOWN))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def filter_descriptor(blueprint: Blueprint) -> int | None:
    """A fresh descriptor of the filter for a tool on this machine, to be closed by the caller; None where there is
    none.

    Raises:
        OSError: no more descriptors.
    """
    program = filter_for(blueprint)
    if program is None:
        return None
    descriptor = os.memfd_create("praxis-seccomp")
    os.write(descriptor, program)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _section(half: str, *, any_family: bool, has_capabilities: bool) -> Iterator[_Instruction]:
    column = MACHINES.index(half)
    yield (_LOAD, 0, 0, _NUMBER)
    if half == "x86_64":
        # x32 reports the same architecture with bit 30 set. -1 is not x32: it is how a tracer skips a call.
        yield from ((_EQUAL, 0, 1, 0xFFFFFFFF), (_RETURN, 0, 0, _ALLOW))
        yield from ((_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _UNKNOWN))
    yield from ((_EQUAL, 0, 1, CLONE3[column] or 0), (_RETURN, 0, 0, _UNKNOWN))
    yield from _by_argument(CLONE[column], 0, [(_ANY_BIT, NEW_NAMESPACES)], met=_REFUSE, otherwise=_ALLOW)
    yield from _by_argument(
        IOCTL[column], 1, [(_EQUAL, value) for value in TERMINAL_INPUT], met=_REFUSE, otherwise=_ALLOW
    )
    yield from _by_argument(PRLIMIT[column], 0, [(_EQUAL, 0)], met=_ALLOW, otherwise=_REFUSE)
    for call in (SOCKET, SOCKETPAIR):
        if any_family:
            tests = [(_EQUAL, family) for family in NOT_EVEN_ON_THE_HOSTS_NETWORK]
            yield from _by_argument(call[column], 0, tests, met=_NO_FAMILY, otherwise=_ALLOW)
        else:
            allowed = (*FAMILIES, *((AF_PACKET,) if has_capabilities else ()))
            tests = [(_EQUAL, family) for family in allowed]
            yield from _by_argument(call[column], 0, tests, met=_ALLOW, otherwise=_NO_FAMILY)
    numbers = sorted(
        number
        for group in DENIED
        for name, columns in group.calls.items()
        if (number := columns[column]) is not None and not (has_capabilities and name in WITH_CAPABILITIES)
    )
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        yield (_EQUAL, left, 0, number)  # to the last instruction
    yield from ((_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE))


def _by_argument(
    number: int | None, argument: int, tests: Sequence[tuple[int, int]], *, met: int, otherwise: int
) -> Iterator[_Instruction]:
    """For one call an argument decides: whether any of the tests is met."""
    if number is None:
        return
    yield (_EQUAL, 0, len(tests) + 3, number)
    yield (_LOAD, 0, 0, _ARGUMENTS[argument])
    for left, (test, value) in zip(range(len(tests), 0, -1), tests, strict=True):
        yield (test, left, 0, value)
    yield from ((_RETURN, 0, 0, otherwise), (_RETURN, 0, 0, met))
