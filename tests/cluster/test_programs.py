"""What a cluster is made of is found, or said to be missing; no cluster is needed for these."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster import archives, programs


def test_a_program_is_built_again_when_its_source_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = programs.KUBERNETES.place
    assert built.name.startswith("kubernetes-v1.34.")
    assert built == programs.KUBERNETES.place
    assert programs.KUBERNETES.find() is None
    assert dataclasses.replace(programs.KUBERNETES, flags="-X other=1").place != built


def test_what_is_missing_for_a_cluster_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(programs.sys, "platform", "linux")
    monkeypatch.setattr(programs.os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "PATH", str(tmp_path))
    monkeypatch.setattr(programs, "PLUGINS", (str(tmp_path),))
    wanted = "apt-get install containerd containernetworking-plugins etcd-server iproute2 runc util-linux"
    assert wanted in (programs.missing() or "")


def test_a_cluster_is_refused_to_all_but_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.os, "geteuid", lambda: 1000)
    assert programs.missing() == "a cluster needs root on Linux"


def test_no_build_begins_without_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(programs.ProgramUnavailable, match="Go is not on the PATH"):
        programs.HELM.build()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("someone/tool", "docker.io/someone/tool"),
        ("localhost/tool:1", "localhost/tool:1"),
        ("registry.example:5000/tool", "registry.example:5000/tool"),
    ],
)
def test_images_have_the_names_that_kubelets_know(reference: str, name: str) -> None:
    assert archives.full_name(reference) == name


def test_an_archive_of_an_image_is_as_docker_saves_it(tmp_path: Path) -> None:
    layer, archive = tmp_path / "layer.tar", tmp_path / "image.tar"
    with tarfile.open(layer, "w"):
        pass
    archives.write(archive, "localhost/tool:1", layer, {"Cmd": ["/tool"]})
    with tarfile.open(archive) as tar:
        members = {name: tar.extractfile(name) for name in tar.getnames()}
        (manifest,) = json.load(members["manifest.json"])  # type: ignore[arg-type]
        assert manifest["RepoTags"] == ["localhost/tool:1"]
        assert json.load(members[manifest["Config"]])["config"] == {"Cmd": ["/tool"]}  # type: ignore[arg-type]
        assert manifest["Layers"] == ["layer.tar"]


@pytest.mark.helm
def test_helm_is_the_one_that_was_built() -> None:
    from tests.cluster.machines import run

    assert programs.HELM.version in run(str(programs.HELM.place / "helm"), "version")
