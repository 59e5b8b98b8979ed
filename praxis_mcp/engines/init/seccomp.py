"""The system calls and socket families that a tool may not use, and why; and the filter that denies them (seccomp(2),
classic BPF).

The table is a list of denials: what the container engines' default profiles refuse to a container without capabilities,
and more. SECURITY.md names every call of which the two differ, and why. Its numbers are Linux's own (asm/unistd_64.h,
unistd_32.h and unistd-eabi.h of its headers).

The filter looks at numbers and at arguments that travel in registers, never at memory, so nothing can be changed
between the check and the use.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from praxis_mcp.contracts.values import Network
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.support.praxis_init import normalize_machine

MACHINES = ("x86_64", "aarch64", "i386", "arm")
"""The columns of numbers. Of the two that a filter is made for, the latter two are the 32-bit halves."""

Numbers = tuple[int | None, int | None, int | None, int | None]
"""A call's number on each of `MACHINES`; None where it has none."""


@dataclass(frozen=True, slots=True)
class Denied:
    """System calls that are denied for one reason.

    Attributes:
        what: what they are, in a few words.
        why: what they would give a tool.
        calls: their numbers, by name.
        absent: the answer is ENOSYS, so that programs do as on an older kernel; else it is EPERM.
    """

    what: str
    why: str
    calls: Mapping[str, Numbers]
    absent: bool = False


