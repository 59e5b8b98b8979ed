"""The three spellings of a contract mean the same tool, each with the defaults that its authors meant."""

from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.model import EngineType, ToolContract
from praxis_mcp.contracts.reading.loading import LoadedContract, load_text
from praxis_mcp.contracts.schemas.schema import input_schema
from praxis_mcp.contracts.specs import DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec
from praxis_mcp.contracts.values import Network
from praxis_mcp.settings.base import SecretRef

OURS = """
name: greeter
version: "1.2"
description: Greets somebody.
language: python
image: python:3.11-slim
command: [python, /tool/greet.py]
mounts: {./greeter: /tool:rw}
env: {LANG: C}
env_passthrough: [WHO]
timeout: 90
memory_limit: 512Mi
network: bridge
read_only: false
drop_capabilities: false
parameters:
  who: {type: string, description: Whom to greet.}
  tone: {type: string, enum: [warm, cool], default: warm}
examples:
  - name: one
    arguments: {who: Ada}
    expect: Hello Ada
  - arguments: {who: Bob}
    expect_contains: [Hello, Bob]
integration: {category: demo}
"""
CAMEL = """
name: greeter
version: "1.2"
description: Greets somebody.
language: python
engine: dagger
params:
  - name: who
    type: string
    description: Whom to greet.
    required: "true"
  - name: tone
    type: string
    required: "false"
    enum: [warm, cool]
    default: warm
engineSpec:
  image: "python:3.11-slim"
  command: ["python", "/tool/greet.py"]
  mounts:
    ./greeter: /tool
  env: {LANG: C}
  env_passthrough: ["WHO"]
  timeout: 90
  memory_limit: 512m
examples: &examples
  - name: one
    parameters: {who: Ada}
    expected_output: Hello Ada
  - parameters: {who: Bob}
    expected_output_contains: [Hello, Bob]
integration: {category: demo}
"""
SNAKE = """
name: greeter
version: "1.2"
description: Greets somebody.
engine: dagger
language: python
engine_spec:
  image: python:3.11-slim
  command:
    - python
    - /tool/greet.py
  mounts: {"./greeter": "/tool"}
  env: {LANG: C}
  env_passthrough: [WHO]
  timeout: 90
  memory_limit: 512m
parameters:
  type: object
  properties:
    who:
      type: str
      description: Whom to greet.
    tone:
      type: string
      enum: ["warm", "cool"]
      default: warm
  required: [who]
examples:
  - name: one
    parameters: {who: Ada}
    expected_output: Hello Ada
  - parameters: {who: Bob}
    expected_output_contains: [Hello, Bob]
integration: {category: demo}
"""


def contract(text: str) -> ToolContract:
    loaded = load_text(text)
    assert loaded.contract is not None, [str(diagnostic) for diagnostic in loaded.diagnostics]
    return loaded.contract


def warnings(loaded: LoadedContract) -> list[tuple[int, str, str]]:
    assert loaded.contract is not None, [str(diagnostic) for diagnostic in loaded.diagnostics]
    return [(found.line, found.field, found.message) for found in loaded.diagnostics]


@pytest.mark.parametrize("older", [CAMEL, SNAKE], ids=["params+engineSpec", "parameters+engine_spec"])
def test_the_three_spellings_make_the_same_contract(older: str) -> None:
    ours = load_text(OURS)
    theirs = load_text(older)
    assert ours.diagnostics == theirs.diagnostics == ()
    assert ours.contract is not None
    assert theirs.contract is not None
    assert not ours.contract.is_older
    assert ours.contract.model_copy(update={"is_older": True}) == theirs.contract
    assert input_schema(ours.contract) == input_schema(theirs.contract)


def test_parameters_have_the_same_meaning_in_all_their_forms() -> None:
    forms = [
        "parameters:\n  a: int\n  b: {type: int, min: 1, required: false}\n",
        "parameters:\n- {name: a, type: int}\n- {name: b, type: int, min: 1, required: no}\n",
        "parameters:\n  type: object\n  properties: {a: {type: int}, b: {type: int, minimum: 1}}\n  required: [a]\n",
    ]
    head = "name: t\ndescription: d\nimage: x\ncommand: [x]\n"
    first, *others = (input_schema(contract(head + form)) for form in forms)
    assert first["required"] == ["a"]
    assert first["properties"]["b"] == {"type": "integer", "minimum": 1}
    assert others == [first, first]


