"""The sandbox form: what a command finds in a sandbox, what it can do there, and how its end is known."""

import ctypes
import errno
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.engines.init.framing import WaitCall
from praxis_mcp.engines.init.layout import LaidMount, MountFlag, MountKind, SandboxLayout, encode_sandbox
from praxis_mcp.support.praxis_init import Ended, EndKind
from tests.kit import requirements
from tests.kit.unkillable import children_of, held
from tests.kit.until import until_blocking
from tests.native.harness import IS_ROOT, MARK, NOBODY, PATIENCE, landlock_version, marked
from tests.native.sandboxing import ENV, MIB, Bench, send_descriptors, works_for

ME = Path(__file__)


@pytest.fixture(params=["root", "root with the host's users", "nobody", "nobody, ahead of the message"])
def who(request: pytest.FixtureRequest) -> str:
    """Who makes the sandboxes, and of which kind."""
    return request.param


@pytest.fixture
def user(who: str) -> int | None:
    """Whom to run as: None for ourselves. An unprivileged test run is its own "nobody"."""
    is_nobody = who.startswith("nobody")
    if not is_nobody and not IS_ROOT:
        pytest.skip("needs root")
    return NOBODY if IS_ROOT and is_nobody else None


@pytest.fixture
def bench(binary: Path, who: str, user: int | None) -> Iterator[Bench]:
    """Makes sandboxes as root, of both kinds, and as a plain user."""
    if why := works_for(binary, user):
        requirements.give_up("native", f"no sandbox for this user here: {why}")
    memberships = (4242,) if who == "root with the host's users" else None
    with (found := Bench(binary, user, memberships, is_ahead="ahead" in who)).stack:
        yield found


@pytest.fixture
def place(tmp_path: Path, user: int | None) -> Path:
    """A directory that belongs to the user of the sandbox."""
    folder = tmp_path / "place"
    folder.mkdir()
    for above in (tmp_path, *tmp_path.parents):  # pytest's own folders are closed to others
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o711)
    if user is not None:
        os.chown(folder, user, user)
    return folder


def sh(bench: Bench, script: str, *more: LaidMount, **fields: Any) -> str:
    """What a script wrote to both streams, in a view of the host."""
    seen = bench.run(bench.host(*more), "sh", "-c", f"exec 2>&1; {script}", **fields)
    assert not seen.detail, seen.detail
    assert not seen.refusal, seen.refusal
    return seen.stdout


# --- what is there ----------------------------------------------------------------------------------------------------


def test_the_hosts_files_are_there_to_read_and_cannot_be_written(bench: Bench, place: Path) -> None:
    (place / "file").write_text("content")
    script = "cat /mnt/file; echo; echo x > /mnt/new; rm -f /mnt/file; chmod 600 /mnt/file; touch /etc/x"
    first, *refused = sh(bench, script, bench.bind(place, "/mnt")).splitlines()
    assert first == "content"
    assert len(refused) == 4
    assert all("Read-only file system" in line or "Permission denied" in line for line in refused), refused
    assert [path.name for path in place.iterdir()] == ["file"]


def test_every_mount_is_without_set_user_id_and_devices_and_nothing_of_the_old_root_is_left(bench: Bench) -> None:
    lines = sh(bench, "cat /proc/self/mountinfo").splitlines()
    assert lines
    for line in lines:
        where, options = line.split()[4:6]
        assert "nosuid" in options, line
        assert "nodev" in options or where.startswith("/dev/"), line
        assert "ro" in options.split(",") or where in ("/tmp", "/dev/shm", "/dev/pts"), line
        assert line.split()[6] == "-", line  # no mark: neither shared, nor another's slave
    assert [line.split()[4] for line in lines].count("/") == 1


def test_memory_is_bounded_in_bytes_and_in_files(bench: Bench) -> None:
    script = "head -c 3M /dev/zero > /tmp/big; rm /tmp/big; for i in $(seq 100); do : > /tmp/$i || break; done"
    said = sh(bench, script)
    assert said.count("No space left on device") == 2, said
    assert "No space" in sh(bench, "head -c 3M /dev/zero > /dev/shm/big")


def test_a_directory_is_writable_where_that_is_said_and_its_files_belong_to_the_servers_user(
    bench: Bench, place: Path
) -> None:
    seen = sh(bench, "echo x > /mnt/new; stat -c '%u %g' /mnt/new", bench.bind(place, "/mnt", writable=True))
    assert seen.split() == ["0", "0"]
    wanted = os.getuid() if bench.user is None else bench.user
    assert (place / "new").stat().st_uid == wanted
    assert (place / "new").read_text() == "x\n"


