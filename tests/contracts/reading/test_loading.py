"""Whatever a contract's file holds, loading it gives a contract or findings with their line and remedy."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.contracts.reading.loading import LoadedContract, load_bytes, load_contract, load_text
from praxis_mcp.contracts.reading.spellings import CONTRACT_KEYS, SPEC_KEYS
from praxis_mcp.contracts.schemas.format_schema import contract_format_schema
from praxis_mcp.contracts.schemas.schema import input_schema, validate_arguments
from praxis_mcp.contracts.schemas.validators import compile_schema, schema_errors
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import PraxisError

HEAD = "name: t\ndescription: Does it.\nimage: busybox\ncommand: [x]\n"


def found(text: str, name: str = "contract.yaml") -> list[str]:
    """Each finding as `line field: message remedy`."""
    return [told(diagnostic) for diagnostic in load_text(text, Path("/tools/t") / name).diagnostics]


def told(diagnostic: Diagnostic) -> str:
    return f"{diagnostic.line} {diagnostic.field}: {diagnostic.message} {diagnostic.remedy}".strip()


def with_parameters(text: str) -> LoadedContract:
    body = "".join(f"  {line}\n" for line in text.splitlines())
    return load_text(f"{HEAD}parameters:\n{body}")


class TestFiles:
    def test_a_contract_knows_its_file(self, tmp_path: Path) -> None:
        file = tmp_path / "contract.yaml"
        file.write_text(HEAD)
        loaded = load_contract(file)
        assert loaded.contract is not None
        assert loaded.contract.source == file
        assert loaded.contract.directory == tmp_path
        assert loaded.diagnostics == ()

    def test_a_description_that_ends_at_a_comment_is_warned_of_and_a_comment_two_spaces_away_is_not(self) -> None:
        text = (
            "name: t\ndescription: Does it.  # when asked\nimage: busybox  # any\ncommand: [x] # no text\nparameters:\n"
            "  color:\n    description: A color ü, as #rrggbb.\n  quoted: {description: 'As #rrggbb.'}\n"
            "  title: string # of the whole\n"
        )
        (finding,) = found(text)
        assert finding.startswith("7 parameters.color.description: The description ends before the #")
        assert "quotation marks" in finding
        loaded = load_text(text).contract
        assert loaded is not None, "a warning only"
        assert loaded.parameters[0].description == "A color ü, as"

    def test_json_is_read_as_json_and_findings_have_lines_there_too(self) -> None:
        good = {"name": "t", "description": "Emoji: 😀", "image": "busybox", "command": ["x"]}
        loaded = load_text(json.dumps(good), Path("contract.json"))
        assert loaded.contract is not None
        assert loaded.contract.description == "Emoji: 😀"
        assert found('{\n"name": "t",\n"description": "d",\n"image": "x",\n"comand": ["x"]\n}', "contract.json") == [
            '5 comand: "comand" is unknown (did you mean "command"?). Fix or remove it.',
        ]

    @pytest.mark.parametrize(
        ("text", "finding"),
        [
            ('{"name": "a",\n}', "2 : The file is not valid JSON"),
            ('{"name": NaN}', "NaN is not a number that JSON knows"),
            ('{\n"name": "a",\n"name": "b"}', '3 : The key "name" appears twice in one mapping, in lines 2 and 3.'),
            ("[" * 5000, "nested more than 100 levels deep"),
        ],
    )
    def test_broken_json_is_reported_by_line(self, text: str, finding: str) -> None:
        (message,) = found(text, "contract.json")
        assert finding in message

    @pytest.mark.parametrize(
        ("content", "finding"),
        [
            (b"", "1 : The file is empty."),
            (b"---\n# nothing\n", "The file is empty."),
            (b"- a\n", "1 : A contract is a mapping, not an array of 1 item."),
            (b"just text", "A contract is a mapping"),
            (b"name: a\nimage: \xe9\n", "2 : The file is not UTF-8 text. Save it in UTF-8."),
            (b"name: a\n" + b"#" * 2**20, "The file is larger than 1024 KiB."),
            (b"name: a\n\timage: b\n", "2 : The file is not valid YAML"),
            (b"name: 'a\n", "The file is not valid YAML"),
            (b"name: a\x00b\n", "control characters are not allowed"),
            (b"name: a\n---\nname: b\n", "The file holds 2 YAML documents. Write each contract to a file of its own"),
            (b"name: a\nimage: b\nname: c\n", '3 : The key "name" appears twice in one mapping, in lines 1 and 3.'),
            (b"a: " + b"[" * 200, "nested more than 100 levels deep"),
            (b"[" * 500_000, "nested more than 100 levels deep"),
            (b"a: *b\n", "The alias *b has no anchor before it."),
            (b"a: &a [*a]\n", "The alias *a contains itself."),
            (b"a: !!python/object:os.system x\n", "The tag tag:yaml.org,2002:python/object:os.system is not known"),
            (b"? [a]\n: b\n", "A key must be text"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_reported_with_its_line(
        self, tmp_path: Path, content: bytes, finding: str
    ) -> None:
        file = tmp_path / "contract.yaml"
        file.write_bytes(content)
        loaded = load_contract(file)
        assert loaded.contract is None
        assert finding in " | ".join(told(diagnostic) for diagnostic in loaded.diagnostics)
        assert all(diagnostic.path == file for diagnostic in loaded.diagnostics)

    def test_a_missing_file_is_reported(self, tmp_path: Path) -> None:
        (diagnostic,) = load_contract(tmp_path / "contract.yaml").diagnostics
        assert "No such file" in diagnostic.message

    def test_aliases_that_multiply_are_refused(self) -> None:
        levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        assert "Aliases add more than 10000 values" in found("\n".join(levels))[0]

    def test_anchors_and_merges_work_in_moderation(self) -> None:
        anchor = "x-text: &text {type: string, minLength: 1}\n"
        loaded = load_text(f"{anchor}{HEAD}parameters:\n  a: *text\n  b:\n    <<: *text\n    minLength: 2\n")
        assert loaded.contract is not None
        assert [parameter.keywords["minLength"] for parameter in loaded.contract.parameters] == [1, 2]


class TestYamlTraps:
    def test_text_stays_as_it_was_written(self) -> None:
        loaded = load_text(
            "name: t\ndescription: 12\nversion: 1.10\ntags: [2024, on, 007]\nimage: busybox\ncommand: [x]\n"
            "env: {DEBUG: yes, PORT: 0x1F, ZIP: 01234, DAY: 2024-01-01, BIG: 1_000, AT: 12:30}\n"
        )
        assert loaded.contract is not None
        assert (loaded.contract.version, loaded.contract.description) == ("1.10", "12")
        assert loaded.contract.tags == ("2024", "on", "007")
        assert getattr(loaded.contract.engine_spec, "env") == {  # noqa: B009
            "DEBUG": "yes", "PORT": "0x1F", "ZIP": "01234", "DAY": "2024-01-01", "BIG": "1_000", "AT": "12:30",
        }  # fmt: skip

    def test_a_parameter_may_be_named_with_a_word_that_yaml_reads_otherwise(self) -> None:
        loaded = with_parameters("on: string\n404: string\nnull: string\n")
        assert loaded.contract is not None
        assert [parameter.name for parameter in loaded.contract.parameters] == ["on", "404", "null"]

    def test_words_in_an_enum_of_text_are_text_with_a_warning(self) -> None:
        loaded = with_parameters("a: {type: string, enum: [yes, no, 1.10], default: yes}\n")
        assert loaded.contract is not None
        assert loaded.contract.parameters[0].keywords["enum"] == ["yes", "no", "1.10"]
        assert loaded.contract.parameters[0].default == "yes"
        assert [diagnostic.field for diagnostic in loaded.diagnostics] == [
            "parameters.a.enum[0]", "parameters.a.enum[1]", "parameters.a.enum[2]", "parameters.a.default",
        ]  # fmt: skip

    def test_words_in_an_enum_of_any_type_are_warned_of(self) -> None:
        loaded = with_parameters("a: {type: any, enum: [yes, true, maybe]}\n")
        assert [(found.field, found.message) for found in loaded.diagnostics] == [
            ("parameters.a.enum[0]", "YAML reads yes as true.")
        ]

    def test_numbers_are_those_of_json(self) -> None:
        loaded = with_parameters("a: {type: number, max: 1e5, default: 2.5}\n")
        assert loaded.contract is not None
        assert loaded.contract.parameters[0].keywords == {"maximum": 100000.0}


class TestParameters:
    @pytest.mark.parametrize(
        ("text", "finding"),
        [
            ("a: strng", '"strng" is not a type (did you mean "string"?).'),
            ("a: {type: url}", "Write type: string and format: uri."),
            ("a: {type: 'list[str]'}", "Write type: array and items: {type: …}."),
            ("a: {type: array, items: {type: object, properties: {b: {type: strin}}}}", '"strin" is not a type'),
            ("a: {patern: x}", '"patern" is not a key of a parameter (did you mean "pattern"?).'),
            ("a: {min: 1, minimum: 2}", "minimum is written twice"),
            ("a: {type: string, pattern: '('}", 'The pattern "(" is not a regular expression: unclosed group.'),
            ("a: {type: string, pattern: '(?=x)'}", 'The pattern "(?=x)" has a look-ahead or look-behind'),
            ("a: {type: string, pattern: '(x)\\1'}", "has a back-reference, which is not supported. Write it without"),
            ("a: {type: string, pattern: '[!--/]'}", "an operation on sets"),
            ("a: {type: object, patternProperties: {'(?!x)': {}}}", 'The pattern "(?!x)" has a look-ahead'),
            ("a: {items: {pattern: 'x{9}{9}{9}{999999}'}}", "becomes too large, because of its"),
            (
                "a: {type: object, patternProperties: {x: {}}, unevaluatedProperties: false}",
                "unevaluatedProperties cannot be used with patternProperties",
            ),
            ("a: {type: integer, minimum: one}", 'In JSON Schema, "minimum" cannot be "one".'),
            ("a: {type: array, items: {minLength: -1}}", 'In JSON Schema, "minLength" cannot be -1.'),
            ("a: {type: integer, default: x}", 'The default does not fit: "a" is "x", and must be a whole number.'),
            ("a: {type: integer, default: 0, min: 1}", 'The default does not fit: "a" is 0, and must be at least 1.'),
            ("a: {enum: [x, y], default: z}", 'must be one of "x", "y"'),
            ("a: {type: integer, enum: [1, x]}", '"x" is allowed by enum, but not by type: integer.'),
            ("a: {$ref: 'https://example.com/s.json'}", "leaves the contract, and nothing is fetched"),
            ("a: {type: array, items: {$ref: other.json}}", "leaves the contract"),
            ("a: {$ref: '#/$defs/none'}", 'The reference "#/$defs/none" leads nowhere.'),
            ("a: {required: perhaps}", 'required is true or false, not "perhaps".'),
            ("a: 5", '"a" is defined by a mapping or a type, not 5.'),
            ("- a", "A parameter in a list has a name."),
            ("- {name: a}\n- {name: a}", 'The parameter "a" is declared twice.'),
            ("type: object\nproperties: {a: {}}\nrequired: [b]", '"b" is required, but not among the properties'),
            ("a: {bind: args}", '"args" is not a binding'),
            ("a: {bind: {position: 0}}", "A position is a whole number from 1."),
            ("a: {bind: {env: PATH}}", '"a" would set the variable PATH'),
            ("LD_PRELOAD: string", '"LD_PRELOAD" would set the variable LD_PRELOAD'),
            ("a: {bind: stdin}\nb: {bind: stdin}", '"a" and "b" are both bound to standard input.'),
            ("a: {bind: {position: 1}}\nb: {bind: {position: 1}}", "are both bound to the position 1."),
            ("a: {bind: {flag: --x}}\nb: {bind: {flag: --x=}}", "are both bound to the flag --x."),
            ("a: {bind: {file: /w/x}}\nb: {bind: {file: /w/x}}", "are both bound to the file /w/x."),
            ("a: {bind: {env: X}}\nx: string", "are both bound to the variable X."),
            ("a-b: string\nA_B: string", "are both bound to the variable A_B."),
        ],
    )
    def test_a_wrong_parameter_is_an_error_at_its_line(self, text: str, finding: str) -> None:
        loaded = with_parameters(text)
        assert loaded.contract is None
        errors = [diagnostic for diagnostic in loaded.diagnostics if diagnostic.is_error]
        assert finding in " | ".join(told(diagnostic) for diagnostic in errors)
        assert all(diagnostic.line >= 5 and diagnostic.field.startswith("parameters") for diagnostic in errors)

    @pytest.mark.parametrize(
        ("text", "finding"),
        [
            ("path: string", '"path" is set as path only: no argument may set PATH.'),
            ("a: {type: integer, default: '5'}", 'The default is "5"; 5 is taken.'),
            ("a: {required: true, default: x}", '"a" is required, so its default is never used.'),
            ("'a b': {bind: stdin}", 'Some clients refuse tools with a parameter named "a b".'),
            ("type: object\nproperties: {}\nadditionalProperties: true", "are refused all the same"),
        ],
    )
    def test_a_doubtful_parameter_is_a_warning(self, text: str, finding: str) -> None:
        loaded = with_parameters(text)
        assert loaded.contract is not None
        assert finding in " | ".join(told(diagnostic) for diagnostic in loaded.diagnostics)

    @pytest.mark.parametrize("older", [False, True])
    def test_a_variable_that_describes_this_machine_is_not_passed_into_an_image_with_a_warning(
        self, *, older: bool
    ) -> None:
        spec = "image: busybox\ncommand: [x]\nenv_passthrough: [TZ, PATH]\n"
        if older:
            spec = "engine_spec:\n" + "".join(f"  {line}\n" for line in spec.splitlines())
        text = f"name: t\ndescription: Does it.\nengine: dagger\n{spec}"
        assert [told(item) for item in load_text(text).diagnostics if "describes" in item.message] == [
            f"{7 if older else 6} {'engine_spec.' if older else ''}env_passthrough[1]: PATH describes this machine, "
            "and is not passed into an image: the image has its own. Remove it, or write the value that the image "
            "needs: env: {PATH: …}."
        ]
        here = text.replace("engine: dagger", "engine: local").replace("image: busybox", "network: none")
        assert found(here) == []

    def test_a_whole_json_schema_is_kept(self) -> None:
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"name": {"type": "string", "minLength": 1}},
            "properties": {"a": {"$ref": "#/$defs/name"}, "b": {"oneOf": [{"type": "integer"}, {"const": "x"}]}},
            "required": ["a"],
            "dependentRequired": {"b": ["a"]},
            "additionalProperties": False,
        }
        document = {"name": "t", "description": "d", "image": "x", "command": ["x"], "parameters": schema}
        loaded = load_text(json.dumps(document), Path("contract.json"))
        assert loaded.diagnostics == ()
        assert loaded.contract is not None
        assert input_schema(loaded.contract) == schema
        assert validate_arguments(loaded.contract, {"a": "x", "b": 1}) == {"a": "x", "b": 1}


class TestContract:
    @pytest.mark.parametrize(
        ("key", "written"),
        [
            ("image", "imge"),
            ("image", "images"),
            ("command", "comand"),
            ("name", "nme"),
            ("engine", "engin"),
            ("description", "descripton"),
        ],
    )
    def test_a_misspelled_key_is_one_error_and_that_the_right_one_is_missing_is_not_another(
        self, key: str, written: str
    ) -> None:
        for engine in ("engine: docker\n", "" if key != "engine" else "engine: local\n"):
            text = f"name: t\ndescription: d\n{engine}image: busybox\ncommand: [x]\n"
            (finding,) = found(text.replace(f"{key}:", f"{written}:"))
            assert f'{written}: "{written}" is unknown (did you mean "{key}"?).' in finding

    def test_a_memory_limit_without_its_unit_is_a_warning(self) -> None:
        (finding,) = found(f"{HEAD}memory_limit: 64\n")
        assert finding.startswith(
            "5 memory_limit: The memory limit is 64 bytes, in which no program runs. Write it with"
        )
        assert found(f"{HEAD}memory_limit: 64Mi\n") == []

    def test_what_is_missing_is_said_where_no_key_was_meant_to_be_it(self) -> None:
        assert found("name: t\ndescription: d\nimage: x\nfoo: [x]\n") == [
            '1 command: This is missing. Write a list of words, such as ["python", "/tool/main.py"].',
            '4 foo: "foo" is unknown. Fix or remove it.',
        ]
        texts = found("name: t\ndescription: d\nimage: x\ncommand: 1\ncomand: [x]\n")
        assert len(texts) == 2, "the right one is there, and wrong"

    @pytest.mark.parametrize(
        ("text", "finding"),
        [
            ("image: x\ncommand: [x]\n", "name: This is missing."),
            ("name: t\ncommand: [x]\n", "Write image: NAME for a command in a container, or engine: local"),
            ("name: t\naddress: http://x\n", "Write engine: remote-mcp."),
            (
                "name: t\nengine: dokcer\nimage: x\ncommand: [x]\n",
                '2 engine: "dokcer" is not an engine (did you mean "docker"?)',
            ),
            ("name: a b\nimage: x\ncommand: [x]\n", "1 name: A tool's name has 1 to 128 characters"),
            ("name: t\nimage: x\ncommand: x -y\n", "3 command: Write the command as a list of words"),
            (
                "name: t\nimage: x\ncommand: [x]\ncwd: /x\n",
                '4 cwd: The engine dagger has no "cwd". Write "working_dir".',
            ),
            ("name: t\nengine: local\nimage: x\ncommand: [x]\n", '3 image: The engine local has no "image".'),
            (f"{HEAD}timeout: soon\n", "5 timeout: This must be a number. Write seconds"),
            (f"{HEAD}memory_limit: lots\n", "5 memory_limit: 'lots' is not a size"),
            (f"{HEAD}cpu_limit: inf\n", "5 cpu_limit: "),
            (f"{HEAD}network: wifi\n", "5 network: 'wifi' is not a network"),
            (f"{HEAD}mounts: {{./a: b}}\n", '5 mounts../a: "b" is not a place for a mount.'),
            (f"{HEAD}mounts: {{./a: '/b:rx'}}\n", 'A mount has no option "rx".'),
            (f"{HEAD}mounts: [./a]\n", "5 mounts: This must be a mapping. Write a mapping of host path"),
            (f"{HEAD}output_schema: {{type: object}}\n", "Output_schema goes with output: json."),
            (f"{HEAD}output: json\noutput_schema: {{type: objct}}\n", '6 output_schema.type: "objct" is not a type'),
            (f"{HEAD}output: json\noutput_schema: {{$ref: 'x.json'}}\n", "leaves the contract"),
            (f"{HEAD}output: xml\n", '5 output: "xml" is not one of text, json.'),
            (
                f"{HEAD}examples: [{{argments: {{}}}}]\n",
                '5 examples[0].argments: "argments" is unknown here (did you mean',
            ),
            (f"{HEAD}annotations: {{readonly: true}}\n", '(did you mean "read_only"?)'),
            (f"{HEAD}engine: remote-mcp\n", '3 image: The engine remote-mcp has no "image".'),
            (
                "name: t\nengine: remote-mcp\naddress: http://x\nparameters: {a: {bind: stdin}}\n",
                "4 parameters.a.bind: A remote tool gets its arguments as they are",
            ),
        ],
    )
    def test_what_is_wrong_is_reported_with_its_line_and_remedy(self, text: str, finding: str) -> None:
        loaded = load_text(text)
        assert loaded.contract is None
        assert finding in " | ".join(told(diagnostic) for diagnostic in loaded.diagnostics if diagnostic.is_error)

    def test_everything_wrong_is_reported_at_once(self) -> None:
        text = "nam: t\nimage: x\ntimeout: -1\nparameters:\n  a: {type: strng}\n  b: {bind: {env: PATH}}\n"
        assert [line.split(": ")[0] for line in found(text)] == [
            "1 command", "1 nam", "1 description", "3 timeout", "5 parameters.a.type", "6 parameters.b.bind",
        ]  # fmt: skip

    def test_a_tool_without_description_or_with_a_long_name_is_warned_of(self) -> None:
        loaded = load_text(f"name: {'t' * 65}\nimage: x\ncommand: [x]\n")
        assert loaded.contract is not None
        messages = " | ".join(diagnostic.message for diagnostic in loaded.diagnostics)
        assert "The tool has no description" in messages
        assert "The name has 65 characters" in messages

    def test_an_example_that_cannot_be_called_is_warned_of_unless_it_is_to_fail(self) -> None:
        text = f"{HEAD}parameters: {{n: int}}\nexamples:\n- arguments: {{n: x}}\n- arguments: {{}}\n  expect_exit: 2\n"
        assert found(text) == [
            '7 examples[0]: The example cannot be called: "n" is "x", and must be a whole number. Fix its arguments.'
        ]

    def test_no_finding_repeats_an_environment_a_header_or_a_token(self) -> None:
        secret = "hunter2"
        texts = [
            f"{HEAD}env: {{A: [{secret}], B: {{secrt: {secret}}}, C: {{secret: [{secret}]}}}}\n",
            f"{HEAD}env: [A={secret}]\n",
            f"name: t\nengine: remote-mcp\naddress: http://x\nheaders: {{A: [{secret}]}}\nauth_token: [{secret}]\n",
        ]
        for text in texts:
            loaded = load_text(text)
            assert loaded.contract is None
            assert secret not in " ".join(map(str, loaded.diagnostics))


FORMAT = compile_schema(contract_format_schema(), "the format")


class TestWhatOnlyACallWouldTell:
    """A contract that no call could carry out, or that engines would read differently, is refused when it is loaded."""

    @pytest.mark.parametrize(
        ("body", "line", "message"),
        [
            ('memory_limit: "' + "9" * 400 + '"', 5, "memory_limit: A size is at most 8 EiB."),
            ("memory_limit: " + "9" * 400, 5, "memory_limit: A size is at most 8 EiB."),
            ("max_output: " + "9" * 30 + "g", 5, "max_output: A size is at most 8 EiB."),
            (
                "artifacts: ['/out/[z-a].png']",
                5,
                'artifacts: "/out/[z-a].png" is not a valid pattern: bad character range z-a.',
            ),
            ("mounts: {./a: /w, ./b: '/w/:rw'}", 5, 'mounts: "./a" and "./b" are mounted at the same place'),
            ("mounts: {./a: /c}\ncache_dirs: [/c/]", 6, "cache_dirs: A cache directory and a mount are both at /c."),
            ("cache_dirs: [/c, /c/]", 5, "cache_dirs: Two cache directories are both at /c."),
            (
                "mounts: {./a: /proc/x}",
                5,
                "mounts: Nothing of a contract can be at /proc/x: /proc is the engine's own.",
            ),
            ("mounts: {./a: /out}\nartifacts: [/out/*.png]", 6, "artifacts: Artifacts and a mount are both at /out."),
            ("parameters: {'a=b': string}", 5, 'parameters.a=b: There can be no variable named "a=b".'),
            ("parameters: {a: {bind: {env: A=B}}}", 5, "bind: An env binding names a variable: text without"),
            ("parameters: {a: {bind: {env: ''}}}", 5, "bind: An env binding names a variable"),
            ("parameters: {a: {bind: {env: BASH_ENV=}}}", 5, "bind: An env binding names a variable"),
            ("parameters: {a: {bind: {file: /}}}", 5, "bind: A file's path ends in its name."),
            (
                "mounts: {./a: /w}\nparameters: {a: {bind: {file: /w/x}}}",
                6,
                "in each other's way. Choose another place",
            ),
            ("mounts: {./a: /w/x}\nparameters: {a: {bind: {file: /w}}}", 6, "in each other's way"),
            ("artifacts: [/w/*]\nparameters: {a: {bind: {file: //w/./x}}}", 6, "in each other's way"),
            ("env: {MODE: safe}\nparameters: {mode: string}", 6, '"mode" would replace MODE, which env sets.'),
            ("env: {T: {secret: X}}\nparameters: {t: string}", 6, '"t" would replace the secret in T.'),
        ],
    )
    def test_it_is_an_error_at_its_line(self, body: str, line: int, message: str) -> None:
        (finding,) = (item for item in load_text(f"{HEAD}{body}\n").diagnostics if item.is_error)
        assert finding.line == line
        assert message in told(finding)

    @pytest.mark.parametrize("body", ["cache: pure", "artifacts: [/out/*.png]"])
    def test_a_tool_of_another_server_has_neither_cache_nor_artifacts(self, body: str) -> None:
        (finding,) = found(f"name: t\ndescription: d\nengine: remote-mcp\naddress: http://x/mcp\n{body}\n")
        assert finding.startswith("5 ")
        assert "a tool of another server has no" in finding.lower()

    def test_a_name_ends_where_its_line_does(self) -> None:
        (finding,) = found('name: "abc\\n"\n' + HEAD.partition("\n")[2])
        assert finding.startswith("1 name:")


class TestFormatSchema:
    def test_the_format_schema_is_valid_and_knows_every_field(self) -> None:
        schema = contract_format_schema()
        assert list(schema_errors(schema)) == []
        fields = schema["else"]["properties"]
        assert set(fields) == {*CONTRACT_KEYS, *SPEC_KEYS}
        assert all("description" in field or field.get("enum") for field in fields.values())

    @pytest.mark.parametrize(
        ("document", "is_valid"),
        [
            ({"name": "t", "image": "x", "command": ["x"]}, True),
            ({"name": "t", "engine": "local", "command": ["x"], "parameters": {"a": "str", "b": None}}, True),
            ({"name": "t", "engine": "remote-mcp", "address": "http://x", "auth_token": {"secret": "T"}}, True),
            ({"name": "t", "image": "x", "command": ["x"], "parameters": [{"name": "a", "bind": "stdin"}]}, True),
            (
                {
                    "name": "t",
                    "engine": "http",
                    "url": "https://x.example/",
                    "method": "POST",
                    "body": "multipart",
                    "parameters": {"a": {"bind": {"query": "a", "deep": True}}},
                },
                True,
            ),
            ({"name": "t", "image": "x", "command": ["x"], "comand": 1}, False),
            ({"name": "t", "image": "x", "command": ["x"], "parameters": {"a": {"patern": "x"}}}, False),
            ({"name": "t", "image": "x", "command": ["x"], "parameters": {"a": {"bind": {"flag": "x"}}}}, False),
        ],
    )
    def test_the_format_schema_and_the_loader_agree(self, document: Any, is_valid: bool) -> None:
        assert FORMAT.is_valid(document) is is_valid
        assert (load_text(json.dumps(document), Path("contract.json")).contract is not None) is is_valid


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)
words = st.sampled_from(
    ["name", "image", "command", "engine", "parameters", "params", "engineSpec", "engine_spec", "env", "mounts",
     "examples", "output_schema", "output", "bind", "type", "properties", "required", "default", "enum", "items",
     "$ref", "$defs", "dagger", "local", "remote-mcp", "object", "string", "array", "address", "arguments",
     "expect_contains", "tags", "annotations", "json", "x-a", "pattern", "minimum"]
)  # fmt: skip
likely_values = st.recursive(
    json_values | words,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(words, children, max_size=5),
    max_leaves=12,
)
snippets = st.lists(
    st.sampled_from(
        ["a", ":", " ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "<<: ", "!!str ", "'", '"', "|\n", ">",
         "---\n", "...\n", "%YAML 1.2\n", "\t", "#", "? ", "1", "yes", "name", "image", "command", "params", "\ufeff"]
    )
).map("".join)  # fmt: skip


def is_told(loaded: LoadedContract) -> None:
    assert (loaded.contract is None) == any(diagnostic.is_error for diagnostic in loaded.diagnostics)
    assert all(str(diagnostic) for diagnostic in loaded.diagnostics)
    if loaded.contract is not None:
        assert input_schema(loaded.contract)["type"] == "object"
        with suppress(PraxisError):
            validate_arguments(loaded.contract, {})


@given(st.text() | snippets)
def test_no_text_makes_loading_raise(text: str) -> None:
    is_told(load_text(text, Path("contract.yaml")))
    is_told(load_text(text, Path("contract.json")))


@given(st.binary())
def test_no_bytes_make_loading_raise(data: bytes) -> None:
    is_told(load_bytes(data, Path("contract.yaml")))


@given(st.dictionaries(words, likely_values, max_size=8))
def test_no_mapping_makes_loading_raise(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    is_told(load_text(text, Path("contract.json")))
    is_told(load_text(text, Path("contract.yaml")))
    base = {"name": "t", "image": "x", "command": ["x"]}
    is_told(load_text(json.dumps({**base, **document}), Path("contract.json")))
    is_told(load_text(json.dumps({**base, "parameters": document}), Path("contract.json")))
    is_told(load_text(json.dumps({**base, "parameters": {"a": document}}), Path("contract.json")))
