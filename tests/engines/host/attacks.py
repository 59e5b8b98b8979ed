"""A tool that tries to get out of its sandbox: run inside of one, by any Python from 3.9 on, it prints what it got.

Words: the directory that it may write, the one that it may only read, the name of an abstract socket of the host, the
key of shared memory of the host, and the calls that are denied (denied_calls.py) in JSON. Whatever it tries leaves the
machine as it was where it succeeds.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable

WRITABLE, READABLE, ABSTRACT, KEY = sys.argv[1:5]
NAMESPACE = int(sys.argv[5])
CALLS: dict[str, dict[str, list[int]]] = json.loads(sys.argv[6])
X86 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)
ATTACKS: dict[str, Callable[[], object]] = {}


def attack(what: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """What the function gets: an OSError says that it got nothing, as does None."""

    def note(function: Callable[[], object]) -> Callable[[], object]:
        ATTACKS[what] = function
        return function

    return note


def syscall(x86: int, arm: int, *words: int) -> int:
    found = LIBC.syscall(ctypes.c_long(x86 if X86 else arm), *map(ctypes.c_long, words))
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    return found


def succeeding(tries: dict[str, Callable[[], object]]) -> object:
    """Those that got something."""
    got: list[str] = []
    for what, function in tries.items():
        try:
            found = function()
        except OSError:
            continue
        if found is not None:
            got.append(what)
    return got or None


def opened(path: str, flags: int = os.O_RDONLY) -> str:
    os.close(os.open(path, flags | os.O_CLOEXEC))
    return path


def text_of(path: str) -> str:
    with open(path) as file:
        return file.read()


def read(path: str) -> object:
    with open(path, "rb") as file:
        return len(file.read(64)) or None


# --- other processes --------------------------------------------------------------------------------------------------


@attack("the first process, by /proc")
def _() -> object:
    names = ("mem", "environ", "maps", "auxv", "stack", "syscall", "io", "pagemap", "task/1/mem", "task/1/environ")
    tries: dict[str, Callable[[], object]] = {name: lambda name=name: read(f"/proc/1/{name}") for name in names}
    for name in ("root", "cwd", "exe", "ns/mnt", "ns/user", "fd/0", "fd/1", "fd/2", "fd/3", "fd/4"):
        tries[f"link {name}"] = lambda name=name: os.readlink(f"/proc/1/{name}")
    for name in ("root/", "cwd/", "map_files", "root/etc", "cwd/.."):
        tries[f"list {name}"] = lambda name=name: os.listdir(f"/proc/1/{name}")
    return succeeding(tries)


@attack("the settings of the first process")
def _() -> object:
    names = ("oom_score_adj", "coredump_filter", "clear_refs", "uid_map", "gid_map", "setgroups", "comm", "mem")
    return succeeding({name: lambda name=name: opened(f"/proc/1/{name}", os.O_WRONLY) for name in names})


@attack("tracing the first process")
def _() -> object:
    first = syscall(434, 434, 1, 0)  # a pidfd, which everybody may have
    try:
        return succeeding(
            {
                # In a process that is gone at once: what is traced does not ignore its signals.
                "tracing": lambda: in_a_child(lambda: syscall(101, 117, 0x4206, 1, 0, 0) + 1),  # PTRACE_SEIZE
                "memory": lambda: syscall(310, 270, 1, 0, 0, 0, 0, 0) + 1,
                "descriptors": lambda: syscall(438, 438, first, 1, 0) + 1,
                "limits": lambda: resource.prlimit(1, resource.RLIMIT_NOFILE),
            }
        )
    finally:
        os.close(first)


@attack("ending or stopping the first process")
def _() -> object:
    # Where these worked nothing would be printed at all. SIGTERM would end the call, as is its right.
    for number in (signal.SIGKILL, signal.SIGSTOP):
        os.kill(1, number)
    return None if os.path.exists("/proc/1") else "gone"


@attack("processes of others")
def _() -> object:
    own = {1, os.getpid(), os.getppid()}
    seen = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return (
        sorted(pid for pid in seen - own if f"PPid:\t{os.getpid()}" not in open(f"/proc/{pid}/status").read()) or None
    )


@attack("the session and the terminal of the server")
def _() -> object:
    def control() -> object:
        if os.getsid(0) != os.getpid():
            os.setsid()
        return fcntl.ioctl(0, 0x540E, 1) + 1  # TIOCSCTTY

    tries: dict[str, Callable[[], object]] = {
        f"typing into {number}": lambda number=number: fcntl.ioctl(number, 0x5412, b"x")  # TIOCSTI
        for number in (0, 1, 2)
    }
    tries["opening"] = lambda: opened("/dev/tty")
    tries["taking"] = lambda: in_a_child(control)
    tries["group"] = lambda: os.getpgid(0) == 0 or None  # the number of one that is not of this namespace
    return succeeding(tries)


@attack("typing into a terminal of its own")
def _() -> object:
    master, slave = os.openpty()
    try:
        return [fcntl.ioctl(slave, 0x5412, b"x")]
    finally:
        os.close(master)
        os.close(slave)


def in_a_child(function: Callable[[], object]) -> object:
    """What a function got in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(1 if function() is not None else 0)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or None