@pytest.mark.parametrize("ids", [(1000, 1000), (0, 7), (2**31 - 1, 1)])
def test_the_command_is_whom_the_layout_says_and_outside_the_servers_user(
    bench: Bench, place: Path, ids: tuple[int, int]
) -> None:
    uid, gid = ids
    script = "id -u; id -g; echo x > /mnt/new; stat -c '%u %g' /mnt/new"
    said = sh(bench, script, bench.bind(place, "/mnt", writable=True), uid=uid, gid=gid, memberships=None)
    assert said.split() == [str(uid), str(gid), str(uid), str(gid)]
    assert (place / "new").stat().st_uid == (os.getuid() if bench.user is None else bench.user)


@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_with_the_hosts_users_it_sees_all_owners_and_is_root_without_any_right_of_root(
    binary: Path, tmp_path: Path
) -> None:
    for name, owner, group, mode in (("a", 12345, 23456, 0o640), ("b", 12345, 4242, 0o640), ("c", 0, 0, 0o600)):
        (tmp_path / name).write_text(name)
        os.chown(tmp_path / name, owner, group)
        (tmp_path / name).chmod(mode)
    script = "cd /mnt; stat -c '%u:%g' a b c; id -u; id -G; cat *; chown 7 c; chgrp 4242 c && stat -c '%u:%g' c"
    with (bench := Bench(binary, None, (4242, 0))).stack:
        said = sh(bench, script, bench.bind(tmp_path, "/mnt", writable=True)).splitlines()
    assert said[:5] == ["12345:23456", "12345:4242", "0:0", "0", "0 4242"]
    assert said[5:] == [
        "cat: a: Permission denied", "bcchown: changing ownership of 'c': Operation not permitted", "0:4242"
    ]  # fmt: skip


@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_with_the_hosts_users_roots_own_group_is_its_group_whatever_praxis_inits_is(
    binary: Path, tmp_path: Path
) -> None:
    """As a service with User=root and Group=4242 has it: that group's files stay closed, and new ones are root's."""
    (tmp_path / "of-the-group").write_text("x")
    os.chown(tmp_path / "of-the-group", 12345, 4242)
    (tmp_path / "of-the-group").chmod(0o640)
    front = [shutil.which("setpriv") or "setpriv", "--regid", "4242", "--groups", "4242,23456"]
    script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status; cd /mnt; : > new; stat -c '%u:%g' new; cat of-the-group"
    with (bench := Bench(binary, None, (0, 5))).stack:
        mounts = bench.host(bench.bind(tmp_path, "/mnt", writable=True))
        seen = bench.run(mounts, "sh", "-c", f"exec 2>&1; {script}", front=front)
    assert seen.stdout.split("\n")[:-1] == [
        "Uid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t0", "Groups:\t0 5 ", "0:0", "cat: of-the-group: Permission denied"
    ], seen  # fmt: skip


@pytest.mark.skipif(not IS_ROOT, reason="needs root to hand capabilities out")
def test_who_is_not_root_gets_no_sandbox_with_the_hosts_users_by_a_capability_to_set_them(binary: Path) -> None:
    words = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    front = [shutil.which("setpriv") or "setpriv", *words]
    front += [f"--{kind}-caps=+setuid,+setgid,+setfcap" for kind in ("inh", "ambient")]
    with (bench := Bench(binary, None, ())).stack:
        seen = bench.run(bench.host(), "id", "-u", front=front)
    assert seen.stdout == ""
    assert seen.end is not None
    assert (seen.end.kind, seen.end.step) == (EndKind.SETUP_FAILED, "user-namespace")


def test_the_environment_is_the_calls_alone_and_the_host_name_the_layouts(bench: Bench) -> None:
    seen = bench.run(
        bench.host(), "sh", "-c", "env; hostname; pwd", env={**ENV, b"A": b"b"}, host_name=b"box", directory=b"/usr"
    )
    assert sorted(seen.stdout.split()) == sorted(
        ["LANG=C.UTF-8", f"PATH={ENV[b'PATH'].decode()}", "A=b", "PWD=/usr", "box", "/usr"]
    )


