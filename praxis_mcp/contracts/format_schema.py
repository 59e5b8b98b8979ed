"""JSON Schema of our own spelling of a contract, for editors and for those who write contracts."""

from __future__ import annotations

import copy
from typing import Any

from praxis_mcp.contracts.model import NAME_PATTERN, EngineType
from praxis_mcp.contracts.specs import DEFAULT_TIMEOUT
from praxis_mcp.contracts.vocabulary import KEYWORDS, SHORT_KEYWORDS, TYPE_ALIASES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WORDS: Schema = {"type": "array", "items": {"type": "string"}}
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_SIZE: Schema = {"type": ["integer", "string"], "pattern": r"^\s*\d+(\.\d+)?\s*[kKmMgGtT]?[iI]?[bB]?\s*$"}
_SECRET: Schema = {
    "type": "object",
    "properties": {"secret": {"type": "string", "description": "Name in the environment or the settings."}},
    "required": ["secret"],
    "additionalProperties": False,
}
_VALUES: Schema = {"type": "object", "additionalProperties": {"anyOf": [_SCALAR, _SECRET]}}


def contract_format_schema() -> Schema:
    """The schema; a fresh copy each time.

    It describes contracts as they should be written. What only reading a whole contract can tell (a field that its
    engine lacks, two parameters bound to one place) is left to `praxis-mcp validate`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "praxis-mcp tool contract",
        "description": "One tool: its face to the model, and how its command runs.",
        "type": "object",
        "properties": copy.deepcopy({**_FACE, **_SPEC}),
        "patternProperties": {"^x-": {"description": "Ignored; a place for YAML anchors."}},
        "additionalProperties": False,
        "required": ["name"],
        "anyOf": [
            {"required": ["image", "command"]},
            {"required": ["engine", "command"], "properties": {"engine": {"const": EngineType.LOCAL.value}}},
            {"required": ["engine", "address"], "properties": {"engine": {"const": EngineType.REMOTE_MCP.value}}},
        ],
        "$defs": {"parameter": _parameter(), "binding": _binding()},
    }


def _parameter() -> Schema:
    named = {
        "type": {
            "description": "A JSON Schema type; string when there is none and nothing else says. str, int, float, "
            "bool, list, dict, any and the like are understood.",
            "anyOf": [
                {"enum": [*dict.fromkeys(TYPE_ALIASES.values()), *TYPE_ALIASES, "any"]},
                {"type": "array", "items": {"type": ["string", "null"]}, "minItems": 1},
            ],
        },
        "description": {"type": "string", "description": "What the model reads."},
        "required": {
            "description": "Whether a call must give it; true unless it has a default. A list is JSON Schema's own "
            "keyword, for the properties of an object.",
            "type": ["boolean", "array"],
        },
        "default": {"description": "The value when a call does not give it; makes the parameter optional."},
        "bind": {"$ref": "#/$defs/binding"},
    }
    words = sorted({*KEYWORDS, *SHORT_KEYWORDS})
    keywords = {word: {"description": f"JSON Schema's {SHORT_KEYWORDS.get(word, word)}."} for word in words}
    return {
        "anyOf": [
            {"type": "string", "description": "A type."},
            {"type": "null", "description": "Required text."},
            {
                "type": "object",
                "properties": {**keywords, **named},
                "patternProperties": {"^x-": True},
                "additionalProperties": False,
            },
        ]
    }


def _binding() -> Schema:
    kinds: dict[str, Schema] = {
        "env": {"type": ["string", "boolean"], "description": "Variable; the parameter's own name and its upper case "
                "when there is no binding at all."},
        "flag": {"type": "string", "pattern": "^-", "description": "Flag before the value; --text= joins both."},
        "position": {"type": "integer", "minimum": 1, "description": "Place among the words after the command."},
        "stdin": {"const": True, "description": "The value is standard input."},
        "file": {"type": "string", "pattern": "^/", "description": "The value is this file, inside the tool's own."},
    }  # fmt: skip
    options: Schema = {
        "repeat": {"type": "boolean", "description": "An array gives a word for each item (flag and position)."},
        "allow_dash": {"type": "boolean", "description": "A positional value may begin with a dash."},
    }
    return {
        "description": "How the value reaches the tool: never as part of a shell's text.",
        "anyOf": [
            {"enum": ["env", "stdin"]},
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
        "name": _described(_TEXT, "A short title."),
        "arguments": {"type": "object", "description": "What the call gives."},
        "expect": _described(_SCALAR, "Exact standard output, white space around it aside."),
        "expect_contains": {
            "anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}],
            "description": "Pieces that standard output must hold.",
        },
        "expect_json": {"description": "Value that standard output must parse to."},
        "expect_exit": {"type": "integer", "description": "Exit code that the run must end with; 0 unless given."},
    },
    "additionalProperties": False,
}

_FACE: dict[str, Schema] = {
    "name": {"type": "string", "pattern": NAME_PATTERN.pattern, "description": "Unique in the catalog."},
    "title": _described(_TEXT, "A name for people."),
    "description": _described(_TEXT, "What the model reads to decide on a call."),
    "version": _described(_SCALAR, "The author's version."),
    "engine": {
        "enum": [engine.value for engine in EngineType],
        "description": "dagger, the default where there is an image, runs on any container engine that is able to; "
        "docker and sandbox insist on that one; local is a command on the host; remote-mcp is another server's tool.",
    },
    "parameters": {
        "description": "By name; or a list of definitions with a name; or a JSON Schema object. A parameter is "
        "required unless it has a default or says required: false (in a JSON Schema object: if listed as required).",
        "anyOf": [
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/parameter"}},
            {"type": "array", "items": {"type": "object", "required": ["name"]}},
            {
                "type": "object",
                "properties": {"type": {"const": "object"}, "properties": {"type": "object"}},
                "required": ["type", "properties"],
            },
        ],
    },
    "output": {"enum": ["text", "json"], "description": "json: standard output is one JSON value."},
    "output_schema": {"type": "object", "description": "JSON Schema of that value; goes with output: json."},
    "artifacts": _described(
        _WORDS, "Files that a call leaves behind as results, such as /out/*.png, all in a directory of their own."
    ),
    "max_output": _described(_SIZE, "Bytes of each stream that a result carries inline."),
    "max_concurrency": _described(_COUNT, "Calls of this tool at once."),
    "cache": {"enum": ["none", "pure"], "description": "pure: equal calls may be answered from a cache."},
    "annotations": {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in ("read_only", "destructive", "idempotent", "open_world")},
        "additionalProperties": False,
        "description": "MCP's hints; what the sandbox proves need not be written.",
    },
    "examples": {"type": "array", "items": _EXAMPLE, "description": "Calls that show the tool, and run as its tests."},
    "tags": {"type": "array", "items": _SCALAR, "description": "For catalogs and people."},
    "language": _described(_TEXT, "For catalogs and people."),
    "integration": {"type": "object", "description": "For catalogs and people."},
    "sample_data_files": {"type": "array", "description": "For catalogs and people."},
}

_SPEC: dict[str, Schema] = {
    "timeout": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 86400,
        "default": DEFAULT_TIMEOUT,
        "description": "Seconds until the tool's whole process tree is killed.",
    },
    "command": {**_WORDS, "minItems": 1, "description": "The words of the command; bound arguments are appended."},
    "env": _described(_VALUES, "Variables for the tool: text, or {secret: NAME}."),
    "env_passthrough": _described(_WORDS, "Variables copied from the server's environment, where set there."),
    "mounts": {
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": "^/.+"},
        "description": "Host path to path for the tool, read-only unless it ends in :rw. Relative host paths start at "
        "the project root; {contract_dir} is the contract's own folder.",
    },
    "network": {"enum": ["none", "bridge", "host", "outbound", "full", True, False], "default": "none",
                "description": "What the tool can reach."},
    "memory_limit": _described(_SIZE, "Bytes, or text such as 512Mi."),
    "cpu_limit": {"type": "number", "exclusiveMinimum": 0, "description": "Cores, such as 0.5."},
    "pids_limit": _described(_COUNT, "Processes and threads at once."),
    "image": _described(_TEXT, "Image reference, such as python:3.11-slim."),
    "working_dir": {"type": "string", "pattern": "^/", "description": "Absolute path inside the container."},
    "privileged": {"type": "boolean", "description": "Full capabilities; refused unless the settings allow it."},
    "user": {"type": ["string", "integer"], "description": "Name, uid or uid:gid."},
    "read_only": {"type": "boolean", "description": "Whether the root file system must not, or must, be writable."},
    "use_entrypoint": {"type": "boolean", "description": "command becomes arguments of the image's entrypoint."},
    "cache_dirs": _described(_WORDS, "Directories inside the container that are kept between calls."),
    "drop_capabilities": {"type": "boolean", "description": "Whether every Linux capability must be dropped, or kept."},
    "warm": {"type": "boolean", "description": "False: no container is started for this tool before it is called."},
    "shell": {"type": "boolean", "description": "local: hand the joined command to /bin/sh -c; never arguments."},
    "cwd": _described(_TEXT, "local: working directory, from the project root."),
    "capture_output": {"type": "boolean", "description": "local: false discards what the tool writes."},
    "address": {
        "anyOf": [_TEXT, {**_WORDS, "minItems": 1}],
        "description": "remote-mcp: URL of the server, or the words of the command that starts it.",
    },
    "tool": _described(_TEXT, "remote-mcp: the tool's name there, when it differs."),
    "headers": _described(_VALUES, "remote-mcp: HTTP headers: text, or {secret: NAME}."),
    "auth_token": {"anyOf": [_TEXT, _SECRET], "description": "remote-mcp: bearer token, best as {secret: NAME}."},
    "transport": {"enum": ["auto", "http", "sse", "stdio"], "description": "remote-mcp: how to speak to it."},
}  # fmt: skip
