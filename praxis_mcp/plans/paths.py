"""Host paths in contracts: resolved, checked for existence and for being sensitive (credentials, the system's state, a
way out); and directories of mounts that are made for contracts in an older spelling, whose SDK made them, only below
the project root and through no link.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from praxis_mcp.contracts.commands import CONTRACT_DIR, expand
from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Mount
from praxis_mcp.plans.protected import protected_places
from praxis_mcp.settings.files import is_top
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.trust import approvals_directory
from praxis_mcp.support.files import expand as expand_home
from praxis_mcp.support.files import home, homes_of_users, state_home
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import CHANGED, HeldDirectory, identity_of, open_path

_IN_HOME = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".config/containers",
    ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".password-store", ".local/share/keyrings", ".mozilla",
    ".config/google-chrome", ".local/share/containers", ".local/share/docker", ".colima", ".lima", ".orbstack", ".rd",
)  # fmt: skip
_SECRET = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssh", "/etc/krb5.keytab", "/root/.ssh",
    "/etc/ssl/private", "/etc/pki/tls/private", "/etc/letsencrypt", "/etc/wireguard", "/etc/openvpn",
    "/etc/NetworkManager/system-connections", "/etc/kubernetes", "/etc/rancher", "/var/lib/rancher",
    "/var/backups", "/var/spool/cron", "/var/mail", "/var/lib/sss", "/var/lib/cloud/instance/user-data.txt",
)  # fmt: skip
# What these hold, or mount later on, is every container's file system, and their sockets are a way out.
_OF_ENGINES = (
    "/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/buildkit",
    "/var/lib/lxd", "/var/lib/incus", "/var/lib/libvirt", "/var/snap/lxd",
)  # fmt: skip
_SYSTEM = ("/proc", "/sys", "/dev", "/boot")
_SOCKET_NAMES = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "dockershim.sock", "buildkitd.sock")
_RUN = ("/run", "/var/run")
# What is in /run and not a service's: removable media, and secrets that an orchestrator hands to this very container.
_HARMLESS_IN_RUN = ("/run/media", "/run/secrets", "/run/current-system", "/run/booted-system", "/run/opengl-driver")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - what is looked for
_SOCKETS_IN_TMP = ("/tmp/.X11-unix", "/tmp/.ICE-unix", "/tmp/tmux-")  # noqa: S108
_ENGINE_VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST", "BUILDKIT_HOST", "_EXPERIMENTAL_DAGGER_RUNNER_HOST")

WHOLE = "is the whole file system"
HOME = "holds the whole home directory"
CREDENTIALS = "holds credentials or the system's own state"
TEMPORARY = "holds every program's temporary files, with the sockets and the records of calls among them"
RECORDS = "holds what other calls wrote, as their records keep it"
SOCKET = "gives access to a container engine's or another service's socket, and with it to the host"


def hidden_places(settings: Settings) -> Iterator[str]:
    """What no command on the host needs and every thief wants."""
    yield from (*_SECRET, *_OF_ENGINES)
    yield from _credentials()
    yield from engine_sockets(settings)
    yield from (str(source.file) for source in settings.secrets.values() if source.file is not None)
    yield from (str(path) for path in (settings.records.place, settings.http.tls_key) if path is not None)


def engine_sockets(settings: Settings) -> Iterator[str]:
    """The sockets of container engines that the settings or the environment name."""
    engines = settings.engines
    for address in (engines.docker.host, engines.dagger.runner_host, *map(os.environ.get, _ENGINE_VARIABLES)):
        if address and address.startswith("unix://"):
            path = urlsplit(address).path
            if path not in ("", "/"):
                yield path


def why_sensitive(path: Path, settings: Settings) -> str | None:
    """Why a place may not be mounted without consent, as the end of a sentence; None where it may.

    Args:
        path: absolute, links resolved: the places themselves are looked for where their links lead, too.
        settings: they name sockets of engines and files with secrets.
    """
    if path == Path("/"):
        return WHOLE
    where = home()
    if where is not None and _is_at_or_above(path, str(where)):
        return HOME
    for other in homes_of_users():
        if _is_at_or_above(path, other):
            return "holds whole home directories"
        if _is_below(path, other) and any(_overlaps(path, f"{other}/{part}") for part in _IN_HOME):
            return CREDENTIALS
    sockets = [place for socket in engine_sockets(settings) for place in (socket, os.path.dirname(socket))]  # noqa: PTH120
    if path.name in _SOCKET_NAMES or _is_socket(path) or any(_is_at_or_above(path, place) for place in sockets):
        return SOCKET
    if any(_overlaps(path, place) for place in _RUN) and not any(_is_below(path, place) for place in _HARMLESS_IN_RUN):
        return "holds the sockets of the system's services, and with them a way to the host"
    if any(_is_at_or_above(path, place) for place in (*_TEMPORARY, tempfile.gettempdir())):
        return TEMPORARY
    if any(f"{path}/".startswith(place if place.endswith("-") else f"{place}/") for place in _SOCKETS_IN_TMP):
        return SOCKET
    secrets = (source.file for source in settings.secrets.values())
    named = [str(file) for file in (*secrets, settings.http.tls_key) if file is not None]
    if any(_overlaps(path, place) for place in (*_SECRET, *_OF_ENGINES, *_SYSTEM, *_credentials(), *named)):
        return CREDENTIALS
    state = state_home()
    return RECORDS if state is not None and _overlaps(path, str(state)) else None


def _credentials() -> Iterator[str]:
    where = home()
    if where is not None:
        yield from (str(where / part) for part in _IN_HOME)
    approvals = approvals_directory()
    if approvals is not None:  # anyone who writes there approves settings files and contracts
        yield str(approvals)


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:
        return False


# Text, because this is done for dozens of places at each call with a mount: pathlib takes four times as long.


def _overlaps(path: Path, place: str) -> bool:
    text = str(path)
    return any(_is_in(text, spelling) or _is_in(spelling, text) for spelling in _spellings(place))


def _is_below(path: Path, place: str) -> bool:
    return any(_is_in(str(path), spelling) for spelling in _spellings(place))


def _is_at_or_above(path: Path, place: str) -> bool:
    return any(_is_in(spelling, str(path)) for spelling in _spellings(place))


def _is_in(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _spellings(place: str) -> set[str]:
    """As it is written, and where its links lead: a home or ``~/.ssh`` is often a link itself."""
    return {os.path.normpath(place), os.path.realpath(place)}


_PATH_LOOKS = 5
"""Looks at a path that changes meanwhile."""


Maker = Callable[[Path], Path | None]
"""`make_directory` for one contract."""


def host_path(text: str, root: Path, contract_dir: Path | None) -> Path:
    """An absolute host path: ``{contract_dir}`` and ``~`` expanded, relative ones from the project root.

    Raises:
        ExecutionError: ``{contract_dir}`` in a contract that came from no file, or ``~`` of a user without a home.
    """
    if CONTRACT_DIR in text:
        if contract_dir is None:
            raise ExecutionError(f'"{text}" names the contract\'s folder, but this contract came from no file.')
        text = expand(text, os.path.realpath(contract_dir))
    try:
        return Path(os.path.normpath(root / expand_home(Path(text))))
    except ValueError as exc:
        raise ExecutionError(f"{exc}.") from exc


def parse_mount(source: str, target: str, root: Path, contract_dir: Path | None) -> Mount:
    """A `Mount` from the contract's ``source: target[:rw|:ro]``; says nothing about whether the source exists.

    Raises:
        ExecutionError: the target is not absolute, or has an option that is neither ``rw`` nor ``ro``.
    """
    path, _, option = target.partition(":")
    if option not in ("", "rw", "ro"):
        raise ExecutionError(
            f'The mount "{source}: {target}" has the unknown option "{option}".', remedy="Write :rw, :ro or nothing."
        )
    if not path.startswith("/") or path == "/" or ".." in path.split("/"):
        raise ExecutionError(
            f'The mount "{source}: {target}" has no usable target.', remedy="Write an absolute path other than /."
        )
    return Mount(host_path(source, root, contract_dir), path.rstrip("/"), option == "rw")


def check_mount(mount: Mount, settings: Settings, tool: str, *, use: str = "mounts") -> Mount:
    """The mount with its links resolved, and what is there identified, so that what was approved is what is mounted.

    A tool that can write to the project could put a link where a contract mounts a directory: so a path below the
    project root, which the settings or the contract trust, is not left by links.

    Raises:
        ExecutionError: the source does not exist, and is never created; or it cannot be looked at, or changes all the
            time; or a link leads out of the project.
        LimitUnsupported: it is sensitive, and the settings do not allow it.
    """
    what = f"{tool} {use} {mount.source}"
    where = "mounts (relative paths start at the project root" if use == "mounts" else "build (in the project root"
    for _ in range(_PATH_LOOKS):
        real = real_path(
            mount.source,
            what,
            f"Create it, or fix the contract's {where}, {settings.root}"
            + (", and below that what is missing is made)." if mount.is_older else ")."),
        )
        _refuse_sensitive(real, what, settings)
        _refuse_to_leave(mount.source, real, what, settings)
        if sys.platform != "linux":
            return replace(mount, source=real)
        try:
            held = open_path(str(real))
        except OSError as exc:
            if exc.errno in CHANGED:
                continue
            raise ExecutionError(f"{what}, which cannot be opened: {exc.strerror}.") from exc
        try:
            if stat.S_ISSOCK(os.fstat(held).st_mode):
                _refuse(f"{what}, which {SOCKET}", real, settings)
            return replace(mount, source=real, identity=identity_of(held))
        finally:
            os.close(held)
    raise ExecutionError(
        f"{what}, which is replaced again and again while it is looked at.",
        remedy="Another program, or a tool with a writable mount around it, changes it: stop that first.",
    )


def identify_mount(mount: Mount, tool: str) -> Mount:
    """A mount of the server's own making, with what is at its source.

    Raises:
        ExecutionError: it cannot be opened without following a link.
    """
    if mount.identity is not None or sys.platform != "linux":
        return mount
    try:
        held = open_path(str(mount.source))
    except OSError as exc:
        raise ExecutionError(f"{tool} mounts {mount.source}, which cannot be opened: {exc.strerror}.") from exc
    try:
        return replace(mount, identity=identity_of(held))
    finally:
        os.close(held)


def open_mount(mount: Mount) -> int:
    """A descriptor of a mount's source, which is what was judged.

    Raises:
        ExecutionError: it is something else by now.
    """
    try:
        held = open_path(str(mount.source))
    except OSError as exc:
        if exc.errno in CHANGED:
            raise replaced_error(mount) from exc
        raise ExecutionError(f"{mount.source}, which is mounted, cannot be opened: {exc.strerror}.") from exc
    if mount.identity not in (None, identity_of(held)):
        os.close(held)
        raise replaced_error(mount)
    return held


def replaced_error(mount: Mount) -> ExecutionError:
    """What is at a mount's source is not what was judged."""
    return ExecutionError(
        f"{mount.source}, which is mounted at {mount.target}, was replaced after it had been checked.",
        remedy="Call again. If it persists, another program, or a tool with a writable mount around it, changes it.",
    )