def test_it_has_three_descriptors_and_none_of_those_that_came_with_the_layout(bench: Bench, place: Path) -> None:
    assert sh(bench, "ls /proc/self/fd", bench.bind(place, "/mnt")).split() == [
        "0",
        "1",
        "2",
        "3",
    ]  # the last: ls's own


def test_only_its_own_processes_are_there(bench: Bench) -> None:
    assert set(sh(bench, "echo /proc/[0-9]*; echo $$").split()) == {"/proc/1", "/proc/2", "2"}


def test_a_network_of_its_own_has_a_loopback_that_works_and_nothing_else(bench: Bench, python: str) -> None:
    source = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname()).close()
print([name for _, name in socket.if_nameindex()])
"""
    seen = bench.run(bench.host(), python, "-c", source)
    assert seen.stdout == "['lo']\n", seen
    with socket.create_server(("127.0.0.1", 0)) as outside:
        source = f"import socket; socket.create_connection({outside.getsockname()!r})"
        assert "ConnectionRefusedError" in bench.run(bench.host(), python, "-c", source).stderr
        assert bench.run(bench.host(), python, "-c", source, host_network=True).code == 0


def test_terminals_can_be_opened_where_the_layout_has_them(bench: Bench, python: str) -> None:
    source = "import os; print(os.ttyname(os.openpty()[1]))"
    assert bench.run(bench.host(), python, "-c", source).stdout == "/dev/pts/0\n"
    mounts = bench.host()
    mounts[2] = LaidMount(MountKind.DEVICES, b"/dev")
    assert bench.run(mounts, python, "-c", source).code == 1
    assert bench.run(mounts, "sh", "-c", "cat /dev/zero | head -c 3 | wc -c; cat < /dev/null").stdout == "3\n"


def test_limits_hold_for_the_command(bench: Bench) -> None:
    limits = [(resource.RLIMIT_NOFILE, 33, 44), (resource.RLIMIT_CORE, 0, 0)]
    assert sh(bench, "ulimit -Sn; ulimit -Hn; ulimit -c", limits=limits).split() == ["33", "44", "0"]


# --- roots ------------------------------------------------------------------------------------------------------------


def test_what_is_written_to_an_overlay_is_gone_afterwards_and_has_a_bound(bench: Bench, place: Path) -> None:
    for name in ("usr", "proc", "dev", "tmp", "old"):
        (place / name).mkdir()
    (place / "old" / "file").write_text("x")
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():
            (place / name).symlink_to(Path("/", name).readlink())
    mounts = bench.host(bench.bind(Path("/usr"), "/usr"))
    mounts[0] = LaidMount(MountKind.ROOT_OVERLAY, b"/", bench.hold(place), size=MIB, files=64)
    seen = bench.run(mounts, "sh", "-c", "rm -r /old && mkdir /old && ls -A /old; echo y > /new && cat /new; "
                     "head -c 3M /dev/zero > /big")  # fmt: skip
    if seen.end is not None and seen.end.step == "root":
        pytest.skip(f"no overlay over this file system: {seen.detail}")
    assert seen.stdout == "y\n"
    assert "No space left" in seen.stderr
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["usr", "proc", "dev", "tmp", "old", *(n for n in ("bin", "lib", "lib64", "sbin") if (place / n).is_symlink())]
    )
    assert (place / "old" / "file").exists()


def test_a_root_in_memory_has_what_is_laid_into_it_and_no_more(bench: Bench, place: Path) -> None:
    mounts = [
        LaidMount(MountKind.ROOT_MEMORY, b"/", mode=0o755, size=MIB, files=64),
        LaidMount(MountKind.PROC, b"/proc", flags=MountFlag.MAKES_PLACE | MountFlag.LOCKS_PROC),
        LaidMount(MountKind.DEVICES, b"/dev", flags=MountFlag.MAKES_PLACE),
        bench.bind(Path("/usr"), "/usr", makes=True),
        *(
            LaidMount(MountKind.LINK, f"/{name}".encode(), target=f"usr/{name}".encode())
            for name in ("bin", "lib", "lib64")
        ),
        LaidMount(MountKind.DIRECTORY, b"/a/b/c", mode=0o711),
        LaidMount(MountKind.CONTENT, b"/a/file", bench.memory(b"hello\n"), MountFlag.MAKES_PLACE, 0o640),
        LaidMount(MountKind.CONTENT, b"/a/hidden", None, MountFlag.MAKES_PLACE, 0),
        LaidMount(MountKind.READ_ONLY, b"/"),
    ]
    script = "cat /a/file; stat -c %a /a/file /a/b/c; ls /; cat /a/hidden; touch /x; echo x >> /a/file"
    seen = bench.run(mounts, "sh", "-c", script, directory=b"/a")
    assert seen.stdout.split() == ["hello", "640", "711", "a", "bin", "dev", "lib", "lib64", "proc", "usr"]
    assert seen.stderr.count("Permission denied") == 1, seen.stderr
    assert seen.stderr.count("Read-only file system") == 2, seen.stderr


def test_a_mount_in_a_mount_is_seen_and_one_below_what_is_mounted_comes_with_it(bench: Bench, place: Path) -> None:
    (place / "outer" / "inner").mkdir(parents=True)
    (place / "other").mkdir()
    (place / "other" / "file").write_text("x")
    for path in (place / "outer", place / "other"):
        path.chmod(0o777)
    mounts = [bench.bind(place / "outer", "/mnt", writable=True), bench.bind(place / "other", "/mnt/inner")]
    assert sh(bench, "ls /mnt/inner; touch /mnt/ok; touch /mnt/inner/no", *mounts).splitlines() == [
        "file",
        "touch: cannot touch '/mnt/inner/no': Read-only file system",
    ]
    assert (place / "outer" / "ok").exists()


# --- what it cannot do ------------------------------------------------------------------------------------------------


def test_it_has_no_capability_and_no_way_to_one(bench: Bench) -> None:
    lines = dict(line.split(":\t") for line in sh(bench, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
                 .splitlines())  # fmt: skip
    assert lines == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    assert sh(bench, "grep -E '^Cap' /proc/1/status | cut -f2 | sort -u").split() == ["0" * 16]


REFUSE_CLOSE_RANGE = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 436), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, described, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""

ESCAPES = {
    "a user namespace": "unshare --user true",
    "a mount": "mount -t tmpfs none /tmp",
    "another mount": "mount --bind /usr /mnt",
    "a remount": "mount -o remount,rw /",
    "the kernel's switches": "echo x > /proc/sys/kernel/core_pattern",
    "a device": "mknod /tmp/device b 254 0",
    "the permissions of the machine's null device": "chmod 600 /dev/null",
    "the same through its standard input": "chmod 666 /proc/self/fd/0",
    "the host name": "hostname other",
    "another root": "chroot / true",
    "another process's namespaces": "nsenter --target 1 --mount true",
    "the memory of the first process": "head -c 1 /proc/1/mem",
    "the descriptors of the first process": "readlink /proc/1/fd/2 || ls /proc/1/fd/2/.",
    "the root of the first process": "ls /proc/1/root/",
    "the clock": "date -s 2000-01-01",
}


@pytest.mark.parametrize("what", ESCAPES)
def test_it_cannot_have(bench: Bench, what: str) -> None:
    seen = bench.run(bench.host(), "sh", "-c", ESCAPES[what])
    assert seen.code not in (0, 126, 127), seen
    assert seen.stderr


def test_the_terminal_of_its_caller_cannot_be_typed_into(bench: Bench, python: str) -> None:
    source = "import fcntl, os; m, s = os.openpty(); os.setsid; fcntl.ioctl(s, 0x5412, b'x')"
    assert "PermissionError" in bench.run(bench.host(), python, "-c", source).stderr
    assert "OSError" in bench.run(bench.host(), python, "-c", "open('/dev/tty')").stderr


def test_streams_that_lead_nowhere_are_null_devices_all_the_same(bench: Bench) -> None:
    assert sh(bench, "cat; stat -Lc '%F %t,%T' /proc/self/fd/0; echo x > /dev/null && echo ok").splitlines() == [
        "character special file 1,3",
        "ok",
    ]


def test_the_keys_of_the_user_outside_have_no_names_in_it(bench: Bench) -> None:
    assert sh(bench, "cat /proc/keys; stat -c %F /proc/keys") == "regular empty file\n"


def test_proc_tells_nothing_of_the_machines_timers_interrupts_and_disks(bench: Bench) -> None:
    """Root may read them without a capability; container engines hide the same."""
    hidden = "acpi asound interrupts latency_stats sched_debug scsi timer_list timer_stats"
    assert Path("/proc/timer_list").exists() or Path("/proc/interrupts").exists()
    script = f"cd /proc; for each in {hidden}; do [ ! -e $each ] || find $each -type f -exec cat {{}} +; done"
    assert sh(bench, script) == ""


def test_it_takes_no_more_than_its_share_of_the_machines_terminals(bench: Bench, python: str) -> None:
    source = "import os\nwhile True: os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); print('one', flush=True)"
    seen = bench.run(bench.host(), python, "-c", source)
    assert (seen.stdout.count("one"), "No space left on device" in seen.stderr) == (128, True), seen.stderr


def test_it_takes_no_more_than_its_part_of_what_its_user_has_in_all_namespaces(bench: Bench, python: str) -> None:
    source = """
