"""JSON Schema of contracts, for editors and for those who write them.

Whatever loads is valid by it, in all three spellings; not all that is valid loads: only the name is required, since
every other key may stand in a ``_defaults.yaml``. It shows the form that is meant, and takes what the reader takes
besides: a null for what is left out, numbers and booleans as text, types in any case.
"""

from __future__ import annotations

import copy
from typing import Any, get_args

from praxis_mcp.contracts.model import NAME_PATTERN, EngineType, engine_names
from praxis_mcp.contracts.specs import DEFAULT_TIMEOUT
from praxis_mcp.contracts.values import NETWORK_WORDS
from praxis_mcp.contracts.vocabulary import ANY_TYPE, KEYWORDS, SHORT_KEYWORDS, TYPE_ALIASES
from praxis_mcp.settings.sections import Transport

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WORDS: Schema = {"type": "array", "items": {"type": "string"}}
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_DIGITS: Schema = {"type": "string", "pattern": r"^\s*\+?[0-9_]*\.?[0-9_]*([eE][+-]?[0-9]+)?\s*$"}
_COUNT: Schema = {"anyOf": [{"type": "integer", "minimum": 1}, _DIGITS]}
_SIZE: Schema = {"type": ["number", "string"], "pattern": r"^\s*\d+(\.\d+)?\s*[kKmMgGtT]?[iI]?[bB]?\s*$"}


def _any_case(*words: str) -> str:
    """A pattern of words in any case: JSON Schema's have no flags."""
    spelt = ("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word) for word in words)
    return rf"^\s*({'|'.join(spelt)})\s*$"


_FLAG: Schema = {
    "anyOf": [
        {"type": "boolean"},
        {"enum": [0, 1]},
        {"type": "string", "pattern": _any_case("true", "false", "yes", "no", "on", "off", *"tfyn10")},
    ]
}
_SECRET: Schema = {
    "type": "object",
    "properties": {"secret": {"type": "string", "description": "Name in the environment or the settings."}},
    "required": ["secret"],
    "additionalProperties": False,
}
_VALUES: Schema = {"type": "object", "additionalProperties": {"anyOf": [_SCALAR, _SECRET]}}


def contract_format_schema() -> Schema:
    """The schema; a fresh copy each time.

    What only reading a whole contract can tell (a field that its engine lacks, two parameters bound to one place) is
    left to `praxis-mcp validate`.
    """
    engine = {**_FACE["engine"], "enum": list(engine_names())}
    ours = {**_FACE, "engine": engine, "parameters": _parameters("parameter"), **_SPEC}
    return copy.deepcopy(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "praxis-mcp tool contract",
            "description": "One tool: its face to the model, and how its command runs.",
            "type": "object",
            "if": {"anyOf": [{"required": [key]} for key in ("engineSpec", "engine_spec", "params")]},
            "then": _older(),
            "else": {
                "properties": {key: schema if key == "name" else _or_null(schema) for key, schema in ours.items()},
                "patternProperties": {"^x-": {"description": "Ignored; a place for YAML anchors."}},
                "additionalProperties": False,
                "required": ["name"],
            },
            "$defs": {
                "parameter": _parameter(),
                "older_parameter": _parameter(older=True),
                "type": _type(),
                "binding": _binding(),
            },
        }
    )


def _older() -> Schema:
    """The two older spellings, in which unknown keys are warnings."""
    spec: Schema = {
        "type": "object",
        "properties": {key: _or_null(schema) for key, schema in _SPEC.items()},
        "description": "How the command runs. In the spelling of today these keys are next to name.",
    }
    parameters = _or_null(_parameters("older_parameter"))
    example = {
        **_EXAMPLE["properties"],
        "params": _EXAMPLE["properties"]["arguments"],
        "parameters": _EXAMPLE["properties"]["arguments"],
        "expected_output": _EXAMPLE["properties"]["expect"],
        "expected_output_contains": _EXAMPLE["properties"]["expect_contains"],
    }
    face = {
        **{key: _or_null(schema) for key, schema in _FACE.items() if key not in ("name", "annotations")},
        "annotations": {"type": ["object", "null"], "properties": _FACE["annotations"]["properties"]},
        "examples": {"type": ["array", "null"], "items": {"type": "object", "properties": example}},
    }
    return {
        "description": "An older spelling, which loads as it is.",
        "properties": {
            "name": _FACE["name"], **face,
            "params": parameters, "parameters": parameters, "engineSpec": spec, "engine_spec": spec,
        },
        "required": ["name"],
        "anyOf": [{"required": ["engineSpec"]}, {"required": ["engine_spec"]}],
    }  # fmt: skip