def _refuse_to_leave(source: Path, real: Path, what: str, settings: Settings) -> None:
    """Refuse a path below the project root from which a link leads out of the project."""
    root = Path(os.path.realpath(settings.root))
    if not (source.is_relative_to(settings.root) or source.is_relative_to(root)) or real.is_relative_to(root):
        return
    if not _is_allowed(real, settings):
        raise LimitUnsupported(
            f"{what}, from where a link leads out of the project, to {real}.",
            remedy=f"Write that path in the contract instead, or allow it in the settings: "
            f"policy.sensitive_paths: [{real}].",
        )


def _refuse_sensitive(real: Path, what: str, settings: Settings) -> None:
    reason = why_sensitive(real, settings)
    if reason is not None:
        _refuse(f"{what}, which {reason}", real, settings)


def check_working_directory(path: Path, settings: Settings, tool: str) -> Path:
    """The working directory of a command on the host, its links resolved.

    It is shown to the command wherever it is, so it may lie nowhere that may not be mounted; the root is readable
    there anyway, credentials and home directories aside.

    Raises:
        ExecutionError: it does not exist, is not a directory, or cannot be looked at.
        LimitUnsupported: it is sensitive, and the settings do not allow it.
    """
    fix = "Create it, or fix the contract's cwd."
    real = real_path(path, f"{tool} runs in {path}", fix)
    if not real.is_dir():
        raise ExecutionError(f"{tool} runs in {path}, which is not a directory.", remedy=fix)
    reason = why_sensitive(real, settings)
    if reason not in (None, WHOLE, TEMPORARY):  # a call's /tmp is its own
        _refuse(f"{tool} runs in {path}, which {reason}", real, settings)
    return real