import ctypes, resource, signal
def number(name):
    return int(open(f"/proc/sys/{name}").read())
count = 0
while ctypes.CDLL(None).inotify_init1(0) >= 0:
    count += 1
print(count, number("fs/inotify/max_user_instances"))
print(number("user/max_inotify_watches"), number("fs/inotify/max_user_watches"))
print(*resource.getrlimit(resource.RLIMIT_SIGPENDING))
"""
    seen = bench.run(bench.host(), python, "-c", source)
    instances, watches, signals = (tuple(map(int, line.split())) for line in seen.stdout.splitlines())
    assert 0 < instances[0] <= instances[1] // 4  # the user may hold some elsewhere
    assert watches[0] == watches[1] // 4
    assert set(signals) == {resource.getrlimit(resource.RLIMIT_SIGPENDING)[0] // 4}


@pytest.mark.skipif(not IS_ROOT, reason="only root can drop groups: see SECURITY.md")
def test_root_leaves_its_supplementary_groups_outside(binary: Path) -> None:
    with (root := Bench(binary, None)).stack:
        front = [shutil.which("setpriv") or "setpriv", "--groups", "4242"]
        assert root.run(root.host(), "id", "-G", front=front).stdout == "0\n"


def test_no_core_is_made_of_it_nor_a_program_of_the_host_started_for_one(bench: Bench, python: str) -> None:
    """The kernel starts that one at a limit of 0 too, but not at 1."""
    source = """
