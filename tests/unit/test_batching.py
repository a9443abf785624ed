"""Dynamic batching: what comes together is answered together, nothing is mixed up, and no more waits than may."""

import asyncio
import threading
import time

import numpy as np
import pytest

from gnncompose.deployment.batching import Batcher, Batching, OverloadError
from gnncompose.deployment.engine import Answered
from gnncompose.errors import EvaluationError


class FakeEngine:
    """Answers a row by its double, once it may; fails on negative rows."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.batches: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.takes_s = takes_s

    def answer(self, x: np.ndarray) -> Answered:
        self.batches.append(len(x))
        self.may_go.wait(10)
        time.sleep(self.takes_s)
        if (x < 0).any():
            raise EvaluationError("negative")
        return Answered(2 * x, 7)


def rows(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def run(engine: FakeEngine, batching: Batching, use) -> list[int]:
    """Rows of the batches that were told, after `use` had the batcher."""
    told: list[int] = []

    async def within() -> None:
        batcher = Batcher(engine.answer, batching, told.append)
        try:
            await use(batcher)
        finally:
            engine.may_go.set()
            await batcher.close(5.0)

    asyncio.run(within())
    return told


def test_batcher__gives_each_request_its_own_rows():
    async def use(batcher: Batcher) -> None:
        sizes = np.random.default_rng(0).integers(1, 9, size=200)
        asked = [np.full((size, 1), number, dtype=np.float32) for number, size in enumerate(sizes)]
        found = await asyncio.gather(*(batcher(x) for x in asked))
        for x, answered in zip(asked, found, strict=True):
            assert answered.version == 7
            np.testing.assert_array_equal(answered.y, 2 * x)

    told = run(FakeEngine(0.001), Batching(most_rows=32), use)
    assert max(told) <= 32
    assert len(told) < 100


def test_batcher__gathers_what_comes_while_workers_are_busy():
    engine = FakeEngine()

    async def use(batcher: Batcher) -> None:
        engine.may_go.clear()
        asked = [asyncio.create_task(batcher(rows(number))) for number in range(10)]
        await asyncio.sleep(0.05)
        assert batcher.load == (9, 1)
        engine.may_go.set()
        await asyncio.gather(*asked)

    assert run(engine, Batching(workers=1), use) == [1, 9]


def test_batcher__waits_no_longer_than_it_may():
    async def use(batcher: Batcher) -> None:
        started = time.monotonic()
        first = asyncio.create_task(batcher(rows(1)))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, batcher(rows(2)))
        assert time.monotonic() - started >= 0.09
        await asyncio.gather(*(batcher(rows(number)) for number in range(4)))  # a full batch does not wait

    assert run(FakeEngine(), Batching(most_rows=4, wait_ms=100), use) == [2, 4]


def test_batcher__never_joins_rows_of_different_shapes():
    async def use(batcher: Batcher) -> None:
        wide = np.ones((1, 3), dtype=np.float32)
        found = await asyncio.gather(batcher(rows(1)), batcher(wide), batcher(rows(2)), batcher(wide))
        assert [answered.y.shape for answered in found] == [(1, 1), (1, 3), (1, 1), (1, 3)]

    assert sorted(run(FakeEngine(), Batching(wait_ms=20), use)) == [2, 2]


def test_batcher__holds_a_failure_against_its_own_request_only():
    async def use(batcher: Batcher) -> None:
        found = await asyncio.gather(*(batcher(rows(value)) for value in (1, -1, 3)), return_exceptions=True)
        assert isinstance(found[1], EvaluationError)
        assert [float(answered.y[0, 0]) for answered in (found[0], found[2])] == [2.0, 6.0]

    run(FakeEngine(), Batching(wait_ms=20), use)


def test_batcher__turns_away_what_the_queue_has_no_room_for():
    engine = FakeEngine()

    async def use(batcher: Batcher) -> None:
        engine.may_go.clear()
        first = asyncio.create_task(batcher(rows(0)))
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(batcher(rows(1, 2, 3)))
        await asyncio.sleep(0.02)
        with pytest.raises(OverloadError, match="3 rows wait") as problem:
            await batcher(rows(4, 5))
        assert problem.value.retry_after_s > 0
        engine.may_go.set()
        await asyncio.gather(first, waiting)
        assert (await batcher(rows(6))).y == 12

    run(engine, Batching(workers=1, queue_rows=4), use)


def test_batcher__ends_a_request_that_takes_too_long():
    engine = FakeEngine()

    async def use(batcher: Batcher) -> None:
        engine.may_go.clear()
        with pytest.raises(OverloadError, match="not answered within"):
            await batcher(rows(0))
        engine.may_go.set()
        assert (await batcher(rows(1))).y == 2

    run(engine, Batching(workers=1, timeout_s=0.1), use)


def test_close__answers_what_waits_and_takes_no_more():
    engine = FakeEngine(0.05)

    async def use(batcher: Batcher) -> None:
        asked = [asyncio.create_task(batcher(rows(number))) for number in range(5)]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(batcher.close(5.0))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="about to end") as problem:
            await batcher(rows(9))
        assert problem.value.closing
        await closing
        assert [float(answered.y[0, 0]) for answered in await asyncio.gather(*asked)] == [0, 2, 4, 6, 8]

    run(engine, Batching(workers=1, most_rows=1), use)
