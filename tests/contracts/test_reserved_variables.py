"""No argument sets a variable by which a program is told what to run, to load or to trust."""

import re

import pytest

from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.variables import RESERVED_VARIABLES, is_reserved

TEXT = RESERVED_VARIABLES.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "TAR_OPTIONS", "MAKEFLAGS", "LUA_INIT_5_4", "LUA_CPATH_5_4", "ZDOTDIR",
        "DOTNET_STARTUP_HOOKS", "BUNDLE_GEMFILE", "ERL_FLAGS", "R_PROFILE_USER",
        "Npm_Config_script_shell", "AWKLIBPATH", "VIMINIT", "RSYNC_RSH", "PATH", "LD_PRELOAD",
        "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "GIT_SSH_COMMAND", "BASH_FUNC_x%%", "BASH_ENV",
        "http_proxy", "No_Proxy", "PERL5OPT", "PRAXIS_ROOT", "TAR_OPTIONS=x", "NODE_OPTIONS",
        "OPENSSL_CONF", "JAVA_TOOL_OPTIONS", "GZIP", "DOCKER_HOST",
        "RIPGREP_CONFIG_PATH", "FZF_DEFAULT_COMMAND", "EXIFTOOL_HOME", "CUDA_INJECTION64_PATH", "SDL_DYNAMIC_API",
    ],
)  # fmt: skip
def test_a_variable_that_steers_is_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name",
    [
        "text", "TEXT", "path", "COUNT", "DATE", "URL", "QUERY", "LANG", "LC_ALL", "TZ",
        "tar_options", "GO", "PATTERN", "NAME", "LIMIT_2", "VERSION", "GITHUB_REPO", "TOKEN_1",
        "LESSON", "MODE", "FORMAT", "COLUMNS", "NO_COLOR", "USER_ID"
    ],
)  # fmt: skip
def test_an_ordinary_variable_is_not(name: str) -> None:
    assert not is_reserved(name)


def test_every_name_has_a_source_and_stands_there_once() -> None:
    lines = TEXT.splitlines()
    first = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines[first - 1].startswith("# ")
    words = [word for line in lines if not line.startswith("#") for word in line.split()]
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?~?", word) for word in words)
    assert len({word.rstrip("~") for word in words}) >= len(words) - 1


def test_a_parameter_named_so_is_set_in_lower_case_only_and_warned_of() -> None:
    head = "name: t\ndescription: d\nimage: x\ncommand: [tar]\n"
    (warning,) = load_text(head + "parameters: {tar_options: string}\n").diagnostics
    assert not warning.is_error
    assert "TAR_OPTIONS" in warning.message
    (error,) = load_text(head + "parameters: {x: {bind: {env: TAR_OPTIONS}}}\n").diagnostics
    assert error.is_error