import os, resource
print(resource.getrlimit(resource.RLIMIT_CORE))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # as gpg and ssh-agent do
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    assert bench.run(bench.host(), python, "-c", source).stdout == "(1, 1)\n" * 2


@pytest.mark.skipif(landlock_version() < 6, reason="needs Landlock of Linux 6.12")
def test_with_the_hosts_network_it_reaches_no_abstract_socket_but_its_own(bench: Bench, python: str) -> None:
    source = """
import socket, sys
def connect(name):
    socket.socket(socket.AF_UNIX).connect(chr(0) + name)
own = socket.socket(socket.AF_UNIX)
own.bind(chr(0) + sys.argv[1] + "-own")
own.listen()
connect(sys.argv[1] + "-own")
print("its own", flush=True)
connect(sys.argv[1])
"""
    name = f"praxis-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(f"\0{name}")
        outside.listen()
        seen = bench.run(bench.host(), python, "-c", source, name, host_network=True)
    assert seen.stdout == "its own\n"
    assert "PermissionError" in seen.stderr.splitlines()[-1], seen


def test_where_its_descriptors_could_not_be_closed_nothing_starts(bench: Bench, python: str) -> None:
    """As in a container whose filter does not know the call."""
    mounts = bench.host()
    front = [python, "-c", REFUSE_CLOSE_RANGE]
    seen = bench.run(mounts, "true", front=front)
    assert seen.end is not None
    assert (seen.end.kind, seen.end.step) == (EndKind.SETUP_FAILED, "descriptors")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_first_process_cannot_be_ended_from_inside(bench: Bench, number: signal.Signals) -> None:
    assert sh(bench, f"kill -{number} 1; echo still here").split("\n")[-2] == "still here"


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to mount")
def test_what_the_host_mounts_later_does_not_appear(bench: Bench, place: Path) -> None:
    mounts = bench.host(bench.bind(place, "/mnt"))
    layout = SandboxLayout(mounts)
    script = "echo ready; read line < /mnt/go; ls /mnt/lately; grep -c lately /proc/self/mountinfo"
    (place / "lately").mkdir()
    os.mkfifo(place / "go")
    (place / "go").chmod(0o666)
    with bench.start(bench.message(layout, "sh", "-c", script), mounts) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place / "lately")], check=True, timeout=PATIENCE)
        try:
            (place / "lately" / "secret").touch()
            (place / "go").write_text("go\n")
            assert process.communicate(timeout=PATIENCE)[0] == b"0\n"
        finally:
            subprocess.run(["umount", str(place / "lately")], check=True, timeout=PATIENCE)


