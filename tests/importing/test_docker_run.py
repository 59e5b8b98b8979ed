"""A docker run command becomes a contract, or is refused with all that is in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.errors import ArgumentError
from praxis_mcp.importing.docker_run import ImportedTool, import_command
from tests.kit.command_line import praxis


def contract(text: str) -> dict[str, Any]:
    """The contract of a command, which loads without errors."""
    tool = import_command(text)
    loaded = load_text(tool.written("a test"))
    assert loaded.contract is not None, [str(item) for item in loaded.diagnostics]
    return tool.contract


def test_options_become_the_fields_of_a_contract() -> None:
    found = contract(
        "docker run --rm --name lint -v ./src:/src:ro -v ./out:/out:rw -w /src -u 1000:1000 -e MODE=fast "
        "--network none --memory=512m --cpus .5 --pids-limit 64 --read-only --cap-drop ALL --tmpfs /tmp:rw "
        "--entrypoint lint reg.example/team/linter:2 --strict"
    )
    assert {key: value for key, value in found.items() if key not in ("description", "examples")} == {
        "name": "lint",
        "image": "reg.example/team/linter:2",
        "command": ["lint", "--strict"],
        "working_dir": "/src",
        "user": "1000:1000",
        "network": "none",
        "memory_limit": "512m",
        "cpu_limit": 0.5,
        "pids_limit": 64,
        "read_only": True,
        "drop_capabilities": True,
        "mounts": {"src": "/src", "out": "/out:rw"},
        "env": {"MODE": "fast"},
    }


def test_a_command_is_understood_as_it_is_pasted_from_a_page() -> None:
    found = contract(
        "$ sudo docker container run -it --rm \\\n  -v $(pwd):$(pwd) -w $(pwd) \\\n  -u $(id -u):$(id -g) alpine ls -l"
    )
    assert found["mounts"] == {".": "/work"}
    assert found["working_dir"] == "/work"
    assert found["command"] == ["ls", "-l"]
    assert "user" not in found


@pytest.mark.parametrize("placeholder", ["$FILE", "${FILE}", "<file>", "{file}", "{{file}}"])
def test_placeholders_become_parameters_bound_where_they_stand(placeholder: str) -> None:
    found = contract(
        f"docker run x tool --in {placeholder.replace('file', 'source').replace('FILE', 'SOURCE')} {placeholder}"
    )
    assert found["command"] == ["tool"]
    assert {name: item["bind"] for name, item in found["parameters"].items()} == {
        "source": {"flag": "--in"},
        "file": {"position": 1},
    }
    assert set(found["examples"][0]["arguments"]) == {"source", "file"}


def test_a_placeholder_that_is_mounted_as_a_file_is_given_by_its_content() -> None:
    found = contract("docker run -v <file>:/in.csv:ro x count --csv=/in.csv --by=<column>")
    assert {name: item["bind"] for name, item in found["parameters"].items()} == {
        "file": {"file": "/in.csv"},
        "column": {"flag": "--by="},
    }


def test_a_variable_in_a_shell_s_text_is_bound_to_that_variable() -> None:
    found = contract("""docker run alpine sh -c 'grep "$WORD" /etc/passwd'""")
    assert found["command"] == ["sh", "-c", 'grep "$WORD" /etc/passwd']
    assert found["parameters"]["word"]["bind"] == {"env": "WORD"}


def test_what_is_read_from_standard_input_is_a_parameter() -> None:
    assert contract("docker run -i --rm jq .")["parameters"]["input"]["bind"] == "stdin"
    assert "parameters" not in contract("docker run -it --rm jq .")


def test_secrets_are_named_and_never_written() -> None:
    tool = import_command('docker run -e API_KEY=abc -e TOKEN -e LANG -e DB="postgres://u:pw@h/x" x run')
    assert tool.contract["env"] == {
        "API_KEY": {"secret": "API_KEY"}, "TOKEN": {"secret": "TOKEN"}, "DB": {"secret": "DB"},
    }  # fmt: skip
    assert tool.contract["env_passthrough"] == ["LANG"]
    assert set(tool.secrets) == {"API_KEY", "TOKEN", "DB"}
    assert not [text for text in ("abc", "u:pw") if text in tool.written("a test")]


@pytest.mark.parametrize(
    "option",
    ["--privileged", "-d", "-p 80:80", "-P", "--device /dev/kvm", "--gpus all", "--cap-add SYS_ADMIN", "--pid=host",
     "--volumes-from other", "--security-opt seccomp=unconfined", "-v /var/run/docker.sock:/var/run/docker.sock",
     "--mount type=bind,source=/run/podman/podman.sock,target=/s", "-dit", "--userns host", "--use-api-socket"],
)  # fmt: skip
def test_what_no_tool_may_have_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be a tool: --"):
        import_command(f"docker run {option} x y")


def test_everything_that_is_refused_is_named_at_once() -> None:
    with pytest.raises(ArgumentError, match=r"--detach .*--publish .*--privileged"):
        import_command("docker run -d -p 80:80 --privileged nginx nginx")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("docker run x convert <in> -resize 50% out.png", "no argument can"),
        ("docker run x cat /data/$NAME.txt", "no argument can"),
        ("docker run x sh -c 'cat {name}'", "no argument can"),
        ("docker run -v <dir>:/data x ls /data", "cannot choose what is mounted"),
        ("docker run x login --token ghp_0123456789abcdef", "secret"),
        ("docker run x a | grep b", "shell"),
        ("docker run x a > out.txt", "shell"),
        ("docker run hello-world", "leaves to the image"),
        ("docker run --rm", "no image"),
        ("docker run -e", "no value"),
        ("docker run -Z x y", "-Z"),
        ("docker run x 'a", "no end"),
        ("docker ps", "not a docker run"),
        ("rm -rf /", "not a docker run"),
        ("docker run --cpus many x y", "not a number"),
        ("docker run x tool <a> --b <a>", "two places"),
        ("docker run x <a>", "placeholders only"),
        ("", "not a docker run"),
    ],
)
def test_what_no_contract_can_be_made_of_is_refused_with_the_reason(command: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as refused:
        import_command(command)
    assert refused.value.remedy


def noted(tool: ImportedTool) -> str:
    """What is said of it."""
    return "\n".join(tool.notes)


def test_what_is_not_carried_over_is_named_in_the_contract_too() -> None:
    tool = import_command("docker run -v cache:/c -v ./d:/d --ulimit nofile=9 --env-file .env --network mine x y")
    said = noted(tool)
    assert "volume at /c is left out" in said
    assert "/d is read-only here" in said
    assert "--ulimit is not carried over" in said
    assert "--env-file is left out" in said
    assert "network of that name" in said
    for note in tool.notes:
        assert f"# {note}\n" in tool.written("a test")


def test_the_network_is_what_the_contract_says_not_what_docker_gives() -> None:
    tool = import_command("docker run curlimages/curl -s <url>")
    assert tool.contract["command"] == ["-s"]
    assert "network" not in tool.contract
    assert "network: bridge" in noted(tool)


def test_the_command_writes_a_contract_that_is_valid_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    words = ("import", "docker-run", "docker run --rm busybox:1.36 wc -w <file>", "--name", "words")
    done = praxis(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "tools" / "words" / "contract.yaml"
    assert "wrote tools/words/contract.yaml" in done.stdout
    assert praxis("validate", cwd=tmp_path).returncode == 0
    before = file.read_text()
    again = praxis(*words, cwd=tmp_path)
    assert again.returncode == 2
    assert "There is a tool words already" in again.stderr
    assert file.read_text() == before


def test_a_command_that_is_not_quoted_is_refused_with_how_to_quote_it(tmp_path: Path) -> None:
    done = praxis("import", "docker-run", "docker", "run", "--rm", "-v", "/a:/a", "busybox", "echo", cwd=tmp_path)
    assert done.returncode == 2
    assert "Put all of it in single quotation marks" in done.stderr


def test_a_dry_run_prints_the_contract_and_writes_nothing(tmp_path: Path) -> None:
    done = praxis("import", "docker-run", "-", "--dry-run", cwd=tmp_path, stdin="docker run busybox echo hi\n")
    assert yaml.safe_load(done.stdout)["command"] == ["echo", "hi"]
    assert list(tmp_path.iterdir()) == []
    found = json.loads(
        praxis("import", "docker-run", "docker run busybox echo hi", "--json", "--dry-run", cwd=tmp_path).stdout
    )
    assert found["contract"]["image"] == "busybox"