def _or_null(schema: Schema) -> Schema:
    """What is null is left out."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {**schema, "type": [*types, "null"]}


def _parameters(definition: str) -> Schema:
    one = {"$ref": f"#/$defs/{definition}"}
    return {
        "description": "By name; or a list of definitions with a name; or a JSON Schema object. A parameter is "
        "required unless it has a default or says required: false (in a JSON Schema object: if listed as required).",
        "anyOf": [
            {"type": "object", "additionalProperties": one},
            {
                "type": "array",
                "items": {"type": "object", "properties": {"name": _SCALAR}, "required": ["name"], "allOf": [one]},
            },
            {
                "type": "object",
                "properties": {
                    "type": {"const": "object"},
                    "properties": {"type": "object", "additionalProperties": {"anyOf": [one, {"const": True}]}},
                    "required": {"type": ["array", "null"], "items": {"type": "string"}},
                },
                "required": ["type"],
            },
        ],
    }


def _type() -> Schema:
    words = [*dict.fromkeys(TYPE_ALIASES.values()), *TYPE_ALIASES, *sorted(ANY_TYPE)]
    return {
        "description": "A JSON Schema type; string when there is none and nothing else says. str, int, float, "
        "bool, list, dict, any and the like are understood.",
        "anyOf": [
            {"enum": list(dict.fromkeys(words))},
            {"type": "string", "pattern": _any_case(*dict.fromkeys(words))},
        ],
    }


def _parameter(*, older: bool = False) -> Schema:
    kind = {"$ref": "#/$defs/type"}
    null = {"type": "null"}
    named = {
        "name": {**_SCALAR, "description": "In a list of parameters: its name."},
        "type": {"anyOf": [kind, null, {"type": "array", "items": {"anyOf": [kind, null]}, "minItems": 1}]},
        "description": {"type": ["string", "number", "boolean", "null"], "description": "What the model reads."},
        "required": {
            "description": "Whether a call must give it; true unless it has a default. A list is JSON Schema's own "
            "keyword, for the properties of an object.",
            "anyOf": [
                {"type": ["boolean", "array"]},
                {"type": "string", "pattern": _any_case("true", "false", "yes", "no", "on", "off")},
            ],
        },
        "default": {"description": "The value when a call does not give it; makes the parameter optional."},
        "bind": {"$ref": "#/$defs/binding"},
    }
    words = sorted({*KEYWORDS, *SHORT_KEYWORDS})
    keywords = {word: {"description": f"JSON Schema's {SHORT_KEYWORDS.get(word, word)}."} for word in words}
    closed = {} if older else {"patternProperties": {"^x-": True}, "additionalProperties": False}
    return {
        "anyOf": [
            kind,
            {"type": "null", "description": "Required text."},
            {"type": "object", "properties": {**keywords, **named}, **closed},
        ]
    }


def _binding() -> Schema:
    kinds: dict[str, Schema] = {
        "env": {"type": ["string", "boolean", "null"], "description": "Variable; the parameter's own name and its "
                "upper case when there is no binding at all."},
        "flag": {"type": "string", "pattern": "^-", "description": "Flag before the value; --text= joins both."},
        "position": {"type": "integer", "minimum": 1, "description": "Place among the words after the command."},
        "stdin": {"enum": [True, None], "description": "The value is standard input."},
        "file": {"type": "string", "pattern": "^/", "description": "The value is this file, inside the tool's own."},
        **{
            kind: {"type": ["string", "boolean", "null"], "description": f"http: name in the request's {kind}; "
                   "the parameter's own by default."}
            for kind in ("path", "query", "header", "body")
        },
    }  # fmt: skip
    options: Schema = {
        "repeat": {**_FLAG, "description": "An array gives a word for each item (flag and position)."},
        "deep": {**_FLAG, "description": "http: members of a value in a query or form as name[key]=value."},
        "allow_dash": {**_FLAG, "description": "A positional value may begin with a dash."},
    }
    return {
        "description": "How the value reaches the tool: never as part of a shell's text.",
        "anyOf": [
            {"enum": ["env", "stdin", "path", "query", "header", "body", None]},
            {"type": "object", "properties": options, "additionalProperties": False},
            {
                "type": "object",
                "properties": {"kind": {"enum": list(kinds)}, "target": {}, **options},
                "required": ["kind"],
                "additionalProperties": False,
                "description": "As the models of the Python package are written.",
            },
            *(
                {
                    "type": "object",
                    "properties": {kind: schema, **options},
                    "required": [kind],
                    "additionalProperties": False,
                }
                for kind, schema in kinds.items()
            ),
        ],
    }


def _described(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}


_EXAMPLE: Schema = {
    "type": "object",
    "properties": {
        "name": _described({"type": [*_SCALAR["type"], "null"]}, "A short title."),
        "arguments": {"type": ["object", "null"], "description": "What the call gives."},
        "expect": _described(
            {"type": [*_SCALAR["type"], "null"]}, "Exact standard output, white space around it aside."
        ),
        "expect_contains": {
            "anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}],
            "description": "Pieces that standard output must hold.",
        },
        "expect_json": {"description": "Value that standard output must parse to."},
        "expect_exit": {
            "anyOf": [{"type": ["integer", "null"]}, _DIGITS],
            "description": "Exit code that the run must end with; 0 unless given.",
        },
        "run": {**_FLAG, "description": "false: it only shows how the tool is used, and is not run as a test."},
    },
    "additionalProperties": False,
}

_FACE: dict[str, Schema] = {
    "name": {
        "type": ["string", "number", "boolean"],
        "pattern": NAME_PATTERN.pattern,
        "description": "Unique in the catalog.",
    },
    "title": _described(_SCALAR, "A name for people."),
    "description": _described(_SCALAR, "What the model reads to decide on a call."),
    "version": _described(_SCALAR, "The author's version."),
    "engine": {
        "enum": [engine.value for engine in EngineType],
        "description": "dagger, the default where there is an image, runs on any container engine that is able to; "
        "docker and sandbox insist on that one; local is a command on the host; remote-mcp is another server's tool; "
        "http a request to an API.",
    },
    "output": {"enum": ["text", "json"], "description": "json: standard output is one JSON value."},
    "output_schema": {"type": "object", "description": "JSON Schema of that value; goes with output: json."},
    "artifacts": _described(
        _WORDS, "Files that a call leaves behind as results, such as /out/*.png, all in a directory of their own."
    ),
    "max_output": _described(_SIZE, "Bytes of each stream that a result carries inline."),
    "max_concurrency": _described(_COUNT, "Calls of this tool at once."),
    "cache": {"enum": ["none", "pure"], "description": "pure: equal calls may be answered from a cache."},
    "execution": {
        "enum": ["call", "task", "optional"],
        "description": "task: a call is answered with a task of the MCP tasks extension, which outlives its client; "
        "optional: only where the client speaks that.",
    },
    "retry": {
        "enum": ["never", "safe"],
        "description": "safe: a task whose server died is run again; goes with execution: task or optional.",
    },
    "annotations": {
        "type": "object",
        "properties": {name: _or_null(_FLAG) for name in ("read_only", "destructive", "idempotent", "open_world")},
        "additionalProperties": False,
        "description": "MCP's hints; what the sandbox proves need not be written.",
    },
    "examples": {"type": "array", "items": _EXAMPLE, "description": "Calls that show the tool, and run as its tests."},
    "enabled": _described(_FLAG, "false: the tool is neither listed nor can it be called."),
    "tags": {
        "type": "array",
        "items": _SCALAR,
        "description": "Words that toolsets choose by, and that tools are found by.",
    },
    "language": _described(_SCALAR, "For catalogs and people."),
    "integration": {"type": "object", "description": "For catalogs and people."},
    "sample_data_files": {"type": "array", "description": "For catalogs and people."},
}

_SPEC: dict[str, Schema] = {
    "timeout": {
        "anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 86400}, _DIGITS],
        "default": DEFAULT_TIMEOUT,
        "description": "Seconds until the tool's whole process tree is killed.",
    },
    "command": {**_WORDS, "minItems": 1, "description": "The words of the command; bound arguments are appended."},
    "env": _described(_VALUES, "Variables for the tool: text, or {secret: NAME}."),
    "env_passthrough": _described(
        _WORDS, "Variables copied from the server's environment, where set there; TRACEPARENT is that of the call."
    ),
    "mounts": {
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": "^/.+"},
        "description": "Host path to path for the tool, read-only unless it ends in :rw. Relative host paths start at "
        "the project root; {contract_dir} is the contract's own folder.",
    },
    "network": {
        "anyOf": [
            {"enum": ["none", "bridge", "host", "outbound", "full"]},
            {"type": "boolean"},
            {"type": "string", "pattern": _any_case(*NETWORK_WORDS)},
        ],
        "default": "none",
        "description": "What the tool can reach.",
    },
    "memory_limit": _described(_SIZE, "Bytes, or text such as 512Mi."),
    "cpu_limit": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _DIGITS], "description": "Cores, such as 0.5."},
    "pids_limit": _described(_COUNT, "Processes and threads at once."),
    "warm": {**_FLAG, "description": "False: no container or sandbox is started for this tool before it is called."},
    "image": _described(_TEXT, "Image reference, such as python:3.11-slim."),
    "build": {
        "type": "object",
        "properties": {
            "python": _described(_or_null(_TEXT), "A file of requirements, from the contract's folder."),
            "packages": _described(_WORDS, "Requirements, such as requests==2.32.3."),
            "dockerfile": _described(_or_null(_TEXT), "A Dockerfile, from the contract's folder."),
            "context": _described(_or_null(_TEXT), "The directory that the Dockerfile may copy from."),
        },
        "additionalProperties": False,
        "minProperties": 1,
        "description": "What the image is made of, ahead of calls: packages on top of image, or a Dockerfile.",
    },
    "working_dir": _described(_TEXT, "Absolute path inside the container; it may begin with {contract_dir}."),
    "privileged": {**_FLAG, "description": "Full capabilities; refused unless the settings allow it."},
    "user": {"type": ["string", "integer"], "description": "Name, uid or uid:gid."},
    "read_only": {**_FLAG, "description": "Whether the root file system must not, or must, be writable."},
    "use_entrypoint": {**_FLAG, "description": "command becomes arguments of the image's entrypoint."},
    "cache_dirs": _described(_WORDS, "Directories inside the container that are kept between calls."),
    "drop_capabilities": {**_FLAG, "description": "Whether every Linux capability must be dropped, or kept."},
    "shell": {**_FLAG, "description": "local: hand the joined command to /bin/sh -c; never arguments."},
    "cwd": _described(_TEXT, "local: working directory, from the project root."),
    "capture_output": {**_FLAG, "description": "local: false discards what the tool writes."},
    "address": {
        "anyOf": [_TEXT, {**_WORDS, "minItems": 1}],
        "description": "remote-mcp: URL of the server, or the words of the command that starts it.",
    },
    "tool": _described(_TEXT, "remote-mcp: the tool's name there, when it differs."),
    "headers": _described(_VALUES, "remote-mcp, http: HTTP headers: text, or {secret: NAME}."),
    "auth_token": {"anyOf": [_SCALAR, _SECRET], "description": "remote-mcp, http: token, best as {secret: NAME}."},
    "transport": {"enum": list(get_args(Transport)), "description": "remote-mcp: how to speak to it."},
    "url": _described(_TEXT, "http: whole URL; {name} in its path is the place of that parameter."),
    "method": {"type": "string", "default": "GET", "description": "http: GET, POST, PUT, PATCH, DELETE…."},
    "query": _described(_VALUES, "http: parameters of the query that are always sent: text, or {secret: NAME}."),
    "basic_user": {"anyOf": [_SCALAR, _SECRET], "description": "http: user of basic authentication."},
    "basic_password": {"anyOf": [_SCALAR, _SECRET], "description": "http: its password, best as {secret: NAME}."},
    "body": {
        "enum": ["json", "form", "multipart", "text"],
        "description": "http: how parameters in the body are written.",
    },
    "follow_redirects": {**_FLAG, "description": "http: follow redirects; never with secrets to another host."},
    "max_response": _described(_SIZE, "http: bytes of an answer, beyond which the call fails."),
}  # fmt: skip
