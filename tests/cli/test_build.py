"""`praxis-mcp build`, and what other commands say of an image that is built."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from praxis_mcp.engines.docker.builds import LABEL
from tests.kit.command_line import praxis

TOOL = """\
name: built
description: Say it.
engine: docker
command: [cat, /said]
build: {dockerfile: Dockerfile}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tools" / "built"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(TOOL)
    (folder / "Dockerfile").write_text(f"FROM busybox:1.36\nRUN echo {uuid4().hex} > /said\n")
    (tmp_path / "tools" / "plain.contract.yaml").write_text(
        "name: plain\ndescription: Do.\nengine: local\ncommand: ['true']\n"
    )
    yield tmp_path
    if name := _image(tmp_path):
        subprocess.run(["docker", "rmi", "--force", name], capture_output=True, check=False)


def _image(project: Path) -> str:
    return json.loads(praxis("explain", "built", "--json", cwd=project).stdout or "{}").get("image") or ""


@pytest.mark.docker
def test_an_image_is_built_once_and_found_by_the_call(project: Path) -> None:
    explained = praxis("explain", "built", cwd=project).stdout
    assert "not built yet" in explained
    assert "built from" in explained
    done = praxis("build", "--json", cwd=project)
    (found,) = json.loads(done.stdout)
    assert (done.returncode, found["tool"], found["engine"], found["error"]) == (0, "built", "docker", None)
    assert found["image"].startswith("localhost/praxis-build:")
    assert "building the image of built: Step 2/" in done.stderr
    again = praxis("build", "built", cwd=project)
    assert (again.returncode, "Step" in again.stderr, found["image"] in again.stderr) == (0, False, True)
    assert "not built yet" not in praxis("explain", "built", cwd=project).stdout
    assert praxis("call", "built", cwd=project).returncode == 0


@pytest.mark.docker
def test_what_is_there_is_built_again_without_a_cache_where_that_is_asked_for(project: Path) -> None:
    file = project / "tools" / "built" / "Dockerfile"
    file.write_text(f"FROM busybox:1.36\nRUN cat /proc/sys/kernel/random/uuid > /said # {uuid4().hex}\n")

    def said(*words: str) -> str:
        assert praxis("build", *words, cwd=project).returncode == 0
        return praxis("call", "built", cwd=project).stdout

    first = said()
    assert said() == first
    again = said("--fresh")
    assert again not in ("", first)
    form = ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', _image(project)]
    owner = subprocess.run(form, capture_output=True, check=True, text=True).stdout.strip()
    kept = subprocess.run(
        ["docker", "images", "--quiet", "--filter", f"label={LABEL}={owner}"], capture_output=True, check=True
    )
    assert len(kept.stdout.split()) == 1, "the image that had its name before is removed"


@pytest.mark.docker
def test_a_build_that_fails_shows_the_end_of_its_log(project: Path) -> None:
    (project / "tools" / "built" / "Dockerfile").write_text("FROM busybox:1.36\nRUN echo out of luck; exit 3\n")
    for words, code in ((("build",), 1), (("call", "built"), 125)):
        done = praxis(*words, cwd=project)
        assert done.returncode == code
        assert "out of luck" in done.stderr
        assert "error: The image of built could not be built" in done.stderr
        assert "praxis-mcp build built" in done.stderr
    (project / "tools" / "built" / "Dockerfile").unlink()
    done = praxis("build", cwd=project)
    assert (done.returncode, "Dockerfile, which does not exist" in done.stderr) == (1, True)
    done = praxis("validate", cwd=project)
    assert "contract.yaml:5:1: warning [build]: Every call would be refused" in done.stdout
    (project / "tools" / "built" / "Dockerfile").write_text("FROM busybox:1.36\n")


def test_where_nothing_has_a_build_it_says_so(project: Path) -> None:
    (project / "tools" / "built" / "contract.yaml").unlink()
    done = praxis("build", cwd=project)
    assert (done.returncode, "nothing to build" in done.stderr) == (0, True)
    done = praxis("build", "plain", cwd=project)
    assert (done.returncode, "has no build:" in done.stderr) == (1, True)
