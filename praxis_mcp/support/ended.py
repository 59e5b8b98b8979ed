"""How a command ended: the one type for a process, a container, and what praxis-init reports of either."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

EXIT_TIMED_OUT = 124
EXIT_SETUP_FAILED = 125
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
"""Exit codes that praxis-init adds to the command's own, those of timeout(1) and of the shell. A command may exit with
the same numbers: only the report (`parse_report`) tells which it was."""

MOUNTS_STEP = "mounts"
"""The step of `EndKind.SETUP_FAILED` where something else was mounted than was judged."""


class EndKind(StrEnum):
    """How a command ended, in praxis-init's words."""

    EXIT = "exit"
    """It exited; `number` is its exit code, None where the engine cannot tell."""
    SIGNAL = "signal"
    """It died of signal `number`, not by the deadline."""
    TIMEOUT = "timeout"
    """The deadline passed, and its tree was ended, however the command itself took that; `number` is the exit code
    that it left with, where that is known."""
    EXEC_FAILED = "exec-failed"
    """It could not be executed; `number` is an errno of Linux (2: not found)."""
    SETUP_FAILED = "setup-failed"
    """It was never started; `number` is an errno of Linux, `step` what failed (`seccomp`, `fork`, …)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        kind, number, step: see `EndKind`.
        out_of_memory: the memory limit was reached, and the kernel killed a process of the command.
    """

    kind: EndKind
    number: int | None = None
    step: str | None = None
    out_of_memory: bool = False

    @classmethod
    def by_code(cls, exit_code: int | None, *, timed_out: bool = False) -> Ended:
        """The end of a command of which the exit code is known, and whether its deadline passed."""
        return cls(EndKind.TIMEOUT if timed_out else EndKind.EXIT, exit_code)

    @property
    def timed_out(self) -> bool:
        """Whether the deadline passed."""
        return self.kind is EndKind.TIMEOUT

    @property
    def exit_code(self) -> int | None:
        """Its exit code, 128 + signal where a signal ended it; else that of praxis-init, which says why there is
        none."""
        match self.kind:
            case EndKind.EXIT:
                return self.number
            case EndKind.SIGNAL:
                return EXIT_SIGNAL_BASE + (self.number or 0)
            case EndKind.TIMEOUT:
                return EXIT_TIMED_OUT if self.number is None else self.number
            case EndKind.SETUP_FAILED:
                return EXIT_SETUP_FAILED
            case EndKind.EXEC_FAILED:
                return EXIT_NOT_FOUND if self.number == 2 else EXIT_CANNOT_RUN


def parse_report(text: str) -> Ended | None:
    """What praxis-init reported; None for an empty or torn report, which means that praxis-init was itself killed."""
    if not text.endswith("\n"):
        return None
    word, *rest = text[:-1].split(" ", 2)
    try:
        kind = EndKind(word)
        number = int(rest[0]) if rest else None
    except ValueError:
        return None
    if (number is None) != (kind is EndKind.TIMEOUT):
        return None
    return Ended(kind, number, rest[1] if len(rest) > 1 else None)
