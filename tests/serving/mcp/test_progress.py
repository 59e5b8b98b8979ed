"""Progress notifications: from output, from silence, and never at the price of the run."""

from itertools import pairwise
from unittest.mock import patch

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis_mcp.serving.mcp import progress
from praxis_mcp.serving.mcp.progress import MAX_PROGRESS_MESSAGE, ProgressReporter, parse_progress, reporting
from tests.serving.clients import LIMIT, Peer, text_of

pytestmark = pytest.mark.anyio

Note = tuple[float, float | None, str | None]


class Notes:
    """What a client hears."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.notes.append((progress, total, message))

    @property
    def messages(self) -> list[str | None]:
        return [message for _, _, message in self.notes]

    def assert_increasing(self) -> None:
        values = [progress for progress, _, _ in self.notes]
        assert all(first < second for first, second in pairwise(values)), values


async def test_a_tool_reports_numbers_and_messages(peer: Peer) -> None:
    notes = Notes()
    result = await peer.call("chatty", progress_callback=notes)
    assert text_of(result) == "starting\n"
    notes.assert_increasing()
    assert (4.0, 4.0, "step 4") in notes.notes


async def test_a_silent_call_shows_that_it_lives_on(peer: Peer) -> None:
    notes = Notes()
    await peer.call("silent", progress_callback=notes)
    assert [message for message in notes.messages if message and message.startswith("running for")]
    notes.assert_increasing()


async def test_a_client_that_takes_nothing_does_not_hold_up_the_run() -> None:
    async def never(progress: float, total: float | None, message: str | None) -> None:
        await anyio.sleep_forever()

    reporter = ProgressReporter(never, heartbeat=10)
    with anyio.fail_after(LIMIT):
        async with reporting(reporter):
            reporter.on_output("stdout", b"first\n")
            await anyio.wait_all_tasks_blocked()
            for _ in range(10_000):
                reporter.on_output("stderr", b"progress: 1/2 again\n")


async def test_a_flood_of_lines_becomes_few_notifications_and_the_last_numbers_arrive() -> None:
    notes = Notes()
    reporter = ProgressReporter(notes, heartbeat=10)
    async with reporting(reporter):
        for number in range(1, 1001):
            reporter.on_output("stderr", b"progress: %d/1000 part\n" % number)
            await anyio.lowlevel.checkpoint()
    assert len(notes.notes) < 5
    assert notes.notes[-1] == (1000.0, 1000.0, "part")
    notes.assert_increasing()


async def test_the_callers_own_exception_passes_through() -> None:
    with pytest.raises(LookupError):
        async with reporting(ProgressReporter(Notes(), heartbeat=10)):
            raise LookupError


async def test_messages_are_cut_and_cleaned_of_control_characters() -> None:
    notes = Notes()
    reporter = ProgressReporter(notes, heartbeat=10)
    async with reporting(reporter):
        reporter.on_output("stdout", b"\x1b[31mred\x1b[0m " + b"x" * 1000 + b"\rbar 50%\r")
        reporter.on_output("stdout", b"\x1b[2K\x1b[31m" + b"y" * 1000 + b"\n")
        await anyio.wait_all_tasks_blocked()
    (message,) = notes.messages
    assert message is not None
    assert message.startswith("yyy")
    assert len(message) == MAX_PROGRESS_MESSAGE


async def test_json_on_standard_output_is_not_a_message() -> None:
    notes = Notes()
    reporter = ProgressReporter(notes, heartbeat=10, stdout_is_data=True)
    async with reporting(reporter):
        reporter.on_output("stdout", b'{"a": 1}\n')
        await anyio.wait_all_tasks_blocked()
        assert notes.notes == []
        reporter.on_status("pulling image: 40%")
        await anyio.wait_all_tasks_blocked()
    assert notes.messages == ["pulling image: 40%"]


@settings(max_examples=40)
@given(st.lists(st.one_of(st.floats(0, 1e18), st.none()), min_size=1, max_size=12))
async def test_progress_increases_strictly_whatever_a_tool_reports(values: list[float | None]) -> None:
    notes = Notes()
    reporter = ProgressReporter(notes, heartbeat=10)
    with patch.object(progress, "MIN_INTERVAL", 0):
        async with reporting(reporter):
            for value in values:
                reporter.on_output("stderr", b"line\n" if value is None else f"progress: {value:.6f}/10\n".encode())
                await anyio.wait_all_tasks_blocked()
    assert notes.notes
    notes.assert_increasing()
    assert all(total is None or progress <= total for progress, total, _ in notes.notes)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("progress: 3/10 resizing", (3, 10, "resizing")),
        ("Progress: 45% halfway", (45, 100, "halfway")),
        ("progress: 7", (7, None, "")),
        ('{"progress": 3, "total": 10, "message": "resizing"}', (3, 10, "resizing")),
        ('{"progress": 3}', (3, None, "")),
        ("progress: soon", None),
        ("progress: " + "9" * 400, None),
        ('{"progress": "3"}', None),
        ('{"progress": 1' + "0" * 400 + "}", None),
        ('{"progress": true}', None),
        ("{" * 3000, None),
        ("in progress: 3/10", None),
    ],
)
def test_numbers_are_read_from_two_forms_of_line(line: str, expected: tuple | None) -> None:
    assert parse_progress(line) == expected
