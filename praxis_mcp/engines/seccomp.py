"""The system calls that a sandboxed command may not make, as a filter for the kernel (seccomp(2), classic BPF).

A list of denials in the spirit of Docker's default profile for a container without capabilities: what reaches beyond
namespaces (the keyrings, vsock), what only administrators need, and the parts of the kernel that are attacked most.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Sequence
from functools import cache

# <linux/seccomp.h>, <linux/audit.h>, <linux/bpf_common.h>
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_JEQ, BPF_JGE, BPF_JSET, all with BPF_K
_RETURN = 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the argument's lower half
_X32 = 0x40000000

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (sched.h); clone has no room for NEWTIME."""
_AF_VSOCK = 40
"""Reaches the hypervisor from any network namespace."""

# name: (x86-64, arm64); None where the architecture lacks it. asm/unistd_64.h, asm-generic/unistd.h
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_settime": (227, 112),
    "create_module": (174, None), "delete_module": (176, 106), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "get_kernel_syms": (177, None), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioperm": (173, None), "iopl": (172, None),
    "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "name_to_handle_at": (303, 264), "nfsservctl": (180, 42), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "query_module": (178, None),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142), "request_key": (249, 218),
    "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268), "settimeofday": (164, 170),
    "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "uselib": (134, None), "userfaultfd": (323, 282), "ustat": (136, None), "vhangup": (153, 58),
}  # fmt: skip
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)


@cache
def filter_program(machine: str | None = None) -> bytes | None:
    """The filter for a machine (as `uname -m` names it; None: this one); None where there is none for it.

    Denied calls fail with EPERM. Calls of another architecture or ABI fail with ENOSYS, and so does clone3, whose
    flags no filter can see: C libraries then use clone.
    """
    name = machine or platform.machine()
    if name not in _AUDIT:
        return None
    column = 0 if name == "x86_64" else 1
    refuse, unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    program = [
        *_unless(_LOAD, _ARCHITECTURE, _EQUAL, _AUDIT[name], unknown),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if name == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, unknown)]
    program += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, unknown)]
    # For these two the first argument decides.
    for number, test, value in ((_CLONE[column], _ANY_BIT, _NEW_NAMESPACES), (_SOCKET[column], _EQUAL, _AF_VSOCK)):
        program += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (test, 0, 1, value),
            (_RETURN, 0, 0, refuse),
            (_RETURN, 0, 0, _ALLOW),
        ]
    numbers = sorted(number for pair in _DENIED.values() if (number := pair[column]) is not None)
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        program.append((_EQUAL, left, 0, number))  # to the last instruction
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)]
    return _assembled(program)


def filter_descriptor() -> int | None:
    """A fresh descriptor of the filter for this machine, to be closed by the caller; None where there is none.

    Raises:
        OSError: no more descriptors.
    """
    program = filter_program()
    if program is None:
        return None
    descriptor = os.memfd_create("praxis-seccomp")
    os.write(descriptor, program)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _unless(load: int, offset: int, test: int, value: int, result: int) -> Sequence[tuple[int, int, int, int]]:
    return ((load, 0, 0, offset), (test, 1, 0, value), (_RETURN, 0, 0, result))


def _assembled(program: Sequence[tuple[int, int, int, int]]) -> bytes:
    """As `struct sock_filter` each: code, jump if true, jump if false, operand."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
