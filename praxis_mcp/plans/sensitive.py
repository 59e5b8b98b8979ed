"""Places of the host that hold credentials, the system's own state or a way out: what contracts may not mount without
the settings' consent, and what commands on the host do not see."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.trust import approvals_directory
from praxis_mcp.support.files import home, homes_of_users, state_home

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
