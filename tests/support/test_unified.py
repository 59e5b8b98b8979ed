"""Differences of two texts: that they say all that differs, and take no long time whatever tools wrote."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest

from praxis_mcp.support.unified import DiffLine, unified


def joined(lines: list[str], *, ends: bool) -> str:
    return "\n".join(lines) + ("\n" if lines and ends else "")


def patched(before: str, lines: list[DiffLine]) -> str:
    """What a difference makes of a text, by the meaning that ``patch`` gives it."""
    old = before.split("\n")
    ends = not old[-1]
    if ends:
        old.pop()
    new: list[str] = []
    at = 0
    for (sign, text), (following, _) in pairwise([*lines, DiffLine("@", "")]):
        if sign == "@":
            begin, _, count = text.split()[1].lstrip("-").partition(",")
            start = int(begin) - (count != "0")
            new += old[at:start]
            at = start
        elif sign in " -":
            assert old[at] == text
            at += 1
        if sign in " +":
            new.append(text)
            ends = ends if following != "\\" else False
            if sign == "+" and following != "\\":
                ends = True
    return joined(new + old[at:], ends=ends)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_said_to_differ_makes_one_text_of_the_other(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        old = [chance.choice("abcdefghij") for _ in range(chance.randrange(40))]
        new = list(old)
        for _ in range(chance.randrange(8)):
            at = chance.randrange(len(new) + 1)
            if chance.random() < 0.5:
                new.insert(at, chance.choice("abcxyz"))
            elif at < len(new):
                del new[at]
        before, after = joined(old, ends=True), joined(new, ends=True)
        lines = unified(before, after)
        assert bool(lines) == (before != after)
        assert patched(before, lines) == after


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("", "", []),
        ("same\n", "same\n", []),
        ("", "new\n", ["@@ -0,0 +1 @@", "+new"]),
        ("old\n", "", ["@@ -1 +0,0 @@", "-old"]),
        ("a", "a\n", ["@@ -1 +1 @@", "-a", "\\ No newline at end of file", "+a"]),
        ("1\n2\n3\n4\n5\n", "1\n2\n3\n4\nV\n", ["@@ -2,4 +2,4 @@", " 2", " 3", " 4", "-5", "+V"]),
        ("a\r\n", "a\n", ["@@ -1 +1 @@", "-a\r", "+a"]),
        ("\x0c\u2028\n", "\x0c\n", ["@@ -1 +1 @@", "-\x0c\u2028", "+\x0c"]),
    ],
)
def test_differences_are_written_as_diff_does(before: str, after: str, shown: list[str]) -> None:
    assert [text if sign == "@" else sign + text for sign, text in unified(before, after)] == shown


def test_lines_that_stay_are_not_shown_as_changed_though_others_moved_around_them() -> None:
    before = "def one():\n    pass\n\ndef two():\n    pass\n"
    after = "def zero():\n    pass\n\ndef one():\n    pass\n\ndef two():\n    return 2\n"
    changed = [text for sign, text in unified(before, after) if sign in "+-"]
    assert changed == ["def zero():", "    pass", "", "    pass", "    return 2"]


def repeated(choices: str, count: int, seed: int) -> str:
    chance = random.Random(seed)
    return "".join(f"{chance.choice(choices)}\n" for _ in range(count))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\n" * 30_000, "b\n" * 30_000),
        ("a\n" * 30_000, "a\nb\n" * 15_000),
        (repeated("abcdefghijklmnopqrstuvwxyz", 30_000, 1), repeated("abcdefghijklmnopqrstuvwxyz", 30_000, 2)),
        ("".join(f"{number}\n" for number in range(11_000)), "".join(f"{number}\n" for number in range(11_000, 0, -1))),
        ("".join(f"{n % 500}\n" for n in range(16_000)), "".join(f"{n * 7 % 500}\n" for n in range(16_000))),
    ],
    ids=["other", "between", "random", "reversed", "cycles"],
)
def test_no_two_texts_take_long(before: str, after: str) -> None:
    """The standard library alone takes minutes for some of these."""
    began = time.process_time()
    assert unified(before, after)
    assert time.process_time() - began < 5
