"""``praxis-mcp image``, as a user or a script meets it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from praxis_mcp.cli.common import EXIT_ENGINE
from tests.images.registry_double import registry_double
from tests.images.tars import docker_archive, file, image, layer
from tests.kit import command_line

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def praxis(tmp_path: Path) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "DOCKER_CONFIG": str(tmp_path)}
        return command_line.praxis("image", *words, cwd=tmp_path, env=env)

    return run


def test_an_image_is_imported_listed_removed_and_collected(praxis: Run, tmp_path: Path) -> None:
    made = image(layer(file("hello", b"hello")))
    archive = docker_archive(tmp_path / "saved.tar", made, "tool:1")
    done = praxis("import", str(archive))
    assert (done.returncode, done.stdout.split()[0]) == (0, "tool:1")
    assert praxis("import", str(archive), "--name", "example.org/other:2").returncode == 0
    listed = json.loads(praxis("ls", "--json").stdout)
    assert [item["name"] for item in listed] == ["example.org/other:2", "tool:1"]
    assert {item["size"] for item in listed} == {5}
    root = Path(listed[0]["root"])
    assert root.is_relative_to(tmp_path / "data/praxis-mcp/images")
    assert (root / "hello").read_text() == "hello"
    assert "tool:1" in praxis("ls").stdout
    done = praxis("rm", "tool:1", "example.org/other:2", "missing:3")
    assert (done.returncode, done.stderr) == (1, "missing:3 is not in the store.\n")
    assert not root.exists()
    (tmp_path / "data/praxis-mcp/images/downloads/half").write_text("x")
    assert praxis("gc").stdout == "removed downloads/half\n"
    assert json.loads(praxis("ls", "--json").stdout) == []


def test_scripts_get_in_json_what_was_stored_and_removed(praxis: Run, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "saved.tar", image(layer(file("hello", b"hello"))), "tool:1")
    (stored,) = json.loads(praxis("import", str(archive), "--json").stdout)
    assert [stored] == json.loads(praxis("ls", "--json").stdout)
    done = praxis("rm", "tool:1", "missing:3", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"removed": ["tool:1"], "missing": ["missing:3"]})
    assert json.loads(praxis("gc", "--json").stdout) == {"removed": []}


def test_an_image_is_pulled(praxis: Run) -> None:
    made = image(layer(file("hello", b"hello")))
    with registry_double() as registry:
        reference = registry.add("team/tool", "1", made)
        done = praxis("pull", reference)
        assert done.stdout == f"{reference} {registry.host}/team/tool@{made.digest}\n"
        assert json.loads(praxis("pull", reference, "--json").stdout)["manifest"] == made.digest
        done = praxis("pull", f"{registry.host}/team/missing")
    assert done.returncode == EXIT_ENGINE
    assert "has no" in done.stderr
    assert "→" in done.stderr


def test_a_file_that_is_not_an_image_is_named(praxis: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    done = praxis("import", str(tmp_path / "notes.txt"))
    assert (done.returncode, done.stdout) == (EXIT_ENGINE, "")
    assert "notes.txt is not an archive of images" in done.stderr
    assert "docker save" in done.stderr