DENIED = (
    Denied(
        "keyrings",
        "They belong to the user, not to a namespace: what one call stores, the next one reads.",
        {"add_key": (248, 217, 286, 309), "keyctl": (250, 219, 288, 311), "request_key": (249, 218, 287, 310)},
    ),
    Denied(
        "new namespaces",
        "In a user namespace of its own a tool has every capability, and with it the parts of the kernel that "
        "unprivileged users never reach. `clone` is denied with a flag of a namespace only; `clone3`, whose flags no "
        "filter sees, does not exist (ENOSYS), so that C libraries use `clone`.",
        {"setns": (308, 268, 346, 375), "unshare": (272, 97, 310, 337)},
    ),
    Denied(
        "mounts",
        "They lay out what a tool sees.",
        {
            "fsconfig": (431, 431, 431, 431),
            "fsmount": (432, 432, 432, 432),
            "fsopen": (430, 430, 430, 430),
            "fspick": (433, 433, 433, 433),
            "mount": (165, 40, 21, 21),
            "mount_setattr": (442, 442, 442, 442),
            "move_mount": (429, 429, 429, 429),
            "open_tree": (428, 428, 428, 428),
            "open_tree_attr": (467, 467, 467, 467),
            "pivot_root": (155, 41, 217, 218),
            "umount": (None, None, 22, None),
            "umount2": (166, 39, 52, 52),
        },
    ),
    Denied(
        "mounts by number",
        "Root without capabilities still has all of them in a user namespace that root has made (user_namespaces(7)): "
        "it would list the mounts of other sandboxes, with the host's paths. `/proc/self/mountinfo` has a tool's own. "
        "They do not exist for a tool (ENOSYS).",
        {"listmount": (458, 458, 458, 458), "statmount": (457, 457, 457, 457)},
        absent=True,
    ),
    Denied(
        "another root",
        "The first step of many an escape from a directory. Allowed where a contract keeps an engine's capabilities "
        "(`drop_capabilities: false`).",
        {"chroot": (161, 51, 61, 61)},
    ),
    Denied(
        "files by handle",
        "They are opened past every mount and directory that hides them.",
        {"name_to_handle_at": (303, 264, 341, 370), "open_by_handle_at": (304, 265, 342, 371)},
    ),
    Denied(
        "insight into other processes",
        "Memory and descriptors of processes of the same user, outside the filter too.",
        {
            "kcmp": (312, 272, 349, 378),
            "pidfd_getfd": (438, 438, 438, 438),
            "process_madvise": (440, 440, 440, 440),
            "process_vm_readv": (310, 270, 347, 376),
            "process_vm_writev": (311, 271, 348, 377),
        },
    ),
    Denied(
        "rules of security modules",
        "They read and change the profile (AppArmor, SELinux) that a tool runs under.",
        {
            "lsm_get_self_attr": (459, 459, 459, 459),
            "lsm_list_modules": (461, 461, 461, 461),
            "lsm_set_self_attr": (460, 460, 460, 460),
        },
    ),
    Denied(
        "the placing of memory",
        "On a machine with several memories it tells of others' work and takes the room nearest to them.",
        {
            "get_mempolicy": (239, 236, 275, 320),
            "mbind": (237, 235, 274, 319),
            "migrate_pages": (256, 238, 294, 400),
            "move_pages": (279, 239, 317, 344),
            "set_mempolicy": (238, 237, 276, 321),
            "set_mempolicy_home_node": (450, 450, 450, 450),
        },
    ),
    Denied(
        "large and often attacked parts of the kernel",
        "No tool needs them to compute; io_uring also does what other calls are denied for.",
        {
            "bpf": (321, 280, 357, 386),
            "fanotify_init": (300, 262, 338, 367),
            "io_uring_enter": (426, 426, 426, 426),
            "io_uring_register": (427, 427, 427, 427),
            "io_uring_setup": (425, 425, 425, 425),
            "lookup_dcookie": (212, 18, 253, 249),
            "perf_event_open": (298, 241, 336, 364),
            "userfaultfd": (323, 282, 374, 388),
        },
    ),
    Denied(
        "the administration of the machine",
        "Modules, clocks, swap, quotas, names, reboot, the kernel's log, and calls that nothing uses any more.",
        {
            "_sysctl": (156, None, 149, 149),
            "acct": (163, 89, 51, 51),
            "bdflush": (None, None, 134, 134),
            "clock_settime": (227, 112, 264, 262),
            "clock_settime64": (None, None, 404, 404),
            "create_module": (174, None, 127, None),
            "delete_module": (176, 106, 129, 129),
            "finit_module": (313, 273, 350, 379),
            "get_kernel_syms": (177, None, 130, None),
            "init_module": (175, 105, 128, 128),
            "ioperm": (173, None, 101, None),
            "iopl": (172, None, 110, None),
            "kexec_file_load": (320, 294, None, 401),
            "kexec_load": (246, 104, 283, 347),
            "nfsservctl": (180, 42, 169, 169),
            "query_module": (178, None, 167, None),
            "quotactl": (179, 60, 131, 131),
            "quotactl_fd": (443, 443, 443, 443),
            "reboot": (169, 142, 88, 88),
            "setdomainname": (171, 162, 121, 121),
            "sethostname": (170, 161, 74, 74),
            "settimeofday": (164, 170, 79, 79),
            "stime": (None, None, 25, None),
            "swapoff": (168, 225, 115, 115),
            "swapon": (167, 224, 87, 87),
            "sysfs": (139, None, 135, 135),
            "syslog": (103, 116, 103, 103),
            "uselib": (134, None, 86, 86),
            "ustat": (136, None, 62, 62),
            "vhangup": (153, 58, 111, 111),
            "vm86": (None, None, 166, None),
            "vm86old": (None, None, 113, None),
        },
    ),
    Denied(
        "sockets by an old way in",
        "Hides the family of a socket from the filter; 32-bit programs have `socket` itself since Linux 4.3.",
        {"socketcall": (None, None, 102, None)},
    ),
)

WITH_CAPABILITIES = frozenset({"chroot"})
"""Denied only where a tool has no capabilities."""

# For these an argument decides.
CLONE: Numbers = (56, 220, 120, 120)
CLONE3: Numbers = (435, 435, 435, 435)
IOCTL: Numbers = (16, 29, 54, 54)
SOCKET: Numbers = (41, 198, 359, 281)
SOCKETPAIR: Numbers = (53, 199, 360, 288)

PRLIMIT: Numbers = (302, 261, 340, 369)
"""Denied for any process but the caller: with no descriptor left to open, what supervises a tool could not find it."""
SETRLIMIT: Numbers = (160, 164, 75, 75)
LIMIT_OF_CORES = 4
"""RLIMIT_CORE (asm-generic/resource.h). praxis-init sets it to 1, at which alone the kernel starts no program of the
host's for a core (core(5), coredump_pipe in its fs/coredump.c). Setting it does nothing then, and succeeds: programs
that hold secrets set it to 0, and some end where they cannot."""

PERSONALITY: Numbers = (135, 92, 136, 136)
PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26, and what only asks (linux/personality.h). The others make memory
executable or its addresses predictable, for an attacker who breaks into the tool, or bring old systems' ways back."""

