"""What commands share: options, settings, errors, and how arguments are written."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from praxis_mcp.cli.terminal import say
from praxis_mcp.errors import ArgumentError, ExecutionError, PraxisError

if TYPE_CHECKING:
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.settings.model import Settings

T = TypeVar("T")

_SAMPLES = {"object": """'{"a": 1}'""", "array": """'[1, "b"]'""", "integer": "1", "number": "1.5", "boolean": "true"}
"""How a value of each type is written for a shell."""

_ARGUMENTS_REMEDY = """Write --arguments '{"key": "value"}', or --arguments @FILE (@- is standard input)."""

EXIT_USAGE = 2
EXIT_ENGINE = 125
"""As `docker run` has it: the engine failed, not the command."""

ToolsOption = Annotated[
    list[Path] | None, typer.Option("--tools", "-t", help="Directory of contracts; may be given more than once.")
]
DirectoriesArgument = Annotated[list[Path] | None, typer.Argument(help="Directories of contracts (default: tools).")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings file (default: PRAXIS_CONFIG, else the project's praxis.yaml, once approved)."
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        file_okay=False,
        help="Where relative paths in contracts start (default: the settings file's root, else the tools' project).",
    ),
]
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", help="What goes to stderr: DEBUG, INFO, WARNING or ERROR.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
ToolArgument = Annotated[str, typer.Argument(help="The tool.")]
WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Arguments, read by the types that the tool declares."),
]
ArgumentsOption = Annotated[
    str | None,
    typer.Option("--arguments", help="Arguments as a JSON object, or @FILE that holds one; @- is standard input."),
]


def all_of(directories: list[Path] | None, tools: list[Path] | None) -> list[Path]:
    """The directories of contracts of a command that takes them as arguments and by ``--tools``."""
    return [*(directories or ()), *(tools or ())]


def read_settings(
    config: Path | None,
    tools: list[Path] | None,
    log_level: str | None,
    *,
    root: Path | None = None,
    quiet: bool = True,
    warn: bool = True,
    http: dict[str, Any] | None = None,
) -> Settings:
    """The settings for a command, logging configured by them.

    Args:
        quiet: nothing is logged unless the user asks for it, because the command prints its own findings.
        warn: say which settings files were left aside.
        http: values of the section ``http`` that win over the file's.
    """
    _build_models_when_used()
    from praxis_mcp.cli.logs import configure_logging, hold_logs
    from praxis_mcp.settings.model import load_settings
    from praxis_mcp.support.logs import logger

    flags: dict[str, Any] = {}
    if tools:
        flags["tools"] = [path.absolute() for path in tools]
    if root is not None:
        flags["root"] = root
    if log_level:
        flags["log_level"] = log_level.upper()
    if http:
        flags["http"] = http
    held = hold_logs()
    try:
        settings = load_settings(config, flags)
    except BaseException:
        configure_logging("INFO")
        _log_again(held)
        raise
    asked = log_level or "log_level" in settings.model_fields_set
    is_quiet = quiet and not asked
    configure_logging("CRITICAL" if is_quiet else settings.log_level, settings.log_format)
    _log_again(held, is_quiet=is_quiet)
    logger.info("settings: {}; root: {} ({})", settings.origin, settings.root, settings.origin.root_reason)
    for item in settings.origin.left_aside if warn else ():
        if is_quiet:
            say(f"warning: {item}", fg="yellow", err=True)
        else:
            logger.warning("{}", item)
    return settings


def _log_again(held: list[tuple[str, str]], *, is_quiet: bool = False) -> None:
    from praxis_mcp.support.logs import logger

    for level, message in held:
        if is_quiet and level == "WARNING":
            say(f"warning: {message}", fg="yellow", err=True)
        else:
            logger.log(level, "{}", message)


def _build_models_when_used() -> None:
    """Have pydantic make a model's validator at its first use instead of with its class.

    The SDK defines the messages of every protocol revision, of which a session uses one: a tenth of a server's start.
    It is set here, for programs of our own, and not where the package is imported: a program that uses it as a library
    decides that itself.
    """
    from pydantic import VERSION, BaseModel

    # Before 2.14 a model that was met only inside of others could not be written as JSON where a field takes anything.
    if tuple(int(part) for part in VERSION.split(".")[:2]) >= (2, 14):
        BaseModel.model_config["defer_build"] = True


def collect_garbage() -> None:
    """Collect garbage from here on, which `praxis_mcp.cli.main` has put off: what is imported by now stays, and is not
    looked through again. Without it every call would leave some kilobytes behind, for as long as a server lives."""
    gc.freeze()
    gc.enable()


def run_with_toolbox(settings: Settings, work: Callable[[Toolbox], Awaitable[T]]) -> T:
    """Open a toolbox, wait for its catalog, do the work, close it."""
    import anyio

    from praxis_mcp.execution.toolbox import open_toolbox

    # Nothing is worth starting ahead of a call by a command that ends after the next one.
    settings = settings.model_copy(update={"warm": settings.warm.model_copy(update={"enabled": False})})

    collect_garbage()

    async def main() -> T:
        async with open_toolbox(settings) as toolbox:
            await toolbox.loaded()
            return await work(toolbox)

    return anyio.run(main)


@asynccontextmanager
async def asked_upstreams(toolbox: Toolbox) -> AsyncIterator[None]:
    """Meanwhile the upstreams of the settings are connected; each has been asked for its tools, or could not be."""
    import anyio

    from praxis_mcp.support.tasks import unwrapped

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(toolbox.upstreams.run)
            await toolbox.upstreams.wait_attempted()
            yield
            tasks.cancel_scope.cancel()


def print_findings(diagnostics: Sequence[Diagnostic]) -> bool:
    """Say on standard error what is wrong with contracts and their directories; whether any of it is an error."""
    for item in diagnostics:
        say(str(item), fg="red" if item.is_error else "yellow", err=True)
    return any(item.is_error for item in diagnostics)


def print_error(message: str, remedy: str | None) -> None:
    """Say on standard error what went wrong and how to fix it."""
    say("error: ", fg="red", err=True, nl=False)
    say(message, err=True)
    if remedy:
        first, *more = remedy.split("\n")
        say(f"  → {first}", err=True)
        for line in more:
            say(f"    {line}", err=True)


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Turn our own errors into a message and an exit code, and Ctrl-C into exit code 130."""
    try:
        yield
    except PraxisError as exc:
        print_error(exc.message, exc.remedy)
        raise typer.Exit(EXIT_ENGINE if isinstance(exc, ExecutionError) else EXIT_USAGE) from exc
    except KeyboardInterrupt as exc:
        raise typer.Exit(130) from exc


