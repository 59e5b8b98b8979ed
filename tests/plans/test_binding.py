"""Arguments become words, variables, standard input and files, exactly, or are refused with a way out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.variables import is_reserved
from praxis_mcp.errors import ArgumentError
from praxis_mcp.plans.binding import MAX_WORD, Bound, bind_arguments, variable_names


def bind(parameters: list[dict[str, Any]], arguments: dict[str, Any], command: tuple[str, ...] = ("tool",)) -> Bound:
    contract = ToolContract.create_local_tool("t", list(command), parameters=parameters)
    return bind_arguments(contract, arguments)


HOSTILE = ["$(touch /tmp/x)", "`id`", "a'b\"c", "line\nline", "; rm -rf /", "\\", "%n", "ünïcødé 🎉", "", " ", "*", "~"]


@pytest.mark.parametrize("value", HOSTILE)
def test_text_arrives_exactly_whatever_it_says_to_a_shell(value: str) -> None:
    bound = bind(
        [
            {"name": "e"},
            {"name": "f", "bind": {"flag": "--f"}},
            {"name": "j", "bind": {"flag": "--j="}},
            {"name": "p", "bind": {"position": 1}},
            {"name": "s", "bind": "stdin"},
            {"name": "w", "bind": {"file": "/work/in.txt"}},
        ],
        dict.fromkeys("efjpsw", value),
    )
    assert bound.env == {"e": value, "E": value}
    assert bound.words == ("--f", value, f"--j={value}", value)
    assert bound.stdin == value.encode()
    assert [(file.path, file.content) for file in bound.files] == [("/work/in.txt", value.encode())]


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200))
def test_any_text_without_nul_is_one_word_and_one_variable(value: str) -> None:
    bound = bind([{"name": "e"}, {"name": "f", "bind": {"flag": "-f"}}], {"e": value, "f": value})
    assert bound.env["E"] == value
    assert bound.words == ("-f", value)


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (1.5, "1.5"), (True, "true"), ([1, "a"], '[1,"a"]'), ({"a": None}, '{"a":null}')]
)
def test_what_is_not_text_travels_as_json(value: Any, text: str) -> None:
    assert bind([{"name": "v", "type": None}], {"v": value}).env["v"] == text
    assert json.loads(text) == value


def test_a_boolean_flag_is_there_or_not() -> None:
    flag = [{"name": "deep", "type": "boolean", "bind": {"flag": "--deep"}}]
    assert bind(flag, {"deep": True}).words == ("--deep",)
    assert bind(flag, {"deep": False}).words == ()


def test_an_array_can_give_one_word_for_each_item() -> None:
    flags = [{"name": "x", "type": "array", "bind": {"flag": "-x", "repeat": True}}]
    assert bind(flags, {"x": ["a b", "c"]}).words == ("-x", "a b", "-x", "c")
    files = [{"name": "x", "type": "array", "bind": {"position": 1, "repeat": True}}]
    assert bind(files, {"x": ["a b", "c"]}).words == ("a b", "c")


def test_positions_follow_flags_in_their_own_order() -> None:
    bound = bind(
        [
            {"name": "b", "bind": {"position": 2}},
            {"name": "a", "bind": {"position": 1}},
            {"name": "f", "bind": {"flag": "-f"}},
        ],
        {"a": "1", "b": "2", "f": "3"},
    )
    assert bound.words == ("-f", "3", "1", "2")


def test_what_is_not_given_is_not_there() -> None:
    bound = bind([{"name": "e"}, {"name": "s", "bind": "stdin"}, {"name": "p", "bind": {"position": 1}}], {})
    assert (bound.env, bound.words, bound.stdin) == ({}, (), None)


def test_base64_content_becomes_the_bytes_it_stands_for() -> None:
    keywords = {"contentEncoding": "base64"}
    bound = bind([{"name": "s", "keywords": keywords, "bind": "stdin"}], {"s": "AP/+"})
    assert bound.stdin == b"\x00\xff\xfe"
    with pytest.raises(ArgumentError, match="not valid base64"):
        bind([{"name": "s", "keywords": keywords, "bind": "stdin"}], {"s": "no base64!"})


@pytest.mark.parametrize("bind_to", ["env", {"flag": "-f"}, {"flag": "--f="}, {"position": 1}])
@pytest.mark.parametrize(
    ("value", "reason"),
    [("a\0b", "NUL"), ("x" * (MAX_WORD + 1), "bind it to stdin or file"), ("\ud800", "not valid Unicode")],
)
def test_what_a_word_cannot_carry_is_refused_by_name(bind_to: Any, value: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=rf'"v" .*{reason}'):
        bind([{"name": "v", "bind": bind_to}], {"v": value})


def test_nul_and_a_megabyte_arrive_by_stdin_and_file() -> None:
    value = "a\0b" * 350_000
    bound = bind([{"name": "s", "bind": "stdin"}, {"name": "w", "bind": {"file": "/w"}}], {"s": value, "w": value})
    assert bound.stdin == value.encode()
    assert bound.files[0].content == value.encode()


def test_all_arguments_together_are_bounded() -> None:
    parameters = [{"name": f"p{number}"} for number in range(8)]
    with pytest.raises(ArgumentError, match="all arguments together"):
        bind(parameters, {f"p{number}": "x" * 100_000 for number in range(8)})


def test_every_value_that_cannot_be_carried_is_named() -> None:
    with pytest.raises(ArgumentError) as caught:
        bind([{"name": "a"}, {"name": "b"}], {"a": "\0", "b": "\0"})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("value", ["-o", "--output=/etc/passwd", "-"])
def test_a_positional_text_cannot_become_an_option(value: str) -> None:
    parameters = [{"name": "p", "bind": {"position": 1}}]
    if value != "-":  # by custom "-" alone is a file name, never an option
        with pytest.raises(ArgumentError, match="could be read as an option"):
            bind(parameters, {"p": value})
    assert bind(parameters, {"p": value}, ("tool", "--")).words == (value,)
    allowed = [{"name": "p", "bind": {"position": 1, "allow_dash": True}}]
    assert bind(allowed, {"p": value}).words == (value,)


def test_two_dashes_protect_at_the_end_of_the_command_only() -> None:
    parameters = [{"name": "p", "bind": {"position": 1}}]
    for inside in (("nice", "--", "tool"), ("--", "tool")):
        with pytest.raises(ArgumentError, match="begins with a dash"):
            bind(parameters, {"p": "-x"}, inside)
    shell = ToolContract.create_local_tool("t", ["tool", "--"], shell=True, parameters=parameters)
    with pytest.raises(ArgumentError, match="begins with a dash"):
        bind_arguments(shell, {"p": "-x"})


@pytest.mark.parametrize("number", [-5, -0.5])
def test_a_negative_number_could_be_an_option_like_any_word(number: float) -> None:
    parameter: dict[str, Any] = {"name": "p", "type": "number", "bind": {"position": 1}}
    with pytest.raises(ArgumentError, match="could be read as an option"):
        bind([parameter], {"p": number})
    assert bind([parameter], {"p": number}, ("tool", "--")).words == (str(number),)
    assert bind([{**parameter, "bind": {"position": 1, "allow_dash": True}}], {"p": number}).words == (str(number),)
    assert bind([parameter], {"p": 5}).words == ("5",)


def test_a_boolean_is_the_flag_or_nothing_and_joined_it_is_the_value() -> None:
    plain, joined = ({"name": "p", "type": "boolean", "bind": {"flag": flag}} for flag in ("--x", "--x="))
    assert [bind([plain], {"p": value}).words for value in (True, False)] == [("--x",), ()]
    assert [bind([joined], {"p": value}).words for value in (True, False)] == [("--x=true",), ("--x=false",)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", ("text", "TEXT")),
        ("max-size", ("max-size", "MAX-SIZE", "MAX_SIZE")),
        ("path", ("path",)),
        ("A", ("A",)),
    ],
)
def test_a_parameter_arrives_under_its_own_name_and_in_upper_case_unless_reserved(
    name: str, expected: tuple[str, ...]
) -> None:
    contract = ToolContract.create_local_tool("t", ["x"], parameters=[{"name": name}])
    assert variable_names(contract.parameters[0]) == expected


def test_a_contract_that_nothing_checked_cannot_set_what_no_argument_may_set() -> None:
    unchecked = ToolContract.create_local_tool("t", ["x"])
    path, odd = (
        unchecked.model_copy(update={"parameters": (ToolParameter(name=name),)})  # pydantic validates no copies
        for name in ("PATH", "BASH_ENV=/tmp/x")
    )
    with pytest.raises(ArgumentError, match="no argument may set"):
        bind_arguments(path, {"PATH": "x"})
    assert bind_arguments(odd, {"BASH_ENV=/tmp/x": "x"}).env == {"BASH_ENV__TMP_X": "x"}
    contract = ToolContract.create_local_tool("t", ["x"], env={"T": {"secret": "X"}})
    contract = contract.model_copy(update={"parameters": (ToolParameter(name="t"),)})
    with pytest.raises(ArgumentError, match="holds a secret"):
        bind_arguments(contract, {"t": "x"})


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LD_PRELOAD",
        "IFS",
        "BASH_ENV",
        "PYTHONPATH",
        "BASH_FUNC_ls%%",
        "https_proxy",
        "NODE_OPTIONS",
        "GIT_SSH",
        "PATH=/x",
    ],
)
def test_names_that_steer_loader_shell_or_interpreter_are_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["path", "TEXT", "PYTHON_VERSION", "GIT_URL", "file_path"])
def test_ordinary_names_are_not_reserved(name: str) -> None:
    assert not is_reserved(name)