# --- what is mounted is what was judged -------------------------------------------------------------------------------


def test_what_was_replaced_after_it_had_been_opened_is_not_mounted(bench: Bench, place: Path) -> None:
    (place / "wanted").mkdir()
    mount = bench.bind(place / "wanted", "/mnt")
    (place / "wanted").rename(place / "moved")
    assert sh(bench, "ls -d /mnt", mount).split() == ["/mnt"]  # it is found where it is now
    (place / "moved").rmdir()
    (place / "moved").mkdir()
    seen = bench.run(bench.host(mount), "true")
    assert (seen.code, seen.end) == (125, Ended(EndKind.SETUP_FAILED, 116, "mounts"))
    assert "at /mnt: " in seen.detail
    assert "moved or replaced" in seen.detail


def test_a_link_that_another_tool_puts_above_is_not_followed(bench: Bench, place: Path) -> None:
    (place / "above" / "wanted").mkdir(parents=True)
    mount = bench.bind(place / "above" / "wanted", "/mnt")
    os.rename(place / "above" / "wanted", place / "wanted")
    os.rmdir(place / "above")
    (place / "above").symlink_to("/etc")
    assert sh(bench, "ls -A /mnt", mount) == ""


@pytest.mark.parametrize("path", ["/mnt/link", "/mnt/link/below", "/mnt/link/new"])
def test_a_place_behind_a_link_is_refused(bench: Bench, place: Path, path: str) -> None:
    (place / "other" / "below").mkdir(parents=True)
    (place / "link").symlink_to("other")
    outer, inner = bench.bind(place, "/mnt", writable=True), bench.bind(Path("/usr"), path, makes=True)
    seen = bench.run(bench.host(outer, inner), "true")
    assert seen.end is not None
    assert (seen.end.kind, seen.end.step) == (EndKind.SETUP_FAILED, "place")
    assert f"place at {path}: " in seen.detail
    assert [path.name for path in (place / "other").iterdir()] == ["below"]


def test_nothing_is_made_for_a_mount_that_has_no_place(bench: Bench, place: Path) -> None:
    outer = bench.bind(place, "/mnt", writable=True)
    seen = bench.run(bench.host(outer, bench.bind(Path("/usr"), "/mnt/none")), "true")
    assert seen.end == Ended(EndKind.SETUP_FAILED, 2, "place")
    assert list(place.iterdir()) == []


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "end"),
    [
        (["sh", "-c", "exit 7"], 7, Ended(EndKind.EXIT, 7)),
        (["sh", "-c", "exit 125"], 125, Ended(EndKind.EXIT, 125)),
        (["sh", "-c", "kill -9 $$"], 137, Ended(EndKind.SIGNAL, 9)),
        (["sh", "-c", "kill -11 $$"], 139, Ended(EndKind.SIGNAL, 11)),
        (["no-such-command"], 127, Ended(EndKind.EXEC_FAILED, 2)),
        (["/etc"], 126, Ended(EndKind.EXEC_FAILED, 13)),
    ],
)
def test_the_end_of_the_command_comes_back(bench: Bench, argv: list[str], code: int, end: Ended) -> None:
    seen = bench.run(bench.host(), *argv)
    assert (seen.code, seen.end, seen.stderr) == (code, end, "")


def test_the_deadline_ends_it_and_all_that_it_started(bench: Bench) -> None:
    seen = bench.run(bench.host(), "sh", "-c", "setsid sleep 1000 & exec sleep 1000", timeout=0.2)
    assert (seen.code, seen.end) == (124, Ended(EndKind.TIMEOUT))


def test_what_the_command_leaves_behind_ends_with_it(bench: Bench) -> None:
    mark = uuid.uuid4().hex
    env = {**ENV, MARK.encode(): mark.encode()}
    assert bench.run(bench.host(), "sh", "-c", "setsid sleep 1000 & exit 3", env=env).code == 3
    assert marked(mark) == []


def test_no_end_comes_back_while_something_lives_that_cannot_be_killed(bench: Bench) -> None:
    mounts = bench.host()
    message = bench.message(SandboxLayout(mounts), "sh", "-c", "sleep 1000 & echo ready; wait")
    with bench.start(message, mounts) as (process, reply):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (inside,) = children_of(process.pid)
        (command,) = children_of(inside)
        (left,) = children_of(command)
        with held(left):
            os.kill(command, signal.SIGKILL)
            assert os.read(reply, 65536) == b""  # within five seconds
            assert process.poll() is None
        assert process.wait(PATIENCE) == 137


