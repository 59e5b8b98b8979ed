"""`{contract_dir}` by one rule in all places and spellings; what looks like a placeholder and is none is reported."""

from pathlib import Path

import pytest

from praxis_mcp.contracts.reading.loading import LoadedContract, load_text
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings

HEAD = "name: t\ndescription: Does it.\n"
MOUNTED = HEAD + 'image: busybox\nmounts: {"{contract_dir}": /tool}\n'
PLAIN = HEAD + "image: busybox\ncommand: [x]\n"


def load(text: str, folder: Path = Path("/srv/tools/t")) -> LoadedContract:
    return load_text(text, folder / "contract.yaml")


def plan(text: str, folder: Path, arguments: dict[str, str] | None = None) -> Plan:
    loaded = load(text, folder)
    assert loaded.contract is not None, loaded.diagnostics
    assert loaded.diagnostics == ()
    return build_plan(loaded.contract, arguments or {}, Settings.model_validate({"root": folder.parent}))


SPELLINGS = {
    "ours": MOUNTED + 'command: [python, "{contract_dir}/x.py"]\nenv: {A: "a:{contract_dir}/a"}\n'
    'working_dir: "{contract_dir}/data"\n',
    "engineSpec": HEAD + "engine: dagger\nengineSpec:\n"
    '  image: busybox\n  mounts: {"{contract_dir}": /tool}\n'
    '  command: [python, "{contract_dir}/x.py"]\n  env: {A: "a:{contract_dir}/a"}\n'
    '  working_dir: "{contract_dir}/data"\nparams: []\n',
    "engine_spec": HEAD + "engine: docker\nengine_spec:\n"
    '  image: busybox\n  mounts: {"{contract_dir}/": "/tool:ro"}\n'
    '  command: [python, "{contract_dir}/x.py"]\n  env: {A: "a:{contract_dir}/a"}\n'
    '  working_dir: "{contract_dir}/data"\nparameters: {type: object, properties: {}}\n',
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_in_an_image_it_is_where_the_mounts_show_the_folder(spelling: str, tmp_path: Path) -> None:
    made = plan(SPELLINGS[spelling], tmp_path)
    assert made.call.argv == ("python", "/tool/x.py")
    assert made.call.env == {"A": "a:/tool/a"}
    assert made.blueprint.working_dir == "/tool/data"
    assert [(mount.source, mount.target) for mount in made.blueprint.mounts] == [(tmp_path, "/tool")]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + 'engine: local\ncommand: [python, "{contract_dir}/x.py"]\nenv: {A: "{contract_dir}"}\n'
        'cwd: "{contract_dir}"\n',
        HEAD + "engine: local\nengineSpec:\n"
        '  command: [python, "{contract_dir}/x.py"]\n  env: {A: "{contract_dir}"}\n  working_dir: "{contract_dir}"\n',
    ],
)
def test_on_the_host_it_is_the_folder_itself(text: str, tmp_path: Path) -> None:
    made = plan(text, tmp_path)
    assert made.call.argv == ("python", f"{tmp_path}/x.py")
    assert (made.call.env["A"], made.blueprint.working_dir) == (str(tmp_path), str(tmp_path))


def test_the_command_of_another_server_finds_it_as_well(tmp_path: Path) -> None:
    text = HEAD + 'engine: remote-mcp\naddress: [python, "{contract_dir}/server.py"]\nenv: {A: "{contract_dir}/a"}\n'
    made = plan(text, tmp_path)
    assert made.blueprint.remote is not None
    assert made.blueprint.remote.address == ("python", f"{tmp_path}/server.py")
    assert made.call.env == {"A": f"{tmp_path}/a"}


def test_values_are_never_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", "secret {contract_dir}")
    text = (
        MOUNTED + "command: [x, --]\nenv: {A: {secret: HIDDEN}}\nparameters:\n"
        "  a: {bind: {position: 1}, default: '{contract_dir}'}\n  b: {bind: stdin}\n  c: {bind: {file: /in}}\n"
    )
    made = plan(text, tmp_path, {"a": "{contract_dir}", "b": "{contract_dir}", "c": "{contract_dir}"})
    assert made.call.argv[-1] == "{contract_dir}"
    assert made.call.env["A"] == "secret {contract_dir}"
    assert (made.call.stdin, made.call.files[0].content) == (b"{contract_dir}", b"{contract_dir}")