def test_ours_requires_a_parameter_unless_it_has_a_default_and_the_older_ones_do_not() -> None:
    ours = contract("name: t\nimage: x\ncommand: [x]\nparameters: {a: string, b: {default: x}, c: }\n")
    assert [(parameter.name, parameter.required) for parameter in ours.parameters] == [
        ("a", True), ("b", False), ("c", True),
    ]  # fmt: skip
    older = contract("name: t\nengine: dagger\nengineSpec: {image: x, command: [x]}\nparams: [{name: a}, {name: b}]\n")
    assert [parameter.required for parameter in older.parameters] == [False, False]


@pytest.mark.parametrize(("word", "required"), [('"true"', True), ('"false"', False), ("yes", True), ("'no'", False)])
def test_required_may_be_written_as_text(word: str, required: bool) -> None:
    text = f"name: t\nengine: dagger\nengineSpec: {{image: x, command: [x]}}\nparams: [{{name: a, required: {word}}}]\n"
    assert contract(text).parameters[0].required is required


def test_the_older_spellings_mean_plain_docker_and_ours_the_strict_way() -> None:
    spec: Any = contract("name: t\nimage: x\ncommand: [x]\n").engine_spec
    assert (spec.network, spec.read_only, spec.drop_capabilities) == (Network.NONE, None, None)
    spec = contract("name: t\nengine: dagger\nengine_spec: {image: x, command: [x]}\n").engine_spec
    assert (spec.network, spec.read_only, spec.drop_capabilities) == (Network.BRIDGE, False, False)
    spec = contract("name: t\nengine: dagger\nengine_spec: {image: x, command: [x], network: none}\n").engine_spec
    assert spec.network is Network.NONE
    spec = contract("name: t\nengine: local\nengineSpec: {command: [x]}\n").engine_spec
    assert spec.network is Network.BRIDGE


def test_ours_names_an_engine_or_an_image() -> None:
    assert contract("name: t\nimage: x\ncommand: [x]\n").engine is EngineType.DAGGER
    assert isinstance(contract("name: t\nengine: sandbox\nimage: x\ncommand: [x]\n").engine_spec, DaggerEngineSpec)
    local = contract("name: t\nengine: local\ncommand: [x]\ncwd: '{contract_dir}'\nshell: true\n")
    assert isinstance(local.engine_spec, LocalEngineSpec)
    assert local.engine_spec.cwd == "{contract_dir}"
    remote = contract(
        "name: t\nengine: remote-mcp\naddress: https://x/mcp\nauth_token: {secret: TOKEN}\nparameters: {q: string}\n"
    )
    assert isinstance(remote.engine_spec, RemoteMCPEngineSpec)
    assert remote.engine_spec.auth_token == SecretRef(secret="TOKEN")


def test_unknown_keys_are_errors_in_ours() -> None:
    loaded = load_text("name: t\nimage: x\ncommand: [x]\ntimeot: 5\nparameters: {a: {descripton: x}}\n")
    assert loaded.contract is None
    assert [(found.line, found.field) for found in loaded.diagnostics if found.is_error] == [
        (4, "timeot"), (5, "parameters.a.descripton"),
    ]  # fmt: skip


