"""`praxis-mcp lock`, and what runs where only what is locked may."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import create_model

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_contract, load_text
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.execution.locking.lock_file import contract_digest
from praxis_mcp.execution.locking.tool_files import ToolFiles
from tests.images.registry_double import registry_double
from tests.images.tars import file, image, layer
from tests.kit import command_line
from tests.kit.contracts import write_tool
from tests.kit.ports import held_port
from tests.kit.upstreams import ROOT, words

Run = Callable[..., "subprocess.CompletedProcess[str]"]

TOOL = """\
name: greet
description: Greet somebody politely.
engine: local
network: host
command: [/bin/sh, "{contract_dir}/greet.sh"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    here = tmp_path / "tools" / "greet"
    here.mkdir(parents=True)
    (here / "contract.yaml").write_text(TOOL)
    (here / "greet.sh").write_text("echo hello\n")
    return tmp_path


@pytest.fixture
def praxis(project: Path) -> Run:
    def run(*given: str, locked: bool = False) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "XDG_CONFIG_HOME": str(project / "config"), "PRAXIS_LOCKED": "true" if locked else "false"}
        return command_line.praxis(*given, cwd=project, env=env)

    return run


def test_what_is_locked_runs_and_what_has_changed_since_is_refused(praxis: Run, project: Path) -> None:
    locked = praxis("lock")
    assert (locked.returncode, locked.stdout) == (0, "greet is not locked.\n")
    assert praxis("lock", "--check").returncode == 0
    assert praxis("call", "greet", locked=True).stdout == "hello\n"

    (project / "tools" / "greet" / "greet.sh").write_text("echo evil\n")
    checked = praxis("lock", "--check")
    assert (checked.returncode, checked.stdout) == (1, "greet has other files than the locked ones.\n")
    refused = praxis("call", "greet", locked=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "greet has other files than the locked ones, and this server runs only what is locked" in refused.stderr
    assert praxis("explain", "greet", locked=True).returncode == 2
    assert praxis("call", "greet").stdout == "evil\n", "without a lock nothing is refused"
    assert praxis("lock").returncode == 0
    assert praxis("call", "greet", locked=True).stdout == "evil\n"


def test_only_what_a_contract_means_is_locked_not_how_it_is_written(praxis: Run, project: Path) -> None:
    assert praxis("lock").returncode == 0
    contract = project / "tools" / "greet" / "contract.yaml"
    contract.write_text(f"# A comment.\n{TOOL}".replace("[/bin/sh,", "['/bin/sh',"))
    assert praxis("lock", "--check").returncode == 0
    contract.write_text(TOOL.replace("politely", "rudely"))
    checked = praxis("lock", "--check", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["differences"]) == (
        1,
        ["greet has another contract than the locked one"],
    )
    assert "another contract" in praxis("call", "greet", locked=True).stderr


def test_a_key_that_a_later_version_knows_and_no_contract_uses_changes_no_lock() -> None:
    contract = load_text(TOOL).contract
    assert contract is not None
    later = create_model("Later", __base__=ToolContract, later=(str | None, None))
    locked = contract_digest(contract)
    assert contract_digest(later.model_construct(**dict(contract), later=None)) == locked
    assert contract_digest(later.model_construct(**dict(contract), later="used")) != locked


def test_a_binding_that_does_not_go_in_depth_has_the_digest_that_it_had_before_any_could() -> None:
    plain = Binding(kind=BindKind.QUERY).model_dump()
    assert plain == {"kind": "query", "target": None, "repeat": False, "allow_dash": False}
    assert Binding(kind=BindKind.QUERY, deep=True).model_dump()["deep"] is True


def test_a_tool_that_nobody_has_locked_is_refused_and_one_that_is_gone_is_named(praxis: Run, project: Path) -> None:
    assert praxis("lock").returncode == 0
    (project / "tools" / "greet").rename(project / "tools" / "other")
    contract = project / "tools" / "other" / "contract.yaml"
    contract.write_text(TOOL.replace("greet\n", "other\n"))
    assert praxis("lock", "--check").stdout == "greet is locked, and there is no such contract.\nother is not locked.\n"
    assert "other is not locked" in praxis("call", "other", locked=True).stderr


def test_data_that_a_tool_writes_and_what_interpreters_keep_are_not_locked(praxis: Run, project: Path) -> None:
    here = project / "tools" / "greet"
    (here / "data").mkdir()
    mounts = 'mounts: {"{contract_dir}": /tool, "{contract_dir}/data": "/data:rw"}\n'
    (here / "contract.yaml").write_text(TOOL + mounts)
    assert praxis("lock").returncode == 0
    (here / "data" / "note").write_text("new")
    (here / "__pycache__").mkdir()
    (here / "__pycache__" / "x.pyc").write_text("new")
    assert praxis("lock", "--check").returncode == 0
    for change in (lambda: (here / "new.txt").touch(), lambda: (here / "greet.sh").chmod(0o755)):
        change()
        assert praxis("lock", "--check").returncode == 1
        assert praxis("lock").returncode == 0


@pytest.mark.parametrize(
    ("contract", "run"),
    [
        ('command: [/bin/sh, "{contract_dir}/my tool.sh"]', "my tool.sh"),
        ('command: [/bin/sh, my tool.sh]\ncwd: "{contract_dir}"', "my tool.sh"),
        ('command: [/bin/sh, "{contract_dir}/linked.sh"]', "../../lib/tool.sh"),
        ('command: [/bin/sh, "{contract_dir}/lib/tool.sh"]', "../../lib/tool.sh"),
        ('command: [/bin/sh, tool.sh]\ncwd: "{contract_dir}/lib"', "../../lib/tool.sh"),
    ],
)
def test_what_a_tool_runs_is_locked_however_its_contract_comes_to_it(
    praxis: Run, project: Path, contract: str, run: str
) -> None:
    here = project / "tools" / "greet"
    (project / "lib").mkdir()
    (project / "lib" / "again").symlink_to("..")
    (here / "linked.sh").symlink_to("../../lib/tool.sh")
    (here / "lib").symlink_to("../../lib")
    (here / "elsewhere").symlink_to("/usr")
    (here / run).write_text("echo hello\n")
    (here / "contract.yaml").write_text("\n".join([*TOOL.splitlines()[:-1], contract]))
    assert praxis("lock").returncode == 0
    assert praxis("call", "greet", locked=True).stdout == "hello\n"
    (here / run).write_text("echo evil\n")
    refused = praxis("call", "greet", locked=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "greet has other files than the locked ones" in refused.stderr


def test_the_program_of_another_mcp_server_is_locked_with_the_contract_that_starts_it(
    praxis: Run, project: Path
) -> None:
    here = project / "tools" / "greet"
    text = "name: greet\ndescription: Greet.\nengine: remote-mcp\naddress: [/bin/sh, '{contract_dir}/greet.sh']\n"
    (here / "contract.yaml").write_text(text)
    assert praxis("lock").returncode == 0
    (here / "greet.sh").write_text("touch ran\n")
    assert "greet has other files than the locked ones" in praxis("call", "greet", locked=True).stderr
    assert praxis("lock", "--check").returncode == 1


def test_a_file_that_is_written_to_without_a_trace_is_another_one(project: Path) -> None:
    file = project / "tools" / "greet" / "greet.sh"
    contract = load_contract(file.with_name("contract.yaml")).contract
    assert contract is not None
    files, about = ToolFiles(project), file.stat()
    before = files.digest(contract)
    file.write_text("echo evils\n"[: about.st_size])
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file.stat().st_size == about.st_size
    assert files.digest(contract) != before


def test_nothing_is_made_for_a_tool_that_is_not_locked(praxis: Run, project: Path) -> None:
    assert praxis("lock").returncode == 0
    contract = project / "tools" / "greet" / "contract.yaml"
    contract.write_text(TOOL + 'mounts: {./made: "/made:rw"}\n')
    assert "another contract" in praxis("call", "greet", locked=True).stderr
    assert not (project / "made").exists()


@pytest.mark.parametrize("text", ["", "tools: [", "version: 2\n", "version: 1\ntools: {greet: {contract: abc}}\n"])
def test_a_lock_file_that_cannot_be_read_is_refused_and_stays_as_it_is(praxis: Run, project: Path, text: str) -> None:
    (project / "praxis.lock").write_text(text)
    for given in (("lock",), ("lock", "--check")):
        done = praxis(*given)
        assert done.returncode == 2
        assert "praxis.lock cannot be read" in done.stderr
    assert "praxis.lock cannot be read" in praxis("call", "greet", locked=True).stderr
    assert (project / "praxis.lock").read_text() == text


def test_without_a_lock_file_nothing_runs_where_only_what_is_locked_may(praxis: Run) -> None:
    for given in (("lock", "--check"), ("serve", "--locked")):
        done = praxis(*given)
        assert done.returncode == 2
        assert "There is no lock file" in done.stderr
    assert praxis("lock", "greet").returncode == 2
    assert praxis("lock", "--check", "--upgrade").returncode == 2


def test_images_are_locked_as_their_registry_has_them_and_stay_so_until_they_are_upgraded(
    praxis: Run, project: Path
) -> None:
    with registry_double() as registry:
        first, second = (image(layer(file("a", content))) for content in (b"first", b"second"))
        name = registry.add("tool", "1", first)
        (project / "tools" / "greet" / "contract.yaml").write_text(f"name: greet\nimage: {name}\ncommand: [/a]\n")
        assert praxis("lock").returncode == 0
        lock = project / "praxis.lock"
        assert yaml.safe_load(lock.read_text())["images"] == {name: f"{registry.host}/tool@{first.digest}"}
        registry.add("tool", "1", second)
        assert praxis("lock").returncode == 0
        assert first.digest in lock.read_text()
        assert first.digest in praxis("explain", "greet", "--json", locked=True).stdout
        upgraded = praxis("lock", "--upgrade", "greet")
        assert upgraded.stdout == f"the image {name} is {registry.host}/tool@{second.digest} now.\n"
        assert second.digest in lock.read_text()
    (project / "tools" / "greet" / "contract.yaml").write_text("name: greet\nimage: other:1\ncommand: [/a]\n")
    assert "the image other:1 is not locked" in praxis("lock", "--check").stdout


def test_where_one_tool_cannot_be_locked_nothing_is_written_and_that_is_said(praxis: Run, project: Path) -> None:
    write_tool(project / "tools", "fine", ["true"])
    file = project / "praxis.lock"
    with held_port() as port:
        write_tool(project / "tools", "odd", ["/a"], engine="sandbox", image=f"127.0.0.1:{port}/none:1", network="none")
        done = praxis("lock")
        assert (done.returncode, file.exists()) == (125, False)
        error, last = done.stderr.index("/none:1 cannot be locked"), done.stderr.index("Nothing was written.")
        assert error < last
        (project / "tools" / "odd.contract.json").rename(project / "odd")
        assert praxis("lock").returncode == 0
        before = file.read_bytes()
        (project / "odd").rename(project / "tools" / "odd.contract.json")
        done = praxis("lock", "--json")
        assert (done.returncode, done.stdout, file.read_bytes()) == (125, "", before)
        assert f"Nothing was written: {file} is as it was." in done.stderr
        assert "Nothing was written" not in praxis("lock", "--check").stderr, "which never writes"


def test_an_image_that_is_built_is_locked_by_what_it_is_made_of(praxis: Run, project: Path) -> None:
    here = project / "tools" / "greet"
    (here / "contract.yaml").write_text("name: greet\nbuild: {context: made}\ncommand: [/a]\n")
    (here / "made").mkdir()
    (here / "made" / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (here / "made" / "a").write_text("first")
    assert praxis("lock").returncode == 0
    assert praxis("lock", "--check").returncode == 0
    assert "praxis-build:" in praxis("explain", "greet", "--json", locked=True).stdout
    (here / "made" / "a").write_text("evil")
    for given in (("explain", "greet"), ("call", "greet")):
        why = "greet builds its image from something else than what is locked: a, and this server"
        assert why in praxis(*given, locked=True).stderr
    checked = praxis("lock", "--check")
    assert (checked.returncode, checked.stdout) == (
        1,
        "greet builds its image from something else than what is locked: a.\n",
    )
    done = praxis("build", locked=True)
    assert (done.returncode, "from something else than what is locked: a" in done.stderr) == (1, True)


@pytest.fixture
def moving_name() -> Iterator[str]:
    """An image's name on Docker that may mean one image now, and another one later."""
    name = f"praxis-mcp-lock-test:{uuid.uuid4().hex[:12]}"
    subprocess.run(["docker", "tag", "busybox:1.36", name], check=True)
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=False, capture_output=True)


@pytest.mark.docker
def test_docker_runs_the_locked_image_whatever_its_name_means_by_now(
    praxis: Run, project: Path, moving_name: str
) -> None:
    assert shutil.which("docker")
    text = f"name: greet\nimage: {moving_name}\nengine: docker\ncommand: [sh, -c, echo ran]\n"
    (project / "tools" / "greet" / "contract.yaml").write_text(text)
    assert praxis("lock").returncode == 0
    subprocess.run(["docker", "tag", "scratch-tool:latest", moving_name], check=True)
    done = praxis("call", "greet", locked=True)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert praxis("call", "greet").returncode != 0, "the other image has no shell"
    # An image that came from no registry is known by its id alone, and one that is not here is never fetched.
    lock = project / "praxis.lock"
    values = yaml.safe_load(lock.read_text())
    values["images"][moving_name] = f"sha256:{'0' * 64}"
    lock.write_text(yaml.safe_dump(values))
    refused = praxis("call", "greet", locked=True)
    assert "which the docker engine does not have" in refused.stderr


@pytest.mark.sandbox
def test_the_sandbox_runs_the_locked_image_whatever_its_name_means_by_now(praxis: Run, project: Path) -> None:
    settings = {"engines": {"sandbox": {"store": str(project / "store")}}, "pull": "never"}
    (project / "praxis.yaml").write_text(yaml.safe_dump(settings))
    config = ("--config", "praxis.yaml")
    text = "name: greet\nimage: localhost/moving\nengine: sandbox\ncommand: [echo, ran]\n"
    (project / "tools" / "greet" / "contract.yaml").write_text(text)
    assert praxis("image", "from-host", "localhost/moving", "echo", *config).returncode == 0
    locked = praxis("lock", *config)
    assert locked.returncode == 0, locked.stderr
    assert praxis("image", "from-host", "localhost/moving", "cat", *config).returncode == 0
    done = praxis("call", "greet", *config, locked=True)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert praxis("call", "greet", *config).returncode != 0, "the other image has no echo"


def test_tools_of_upstreams_are_locked_by_their_fingerprints(praxis: Run, project: Path) -> None:
    address = words("stdio")
    settings = {"upstreams": {"up": {"address": address, "env": {"PYTHONPATH": str(ROOT)}}}}
    (project / "praxis.yaml").write_text(yaml.safe_dump(settings))
    config = ("--config", "praxis.yaml")
    assert praxis("lock", *config).returncode == 0
    called = ("call", "up_echo", "text=hi", *config)
    assert "hi" in praxis(*called, locked=True).stdout
    lock = project / "praxis.lock"
    values = yaml.safe_load(lock.read_text())
    values["upstreams"]["up"]["echo"] = "0" * 64
    lock.write_text(yaml.safe_dump(values))
    assert praxis("lock", "--check", *config).stdout == "echo of the upstream up has changed.\n"
    refused = praxis(*called, locked=True)
    assert refused.returncode == 2
    assert "up_echo is not what it was when it was locked" in refused.stderr
