"""What an image is made of: hashed, judged and packed."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.specs import BUILT_IMAGE
from praxis_mcp.engines.pulls import packed_build
from praxis_mcp.errors import ExecutionError, ImageError, LimitUnsupported, PraxisError
from praxis_mcp.plans import builds
from praxis_mcp.plans.build import build_blueprint, build_plan, find_problems
from praxis_mcp.plans.builds import DOCKERFILE, check_build, pin_build
from praxis_mcp.plans.model import Blueprint, Capability
from praxis_mcp.plans.planning import warnings_about_mounts
from praxis_mcp.settings.model import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "project" / "tools" / "t"
    place.mkdir(parents=True)
    (place / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return place


def text(build: Any, **fields: Any) -> str:
    kept = {"name": "t", "description": "Do.", "command": ["x"], "build": build, **fields}
    return yaml.safe_dump({key: value for key, value in kept.items() if value is not None})


def planned(folder: Path, build: Any, settings: dict[str, Any] | None = None, **fields: Any) -> Blueprint:
    loaded = load_text(text(build, **fields), folder / "contract.yaml")
    assert loaded.contract is not None, loaded.diagnostics
    chosen = Settings.model_validate({"root": folder.parents[1], **(settings or {})})
    return build_plan(loaded.contract, {}, chosen).blueprint


def packed(blueprint: Blueprint) -> dict[str, str]:
    """What is packed: content by name; of a link ``-> target``."""
    assert blueprint.build is not None
    into = io.BytesIO()
    packed_build(blueprint.build, "t", into)
    found: dict[str, str] = {}
    with tarfile.open(fileobj=into) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            found[member.name] = file.read().decode() if file is not None else f"-> {member.linkname}"
    return found


@pytest.mark.parametrize(
    ("build", "image", "trouble"),
    [
        ({"packages": ["a"]}, None, "image"),
        ({"python": "r.txt", "dockerfile": "Dockerfile"}, "b", "do not go with"),
        ({}, "b", "Write python, packages, dockerfile or context"),
        ({"packages": ["--index-url=http://evil"]}, "b", "without options"),
        ({"packages": ["a\n--index-url=http://evil"]}, "b", "without options"),
        ({"dockerfile": "Dockerfile"}, "b", "The Dockerfile names an image"),
        ({"pip": "r.txt"}, "b", "pip"),
        ("requirements.txt", "b", "build"),
    ],
)
def test_a_build_that_says_too_little_or_too_much_is_an_error(build: Any, image: str | None, trouble: str) -> None:
    loaded = load_text(text(build, image=image))
    assert loaded.contract is None
    assert any(trouble in f"{item.field} {item.message} {item.remedy}" for item in loaded.diagnostics)


def test_a_build_is_demanded_of_an_engine_and_names_its_image_by_all_that_it_is_made_of(folder: Path) -> None:
    (folder / "r.txt").write_text("a==1\n")
    first = planned(folder, {"python": "r.txt", "packages": ["b"]}, image="python:3")
    assert Capability.BUILD in first.demands
    assert (first.image or "").startswith(f"{BUILT_IMAGE}:")
    assert packed(first)["requirements.txt"] == "a==1\n\nb\n"
    assert packed(first)[DOCKERFILE].startswith("FROM python:3\n")
    same = planned(folder, {"python": "r.txt", "packages": ["b"]}, image="python:3", description="Something else.")
    assert same.image == first.image
    (folder / "r.txt").write_text("a==2\n")
    wheels = folder.parents[1] / "wheels"
    wheels.mkdir()
    others = [
        planned(folder, {"python": "r.txt", "packages": ["b"]}, image="python:3"),
        planned(folder, {"python": "r.txt"}, image="python:3"),
        planned(folder, {"python": "r.txt"}, image="python:4"),
        planned(folder, {"python": "r.txt"}, {"builds": {"network": "none"}}, image="python:3"),
        planned(folder, {"python": "r.txt"}, {"builds": {"index_url": "https://a.test/simple"}}, image="python:3"),
        planned(folder, {"python": "r.txt"}, {"builds": {"wheels": str(wheels)}}, image="python:3"),
    ]
    assert len({first.image, *(item.image for item in others)}) == len(others) + 1


def test_pip_takes_packages_from_where_the_settings_say(folder: Path) -> None:
    wheels = folder.parents[1] / "wheels"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").write_text("wheel")

    def run(**chosen: Any) -> str:
        made = packed(planned(folder, {"packages": ["a"]}, {"builds": chosen}, image="python:3"))
        assert ("wheels/a-1-py3-none-any.whl" in made) is ("wheels" in chosen)
        return made[DOCKERFILE].splitlines()[-1]

    assert "--index-url" not in run()
    assert '"--index-url", "https://a.test/simple"' in run(index_url="https://a.test/simple")
    assert "--no-index" in run(wheels=str(wheels))
    both = run(wheels=str(wheels), index_url="https://a.test/simple")
    assert ("--no-index" in both, "--find-links" in both) == (False, True)
    for wrong in ("https://me:secret@a.test/simple", "file:///wheels", "a.test"):
        with pytest.raises(ValueError, match="index_url"):
            run(index_url=wrong)


def test_a_dockerfile_copies_from_its_own_directory_or_the_named_one(folder: Path) -> None:
    (folder / "a.py").write_text("a")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.py").write_text("b")
    (folder / "contract.yaml").write_text("not packed")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("not packed")
    assert set(packed(planned(folder, {"dockerfile": "Dockerfile"}))) == {DOCKERFILE, "Dockerfile", "a.py", "sub/b.py"}
    assert packed(planned(folder, {"context": "."})) == packed(planned(folder, {"dockerfile": "Dockerfile"}))
    assert set(packed(planned(folder, {"dockerfile": "Dockerfile", "context": "sub"}))) == {DOCKERFILE, "b.py"}
    first = planned(folder, {"context": "."}).image
    os.chmod(folder / "a.py", 0o755)
    assert planned(folder, {"context": "."}).image != first


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ("*.txt", {"Dockerfile", "a.py", "sub/b.txt", "sub/deep/c.py", "sub/d.py", "w[1].md"}),
        ("**/*.txt", {"Dockerfile", "a.py", "sub/deep/c.py", "sub/d.py", "w[1].md"}),
        ("sub", {"Dockerfile", "a.py", "a.txt", "w[1].md"}),
        ("/sub/\n# a.py\n\n", {"Dockerfile", "a.py", "a.txt", "w[1].md"}),
        ("*\n!sub/deep", {"sub/deep/c.py"}),
        ("sub/*\n!sub/d.py", {"Dockerfile", "a.py", "a.txt", "sub/d.py", "w[1].md"}),
        ("sub/**/c.py", {"Dockerfile", "a.py", "a.txt", "sub/b.txt", "sub/d.py", "w[1].md"}),
        ("?.py\n[a-c].txt", {"Dockerfile", "sub/b.txt", "sub/deep/c.py", "sub/d.py", "w[1].md"}),
        ("w\\[1\\].md", {"Dockerfile", "a.py", "a.txt", "sub/b.txt", "sub/deep/c.py", "sub/d.py"}),
        ("[", {"Dockerfile", "a.py", "a.txt", "sub/b.txt", "sub/deep/c.py", "sub/d.py", "w[1].md"}),
    ],
)
def test_dockerignore_is_read_as_docker_reads_it(folder: Path, patterns: str, left: set[str]) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("a.py", "a.txt", "sub/b.txt", "sub/d.py", "sub/deep/c.py", "w[1].md"):
        (folder / name).write_text("")
    (folder / ".dockerignore").write_text(patterns)
    found = set(packed(planned(folder, {"context": "."})))
    assert found - {DOCKERFILE, ".dockerignore"} == left


def test_no_link_of_a_context_is_followed(folder: Path) -> None:
    secret = folder.parents[2] / "secret"
    secret.mkdir()
    (secret / "key").write_text("hunter2")
    (folder / "file").symlink_to(secret / "key")
    (folder / "directory").symlink_to(secret)
    found = packed(planned(folder, {"context": "."}))
    assert found["file"] == f"-> {secret / 'key'}"
    assert found["directory"] == f"-> {secret}"
    assert "hunter2" not in str(found)
    (folder / "r.txt").symlink_to(secret / "key")
    with pytest.raises(LimitUnsupported, match="leads out of the project"):
        planned(folder, {"python": "r.txt"}, image="python:3")


def test_a_place_that_may_not_be_mounted_is_built_from_by_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parents[1]))
    with pytest.raises(LimitUnsupported, match=r"builds its image from .* home directory"):
        planned(folder, {"dockerfile": "Dockerfile", "context": "../.."})


def test_a_file_that_is_missing_is_named_and_validate_says_where(folder: Path) -> None:
    contract = load_text(text({"python": "no.txt"}, image="python:3"), folder / "contract.yaml").contract
    assert contract is not None
    (folder / "contract.yaml").write_text(text({"python": "no.txt"}, image="python:3"))
    settings = Settings(root=folder.parents[1])
    with pytest.raises(ExecutionError, match=r"builds its image from .*no\.txt, which does not exist") as missing:
        build_plan(contract, {}, settings)
    assert "fix the contract's build" in (missing.value.remedy or "")
    assert [item.message for item in find_problems(contract, settings)] == [missing.value.message]
    (warning,) = warnings_about_mounts(contract, settings)
    assert (warning.field, warning.line, warning.is_error) == ("build", 1, False)


def test_a_contract_from_no_file_builds_from_packages_only() -> None:
    contract = load_text(text({"packages": ["a"]}, image="python:3")).contract
    assert contract is not None
    assert build_plan(contract, {}, Settings()).blueprint.image
    contract = load_text(text({"python": "r.txt"}, image="python:3")).contract
    assert contract is not None
    with pytest.raises(ExecutionError, match="this contract has none"):
        build_plan(contract, {}, Settings())


def test_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (folder / str(number)).write_text("x" * 40)
    monkeypatch.setattr(builds, "MAX_CONTEXT_FILES", 4)
    with pytest.raises(LimitUnsupported, match="more than 4 files"):
        planned(folder, {"context": "."})
    monkeypatch.setattr(builds, "MAX_CONTEXT_FILES", 100)
    monkeypatch.setattr(builds, "MAX_CONTEXT", 150)
    with pytest.raises(LimitUnsupported, match="more than 150 bytes"):
        planned(folder, {"context": "."})
    (folder / ".dockerignore").write_text("[0-9]")
    assert planned(folder, {"context": "."}).image


def test_what_changes_between_hash_and_build_is_refused(folder: Path) -> None:
    blueprint = planned(folder, {"context": "."})
    (folder / "late").write_text("new")
    with pytest.raises(ImageError, match="was changed in this moment"):
        packed(blueprint)


def test_requirements_with_hashes_let_pip_take_nothing_else(folder: Path) -> None:
    (folder / "r.txt").write_text(f"a==1 --hash=sha256:{'0' * 64}\n")
    hashed = planned(folder, {"python": "r.txt"}, image="python:3")
    assert hashed.build is not None
    assert not hashed.build.needs_versions
    assert '"--require-hashes"' in packed(hashed)[DOCKERFILE]
    (folder / "r.txt").write_text("a==1\n")
    plain = planned(folder, {"python": "r.txt"}, image="python:3")
    assert plain.build is not None
    assert plain.build.needs_versions
    assert "--require-hashes" not in packed(plain)[DOCKERFILE]


def test_what_is_pinned_is_built_from_that_alone_under_a_name_of_its_own(folder: Path) -> None:
    (folder / "r.txt").write_text("a\n")
    plain = planned(folder, {"python": "r.txt"}, image="python:3")
    line = f"a==1 --hash=sha256:{'0' * 64}"
    pinned = pin_build(plain, {"python:3": "python@sha256:1", "other": "x"}, (line,))
    assert packed(pinned)[DOCKERFILE].startswith("FROM python@sha256:1\n")
    assert '"--require-hashes", "--no-deps"' in packed(pinned)[DOCKERFILE]
    assert packed(pinned)["requirements.txt"] == f"{line}\n"
    others = [pin_build(plain, {"python:3": "python@sha256:2"}, (line,)), pin_build(plain, {}, (line,))]
    assert len({plain.image, pinned.image, *(item.image for item in others)}) == 4
    (folder / "Dockerfile").write_text("FROM python:3\n")
    dockerfile = planned(folder, {"context": "."})
    shown = packed(pin_build(dockerfile, {"python:3": "sha256:1"}, None))
    assert (shown[DOCKERFILE], shown["Dockerfile"]) == ("FROM sha256:1\n", "FROM python:3\n")


def test_settings_can_refuse_all_builds(folder: Path) -> None:
    contract = load_text(text({"context": "."}), folder / "contract.yaml").contract
    assert contract is not None
    with pytest.raises(PraxisError, match="settings do not allow"):
        build_plan(contract, {}, Settings.model_validate({"builds": {"enabled": False}}))


def test_what_did_not_change_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a").write_text("1")
    contract = load_text(text({"context": "."}), folder / "contract.yaml").contract
    assert contract is not None
    settings = Settings(root=folder.parents[1])
    first = check_build(build_blueprint(contract, settings), settings)
    read: list[object] = []
    own = builds.pack_build
    monkeypatch.setattr(builds, "pack_build", lambda *values: (read.append(values), own(*values))[1])
    assert check_build(build_blueprint(contract, settings), settings) == first
    assert read == []
    (folder / "a").write_text("2")
    assert check_build(build_blueprint(contract, settings), settings) != first
    assert len(read) == 1