def test_unknown_keys_are_warnings_in_the_older_spellings() -> None:
    text = """name: t
description: d
engine: dagger
autor: me
use_entrypoint: true
engineSpec:
  image: x
  command: [x]
  cwd: /x
  wrking_dir: /y
params:
  - {name: a, descripton: x}
examples:
  - {parameters: {}, expected: x}
"""
    assert warnings(load_text(text)) == [
        (4, "autor", '"autor" is unknown, and is ignored.'),
        (5, "use_entrypoint", '"use_entrypoint" is next to engineSpec, and is ignored there.'),
        (9, "engineSpec.cwd", 'The engine dagger has no "cwd", and is ignored.'),
        (10, "engineSpec.wrking_dir", '"wrking_dir" is unknown (did you mean "working_dir"?), and is ignored.'),
        (12, "params[0].descripton", '"descripton" is not a key of a parameter (did you mean "description"?), '
         "and is ignored."),
        (14, "examples[0].expected", '"expected" is unknown here (did you mean "expect"?), and is ignored.'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("resources", 'Write "memory_limit", "cpu_limit" or "pids_limit".'),
        ("resource_limits", 'Write "memory_limit", "cpu_limit" or "pids_limit".'),
        ("memory", 'Write "memory_limit".'),
        ("cpus", 'Write "cpu_limit".'),
        ("cpu", 'Write "cpu_limit".'),
        ("memry_limit", 'Write "memory_limit".'),
        ("timeout_seconds", 'Write "timeout".'),
        ("network_mode", 'Write "network".'),
        ("cap_drop", 'Write "drop_capabilities".'),
        ("readonly_rootfs", 'Write "read_only".'),
        ("max_processes", 'Write "pids_limit".'),
        ("security_opt", "Remove it."),
    ],
)
def test_what_looks_like_a_limit_is_obeyed_or_refused_in_the_older_spellings_too(key: str, remedy: str) -> None:
    (found,) = load_text(
        f"name: t\ndescription: d\nengine: dagger\nengineSpec:\n  image: x\n  command: [x]\n  {key}: 1\n"
    ).diagnostics
    assert found.is_error
    assert (found.line, found.field, found.remedy) == (7, f"engineSpec.{key}", remedy)


def test_a_limit_next_to_an_older_specification_is_refused() -> None:
    head = "name: t\ndescription: d\nengine: dagger\nengineSpec: {image: x, command: [x]}\n"
    for key, message, remedy in (
        ("timeout", "is next to engineSpec", "Move it into engineSpec."),
        ("memory", '"memory" is unknown', 'Write "memory_limit" in engineSpec.'),
        ("limits", '"limits" is unknown', 'Write "memory_limit", "cpu_limit" or "pids_limit" in engineSpec.'),
        ("resource_limits", "is next to engineSpec", "Move it into engineSpec, where the older SDK has it, or write "),
    ):
        (found,) = load_text(f"{head}{key}: {{cpu: 500m}}\n").diagnostics
        assert found.is_error
        assert message in found.message
        assert found.remedy.startswith(remedy)


def test_a_limit_of_another_name_is_answered_with_the_field_to_write() -> None:
    text = "name: t\ndescription: d\nimage: x\ncommand: [x]\n%s: 1\n"
    for key, remedy in (
        ("memory", 'Write "memory_limit".'),
        ("resource_limits", 'Write "memory_limit", "cpu_limit" or "pids_limit".'),
        ("url", "Remove it."),
        ("colour", "Fix or remove it."),
    ):
        (found,) = load_text(text % key).diagnostics
        assert (found.is_error, found.remedy) == (True, remedy)
    (found,) = load_text("name: t\ndescription: d\nengine: remote-mcp\naddress: http://x\nmemory: 1\n").diagnostics
    assert found.remedy == "Fix or remove it.", "that engine has no such field"


def test_an_older_local_tool_may_call_its_folder_working_dir() -> None:
    loaded = load_text(
        "name: t\ndescription: d\nengine: local\nengine_spec: {command: [x], working_dir: sub}\nparameters: []\n"
    )
    assert loaded.diagnostics == ()
    assert loaded.contract is not None
    assert getattr(loaded.contract.engine_spec, "cwd", None) == "sub"


def test_an_older_argument_still_replaces_a_fixed_variable_but_never_a_secret() -> None:
    text = """name: t
description: d
engine: dagger
engineSpec: {image: x, command: [x], env: {MODE: safe}}
params: [{name: mode}]
"""
    assert warnings(load_text(text)) == [(5, "params[0]", '"mode" replaces MODE, which env sets as well.')]
    (found,) = load_text(text.replace("safe", "{secret: M}")).diagnostics
    assert found.is_error
    assert found.message == '"mode" would replace the secret in MODE.'


def test_a_key_for_anchors_is_left_alone_in_every_spelling() -> None:
    for text in (OURS, CAMEL, SNAKE):
        assert load_text(f"x-note: anything\n{text}").diagnostics == ()