def real_path(path: Path, what: str, remedy: str) -> Path:
    """Where a path's links lead.

    Args:
        path: absolute.
        what: the beginning of a sentence about it.
        remedy: what helps where it is missing.

    Raises:
        ExecutionError: it does not exist, its links form a loop, or a directory on the way is closed to the server.
    """
    try:
        return path.resolve(strict=True)
    except FileNotFoundError as exc:
        raise ExecutionError(f"{what}, which does not exist.", remedy=remedy) from exc
    except PermissionError as exc:
        raise ExecutionError(
            f"{what}, which the server's user may not look at.", remedy="Fix its permissions, or those above it."
        ) from exc
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop, in Python before 3.13
        reason = exc.strerror if isinstance(exc, OSError) else "its links form a loop"
        raise ExecutionError(f"{what}, which cannot be used: {reason}.", remedy=remedy) from exc


def _refuse(what: str, real: Path, settings: Settings) -> None:
    if _is_allowed(real, settings):
        return
    raise LimitUnsupported(
        f"{what}.", remedy=f"Choose something narrower, or allow it in the settings: policy.sensitive_paths: [{real}]."
    )


def _is_allowed(real: Path, settings: Settings) -> bool:
    return any(str(real) == os.path.realpath(allowed) for allowed in settings.policy.sensitive_paths)