@pytest.mark.parametrize(
    "command",
    ["shell: true\ncommand: ['cat {contract_dir}/a']\n", "command: [sh, -ec, 'cat {contract_dir}/a']\n"],
)
def test_a_folder_that_a_shell_would_read_as_more_than_a_path_is_refused_in_its_text(
    command: str, tmp_path: Path
) -> None:
    text = HEAD + "engine: local\n" + command
    assert f"cat {tmp_path}/a" in plan(text, tmp_path).call.argv
    for name in ("a b", "a;b", "$(a)", "a'b"):
        with pytest.raises(ExecutionError, match="shell's text"):
            plan(text, tmp_path / name)
    script = HEAD + 'engine: local\ncommand: [sh, "{contract_dir}/a.sh"]\n'
    assert plan(script, tmp_path / "a b").call.argv == ("sh", f"{tmp_path}/a b/a.sh")


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (HEAD + 'image: a\ncommand: [x, "{contract_dir}/x"]\n', "command[1]", "cannot see {contract_dir}"),
        (PLAIN + 'env: {A: "{contract_dir}"}\n', "env.A", "cannot see {contract_dir}"),
        (PLAIN + 'working_dir: "{contract_dir}"\n', "working_dir", "cannot see {contract_dir}"),
        (PLAIN + 'mounts: {./a: "/a/{contract_dir}"}\n', "mounts../a", "has no meaning in"),
        (PLAIN + 'cache_dirs: ["/a/{contract_dir}"]\n', "cache_dirs[0]", "has no meaning in"),
        (PLAIN + 'artifacts: ["/a/{contract_dir}/*"]\n', "artifacts[0]", "has no meaning in"),
        (PLAIN + 'parameters: {a: {bind: {file: "/{contract_dir}/a"}}}\n', "parameters.a.bind", "has no meaning in"),
        (HEAD + 'engine: remote-mcp\naddress: "http://{contract_dir}"\n', "address", "has no meaning in an address"),
        (MOUNTED + 'command: [x, "{contractdir}/x"]\n', "command[1]", 'did you mean "{contract_dir}"?'),
        (MOUNTED + 'command: [x, "{{contract_dir}}/x"]\n', "command[1]", 'did you mean "{contract_dir}"?'),
        (MOUNTED + 'command: [x, "${contract_dir}/x"]\n', "command[1]", 'did you mean "{contract_dir}"?'),
        (MOUNTED + 'command: [x]\nenv: {A: "{CONTRACT_DIR}"}\n', "env.A", 'did you mean "{contract_dir}"?'),
        (PLAIN + 'mounts: {"{root}/a": /a}\n', "mounts.{root}/a", "is not a placeholder"),
        (PLAIN + 'mounts: {"${HOME}/a": /a}\n', "mounts.${HOME}/a", "is not a placeholder"),
        (PLAIN + 'mounts: {"$PWD/a": /a}\n', "mounts.$PWD/a", "is not a placeholder"),
        (PLAIN + 'artifacts: ["/out/{name}.png"]\n', "artifacts[0]", "is not a placeholder"),
    ],
)
def test_a_placeholder_that_cannot_be_replaced_is_an_error_at_its_place(text: str, field: str, message: str) -> None:
    loaded = load(text)
    assert loaded.contract is None
    assert [(item.field, bool(item.remedy)) for item in loaded.diagnostics] == [(field, True)]
    assert message in loaded.diagnostics[0].message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (HEAD + 'image: a\ncommand: [echo, "{text}"]\nparameters: {text: string}\n', "command[1]"),
        (HEAD + 'image: a\ncommand: [echo, "--x={{text}}"]\nparameters: {text: string}\n', "command[1]"),
        (HEAD + "image: a\ncommand: [echo, $TEXT]\nparameters: {text: string}\n", "command[1]"),
        (HEAD + "image: a\ncommand: [echo, '${A}/b']\nenv: {A: b}\n", "command[1]"),
        (PLAIN + "env: {TOKEN: '${TOKEN}'}\n", "env.TOKEN"),
        (PLAIN + "env: {TOKEN: $TOKEN}\n", "env.TOKEN"),
        (
            HEAD + "engine: remote-mcp\naddress: http://x\nheaders: {Authorization: 'Bearer ${TOKEN}'}\n",
            "headers.Authorization",
        ),
        (HEAD + "engine: remote-mcp\naddress: http://x\nauth_token: ${TOKEN}\n", "auth_token"),
    ],
)
def test_what_stays_as_it_is_written_is_warned_of(text: str, field: str) -> None:
    loaded = load(text)
    assert loaded.contract is not None
    assert [(item.field, bool(item.remedy)) for item in loaded.diagnostics] == [(field, True)]
    assert "stays as it is written" in loaded.diagnostics[0].message


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "image: a\ncommand: [sh, -c, 'echo \"${TEXT}\" {a}; f() { x; }']\nparameters: {text: string}\n",
        HEAD + "image: a\ncommand: [bash, -c, echo, $TEXT]\nparameters: {text: string}\n",
        HEAD + "image: a\ncommand: [jq, '{name, age}', '{x}']\nparameters: {text: string}\n",
        HEAD + "image: a\ncommand: [awk, '{print $1}']\n",
        HEAD + "image: a\ncommand: [x, '{}', '{0}', '%s', '$1', $OTHER]\nparameters: {text: string}\n",
        HEAD + "image: a\nuse_entrypoint: true\ncommand: [$TEXT]\nparameters: {text: string}\n",
        HEAD + 'image: a\ncommand: [python, -c, \'print(f"{text}", end="")\']\nparameters: {text: string}\n',
        PLAIN + "env: {PS1: '$ ', FORMAT: '{message}', RUN: 'echo ${A} b'}\n",
    ],
)
def test_braces_and_dollars_of_programs_are_left_alone(text: str) -> None:
    assert load(text).diagnostics == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (PLAIN + "parameters: {a: {bind: {flagg: --a}}}\n", '"flagg" is unknown in a binding (did you mean "flag"?)'),
        (PLAIN + "parameters: {a: {bind: {flag: --a, repet: true}}}\n", '(did you mean "repeat"?)'),
        (PLAIN + "parameters: {a: {bind: stdinn}}\n", '(did you mean "stdin"?)'),
        (PLAIN + "parameters: {a: integr}\n", '(did you mean "integer"?)'),
        (PLAIN + "parameters: {a: {format: date_time}}\n", '(did you mean "date-time"?)'),
        (PLAIN + "parameters: {a: {type: array, items: {format: datetime}}}\n", '(did you mean "date-time"?)'),
        (PLAIN + "network: nonee\n", '(did you mean "none"?)'),
        (PLAIN + "output: jsn\n", '(did you mean "json"?)'),
        (PLAIN + "cache: pur\n", '(did you mean "pure"?)'),
        (PLAIN + "env: {A: {secrets: NAME}}\n", '(did you mean "secret"?)'),
        (HEAD + "engine: remote-mcp\naddress: http://x\ntransport: htp\n", '(did you mean "http"?)'),
        (HEAD + "engine: dokcer\nimage: x\ncommand: [a]\n", '(did you mean "docker"?)'),
    ],
)
def test_every_small_vocabulary_guesses_what_was_meant(text: str, hint: str) -> None:
    (finding,) = load(text).diagnostics
    assert hint in finding.message
    assert finding.remedy or "write" in finding.message


def test_known_formats_of_others_are_left_alone() -> None:
    text = PLAIN + "parameters: {a: {format: password}, b: {type: integer, format: int64}, c: {format: my-own}}\n"
    assert load(text).diagnostics == ()