@pytest.mark.parametrize(
    ("first", "second"), [("engineSpec", "engine_spec"), ("params", "parameters")], ids=["specification", "parameters"]
)
def test_two_keys_for_the_same_thing_are_an_error(first: str, second: str) -> None:
    values = {"engineSpec": "{image: x, command: [x]}", "engine_spec": "{image: y, command: [y]}"}
    other = "" if first in values else "engineSpec: {image: x, command: [x]}\n"
    text = f"name: t\nengine: dagger\n{other}{first}: {values.get(first, '[]')}\n{second}: {values.get(second, '[]')}\n"
    loaded = load_text(text)
    assert loaded.contract is None
    assert f"{first} and {second} mean the same." in [found.message for found in loaded.diagnostics]


def test_an_older_contract_without_a_specification_says_so() -> None:
    loaded = load_text("name: t\nengine: dagger\nparams: []\n", Path("contract.yaml"))
    assert loaded.contract is None
    assert [found.field for found in loaded.diagnostics if found.is_error] == ["engineSpec"]


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("str", "string"), ("text", "string"), ("file", "string"), ("Path", "string"), ("int", "integer"),
        ("long", "integer"), ("float", "number"), ("double", "number"), ("bool", "boolean"), ("list", "array"),
        ("dict", "object"), ("map", "object"), ("[str, 'null']", ["string", "null"]),
        ("[int, null]", ["integer", "null"]),
    ],
)  # fmt: skip
def test_types_may_be_written_as_people_write_them(written: str, kind: Any) -> None:
    text = (
        f"name: t\nimage: x\ncommand: [x]\nparameters: {{a: {{type: {written}}}, b: {{items: {{type: {written}}}}}}}\n"
    )
    properties = input_schema(contract(text))["properties"]
    assert properties["a"]["type"] == kind
    assert properties["b"]["items"]["type"] == kind


def test_any_leaves_the_type_open() -> None:
    text = "name: t\nimage: x\ncommand: [x]\nparameters: {a: any, b: {oneOf: [{type: int}, {type: bool}]}}\n"
    assert input_schema(contract(text))["properties"] == {
        "a": {},
        "b": {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
    }


def test_mounts_are_writable_in_the_older_spellings_unless_they_say_otherwise() -> None:
    text = (
        "name: t\nengine: dagger\nengineSpec:\n  image: x\n  command: [x]\n"
        "  mounts: {./shared: /shared, ./in: '/in:ro', ./out: '/out:rw', '{contract_dir}': /tool}\n"
    )
    spec: Any = contract(text).engine_spec
    # Whoever writes a placeholder, which the older SDK did not have, writes for today.
    assert spec.mounts == {"./shared": "/shared:rw", "./in": "/in:ro", "./out": "/out:rw", "{contract_dir}": "/tool"}


def test_the_limits_of_agents_files_are_obeyed() -> None:
    text = "name: t\nengine: dagger\nengineSpec: {image: x, command: [x], resource_limits: {cpu: %s, memory: 1Gi}}\n"
    for written, cores in (("2000m", 2.0), ("'0.5'", 0.5), ("1", 1.0)):
        spec: Any = contract(text % written).engine_spec
        assert (spec.cpu_limit, spec.memory_limit) == (cores, 2**30)
    for wrong in ("half", "{a: 1}", "1m, disk: 2Gi", "1}, cpu_limit: 2, x-a: {a"):
        assert load_text(text % wrong).contract is None


def test_a_tool_that_was_part_of_the_agent_says_so() -> None:
    loaded = load_text("name: read_file\nengine: local\nparams: [{name: filename}]\n")
    assert loaded.contract is None
    assert "in the older SDK such a tool was part of the agent itself" in str(loaded.diagnostics[0])


def test_an_agents_configuration_among_the_contracts_is_called_that() -> None:
    loaded = load_text("agent:\n  name: a\n  tools: [{name: t, engine: dagger, engineSpec: {}}]\np2p: {port: 1}\n")
    (finding,) = loaded.diagnostics
    assert "the configuration of an agent of the older Praxis SDK" in finding.message
