"""What commands share: the options that choose settings, and how they open a toolbox, report findings and end."""

from __future__ import annotations

import functools
import gc
import inspect
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from praxis_mcp.cli.terminal import configure_logging, hold_logs, say, warn_of_losses
from praxis_mcp.errors import ExecutionError, PraxisError

if TYPE_CHECKING:
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.settings.model import Settings

T = TypeVar("T")

YOUNG_OBJECTS = 20_000
"""Objects made, less those that have gone by themselves, after which the youngest are looked through: some MiB."""
FULL_COLLECTIONS = 10
"""Full collections of garbage after which everything that stays has been made."""
EXIT_USAGE = 2
EXIT_ENGINE = 125
"""As `docker run` has it: the engine failed, not the command."""

ToolsetOption = Annotated[
    list[str] | None,
    typer.Option("--toolset", help="Only the tools of this toolset of the settings; may be given more than once."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
PORT = "Port of the server; 0 is any free one (default: 8000; of the command console: 0)."
"""What ``--port`` is."""


@dataclass(frozen=True, slots=True)
class SettingsOptions:
    """The options that choose settings; None where one is not there."""

    directories: Annotated[list[Path] | None, typer.Argument(help="Directories of contracts (default: tools).")] = None
    tools: Annotated[
        list[Path] | None, typer.Option("--tools", "-t", help="Directory of contracts; may be given more than once.")
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Settings file (default: PRAXIS_CONFIG, else the project's praxis.yaml, once approved).",
        ),
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            file_okay=False,
            help="Where relative paths in contracts start (default: the settings file's root, else the tools' "
            "project).",
        ),
    ] = None
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="What goes to stderr: DEBUG, INFO, WARNING or ERROR.")
    ] = None

    def read(
        self,
        *,
        quiet: bool = True,
        warn: bool = True,
        http: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        locked: bool = False,
        lock_key: Path | None = None,
    ) -> Settings:
        """The settings for a command, logging configured by them.

        Args:
            quiet: nothing is logged unless the user asks for it, because the command prints its own findings.
            warn: say which settings files were left aside.
            http, server: values of these sections that win over the file's.
            locked: only what is locked may run, whatever the file says.
            lock_key: as `locked`, and the lock must be signed with this key.
        """
        _build_models_when_used()
        from praxis_mcp.settings.model import load_settings
        from praxis_mcp.support.logs import logger

        flags: dict[str, Any] = {}
        if directories := [*(self.directories or ()), *(self.tools or ())]:
            flags["tools"] = [path.absolute() for path in directories]
        if self.root is not None:
            flags["root"] = self.root
        if self.log_level:
            flags["log_level"] = self.log_level.upper()
        if http:
            flags["http"] = http
        if server:
            flags["server"] = server
        if locked or lock_key is not None:
            flags["locked"] = True
        if lock_key is not None:
            flags["lock_key"] = lock_key.absolute()
        held = hold_logs()
        try:
            settings = load_settings(self.config, flags)
        except BaseException:
            configure_logging("INFO")
            _log_again(held)
            raise
        is_quiet = quiet and not (self.log_level or "log_level" in settings.model_fields_set)
        if is_quiet:
            warn_of_losses()
        else:
            configure_logging(settings.log_level, settings.log_format)
        _log_again(held, is_quiet=is_quiet)
        logger.info("settings: {}; root: {} ({})", settings.origin, settings.root, settings.origin.root_reason)
        if warn:
            _log_again([("WARNING", str(item)) for item in settings.origin.left_aside], is_quiet=is_quiet)
        return settings


