"""What a tool in a pod finds out about where it is: run there, by a Python without this project; prints JSON."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Callable

API, KUBELET, METADATA = sys.argv[1], sys.argv[2], "169.254.169.254"
_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


def refused(attempt: Callable[[], object]) -> str:
    """The name of the error that it ends with; empty where it succeeds."""
    try:
        attempt()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return ""


def called(name: str, *arguments: object) -> str:
    """`refused`, for a function of C's library."""
    if getattr(_libc, name)(*arguments) != -1:
        return ""
    return errno.errorcode[ctypes.get_errno()]


def written(path: str) -> str:
    def attempt() -> None:
        with open(path, "ab") as file:
            file.write(b"0")

    return refused(attempt)


def reached(address: str, port: int) -> str:
    def attempt() -> None:
        socket.create_connection((address, port), 3).close()

    return refused(attempt)


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        pairs = (line.split(":", 1) for line in file)
        return {name: value.strip() for name, value in pairs}


def devices() -> list[str]:
    """Block devices, and memory of the kernel's, that are there."""
    found = []
    for name in os.listdir("/dev"):
        mode = os.lstat(f"/dev/{name}").st_mode
        if stat.S_ISBLK(mode) or name in ("mem", "kmem", "kmsg", "port", "kvm", "fuse"):
            found.append(name)
    return found


def listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def opened(path: str) -> str:
    def attempt() -> None:
        with open(path, "rb") as file:
            file.read(1)

    return refused(attempt)


print(
    json.dumps(
        {
            "who": [os.getuid(), os.getgid(), os.getgroups()],
            "status": status(),
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "ipc", "net", "mnt", "uts")},
            "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
            "token": listing("/var/run/secrets"),
            "variables": sorted(name for name in os.environ if "KUBERNETES" in name),
            "devices": devices(),
            "init": {name: opened(f"/proc/1/{name}") for name in ("environ", "mem", "root/etc/passwd")},
            "written": {
                path: written(path)
                for path in ("/probe", "/usr/bin/probe", "/.praxis-init", "/proc/sys/kernel/hostname",
                             "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run",
                             "/sys/fs/cgroup/probe", "/dev/probe", "/tmp/probe")
            },
            "read": {path: opened(path) for path in ("/proc/kcore", "/etc/shadow")},
            "calls": {
                "setuid": refused(lambda: os.setuid(0)),
                "mknod": refused(lambda: os.mknod("/tmp/device", stat.S_IFBLK | 0o600, os.makedev(8, 0))),
                "mount": called("mount", b"none", b"/tmp", b"tmpfs", 0, None),
                "unshare a user": called("unshare", _CLONE_NEWUSER),
                "unshare mounts": called("unshare", _CLONE_NEWNS),
                "chroot": refused(lambda: os.chroot("/tmp")),
                "sethostname": called("sethostname", b"probe", 5),
            },
            "sockets": {
                name: refused(lambda family=family, kind=kind: socket.socket(family, kind).close())
                for name, family, kind in (
                    ("inet", socket.AF_INET, socket.SOCK_STREAM),
                    ("inet6", socket.AF_INET6, socket.SOCK_STREAM),
                    ("raw", socket.AF_INET, socket.SOCK_RAW),
                    ("packet", socket.AF_PACKET, socket.SOCK_RAW),
                    ("netlink", socket.AF_NETLINK, socket.SOCK_RAW),
                    ("vsock", socket.AF_VSOCK, socket.SOCK_STREAM),
                    ("unix", socket.AF_UNIX, socket.SOCK_STREAM),
                )
            },
            "reached": {
                "the API server": reached(API, 443),
                "the kubelet": reached(KUBELET, 10250),
                "metadata of a cloud": reached(METADATA, 80),
                "the channel": reached("127.0.0.1", 7031),
            },
        }
    )
)  # fmt: skip