def read_arguments(schema: dict[str, Any], words: list[str] | None, given: str | None) -> dict[str, Any]:
    """The arguments of a call.

    Args:
        schema: the tool's input schema, by whose types the words are read.
        words: ``key=value``; these win over what `given` says.
        given: a JSON object, or ``@`` and the file that holds one (``@-``: standard input).

    Raises:
        ArgumentError: one of them cannot be read.
    """
    arguments = _read_object(given) if given is not None else {}
    seen: set[str] = set()
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals:
            raise ArgumentError(f'"{word}" is not an argument.', remedy="Write key=value, or --arguments JSON.")
        if name in seen:
            raise ArgumentError(
                f'"{name}" is given twice.', remedy='Give it once; for a list, write key=\'["a", "b"]\'.'
            )
        seen.add(name)
        arguments[name] = _typed(name, text, schema.get("properties", {}).get(name, {}))
    return arguments


def _typed(name: str, text: str, schema: dict[str, Any]) -> Any:
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "string" in kinds:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        from praxis_mcp.contracts.problems import allowed_types, shape

        secret = schema.get("writeOnly") is True or schema.get("format") == "password"
        given = "what was given" if secret else shape(text)
        sample = _SAMPLES.get(kinds[0]) if kinds else None
        raise ArgumentError(
            f'"{name}" must be {allowed_types(kinds)}, and {given} is not.',
            remedy=f"Write {name}={sample}." if sample else None,
        ) from exc


def _read_object(given: str) -> dict[str, Any]:
    text = given
    try:
        if given.startswith("@"):
            data = sys.stdin.buffer.read() if given == "@-" else Path(given[1:]).read_bytes()
            text = data.decode("utf-8-sig")
        value = json.loads(text)
    except OSError as exc:
        raise ArgumentError(f"--arguments: {given[1:]} cannot be read: {exc.strerror}.") from exc
    except (ValueError, RecursionError) as exc:
        raise ArgumentError(f"--arguments is not valid JSON: {exc}.", remedy=_ARGUMENTS_REMEDY) from exc
    if not isinstance(value, dict):
        raise ArgumentError("--arguments must be a JSON object.", remedy=_ARGUMENTS_REMEDY)
    return value