NEWEST = 467
"""open_tree_attr, of Linux 6.15, is the newest call that was judged. Later ones do not exist for a tool (ENOSYS), as on
an older kernel; on x86-64 the x32 ABI is among them, and its own numbers from 512 on, which some kernels take."""
UNASSIGNED: Mapping[str, Sequence[tuple[int, int]]] = {"x86_64": [(337, 423)], "aarch64": [(244, 259), (295, 423)]}
"""First and last number of the gaps, which a later kernel may fill (x86-64 did, with uprobe): not there either."""
PRIVATE_TO_ARM = 0xF0000
"""32-bit Arm's own calls begin here, set_tls and cacheflush among them, which every program needs."""

NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (sched.h); clone has no room for NEWTIME."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX (asm-generic/ioctls.h, linux/tiocl.h): they type into a terminal, for its shell to read."""

FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK (linux/socket.h), which C libraries ask for the machine's addresses. Others
reach the hypervisor from any network namespace (AF_VSOCK), or are seldom used and often attacked."""
AF_PACKET = 17
"""Raw packets, which only CAP_NET_RAW gives: for contracts that keep capabilities."""
NOT_EVEN_ON_THE_HOSTS_NETWORK = (38, 40)
"""AF_ALG, the kernel's ciphers, and AF_VSOCK. Where a contract has the host's network, every other one is allowed."""

# <linux/seccomp.h>, <linux/audit.h>, <linux/bpf_common.h>
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_JEQ, BPF_JGE, BPF_JSET, all with BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_RETURN = 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, (16, 24, 32)  # offsets in struct seccomp_data: of arguments, the lower half
_UPPER_HALF = 4
_SKIPPED = 0xFFFFFFFF  # how a tracer skips a call

_UNKNOWN = _ERRNO | errno.ENOSYS
_ANSWERS = {
    "allow": _ALLOW,
    "refuse": _ERRNO | errno.EPERM,
    "unknown": _UNKNOWN,
    "do nothing": _ERRNO,  # and return 0
    "no family": _ERRNO | 97,  # Linux's EAFNOSUPPORT
}

# How the kernel names a call's architecture (linux/audit.h), for a machine and for the 32-bit programs that it runs.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
_HALVES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: `struct sock_filter`."""
_Code = tuple[int, str, str, int]
"""The same, with jumps to labels; none is the next instruction."""
_Line = tuple[str, int, str, str, int]
"""The same, with a label of its own, or none."""


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

    Denied calls fail with EPERM, or with ENOSYS where the table says so. A socket of a denied family fails with
    EAFNOSUPPORT, as on a kernel without it. Calls of another architecture or ABI, or that nobody has judged yet, fail
    with ENOSYS, and so does clone3, whose flags no filter can see.

    Args:
        machine: ``x86_64`` or ``aarch64``.
        any_family: the tool has the host's network, and nearly every family of sockets.
        has_capabilities: the tool keeps an engine's capabilities, and what is denied for lack of them alone.
    """
    program: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for half in _HALVES[machine]:
        section = _section(half, any_family=any_family, has_capabilities=has_capabilities)
        # To the next section; a conditional jump reaches no further than 255 instructions.
        program += [(_EQUAL, 1, 0, _AUDIT[half]), (_JUMP, 0, 0, len(section)), *section]
    program.append((_RETURN, 0, 0, _UNKNOWN))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _section(half: str, *, any_family: bool, has_capabilities: bool) -> list[_Instruction]:
    """What becomes of each call of one half, found by its number.

    Each number falls into one of a row of ranges, which is searched by halves. Every instruction and every step costs a
    tool's start: the kernel translates a filter when it is put in place, and runs it once for every call that there is,
    to know which are always allowed (seccomp_cache_prepare in its kernel/seccomp.c).
    """
    column = MACHINES.index(half)
    answers = ["allow"] * (NEWEST + 1)
    for first, last in UNASSIGNED.get(half, ()):
        answers[first : last + 1] = ["unknown"] * (last + 1 - first)
    for group in DENIED:
        for name, numbers in group.calls.items():
            if (number := numbers[column]) is not None and not (has_capabilities and name in WITH_CAPABILITIES):
                answers[number] = "unknown" if group.absent else "refuse"
    answers[CLONE3[column] or 0] = "unknown"
    decided = _by_arguments(any_family=any_family, has_capabilities=has_capabilities)
    for label, (calls, _) in decided.items():
        for number in (numbers[column] for numbers in calls):
            if number is not None:
                answers[number] = label
    # Past the newest, x32's too: they report the same architecture, with bit 30 set. -1 is how a tracer skips a call.
    beyond = [(NEWEST + 1, "unknown"), (PRIVATE_TO_ARM if half == "arm" else _SKIPPED, "allow")]
    ranges = [(n, answer) for n, answer in enumerate(answers) if n == 0 or answer != answers[n - 1]] + beyond
    lines: list[_Line] = [("", _LOAD, "", "", _NUMBER), *_search(ranges)]
    for label, (_, code) in decided.items():
        lines += [(label if place == 0 else "", *line) for place, line in enumerate(code)]
    lines += [(label, _RETURN, "", "", answer) for label, answer in _ANSWERS.items()]
    places = {label: place for place, (label, *_) in enumerate(lines)}

    def jump(place: int, label: str) -> int:
        return places[label] - place - 1 if label else 0  # no further than 255, which is packed as one byte

    return [
        (code, jump(place, yes), jump(place, no), operand) for place, (_, code, yes, no, operand) in enumerate(lines)
    ]


def _search(ranges: Sequence[tuple[int, str]]) -> list[_Line]:
    """To the answer for the loaded number, of some in order, each for its number and those up to the next's."""
    middle = len(ranges) // 2
    halves = ranges[:middle], ranges[middle:]
    below, above = (half[0][1] if len(half) == 1 else _label(half) for half in halves)
    lines: list[_Line] = [(_label(ranges), _AT_LEAST, above, below, ranges[middle][0])]
    for half in halves:
        if len(half) > 1:
            lines += _search(half)
    return lines