@attack("descriptors that it was not given")
def _() -> object:
    found: dict[str, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # what listed them
            continue
    return {n: to for n, to in found.items() if int(n) > 2 or not to.startswith(("pipe:", "/dev/null"))} or None


# --- rights -----------------------------------------------------------------------------------------------------------


@attack("capabilities")
def _() -> object:
    lines = dict(line.split(":\t", 1) for line in text_of("/proc/self/status").splitlines() if ":\t" in line)
    return {key: lines[key] for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(lines[key], 16)} or None


@attack("another user")
def _() -> object:
    return succeeding(
        {
            "user": lambda: in_a_child(lambda: os.setuid(os.getuid() + 1) or 1),
            "group": lambda: in_a_child(lambda: os.setgid(os.getgid() + 1) or 1),
            "groups": lambda: in_a_child(lambda: os.setgroups([0]) or 1),
        }
    )


def not_denied(calls: dict[str, list[int]], number: Callable[[list[int]], int]) -> list[str]:
    """The calls that gave another answer than that of the filter; `number` makes one and gives its error's."""
    absent = ("clone3", "a later call", "listmount", "statmount")
    answers = {name: number([*words, 0, 0, 0, 0, 0, 0][:7]) for name, words in calls.items()}
    expected = {name: errno.ENOSYS if name in absent else errno.EPERM for name in calls}
    return [f"{name}: {errno.errorcode.get(n, n)}" for name, n in answers.items() if n != expected[name]]


def error_of(words: list[int]) -> int:
    return 0 if LIBC.syscall(*map(ctypes.c_long, words)) >= 0 else ctypes.get_errno()


@attack("system calls that reach beyond it")
def _() -> object:
    return not_denied(CALLS["own"], error_of) or None


@attack("the same by the numbers of 32-bit programs")
def _() -> object:
    by_number = by_interrupt if X86 else by_arm_program
    # close(2) of no descriptor, in a process of its own, which dies where there are no such calls.
    if in_a_child(lambda: by_number([6, 99]) != errno.EBADF or None):
        return None
    return not_denied(CALLS["32-bit"], by_number) or None


def by_interrupt(words: list[int]) -> int:
    """The error's number of a call of i386 (int 0x80), which gets no more than one word."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, edi; mov ebx, esi; xor of ecx, edx, esi and edi with themselves; int 0x80; pop rbx; ret
    page.write(bytes.fromhex("53 89f8 89f3 31c9 31d2 31f6 31ff cd80 5b c3"))
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
    return -call(ctypes.addressof(ctypes.c_char.from_buffer(page)))(words[0], words[1] if len(words) > 1 else 0)


def by_arm_program(words: list[int]) -> int:
    """The same of 32-bit Arm, whose calls a 64-bit program cannot make: by a program that exits with that number."""
    # ldr r7, number; ldr r0, word; mov r1 to r5, #0; svc 0; rsb r0, r0, #0; mov r7, #1 (exit); svc 0
    code = [0xE59F7024, 0xE59F0024, *(0xE3A00000 | n << 12 for n in range(1, 6)), 0xEF000000]
    code += [0xE2600000, 0xE3A07001, 0xEF000000, words[0], words[1] if len(words) > 1 else 0]
    start, size = 0x10000, 52 + 32 + 4 * len(code)
    header = struct.pack("<16s2H5I6H", b"\x7fELF\1\1\1", 2, 40, 1, start + 84, 52, 0, 0x5000000, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, start, start, size, size, 5, 0x10000)
    program = os.memfd_create("arm")
    os.write(program, header + segment + struct.pack(f"<{len(code)}I", *code))
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(program, ["arm"], {})
        finally:
            os._exit(255)
    os.close(program)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@attack("the same by the numbers of the x32 ABI")
def _() -> object:
    if not X86:
        return None
    numbers = {name: words[0] for name, words in CALLS["own"].items()}
    calls = {f"{name} of x32": 0x40000000 | number for name, number in numbers.items()}
    # The numbers that x32 alone has, which some kernels take without its bit: ioctl, ptrace, kexec_load and others.
    calls.update({f"{number} of x32": number for number in range(512, 548)})
    return [name for name, number in calls.items() if error_of([number, *[0] * 6]) != errno.ENOSYS] or None


NS_GET_MNTNS_ID = 0x8008B705  # linux/nsfs.h


@attack("mounts of other namespaces")
def _() -> object:
    with open("/proc/self/ns/mnt", "rb") as namespace:
        (number,) = struct.unpack("Q", fcntl.ioctl(namespace, NS_GET_MNTNS_ID, bytes(8)))
    space = ctypes.create_string_buffer(8 * 256)

    def mounts_of(namespace: int) -> object:
        root_of = 0xFFFFFFFFFFFFFFFF  # LSMT_ROOT
        request = ctypes.create_string_buffer(struct.pack("IIQQQ", 32, 0, root_of, 0, namespace), 32)
        return syscall(458, 458, ctypes.addressof(request), ctypes.addressof(space), 256, 0) or None  # listmount

    others = {NAMESPACE, *range(1, 64), *range(max(1, number - 64), number + 64)} - {number}
    return succeeding({str(other): lambda other=other: mounts_of(other) for other in others})


@attack("sockets that reach the machine below")
def _() -> object:
    families = {"vsock": 40, "alg": 38}
    return succeeding({n: lambda f=f: socket.socket(f, socket.SOCK_STREAM).fileno() for n, f in families.items()})


@attack("an abstract socket of the host")
def _() -> object:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{ABSTRACT}")
        return "connected"


@attack("shared memory of the host")
def _() -> object:
    return LIBC.shmget(int(KEY), 1, 0) >= 0 or None


# --- the kernel's files -----------------------------------------------------------------------------------------------

OF_ITS_OWN_NAMESPACES = (
    "/proc/sys/net/",
    "/proc/sys/fs/mqueue/",
    *(f"/proc/sys/kernel/{name}" for name in ("msg", "sem", "shm", "auto_msgmni", "pid_max", "ns_last_pid")),
)


@attack("the kernel's switches")
def _() -> object:
    found: list[str] = []
    for folder, _, names in os.walk("/proc/sys"):
        for path in (os.path.join(folder, name) for name in names):
            if not path.startswith(OF_ITS_OWN_NAMESPACES):
                try:
                    found.append(opened(path, os.O_WRONLY))
                except OSError:
                    continue
    names = ("sysrq-trigger", "mtrr", "irq/default_smp_affinity", "acpi/wakeup", "scsi/scsi", "timer_stats")
    rest = succeeding({name: lambda name=name: opened(f"/proc/{name}", os.O_WRONLY) for name in names})
    return found + (rest if isinstance(rest, list) else []) or None


@attack("the kernel's memory, log and addresses")
def _() -> object:
    def addresses() -> object:
        with open("/proc/kallsyms") as file:
            return next((line for line in file if int(line.split()[0], 16)), None)

    tries: dict[str, Callable[[], object]] = {
        name: lambda name=name: read(name)
        for name in ("/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/port")
    }
    return succeeding({**tries, "addresses": addresses})


@attack("keys of the host's users")
def _() -> object:
    return read("/proc/keys")


@attack("the machine's timers, interrupts and disks")
def _() -> object:
    names = ("interrupts", "latency_stats", "sched_debug", "timer_list", "timer_stats", "scsi/scsi")
    return succeeding({name: lambda name=name: read(f"/proc/{name}") for name in names})


@attack("anything to write in /sys, and control groups")
def _() -> object:
    found: list[str] = []
    for folder, folders, names in os.walk("/sys"):
        if folder.count("/") > 4:
            folders.clear()
        for path in (os.path.join(folder, name) for name in names):
            if os.path.islink(path):
                continue
            try:
                found.append(opened(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
    try:
        os.mkdir("/sys/fs/cgroup/praxis-escape")
        os.rmdir("/sys/fs/cgroup/praxis-escape")
        found.append("a group")
    except OSError:
        pass
    return found or None


@attack("its place among the host's control groups")
def _() -> object:
    return [line for line in text_of("/proc/self/cgroup").splitlines() if line.split(":", 2)[2] != "/"] or None


@attack("a lower score for the out-of-memory killer")
def _() -> object:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "written"


@attack("higher limits and priority")
def _() -> object:
    def raise_limit() -> object:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
        return "limit"

    def limit() -> object:
        try:
            return raise_limit()
        except ValueError:  # Python's word for EPERM
            return None

    return succeeding({"limit": limit, "priority": lambda: in_a_child(lambda: os.nice(-5) or 1)})


@attack("more of the user's inotify instances than its part")
def _() -> object:
    total = int(text_of("/proc/sys/fs/inotify/max_user_instances"))
    part = total // 4
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held: list[int] = []
    try:
        while len(held) <= part and (number := LIBC.inotify_init1(0)) >= 0:
            held.append(number)
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return f"{len(held)} of {total}" if len(held) > part else None


@attack("a core, or the program of the host that takes it")
def _() -> object:
    # Written from about a page on; the program is started at any limit but 1.
    found = {resource.getrlimit(resource.RLIMIT_CORE)}
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    found.add(resource.getrlimit(resource.RLIMIT_CORE))
    return sorted(found) if found != {(1, 1)} else None


# --- files and devices ------------------------------------------------------------------------------------------------


@attack("the permissions of the host's device files")
def _() -> object:
    mode = 0o666  # theirs: nothing changes where it succeeds
    names = ("null", "zero", "full", "random", "urandom", "tty")
    return succeeding({name: lambda name=name: os.chmod(f"/dev/{name}", mode) or 1 for name in names})


@attack("the permissions of what its streams are")
def _() -> object:
    own = {n for n in (0, 1, 2) if stat.S_ISCHR(os.fstat(n).st_mode)}
    return succeeding({str(n): lambda n=n: os.fchmod(n, 0o666) or 1 for n in own})


@attack("a device file")
def _() -> object:
    disk, null = os.makedev(254, 0), os.makedev(1, 3)
    return succeeding(
        {
            f"{kind:o} in {folder}": lambda folder=folder, kind=kind, device=device: (
                os.mknod(f"{folder}/device", 0o666 | kind, device) or 1
            )
            for folder in (WRITABLE, "/tmp", "/dev/shm")
            for kind, device in ((stat.S_IFBLK, disk), (stat.S_IFCHR, null))
        }
    )


@attack("a device file that lies in a mount")
def _() -> object:
    return succeeding({folder: lambda f=folder: opened(f"{f}/device-of-the-host") for folder in (WRITABLE, READABLE)})


@attack("a set-user-id program that lies in a mount")
def _() -> object:
    def lines(words: list[str]) -> list[str]:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(write_end, 1)
            os.execv(words[0], words)
        os.close(write_end)
        os.waitpid(pid, 0)
        with os.fdopen(read_end) as file:
            return [line for line in file.read().splitlines() if line.startswith(("Uid:", "Gid:", "CapEff:"))]

    path = f"{READABLE}/set-user-id"
    if not os.path.exists(path):
        return None
    plain, special = lines(["/bin/cat", "/proc/self/status"]), lines([path, "/proc/self/status"])
    return special if special != plain or not plain else None


@attack("what it may only read")
def _() -> object:
    path = f"{READABLE}/file"
    held = os.open(path, os.O_RDONLY)
    folder = os.open(READABLE, os.O_RDONLY)
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: opened(path, os.O_WRONLY),
        "truncate": lambda: os.truncate(path, 0) or 1,
        "open its descriptor again": lambda: opened(f"/proc/self/fd/{held}", os.O_RDWR),
        "open its directory again": lambda: os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=folder)) or 1,
        "chmod": lambda: os.chmod(path, 0o666) or 1,
        "fchmod": lambda: os.fchmod(held, 0o666) or 1,
        "chown": lambda: os.fchown(held, os.getuid(), os.getgid()) or 1,
        "utime": lambda: os.utime(path) or 1,
        "attribute": lambda: os.setxattr(path, "user.x", b"x") or 1,
        "unlink": lambda: os.unlink(path) or 1,
        "rename": lambda: os.rename(path, f"{READABLE}/other") or 1,
        "link": lambda: os.link(path, f"{WRITABLE}/link") or 1,
        "map": lambda: syscall(9, 222, 0, 4096, 2, 1, held, 0),
        "its place": lambda: os.rename(READABLE, READABLE + "-moved") or 1,
        "its place gone": lambda: os.rmdir(READABLE) or 1,
    }
    return succeeding(tries)


@attack("a file for a group that the server is in")
def _() -> object:
    return read(f"{READABLE}/of-a-group")


@attack("a file that is another user's alone")
def _() -> object:
    path = f"{WRITABLE}/of-another"
    if not os.path.exists(path):
        return None
    return succeeding(
        {
            "read": lambda: read(path),
            "write": lambda: opened(path, os.O_WRONLY),
            "chmod": lambda: os.chmod(path, 0o666) or 1,
            "take": lambda: os.chown(path, os.getuid(), os.getgid()) or 1,
            "attribute": lambda: os.setxattr(path, "user.x", b"x") or 1,
            "time": lambda: os.utime(path, (1, 1)) or 1,
        }
    )


@attack("a file of its own in another user's name")
def _() -> object:
    path = f"{WRITABLE}/given-away"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    try:
        return succeeding(
            {
                "user": lambda: os.chown(path, 12345, -1) or 1,
                "group": lambda: os.chown(path, -1, 12345) or 1,
                "capability": lambda: os.setxattr(path, "security.capability", bytes.fromhex(CAPABILITY)) or 1,
            }
        )
    finally:
        os.unlink(path)


CAPABILITY = "0100000200000020000000000000000000000000"
"""The attribute of a program that has CAP_SYS_ADMIN (vfs_cap_data, its second version)."""


@attack("a message in another user's or process's name")
def _() -> object:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def sent(*names: int) -> object:
        return one.sendmsg([b"x"], [(socket.SOL_SOCKET, 2, struct.pack("3i", *names))])  # SCM_CREDENTIALS

    with one, other:
        return succeeding(
            {
                "process": lambda: sent(1, os.getuid(), os.getgid()),
                "user": lambda: sent(os.getpid(), 12345, os.getgid()),
                "group": lambda: sent(os.getpid(), os.getuid(), 12345),
            }
        )


@attack("the root, and what is above it")
def _() -> object:
    root = os.stat("/")
    held = os.open("/", os.O_RDONLY)
    above = os.open("../../..", os.O_RDONLY, dir_fd=held)
    same = [os.stat(where).st_ino == root.st_ino for where in (above, "/..", "/proc/self/root", "/proc/self/root/..")]
    return None if all(same) else same


@attack("mounts that let devices, set-user-id programs or the host's later mounts in")
def _() -> object:
    found: list[str] = []
    for line in text_of("/proc/self/mountinfo").splitlines():
        place, options, *rest = line.split()[4:]
        marks = rest[: rest.index("-")]
        lacks = [o for o in ("nosuid", "nodev") if o not in options.split(",")]
        if place.startswith("/dev/") and not os.path.isdir(place):
            lacks = [o for o in lacks if o != "nodev"]
        if place == "/dev/pts":
            lacks = [o for o in lacks if o != "nodev"]
        found += [f"{place} {what}" for what in (*lacks, *marks)]
    return found or None


@attack("devices that are not those of every sandbox")
def _() -> object:
    usual = {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
             "urandom", "zero", "console"}  # fmt: skip
    return sorted(set(os.listdir("/dev")) - usual) or None


@attack("all the machine's terminals")
def _() -> object:
    held: list[int] = []
    most = 300  # a sandbox has 128
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, most + 100)), hard))
    try:
        while len(held) < most:
            held.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
        return len(held)
    finally:
        for number in held:
            os.close(number)


def main() -> None:
    results: dict[str, object] = {}
    for what, function in ATTACKS.items():
        try:
            got = function()
        except OSError:
            continue
        if got is not None:
            results[what] = got
    kinds = ["root of the machine's users"] if text_of("/proc/self/uid_map").split() == ["0", "0", "4294967295"] else []
    print(json.dumps({"tried": list(ATTACKS), "got": results, "is": kinds}))


main()
