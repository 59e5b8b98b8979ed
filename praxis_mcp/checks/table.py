"""Every check: its code, what it finds, why that matters, and how to fix it. docs/checks.md has this table.

A check is an error where a client or a model's API is known to refuse the tool, or all tools, for it, or where a secret
or hidden text would leave the contract; else it is a warning. Where somebody has met the limit, the table says where.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from praxis_mcp.contracts.problems import did_you_mean, quoted
from praxis_mcp.diagnostics import Severity
from praxis_mcp.errors import ArgumentError

LONGEST_FULL_NAME = 64
"""Characters of a tool's name with the prefix that its client adds: OpenAI's limit, and Claude Code's for its search of
tools (anthropics/claude-code#19882)."""
LONGEST_READ_DESCRIPTION = 2048
"""Characters of a description, or of a server's instructions, that Claude Code passes on; the rest is cut off
(anthropics/claude-code#87650)."""
SHORTEST_DESCRIPTION = 4
"""Words that say what a tool does."""
MOST_TOOLS_IN_CLIENTS = 128
"""Tools in one request to a model that VS Code and OpenAI take (microsoft/vscode-copilot-release#11653)."""
MOST_TOKENS = 20_000
"""Tokens of all definitions: a tenth of the context of most models, above which Claude Code defers tools."""
MOST_TOOL_TOKENS = 1_500
LONGEST_CALL = 600.0
"""Seconds for which a call is worth being waited for; heartbeats keep clients from giving up before."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        severity: of what it finds.
        finds: what that is, in a phrase.
        why: what would happen, in a sentence.
        fix: what to do about it, in a sentence; empty where each finding has its own.
        source: where it was met, as ``owner/repository#number``.
    """

    severity: Severity
    finds: str
    why: str
    fix: str = ""
    source: str = ""


_ERROR, _WARNING = Severity.ERROR, Severity.WARNING

CHECKS: dict[str, Check] = {
    "contract": Check(
        _ERROR,
        "what `praxis-mcp validate` finds",
        "A broken contract is not served; a warning of it stays a warning here.",
    ),
    "long-name": Check(
        _WARNING,
        f"a name of more than {LONGEST_FULL_NAME} characters with `mcp__SERVER__`, which Claude Code puts before it",
        "Clients refuse the tool, or drop it without a word; Cursor does at 60 with the server's name.",
        "Choose a shorter name.",
        "anthropics/claude-code#19882",
    ),
    "name-characters": Check(
        _ERROR,
        "a dot in a name",
        "MCP allows it, but the APIs of Anthropic and OpenAI take letters, digits, `_` and `-` only, and clients that "
        "pass names on as they are fail on every prompt.",
        "Write _ or - instead.",
        "github/copilot-cli#1879",
    ),
    "name-start": Check(
        _WARNING,
        "a name that begins with a digit or a sign",
        "Gemini's API wants a letter or an underscore first.",
        "Begin the name with a letter.",
    ),
    "similar-names": Check(
        _WARNING,
        "two names that differ only in case and signs",
        "Models mix them up.",
        "Rename one of them, so that the difference can be read.",
    ),
    "no-description": Check(
        _WARNING,
        "a tool without a description",
        "A model cannot tell when to use it.",
        "Write description: with what the tool does, and when.",
    ),
    "short-description": Check(
        _WARNING,
        f"a description of fewer than {SHORTEST_DESCRIPTION} words, or one that only repeats the name",
        "A model guesses what the tool does and when to use it.",
        "Say what the tool does, when to use it, and what it returns.",
    ),
    "long-description": Check(
        _WARNING,
        f"a description of more than {LONGEST_READ_DESCRIPTION} characters",
        "Claude Code cuts it off there, and every conversation pays for it.",
        "Shorten it; what a parameter means belongs to the parameter.",
        "anthropics/claude-code#87650",
    ),
    "unfinished-text": Check(
        _WARNING,
        "TODO, FIXME or TBD in a description",
        "A model reads it as part of the instructions.",
        "Finish the text.",
    ),
    "same-description": Check(
        _WARNING,
        "two tools with nearly the same description",
        "A model chooses between them by chance.",
        "Say in each when to use it rather than the other.",
    ),
    "parameter-description": Check(
        _WARNING,
        "a parameter without a description",
        "A model has only its name to guess by.",
        "Write description: what the value means, its unit or form.",
    ),
    "parameter-name": Check(
        _WARNING,
        "a parameter's name outside of `[A-Za-z0-9_.-]{1,64}`",
        "Anthropic's API refuses the tool.",
        "Use 1 to 64 characters out of A-Z a-z 0-9 _ . -",
    ),
    "hidden-text": Check(
        _ERROR,
        "characters that cannot be seen: bidirectional controls, zero-width and tag characters, escapes",
        "A model reads what no reviewer sees.",
        "Remove them; what is meant to be read can be written in letters.",
    ),
    "cut-text": Check(
        _WARNING,
        "a text that ends at a `#`, where a YAML comment begins",
        "The rest reaches no model.",
        "Put the text in quotation marks.",
    ),
    "long-instructions": Check(
        _WARNING,
        f"`server.instructions` of more than {LONGEST_READ_DESCRIPTION} characters",
        "Claude Code cuts them off there.",
        "Shorten them in the settings, and put first what matters most.",
        "anthropics/claude-code#81268",
    ),
    "root-combination": Check(
        _ERROR,
        "`oneOf`, `anyOf`, `allOf`, `enum` or `not` at the root of an input schema",
        "The APIs of Anthropic and OpenAI refuse the request, or clients drop the tool.",
        "Check the combination in the tool, say it in the description, or move it into one parameter.",
        "anthropics/claude-code#95504",
    ),
    "reference": Check(
        _WARNING,
        "a `$ref` in an input schema",
        "Several clients lose the definitions, and their models guess.",
        "Write the definition out where it is used.",
        "github/copilot-cli#1876",
    ),
    "type-list": Check(
        _WARNING,
        "several types for one value",
        "Gemini's API takes one, and a request fails for all tools.",
        "Write one type; a parameter with required: false need not allow null.",
        "github/copilot-cli#4623",
    ),
    "no-type": Check(
        _WARNING,
        "a value without a type",
        "Gemini's API refuses the request.",
        "Write type:.",
        "google-gemini/gemini-cli#4400",
    ),
    "array-items": Check(
        _ERROR,
        "an array without `items`",
        "VS Code refuses the tool, and OpenAI's API the request.",
        "Write items: with the type of its values.",
        "microsoft/vscode#325618",
    ),
    "empty-choice": Check(
        _WARNING,
        "an `enum` that is empty, or has an empty text in it",
        "Gemini's API refuses the request.",
        "Remove the empty text, and write required: false for a value that may be left out.",
        "sbroenne/mcp-server-excel#607",
    ),
    "choice-types": Check(
        _WARNING,
        "an `enum` with values other than text",
        "Gemini's API takes texts only.",
        "Write minimum: and maximum:, or the values as texts.",
        "microsoft/azure-devops-mcp#139",
    ),
    "constant": Check(
        _WARNING,
        "`const` in an input schema",
        "Gemini's API does not know it.",
        "Write enum: with that one value.",
        "taylorwilsdon/google_workspace_mcp#1099",
    ),
    "costly-tool": Check(
        _WARNING,
        f"a definition of more than {MOST_TOOL_TOKENS:,} tokens, as `praxis-mcp list` estimates them",
        "Every conversation pays for it.",
        "Shorten its descriptions, or split the tool.",
    ),
    "costly-list": Check(
        _WARNING,
        f"definitions of more than {MOST_TOKENS:,} tokens in all",
        "They fill a tenth of a model's context before its first word.",
        "Serve fewer tools from one server, or shorten the longest; praxis-mcp list shows what each costs.",
        "anthropics/claude-code#12241",
    ),
    "many-tools": Check(
        _WARNING,
        f"more than {MOST_TOOLS_IN_CLIENTS} tools",
        "VS Code refuses the request; Cursor leaves tools out far below that.",
        "Serve fewer tools from one server.",
        "microsoft/vscode-copilot-release#11653",
    ),
    "no-examples": Check(
        _WARNING,
        "a contract without examples",
        "Nothing tests it: `praxis-mcp test` runs the examples.",
        "Write examples: with arguments, and what to expect.",
    ),
    "latest-image": Check(
        _WARNING,
        "an image without a tag, or with the tag `latest`, and without a digest",
        "What runs changes with every push.",
        "Write a version as the tag, or a digest.",
    ),
    "secret-in-contract": Check(
        _ERROR,
        "what looks like a secret in a default, a variable, a header or an example",
        "Contracts are shared, and defaults are sent to every client.",
        "Keep it outside of the contract, and name it: env: {NAME: {secret: NAME}}.",
    ),
    "weak-isolation": Check(
        _WARNING,
        "`privileged: true`, `drop_capabilities: false`, or `network: host` of an image",
        "The tool can reach far more of the host than its call needs.",
        "Remove it, or say in a comment why it is needed, and x-lint-ignore: [weak-isolation].",
    ),
    "long-timeout": Check(
        _WARNING,
        f"a `timeout` above {LONGEST_CALL:g} s without `execution: task` or `optional`",
        "Few clients wait for so long, and the result is lost with the connection.",
        "Write execution: optional, or a shorter timeout.",
        "modelcontextprotocol/typescript-sdk#2250",
    ),
}


def known_codes(codes: Iterable[str], where: str) -> frozenset[str]:
    """The codes of checks that are to be left out.

    Args:
        codes: as somebody wrote them.
        where: they stand, for the message.

    Raises:
        ArgumentError: there is no check of one of these codes.
    """
    codes = frozenset(codes)
    for code in sorted(codes - CHECKS.keys()):
        hint = did_you_mean(code, CHECKS)
        raise ArgumentError(
            f"{quoted(code)} in {where} is not a check{hint}.", remedy="praxis-mcp lint --list-checks has them all."
        )
    return codes