def make_directory(
    path: Path, settings: Settings, contract_dir: Path | None, tool: str, *, create: bool
) -> Path | None:
    """Make a directory that a contract in an older spelling takes for granted, with those on the way.

    Args:
        path: absolute, without ``..``; there is nothing there.
        settings: the root, and what no tool may write to.
        contract_dir: the directory that the contract came from.
        tool: its name, for the log.
        create: False only looks whether it could be made.

    Returns:
        Where it is (or would be), links of the root resolved; None where nothing is made: outside of the root, through
        a link, or where something sensitive or the server's own belongs.

    Raises:
        ExecutionError: the server may not write there.
    """
    place = _place(path, settings)
    if place is None or why_sensitive(place, settings) is not None or _is_reserved(place, settings, contract_dir):
        return None
    root = Path(os.path.realpath(settings.root))
    names = place.relative_to(root).parts
    try:
        held = HeldDirectory.at(root, listed=False)
    except OSError:
        return None
    try:
        for number, name in enumerate(names):
            try:
                below = held.enter(name, listed=False)
            except FileNotFoundError:
                if not create:
                    return place
                with suppress(FileExistsError):  # another call was faster
                    held.make(name, 0o777)
                logger.warning(
                    "{}: made the directory {}, which its contract mounts", tool, root.joinpath(*names[: number + 1])
                )
                below = held.enter(name, listed=False)
            held.close()
            held = below
    except OSError as exc:
        if exc.errno in CHANGED:  # a file; or a link, of whatever it leads to
            return None
        raise ExecutionError(
            f"{tool} mounts {path}, which does not exist, and cannot be made: {exc.strerror}.", remedy="Create it."
        ) from exc
    finally:
        held.close()
    return place


def _place(path: Path, settings: Settings) -> Path | None:
    """The path with the links of the root resolved; None where it is not below the root."""
    if is_top(settings.root) or not {os.open, os.mkdir} <= os.supports_dir_fd:
        return None
    root = Path(os.path.realpath(settings.root))
    for spelling in (settings.root, root):
        if path.is_relative_to(spelling) and path != spelling:
            return root / path.relative_to(spelling)
    return None


def _is_reserved(place: Path, settings: Settings, contract_dir: Path | None) -> bool:
    """Whether it is a place of the server's own, or is in one; a directory among the tools is harmless."""
    for protected in protected_places(settings, contract_dir):
        real = Path(os.path.realpath(protected.path))
        if place == real or (not protected.is_searched and place.is_relative_to(real)):
            return True
    return False