def takes_settings(
    *, directories: bool = False, tools: bool = True, root: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that choose settings, as its parameter `options`; and `friendly_errors`.

    Args:
        directories: its arguments are directories of contracts too.
        tools: it takes ``--tools``.
        root: it takes ``--root``.
    """
    left_out = {"directories": directories, "tools": tools, "root": root}
    taking = takes("options", SettingsOptions, *(name for name, is_taken in left_out.items() if not is_taken))
    return lambda command: friendly_errors()(taking(command))


def takes(
    name: str, group: Callable[..., object], *left_out: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a group of options, behind its own, as its parameter of this name.

    Args:
        name: the parameter.
        group: a dataclass whose fields are the options.
        left_out: fields that this command does not take.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [item for item in _parameters(command) if item.name != name]
        offered = [item for item in _parameters(group) if item.name not in left_out]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {item.name: values.pop(item.name) for item in offered}
            command(**{name: group(**given)}, **values)

        shown = [item.replace(kind=item.KEYWORD_ONLY) for item in (*own, *offered)]
        # Typer reads both.
        run.__signature__ = inspect.Signature(shown)  # pyright: ignore[reportAttributeAccessIssue]
        run.__annotations__ = {item.name: item.annotation for item in shown}
        return run

    return decorate


@functools.cache
def _parameters(function: Callable[..., object]) -> tuple[inspect.Parameter, ...]:
    # Remembered, because most commands take the same group, whose annotations take 0.3 ms to evaluate.
    return tuple(inspect.signature(function, eval_str=True).parameters.values())


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
    looked through again. Without it every call would leave some kilobytes behind, for as long as a server lives.

    What is made later and stays (engines' SDKs, contracts) is found by the first full collections. It is not looked
    through again either: each took 10 to 25 ms, in which all calls waited. After those, what they find is small."""
    left = FULL_COLLECTIONS

    def keep(phase: str, facts: Mapping[str, int]) -> None:
        nonlocal left
        if phase == "stop" and facts["generation"] == 2:
            gc.freeze()
            left -= 1
            if not left:
                gc.callbacks.remove(keep)

    gc.freeze()
    gc.callbacks.append(keep)
    # A call makes some thousand objects, and next to no garbage that only a collection finds: by Python's own 700 there
    # were several in each.
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    gc.enable()


def run_with_toolbox(
    settings: Settings,
    work: Callable[[Toolbox], Awaitable[T]],
    *,
    keep_records: bool = False,
    starts_ahead: bool = False,
) -> T:
    """Open a toolbox, do the work, close it.

    Args:
        keep_records: see `open_toolbox`.
        starts_ahead: engines may start something ahead of calls, as the settings say.
    """
    import anyio

    from praxis_mcp.execution.toolbox import open_toolbox

    # Nothing is worth starting ahead of a call by a command that ends after the next one.
    if not starts_ahead:
        settings = settings.model_copy(update={"warm": settings.warm.model_copy(update={"enabled": False})})

    collect_garbage()

    async def main() -> T:
        async with open_toolbox(settings, keep_records=keep_records) as toolbox:
            return await work(toolbox)

    return anyio.run(main)


def print_findings(diagnostics: Sequence[Diagnostic]) -> bool:
    """Say on standard error what is wrong with contracts and their directories; whether any of it is an error."""
    for item in diagnostics:
        say(str(item), fg="red" if item.is_error else "yellow", err=True)
    return any(item.is_error for item in diagnostics)


def say_where_contracts_go(settings: Settings) -> None:
    """Say on standard error where a first contract belongs, to somebody who has none."""
    places = " or ".join(str(directory) for directory in settings.tool_directories)
    say(
        f"There are no contracts in {places}. A tool is a file there: NAME/contract.yaml or NAME.contract.yaml "
        "(docs/contracts.md). praxis-mcp new NAME writes one to begin with.",
        err=True,
    )


def diagnostics_as_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, object]]:
    """Diagnostics as plain values."""
    return [
        {
            "severity": item.severity.value,
            "path": str(item.path) if item.path else None,
            "line": item.line,
            "column": item.column,
            "field": item.field,
            "message": item.message,
            "remedy": item.remedy,
            "code": item.code,
        }
        for item in diagnostics
    ]


def make_directory(directory: Path, option: str) -> None:
    """Make a directory that an option names, unless it is there.

    Raises:
        ArgumentError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        from praxis_mcp.errors import ArgumentError

        raise ArgumentError(
            f"The directory {directory} cannot be made: {exc.strerror}.", remedy=f"Name another after {option}."
        ) from exc


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
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # by `praxis_mcp.cli.main`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except PraxisError as exc:
        if isinstance(exc, ExecutionError) and exc.output:
            say(exc.output, err=True)
        print_error(exc.message, exc.remedy)
        raise typer.Exit(EXIT_ENGINE if isinstance(exc, ExecutionError) else EXIT_USAGE) from exc
    except KeyboardInterrupt as exc:
        raise typer.Exit(130) from exc
