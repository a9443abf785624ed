import asyncio

import pytest

from gnncompose.deployment.deadlines import Deadline


async def within(deadline: Deadline, seconds: float) -> str:
    try:
        with deadline:
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "late"
    return "done"


def test_deadline__ends_those_that_take_too_long_and_no_others():
    async def run() -> list[str]:
        deadline = Deadline(0.1)
        tasks = [asyncio.create_task(within(deadline, seconds)) for seconds in (0.0, 30.0, 0.0, 30.0)]
        return [await task for task in tasks]

    assert asyncio.run(run()) == ["done", "late", "done", "late"]


def test_deadline__is_watched_anew_after_a_time_without_tasks():
    async def run() -> list[str]:
        deadline = Deadline(0.05)
        return [await within(deadline, seconds) for seconds in (30.0, 0.0, 30.0, 0.0)]

    assert asyncio.run(run()) == ["late", "done", "late", "done"]


def test_deadline__leaves_a_task_as_it_was():
    async def run() -> tuple[str, int]:
        found = await within(Deadline(0.05), 30.0)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return found, task.cancelling()

    assert asyncio.run(run()) == ("late", 0)


def test_deadline__is_no_answer_to_another_cancellation():
    async def run() -> None:
        task = asyncio.create_task(within(Deadline(30.0), 30.0))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_deadline__hands_on_what_is_raised_within():
    async def run() -> None:
        with Deadline(30.0):
            raise ValueError("other")

    with pytest.raises(ValueError, match="other"):
        asyncio.run(run())