def test_a_signal_is_passed_on_and_the_end_comes_back_all_the_same(bench: Bench) -> None:
    mounts = bench.host()
    message = bench.message(SandboxLayout(mounts), "sh", "-c", "trap 'exit 9' TERM; sleep 1000 & echo ready; wait",
                            kill_after=2.0)  # fmt: skip
    with bench.start(message, mounts) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(PATIENCE) == 9


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("victim", ["praxis-init", "its caller"])
def test_it_is_gone_with_praxis_init_and_with_its_caller(bench: Bench, victim: str, uid: int) -> None:
    mounts = bench.host()
    mark = uuid.uuid4().hex
    env = {**ENV, MARK.encode(): mark.encode()}
    layout = SandboxLayout(mounts, uid=uid, gid=uid)
    message = bench.message(layout, "sh", "-c", "echo ready; exec sleep 1000", env=env)
    front = []
    if victim == "its caller":  # a process between us and praxis-init
        source = "import subprocess, sys; subprocess.run(sys.argv[1:], close_fds=False)"
        front = ["/usr/bin/python3" if bench.user is not None else sys.executable, "-c", source]
    with bench.start(message, mounts, front=front) as (process, reply):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b""  # whoever held it is gone
        assert os.read(reply, 100) == b""
    assert marked(mark) == []


@pytest.mark.parametrize("processes", range(4))
def test_killed_while_it_is_being_made_it_leaves_nothing(bench: Bench, processes: int) -> None:
    """As soon as so many of its processes are seen: none, praxis-init's two, or the command as well."""
    mounts = bench.host()
    for _ in range(3):
        mark = uuid.uuid4().hex
        message = bench.message(
            SandboxLayout(mounts, uid=1000, gid=1000),
            "sh", "-c", "setsid sleep 1000 & exec sleep 1000",
            env={**ENV, MARK.encode(): mark.encode()},
        )  # fmt: skip
        with bench.start(message, mounts, env={MARK: mark}) as (process, reply):
            assert process.stdout is not None
            until_blocking(lambda mark=mark: len(marked(mark)) >= processes, within=PATIENCE)
            process.kill()
            assert process.stdout.read() == b""  # whoever held it is gone
            assert os.read(reply, 100) == b""
        assert marked(mark) == []


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to make a control group")
@pytest.mark.parametrize("version", [1, 2])
def test_it_begins_its_life_in_its_control_group(bench: Bench, version: int) -> None:
    if version == 2 and bench.user is not None:
        pytest.skip("needs a group that is delegated to this user, with all above that it comes from")
    kind = "cgroup" if version == 1 else "cgroup2"
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    top = next((Path(w[1]) for w in mounts if w[2] == kind and (version == 2 or "pids" in w[3].split(","))), None)
    if top is None:
        pytest.skip(f"no control groups of version {version}")
    group = top / f"praxis-test-{uuid.uuid4().hex}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made: {exc.strerror}")
    if bench.user is not None:
        for path in (group, *group.iterdir()):
            os.chown(path, bench.user, bench.user)
    held = os.open(group / "tasks", os.O_WRONLY) if version == 1 else os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        layout = SandboxLayout(bench.host(), groups=[(version, held)])
        script = "cat /proc/self/cgroup; sleep 1000 & echo ready; wait"
        with bench.start(bench.message(layout, "sh", "-c", script), layout.mounts, held=[held]) as (process, _):
            assert process.stdout is not None
            lines: list[bytes] = []
            while (line := process.stdout.readline()) != b"ready\n":
                assert line, "it ended"
                lines.append(line)
            assert not any(group.name.encode() in line for line in lines), "its group is the top of what it sees"
            assert len((group / "cgroup.procs").read_text().split()) == 3  # praxis-init's own, the shell and sleep
    finally:
        os.close(held)
        limit = time.monotonic() + PATIENCE
        while (group / "cgroup.procs").read_text() and time.monotonic() < limit:
            time.sleep(0.005)
        group.rmdir()


# --- where it cannot be made ------------------------------------------------------------------------------------------


