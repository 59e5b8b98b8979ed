"""What is missing can be added by the command that is shown, however this copy was installed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from praxis_mcp.support.installation import install_command, install_command_for_extra, own_command, packages_of

ROOT = Path(__file__).resolve().parents[1]


def test_an_extra_is_named_by_its_own_packages_which_an_index_has() -> None:
    assert [re.split(r"[<\[]", package)[0] for package in packages_of("docker")] == ["docker"]
    assert [re.split(r"[<\[]", package)[0] for package in packages_of("dagger")] == ["dagger-io", "gql"]
    otel = [re.split(r"[<>]", package)[0] for package in packages_of("otel")]
    assert otel == ["opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"]
    assert packages_of("no such extra") == ("no such extra",)
    for extra in ("docker", "dagger", "otel"):
        assert "praxis-mcp[" not in install_command_for_extra(extra)


def test_without_metadata_an_extra_is_named_by_its_packages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", missing)
    assert packages_of("docker") == ("docker",)
    assert packages_of("dagger")[0] == "dagger-io"
    assert packages_of("otel") == ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


def test_in_this_environment_pip_is_called_by_the_python_that_runs(tmp_path: Path) -> None:
    words = shlex.split(install_command("zstandard<1"))
    assert words[-1] == "zstandard<1"
    python = words[words.index("--python") + 1] if words[0] == "uv" else words[0]
    assert python == sys.executable
    if words[0] != "uv":
        # pip itself takes the words; it looks at nothing but a folder that holds no such package.
        command = [*words, "--dry-run", "--no-index", "--find-links", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert "satisfied: zstandard" in done.stdout or "for zstandard<1" in done.stderr


@pytest.mark.parametrize(
    ("mark", "command"),
    [
        ("pipx_metadata.json", "pipx inject praxis-env 'docker<8'"),
        ("uv-receipt.toml", "uv tool install --with 'docker<8' "),
    ],
)
def test_an_environment_of_pipx_or_uv_is_changed_by_that(tmp_path: Path, mark: str, command: str) -> None:
    where = tmp_path / "praxis-env"
    venv.create(where)
    (where / mark).touch()
    shown = install_command("docker<8", prefix=where)
    assert shown.startswith(command)
    if mark == "uv-receipt.toml":
        assert shlex.split(shown)[-1] in (str(ROOT), "praxis-mcp"), "from where this copy came"


def test_what_uv_was_given_before_is_named_again_since_it_would_remove_it(tmp_path: Path) -> None:
    where = tmp_path / "praxis-env"
    venv.create(where)
    requirements = """[
        { name = "praxis-mcp", extras = ["console", "otel"], path = "/dist/praxis_mcp.whl" },
        { name = "jinja2", specifier = ">=3.1,<4" },
        { name = "rich", extras = ["jupyter"] },
    ]"""
    (where / "uv-receipt.toml").write_text(f"[tool]\nrequirements = {requirements}\n")
    words = shlex.split(install_command("docker<8", prefix=where))
    *before, last = words
    assert before[:9] == [
        "uv", "tool", "install", "--with", "jinja2>=3.1,<4", "--with", "rich[jupyter]", "--with", "docker<8"
    ]  # fmt: skip
    assert last in (f"{ROOT}[console,otel]", "praxis-mcp[console,otel]")
    (where / "uv-receipt.toml").write_text("[tool]\nrequirements = ['of another version']\n")
    assert install_command("docker<8", prefix=where).startswith("uv tool install --with 'docker<8' ")


def test_an_environment_without_pip_is_changed_by_uv(tmp_path: Path) -> None:
    venv.create(tmp_path / "it")
    assert (
        install_command("docker", prefix=tmp_path / "it")
        == f"uv pip install --python {tmp_path / 'it/bin/python'} docker"
    )


def test_in_the_cache_of_uvx_its_command_is_shown_again(tmp_path: Path) -> None:
    where = tmp_path / "uv" / "archive-v0" / "x1"
    where.mkdir(parents=True)
    shown = install_command("docker<8", prefix=where)
    assert re.fullmatch(r"uvx --with 'docker<8' --from \S+ praxis-mcp", shown)


def test_this_copy_is_started_from_anywhere_by_words_that_outlive_the_cache_of_uvx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([*own_command(), "--version"], cwd=tmp_path, capture_output=True, timeout=180, check=True)
    assert done.stdout.startswith(b"praxis-mcp ")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "uv" / "archive-v0" / "x1"))
    program, *words = own_command()
    assert Path(program).name in ("uvx", "uvx.exe")
    assert words in (["--from", str(ROOT), "praxis-mcp"], ["--from", "praxis-mcp", "praxis-mcp"])


def test_no_remedy_names_an_extra_of_this_package() -> None:
    for path in [*(ROOT / "praxis_mcp").rglob("*.py"), ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert "install 'praxis-mcp[" not in path.read_text(encoding="utf-8"), path


def test_no_server_waits_for_an_http_client_at_its_start() -> None:
    script = (
        "import sys, praxis_mcp.execution.toolbox, praxis_mcp.support.praxis_init\n"
        "print([name for name in ('http.client', 'urllib.request') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_a_tree_of_another_user_is_set_up_elsewhere_and_says_so() -> None:
    script = (ROOT / "scripts/make-venv.sh").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        done = subprocess.run(
            ["/bin/sh", "-s", "--", f"{place}/.venv"],
            input=script,
            cwd="/",
            user=65534 if os.geteuid() == 0 else None,  # whom permissions concern
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"may not write to {place}" in done.stderr
    assert "make VENV=" in done.stderr
