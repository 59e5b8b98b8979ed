"""praxis-init and the Python that drives it: what both state is the same, and no option is there for nobody."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from praxis_mcp.engines.init import framing, layout, trees
from praxis_mcp.engines.init.framing import FrameType
from praxis_mcp.support import praxis_init as ours
from praxis_mcp.support.praxis_init import EndKind, join_words, run_prefix, sandbox_words, standby_words, wait_words
from tests.native.harness import PATIENCE

NATIVE = Path(__file__).resolve().parents[2] / "native"


def options_in(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--") and word != "--"}


ASKED = {
    "run": options_in(
        run_prefix(
            "x",
            timeout=1,
            no_network=False,
            parent=1,
            report="r",
            plain_status=True,
            output=("o", "e"),
            seccomp=b"12345678",
            hide=["A"],
        )
    )
    | options_in(run_prefix("x", timeout=1, no_network=True)),
    "wait": options_in(wait_words("x", 1, "/socket", [((1, 2), "/path")], ["A"]))
    | options_in(wait_words("x", 1, listen="127.0.0.1:1", secret=bytes(ours.CHANNEL_SECRET_BYTES), caller=1)),
    "sandbox": options_in(sandbox_words("x", 3, reply=4, parent=5)) | options_in(standby_words("x", parent=5)),
    "join": options_in(join_words("x", group=Path("/g"), private_mounts=True, overlay=(Path("/o"), 4096))),
}


INTERFACES = {12: "1431392e168c571c"}
"""What each version stands for, as a digest: a binary of another version is refused before it is used."""


@pytest.fixture
def explained(binary: Path) -> dict[str, str]:
    """What --help says of each form."""
    done = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    parts = re.split(r"^(\w+): ", done.stdout.partition("--help\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_engines_can_give_every_option_and_give_no_other(explained: dict[str, str]) -> None:
    options = {form: set(re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)) for form, text in explained.items()}
    assert options == ASKED


def test_the_time_between_the_signals_is_the_same_unless_it_is_given(explained: dict[str, str]) -> None:
    assert f"(default {ours.DEFAULT_KILL_AFTER:g};" in explained["run"]


def test_a_version_stands_for_one_command_line_and_one_set_of_frames(binary: Path, explained: dict[str, str]) -> None:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == f"praxis-init {ours.INIT_VERSION}\n"
    options = {form: sorted(set(re.findall(r"--[a-z-]+", text))) for form, text in explained.items()}
    interface = json.dumps([options, {kind.name: kind.value for kind in FrameType}], sort_keys=True)
    assert hashlib.sha256(interface.encode()).hexdigest()[:16] == INTERFACES.get(ours.INIT_VERSION), (
        "an option, a form or a frame changed: raise `version` in native/praxis_init.c and INIT_VERSION in "
        "praxis_mcp/support/praxis_init.py, and write this digest next to the new version"
    )


def values(file: str) -> dict[str, int]:
    """The constants of a C file whose value is a number or a product of numbers."""
    text = re.sub(r"/\*.*?\*/", "", (NATIVE / file).read_text(), flags=re.DOTALL)
    found = re.findall(r"\b([A-Z][A-Z_]+)(?: = | )(\d+(?: \* \d+)*)\s*[,;}\n]", text)
    result = {}
    for name, product in found:
        result[name] = 1
        for factor in product.split(" * "):
            result[name] *= int(factor)
    return result


def test_frames_have_the_same_numbers_in_c_in_python_and_in_the_specification() -> None:
    ours = {kind.name: kind.value for kind in FrameType}
    frames = values("frames.h")
    sizes = {"HEADER": 8, "PAYLOAD": framing.MAX_PAYLOAD}
    theirs = {name.removeprefix("FRAME_"): value for name, value in frames.items() if name.startswith("FRAME_")}
    assert theirs == {**ours, **sizes}
    assert frames["FRAMING_VERSION"] == framing.FRAMING_VERSION
    specified = re.findall(r"^\| ([\d, ]+) \| (.*?) \| ", (NATIVE / "FRAMING.md").read_text(), re.MULTILINE)
    rows = [
        zip(names.split(", "), numbers.split(", "), strict=True)
        for numbers, names in specified
        if names[:2].strip("`").isupper()
    ]
    assert {name.strip("`"): int(number) for row in rows for name, number in row} == ours


def test_a_call_has_the_same_flags_and_bounds_on_both_sides() -> None:
    flags = values("call.h")
    call = framing.WaitCall([b"x"], no_network=True, no_new_privileges=False)
    assert framing.encode_call(call)[8] == flags["CALL_NO_NETWORK"]
    call = framing.WaitCall([b"x"], no_network=False, no_new_privileges=True)
    assert framing.encode_call(call)[8] == flags["CALL_NO_NEW_PRIVILEGES"]
    bounds = values("call.c")
    assert bounds["MOST_BYTES"] == framing.MAX_CALL
    assert bounds["MOST_VARIABLES"] >= framing.MAX_VARIABLES


def test_a_tree_has_the_same_flags_and_bounds_on_both_sides() -> None:
    numbers = values("trees.h")
    bounds = trees.TreeBounds()
    assert trees.encode_tree("/x", bounds, returns=True)[8] == numbers["TREE_RETURNS"]
    assert trees.encode_tree("/x", bounds, returns=False, is_file=True)[8] == numbers["TREE_ONE_FILE"]
    assert numbers["MOST_TREES"] == trees.MAX_TREES
    assert numbers["MOST_TREE_ENTRIES"] >= 2 * bounds.entries
    shortfalls = {name: value for name, value in values("findings.h").items() if name.startswith("FOUND_")}
    assert sorted(shortfalls.values()) == [each.value for each in trees.Shortfall]


def test_a_listening_waiter_asks_for_a_secret_of_one_length() -> None:
    assert values("digest.h")["SECRET_BYTES"] == ours.CHANNEL_SECRET_BYTES


def test_a_layout_has_the_same_numbers_and_bounds_on_both_sides() -> None:
    numbers = values("layout.h")
    kinds = {name.removeprefix("MOUNT_"): value for name, value in numbers.items() if name.startswith("MOUNT_")}
    ours = {kind.name: kind.value for kind in layout.MountKind} | {flag.name: flag.value for flag in layout.MountFlag}
    assert kinds == ours
    assert numbers["LAYOUT_VERSION"] == layout.LAYOUT_VERSION
    assert numbers["MOST_MOUNTS"] == layout.MAX_LAYOUT_MOUNTS
    assert numbers["MOST_GROUPS"] == layout.MAX_LAYOUT_GROUPS
    assert numbers["MOST_LIMITS"] == layout.MAX_LAYOUT_LIMITS
    assert numbers["MOST_MEMBERSHIPS"] == layout.MAX_LAYOUT_MEMBERSHIPS
    assert numbers["HOST_NAME_LENGTH"] == layout.MAX_LAYOUT_HOST_NAME
    assert values("layout.c")["MOST_TEXT"] == layout.MAX_LAYOUT_TEXT


def test_exit_statuses_are_the_same_on_both_sides() -> None:
    theirs = values("diagnostics.h")
    assert (theirs["EXIT_TIMED_OUT"], theirs["EXIT_SETUP"]) == (
        ours.EXIT_TIMED_OUT,
        ours.EXIT_SETUP_FAILED,
    )
    assert (theirs["EXIT_CANNOT_RUN"], theirs["EXIT_NOT_FOUND"]) == (
        ours.EXIT_CANNOT_RUN,
        ours.EXIT_NOT_FOUND,
    )
    assert theirs["EXIT_SIGNAL_BASE"] == ours.EXIT_SIGNAL_BASE


def test_ends_have_the_same_numbers_and_words_on_both_sides() -> None:
    numbers = values("outcome.h")
    words = re.findall(r"\[OUTCOME_(\w+)\] = \"([\w-]+)\"", (NATIVE / "outcome.c").read_text())
    assert dict(words) == {kind.name: kind.value for kind in EndKind}
    for kind in EndKind:
        payload = numbers[f"OUTCOME_{kind.name}"].to_bytes(4, "little") + bytes(4)
        frame = FrameType.END.to_bytes(4, "little") + len(payload).to_bytes(4, "little") + payload
        (end,) = framing.FrameDecoder().feed(frame)
        assert isinstance(end, ours.Ended)
        assert end.kind is kind


def test_a_variable_that_is_kept_has_one_name() -> None:
    assert f'"{ours.KEPT}"' in (NATIVE / "environment.c").read_text()


def test_the_step_of_a_wrong_mount_has_one_name() -> None:
    for source in ("wait.c", "arrange.c", "sandbox.c"):
        assert f'"{ours.MOUNTS_STEP}"' in (NATIVE / source).read_text()
