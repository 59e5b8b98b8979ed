"""What leaves a task group that one exception, several, or a cancellation ends; and tasks that outlive their caller."""

import anyio
import anyio.lowlevel
import pytest

from praxis_mcp.support.tasks import BackgroundTasks, leaves, unwrapped
from tests.kit.until import WITHIN

pytestmark = pytest.mark.anyio


async def failing(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


async def test_one_exception_leaves_as_itself_with_its_cause_from_however_many_groups() -> None:
    error, cause = ValueError("it"), KeyError("why")

    async def in_two_groups() -> None:
        with unwrapped():
            async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
                outer.start_soon(anyio.sleep_forever)
                inner.start_soon(failing, error, cause)

    with pytest.raises(ValueError, match="it") as caught:
        await in_two_groups()
    assert caught.value is error
    assert caught.value.__cause__ is cause


async def test_several_exceptions_stay_a_group() -> None:
    errors = [ValueError("one"), ValueError("two")]

    async def together() -> None:
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                for error in errors:
                    tasks.start_soon(failing, error)

    with pytest.raises(BaseExceptionGroup) as caught:
        await together()
    assert sorted(map(str, leaves(caught.value))) == ["one", "two"]


async def test_a_cancellation_passes() -> None:
    with anyio.CancelScope() as scope, unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


async def test_the_end_of_background_tasks_waits_for_what_they_start_meanwhile() -> None:
    background, ended = BackgroundTasks(), []

    async def second() -> None:
        await anyio.lowlevel.checkpoint()
        ended.append("second")

    async def first() -> None:
        await anyio.lowlevel.checkpoint()
        background.start(second, "the second")
        ended.append("first")

    background.start(first, "the first")
    await background.close(WITHIN)
    assert ended == ["first", "second"]
    assert not len(background)
