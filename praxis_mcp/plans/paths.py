"""Host paths in contracts: resolved, checked for existence and for being sensitive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Mount
from praxis_mcp.settings import Settings

CONTRACT_DIR = "{contract_dir}"

_SENSITIVE_IN_HOME = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".netrc", ".pypirc",
    ".npmrc", ".git-credentials", ".password-store", ".local/share/keyrings", ".mozilla", ".config/google-chrome",
)  # fmt: skip
_SENSITIVE = ("/etc/shadow", "/etc/ssh", "/root/.ssh", "/proc", "/sys", "/dev", "/boot")
_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "dockershim.sock", "buildkitd.sock")
_SOCKET_DIRECTORIES = ("/run", "/var/run", "/run/docker", "/run/podman", "/run/containerd", "/run/buildkit")


def sensitive_home_paths() -> tuple[Path, ...]:
    """Places in the home directory that hold credentials."""
    return tuple(Path.home() / part for part in _SENSITIVE_IN_HOME)


def host_path(text: str, root: Path, contract_dir: Path | None) -> Path:
    """An absolute host path: ``{contract_dir}`` and ``~`` expanded, relative ones from the project root.

    Raises:
        ExecutionError: ``{contract_dir}`` in a contract that came from no file.
    """
    if CONTRACT_DIR in text:
        if contract_dir is None:
            raise ExecutionError(f'"{text}" names the contract\'s folder, but this contract came from no file.')
        text = text.replace(CONTRACT_DIR, str(contract_dir))
    return Path(os.path.normpath(root / Path(text).expanduser()))


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


def check_mount(mount: Mount, settings: Settings, tool: str) -> None:
    """Refuse a mount whose source is missing or sensitive.

    Raises:
        ExecutionError: the source does not exist; it is never created.
        LimitUnsupported: it is sensitive, and the settings do not allow it.
    """
    if not mount.source.exists():
        raise ExecutionError(
            f"{tool} mounts {mount.source}, which does not exist.",
            remedy="Create it, or mend the contract's mounts (relative paths start at the project root, "
            f"{settings.root}).",
        )
    real = mount.source.resolve()
    reason = _why_sensitive(real)
    if reason and not any(real == allowed.expanduser().resolve() for allowed in settings.policy.sensitive_paths):
        raise LimitUnsupported(
            f"{tool} mounts {mount.source}, which {reason}.",
            remedy=f"Mount something narrower, or allow it in the settings: policy.sensitive_paths: [{real}].",
        )


def _why_sensitive(path: Path) -> str | None:
    home = Path.home().resolve()
    if path == Path("/"):
        return "is the whole file system"
    if path == home or path in home.parents:
        return "holds the whole home directory"
    if path.name in _SOCKETS or str(path) in _SOCKET_DIRECTORIES:
        return "gives access to a container engine's socket, and with it to the whole host"
    if _is_below(path, sensitive_home_paths()) or _is_below(path, (Path(part) for part in _SENSITIVE)):
        return "holds credentials or the system's own state"
    return None


def _is_below(path: Path, places: Iterable[Path]) -> bool:
    return any(path == place or place in path.parents or path in place.parents for place in places)
