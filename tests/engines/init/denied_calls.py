"""The calls that a tool is denied, as words to try them with from inside."""

from praxis_mcp.engines.init.seccomp import CLONE, CLONE3, DENIED, MACHINES, NEWEST, PERSONALITY

NEW_USER = 0x10000000 | 17  # CLONE_NEWUSER | SIGCHLD
SAME_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE
ABSENT = frozenset({"clone3", "a later call", *(name for group in DENIED if group.absent for name in group.calls)})


def denied_calls(half: str) -> dict[str, list[int]]:
    """Each denied call's number and first arguments, by name; the rest are zeros.

    Those of `ABSENT` are to fail with ENOSYS, all others with EPERM.

    Args:
        half: one of `MACHINES`.
    """
    column = MACHINES.index(half)
    calls = {
        name: [number]
        for group in DENIED
        for name, numbers in group.calls.items()
        if (number := numbers[column]) is not None
    }
    by_argument = {"clone": (CLONE, NEW_USER), "personality": (PERSONALITY, SAME_ADDRESSES), "clone3": (CLONE3, 0)}
    words = {name: [numbers[column] or 0, word] for name, (numbers, word) in by_argument.items()}
    return {**calls, **words, "a later call": [NEWEST + 1]}