def test_where_there_are_no_user_namespaces_the_end_says_so_and_what_would_help(bench: Bench) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    front = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    mounts = bench.host()
    seen = bench.run(mounts, "true", front=front)
    assert (seen.code, seen.stdout, seen.stderr) == (125, "", "")
    assert seen.end is not None
    assert (seen.end.kind, seen.end.step) == (EndKind.SETUP_FAILED, "user-namespace")
    assert "user.max_user_namespaces" in seen.detail


def test_a_working_directory_that_is_missing_is_an_end_of_the_engine_and_not_of_the_tool(bench: Bench) -> None:
    seen = bench.run(bench.host(), "true", directory=b"/none")
    assert (seen.code, seen.end) == (125, Ended(EndKind.SETUP_FAILED, 2, "directory"))
    assert seen.detail.startswith("directory at /none: No such file or directory. ")


@pytest.mark.parametrize("words", [[], ["--layout"], ["--layout", "1"], ["--layout", "x"], ["--layout", "5", "more"]])
def test_a_wrong_command_line_is_125_with_a_reason(binary: Path, words: list[str]) -> None:
    done = subprocess.run([binary, "sandbox", *words], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(b"praxis-init: ")


def test_a_plain_user_is_one_who_may_do_nothing_outside(bench: Bench) -> None:
    """So that the cases above mean what they say."""
    seen = sh(bench, "id -u")
    assert seen == "0\n"
    if IS_ROOT:
        assert bench.user in (None, NOBODY)


def test_what_is_there_ahead_leaves_when_nothing_comes_for_it(binary: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen([binary, "sandbox", "--standby"], stdin=theirs.fileno())
    assert process.wait(PATIENCE) == 125


def deny_clone3() -> None:
    """As the filters of older containers do, which do not know it: ENOSYS."""
    load, jump, leave = (0x20, 0, 0, 0), (0x15, 0, 1, 435), 0x06
    program = [load, jump, (leave, 0, 0, 0x00050000 | errno.ENOSYS), (leave, 0, 0, 0x7FFF0000)]
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(instructions)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == libc.prctl(22, 2, whole, 0, 0) == 0  # no new privileges; a filter


def test_what_is_there_ahead_waits_where_a_filter_does_not_know_clone3(binary: Path) -> None:
    """Else it would end with a call that was sent to it as it began."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen([binary, "sandbox", "--standby"], stdin=theirs.fileno(), preexec_fn=deny_clone3)
        until_blocking(lambda: children_of(process.pid) or process.poll() is not None)
        assert process.poll() is None
    assert process.wait(PATIENCE) == 125


@pytest.mark.parametrize("order", [(4, 3, 5, 6), (6, 5, 4, 3), (3, 4, 9, 5)])
def test_descriptors_get_the_numbers_that_others_of_them_have_when_they_come(
    binary: Path, user: int | None, place: Path, order: tuple[int, ...]
) -> None:
    """Numbers low enough to be those of praxis-init's own descriptors as well."""
    (place / "file").write_text("of the host")
    reply, message, root, file = order
    with (bench := Bench(binary, user)).stack:
        mounts = [
            LaidMount(MountKind.ROOT_DIRECTORY, b"/", root),
            LaidMount(MountKind.BIND, b"/mnt", file),
        ]
        content = bench.message(SandboxLayout(mounts), "sh", "-c", "cat /mnt/file; ls /proc/self/fd | wc -l")
    held = [os.open("/", os.O_PATH), os.open(place, os.O_PATH), os.memfd_create("message")]
    os.write(held[2], content)
    os.lseek(held[2], 0, os.SEEK_SET)
    read_end, write_end = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [binary, "sandbox", "--standby"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user,
            group=user,
            cwd="/",
        )
        numbers = {reply: write_end, message: held[2], root: held[0], file: held[1]}
        streams = send_descriptors(ours, numbers)
    for each in (*held, write_end):
        os.close(each)
    with streams[0] as stdout, streams[1]:
        assert stdout.read() == b"of the host4\n"
    assert process.wait(PATIENCE) == 0
    os.close(read_end)


def test_a_sandbox_that_is_to_stay_behind_its_end_leaves_by_itself_all_the_same(bench: Bench) -> None:
    mounts = bench.host()
    call = WaitCall([b"sh", b"-c", b"sleep 1000 & echo out; echo err >&2; exit 3"], env=ENV)
    seen = bench.send(encode_sandbox(SandboxLayout(mounts, memberships=bench.memberships), call, stays=True), mounts)
    assert (seen.code, seen.stdout, seen.stderr, seen.end) == (3, "out\n", "err\n", Ended(EndKind.EXIT, 3))