def _label(ranges: Sequence[tuple[int, str]]) -> str:
    return f"{len(ranges)} from {ranges[0][0]}"


def _by_arguments(
    *, any_family: bool, has_capabilities: bool
) -> Mapping[str, tuple[Sequence[Numbers], Sequence[_Code]]]:
    """The calls of which an argument decides, each with how."""
    if any_family:
        by_family = _by_argument(0, _EQUAL, NOT_EVEN_ON_THE_HOSTS_NETWORK, met="no family", otherwise="allow")
    else:
        allowed = (*FAMILIES, *((AF_PACKET,) if has_capabilities else ()))
        by_family = _by_argument(0, _EQUAL, allowed, met="allow", otherwise="no family")
    return {
        "by flags": ([CLONE], _by_argument(0, _ANY_BIT, [NEW_NAMESPACES], met="refuse", otherwise="allow")),
        "by request": ([IOCTL], _by_argument(1, _EQUAL, TERMINAL_INPUT, met="refuse", otherwise="allow")),
        "by personality": ([PERSONALITY], _by_argument(0, _EQUAL, PERSONALITIES, met="allow", otherwise="refuse")),
        "by limit": ([SETRLIMIT], _by_argument(0, _EQUAL, [LIMIT_OF_CORES], met="do nothing", otherwise="allow")),
        # Of the caller alone, whose limit of cores can be read only; its new value is a pointer.
        "by process": (
            [PRLIMIT],
            [
                *((_LOAD, "", "", _ARGUMENTS[0]), (_EQUAL, "", "refuse", 0)),
                *((_LOAD, "", "", _ARGUMENTS[1]), (_EQUAL, "", "allow", LIMIT_OF_CORES)),
                *((_LOAD, "", "", _ARGUMENTS[2]), (_EQUAL, "", "do nothing", 0)),
                *((_LOAD, "", "", _ARGUMENTS[2] + _UPPER_HALF), (_EQUAL, "allow", "do nothing", 0)),
            ],
        ),
        "by family": ([SOCKET, SOCKETPAIR], by_family),
    }


def _by_argument(argument: int, test: int, values: Sequence[int], *, met: str, otherwise: str) -> Sequence[_Code]:
    """Whether an argument meets the test with any of the values."""
    *others, last = values
    tests: list[_Code] = [(test, met, "", value) for value in others]
    return [(_LOAD, "", "", _ARGUMENTS[argument]), *tests, (test, met, otherwise, last)]
