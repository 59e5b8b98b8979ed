"""The programs of a test's cluster: Debian's, and what Go builds of the go.mod next to this (`make cluster-programs`).

A program that was built is kept in the cache directory of the tests, by what it was built of; the sources and the
build's own cache, some gigabytes, go once it is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.kit.cache import cache_dir, exclusive

_HERE = Path(__file__).parent
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
}
"""Programs that are needed, each with the package of Debian that has it."""
PLUGINS = ("/usr/lib/cni", "/opt/cni/bin")
"""Where plugins for the network of pods are: Debian's place, and that of everybody else."""
GO = (1, 24)
BUILD_TIMEOUT = 3600.0


class ProgramUnavailable(Exception):
    """A program is missing or cannot be built; the message says why."""


@dataclass(frozen=True)
class GoProgram:
    """A program that is built of a directory below tests/cluster.

    Args:
        package: what is built, in the words of `go build`.
        names: what it is called as; each is a link to it.
        flags: of the linker; `{version}` is that of the module `versioned`.
    """

    name: str
    package: str
    names: tuple[str, ...]
    versioned: str
    flags: str

    @property
    def source(self) -> Path:
        return _HERE / self.name

    @property
    def version(self) -> str:
        found = re.search(rf"{re.escape(self.versioned)} (v\S+)", (self.source / "go.mod").read_text())
        assert found is not None
        return found[1]

    @property
    def place(self) -> Path:
        """The directory that has it, or will."""
        content = b"".join(file.read_bytes() for file in sorted(self.source.iterdir()))
        key = hashlib.sha256(content + repr(self).encode()).hexdigest()[:12]
        return cache_dir() / f"{self.name}-{self.version}-{key}"

    def find(self) -> Path | None:
        """The directory with the program, or None where it is not built."""
        return self.place if (self.place / self.names[0]).exists() else None

    def build(self) -> Path:
        """The directory with the program, which is built where it is not there.

        Raises:
            ProgramUnavailable: it cannot be built.
        """
        with exclusive(self.name):
            return self.find() or self._build()

    def _build(self) -> Path:
        if (reason := go_is_missing()) is not None:
            raise ProgramUnavailable(reason)
        cache = cache_dir() / f"{self.name}-build"  # kept where a build is broken off: the next one goes on from there
        half = self.place.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-buildvcs=false -trimpath -modcacherw",
            "GOWORK": "off",
            "GOCACHE": str(cache / "objects"),
            "GOMODCACHE": str(cache / "modules"),
        }
        flags = f"-s -w {self.flags.format(version=self.version)}"
        command = ["go", "build", "-ldflags", flags, "-o", str(half / self.name), self.package]
        try:
            subprocess.run(
                command, cwd=self.source, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr,
                timeout=BUILD_TIMEOUT,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as exc:
            raise ProgramUnavailable(f"{self.name} cannot be built: {exc}") from exc
        for name in self.names:
            if name != self.name:
                (half / name).symlink_to(self.name)
        half.rename(self.place)
        shutil.rmtree(cache, ignore_errors=True)
        for older in cache_dir().glob(f"{self.name}-v*"):
            if older != self.place:
                shutil.rmtree(older, ignore_errors=True)
        return self.place


_VERSION = "k8s.io/component-base/version"
KUBERNETES = GoProgram(
    "kubernetes",
    ".",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"),
    "k8s.io/kubernetes",
    f"-X {_VERSION}.gitVersion={{version}} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=34",
)
_CHART, _LINT = "helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"
HELM = GoProgram(
    "helm",
    "helm.sh/helm/v3/cmd/helm",
    ("helm",),
    "helm.sh/helm/v3",
    " ".join(
        ["-X helm.sh/helm/v3/internal/version.version={version}"]
        + [f"-X {module}.k8sVersionMajor=1 -X {module}.k8sVersionMinor=34" for module in (_CHART, _LINT)]
    ),
)


def find(name: str) -> str | None:
    """Where a program of `PACKAGES` is."""
    return shutil.which(name, path=PATH)


def plugins() -> str | None:
    """The directory with the plugins for the network of pods."""
    return next(
        (place for place in PLUGINS if Path(place, "bridge").exists() and Path(place, "host-local").exists()), None
    )


def missing() -> str | None:
    """Why no cluster can run on this machine, as far as one can see without trying, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a cluster needs root on Linux"
    packages = {package for name, package in PACKAGES.items() if find(name) is None}
    if plugins() is None:
        packages.add("containernetworking-plugins")
    if packages:
        return f"{', '.join(sorted(packages))} not installed (apt-get install {' '.join(sorted(packages))})"
    if KUBERNETES.find() is None:
        return "Kubernetes is not built (make cluster-programs)"
    return None


def helm_is_missing() -> str | None:
    """Why there is no helm, or None. One that this machine has may be of any version, and is not used."""
    return None if HELM.find() is not None else "helm is not built (make cluster-programs)"


def go_is_missing() -> str | None:
    """Why Go cannot build, or None."""
    if shutil.which("go") is None:
        return "Go is not on the PATH"
    done = subprocess.run(
        ["go", "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=60, cwd=_HERE
    )
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    if found is None or (int(found[1]), int(found[2])) < GO:
        return f"Go {GO[0]}.{GO[1]} or newer is needed, and this is {done.stdout.strip() or done.stderr.strip()}"
    return None


def main() -> int:
    for program in (KUBERNETES, HELM):
        start = time.monotonic()
        try:
            place = program.build()
        except ProgramUnavailable as exc:
            print(exc, file=sys.stderr)
            return 1
        print(f"{program.name} {program.version}: {place} ({time.monotonic() - start:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
