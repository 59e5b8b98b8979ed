"""What contracts in a directory share: ``_defaults.yaml``."""

from pathlib import Path

import pytest

from praxis_mcp.contracts.discovery import DefaultsFinder
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import LoadedContract, load_bytes, load_contract
from praxis_mcp.contracts.specs import DaggerEngineSpec, LocalEngineSpec


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    return tmp_path / "tools"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(contract: Path, within: Path) -> ToolContract:
    loaded = load_contract(contract, within)
    assert loaded.contract is not None, loaded.diagnostics
    return loaded.contract


def finding(loaded: LoadedContract) -> str:
    assert loaded.contract is None
    return str(loaded.diagnostics[0])


def test_a_contract_takes_what_it_leaves_out(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: alpine:3\nnetwork: none\ntimeout: 7\ntags: [a]\n")
    contract = load(write(tools / "x" / "contract.yaml", "name: x\ncommand: ['true']\n"), tools)
    spec = contract.get_typed_spec(DaggerEngineSpec)
    assert (spec.image, spec.timeout, contract.tags) == ("alpine:3", 7, ("a",))


def test_the_nearest_wins_mappings_merge_and_lists_are_replaced(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: far:1\nenv: {A: far, B: far, C: far}\ntags: [far, farther]\ntimeout: 3\n")
    write(tools / "near" / "_defaults.yaml", "image: near:1\nenv: {B: near, C: near}\ntags: [near]\n")
    text = "name: x\ncommand: ['true']\nenv: {C: own, D: own}\n"
    contract = load(write(tools / "near" / "x.contract.yaml", text), tools)
    spec = contract.get_typed_spec(DaggerEngineSpec)
    assert (spec.image, spec.timeout, contract.tags) == ("near:1", 3, ("near",))
    assert spec.env == {"A": "far", "B": "near", "C": "own", "D": "own"}


def test_null_takes_back_what_was_shared(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: alpine:3\nuser: '1000'\n")
    contract = load(write(tools / "contract.yaml", "name: x\ncommand: ['true']\nuser: null\n"), tools)
    assert contract.get_typed_spec(DaggerEngineSpec).user is None
    text = "name: y\nengine: local\nimage: null\nuser: null\ncommand: ['true']\n"
    assert load(write(tools / "y" / "contract.yaml", text), tools).get_typed_spec(LocalEngineSpec).command == ("true",)


def test_parameters_are_merged_and_what_aliases_share_stays_apart(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: alpine:3\nparameters: {a: &p {type: string, bind: env}, b: *p}\n")
    text = "name: x\ncommand: ['true']\nparameters: {a: {default: here}, c: {type: integer, bind: env}}\n"
    contract = load(write(tools / "contract.yaml", text), tools)
    found = {item.name: item for item in contract.parameters}
    assert list(found) == ["a", "b", "c"]
    assert found["a"].has_default
    assert not found["b"].has_default


def test_text_that_looks_like_a_number_is_taken_as_it_is_written(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: alpine:3\nversion: 1.10\nenv: {PORT: 0x1F}\n")
    contract = load(write(tools / "contract.yaml", "name: x\ncommand: ['true']\nenv: {ON: yes}\n"), tools)
    assert contract.version == "1.10"
    assert contract.get_typed_spec(DaggerEngineSpec).env == {"PORT": "0x1F", "ON": "yes"}


def test_what_is_wrong_is_reported_where_it_stands(tools: Path) -> None:
    shared = write(tools / "_defaults.yaml", "image: alpine:3\ntimeout: soon\nenv:\n  A: [1]\n")
    own = write(tools / "x" / "contract.yaml", "name: x\ndescription: X.\ncommand: ['true']\nmemory_limit: much\n")
    found = {item.field: (item.path, item.line) for item in load_contract(own, tools).diagnostics}
    assert found == {"timeout": (shared, 2), "env.A": (shared, 4), "memory_limit": (own, 4)}


def test_what_a_contract_replaces_is_reported_at_the_contract(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: alpine:3\n\n\nenv: {A: {secret: NAME}}\n")
    own = write(tools / "contract.yaml", "name: x\ndescription: X.\ncommand: ['true']\nenv: wrong\n")
    item = load_contract(own, tools).diagnostics[0]
    assert (item.path, item.line) == (own, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: a\nname: x\n", ':2:1: error [name]: "name" cannot be shared.'),
        ("engineSpec: {image: a}\n", ':1:1: error [engineSpec]: "engineSpec" cannot be shared.'),
        ("- a\n", ": error: The file holds a mapping, not"),
        ("a: b: c\n", "The file is not valid YAML"),
        ("# nothing\n", "Write the keys that contracts share, or delete the file."),
        ("image: a\nimage: b\n", "appears twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(tools: Path, text: str, says: str) -> None:
    shared = write(tools / "_defaults.yaml", text)
    message = finding(load_contract(write(tools / "contract.yaml", "name: x\ncommand: ['true']\n"), tools))
    assert message.startswith(str(shared))
    assert says in message


def test_contracts_of_the_older_spellings_take_nothing(tools: Path) -> None:
    write(tools / "_defaults.yaml", "timeout: 7\nengineSpec: not even read\n")
    text = "name: x\nengine: dagger\nengineSpec: {image: alpine, command: ['true']}\n"
    contract = load(write(tools / "contract.yaml", text), tools)
    assert contract.get_typed_spec(DaggerEngineSpec).timeout != 7


def test_nothing_above_the_directory_of_contracts_counts(tools: Path) -> None:
    write(tools.parent / "_defaults.yaml", "engine: local\n")
    own = write(tools / "x" / "contract.yaml", "name: x\ncommand: ['true']\n")
    assert "No engine is named" in finding(load_contract(own, tools))
    assert "No engine is named" in finding(load_contract(own))
    write(own.parent / "_defaults.yaml", "engine: local\n")
    assert load_contract(own).contract is not None


def test_a_link_that_leads_out_is_not_followed(tools: Path, tmp_path: Path) -> None:
    foreign = write(tmp_path / "foreign.yaml", "engine: local\n")
    own = write(tools / "contract.yaml", "name: x\ncommand: ['true']\n")
    (tools / "_defaults.yaml").symlink_to(foreign)
    assert "leads out of the tools directory" in finding(load_contract(own, tools))


def test_what_one_contract_replaces_others_keep(tools: Path) -> None:
    write(tools / "_defaults.yaml", "image: alpine:3\nenv: {A: shared}\n")
    first = write(tools / "a.contract.yaml", "name: a\ncommand: ['true']\nenv: {A: own}\n")
    second = write(tools / "b.contract.yaml", "name: b\ncommand: ['true']\n")
    finder = DefaultsFinder([tools])
    loaded = [load_bytes(file.read_bytes(), file, defaults=finder.of(str(file))) for file in (first, second)]
    specs = [item.contract.get_typed_spec(DaggerEngineSpec) for item in loaded if item.contract is not None]
    assert [spec.env for spec in specs] == [{"A": "own"}, {"A": "shared"}]


def test_a_contract_in_json_takes_them_too(tools: Path) -> None:
    write(tools / "_defaults.yaml", "engine: local\nenv: {A: shared}\n")
    contract = load(write(tools / "contract.json", '{"name": "x", "command": ["true"], "env": {"B": "own"}}'), tools)
    assert contract.get_typed_spec(LocalEngineSpec).env == {"A": "shared", "B": "own"}
