"""The rules of the run queue, in an event loop, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from lethe.pool.messages import EntryPoint, Instruction, Job
from lethe.pool.resources import Shape
from lethe.pool.run_queue import RunQueue
from lethe.records import EpochReport, FinalReport

SHAPE, WIDE = Shape(), Shape(workers=2)


def job(run: str, shape: Shape = SHAPE, **payload: Any) -> Job:
    return Job(run, EntryPoint.NULL, payload, shape)


def epoch(number: int) -> EpochReport:
    return EpochReport(values={"epoch": number})


def last(number: int = 1) -> FinalReport:
    return FinalReport(verdict="complete", values={"epoch": number})


def play(script: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(script, 10))


async def take(queue: RunQueue, wait_s: float = 1.0, group: str = "g") -> Any:
    """As the group's newest process."""
    return await queue.take(group, queue._groups[group].incarnation, wait_s)


async def lease(queue: RunQueue, group: str = "g", incarnation: int | None = None) -> Any:
    return await (take(queue, group=group) if incarnation is None else queue.take(group, incarnation, 1.0))


def test_a_run_goes_through_in_lockstep() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        await queue.submit(job("r", x=1), "t")
        got = await lease(queue)
        assert got.job == job("r", x=1)
        first = asyncio.create_task(queue.report(got.number, 0, epoch(1)))
        assert await queue.next_report("r", 0) == epoch(1)
        await asyncio.sleep(0.02)
        assert not first.done(), "a report waits until the trial asks for the next one"
        following = asyncio.create_task(queue.next_report("r", 1))
        assert await first == "continue"
        assert await queue.report(got.number, 1, last(2)) == "continue"
        assert (await following).values["epoch"] == 2

    play(script())


def test_submit_is_idempotent_and_shapes_are_kept_apart() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        await queue.submit(job("wide", WIDE), "t")
        await queue.submit(job("r"), "t")
        await queue.submit(job("r", second=True), "t")
        assert (await lease(queue)).job == job("r")
        assert await take(queue, 0.05) is Instruction.WAIT, "nothing of this shape is left"
        assert (await queue.status()).queued == {WIDE: 1}

    play(script())


def test_a_dead_group_gives_its_run_back_and_its_reports_are_stale() -> None:
    async def script() -> None:
        queue = RunQueue()
        first = await queue.register("g", SHAPE)
        await queue.submit(job("r"), "t")
        old = await lease(queue)
        waiting = asyncio.create_task(queue.report(old.number, 0, epoch(1)))
        assert await queue.next_report("r", 0) == epoch(1)
        await queue.register("g", SHAPE)
        assert await waiting == "stale"
        assert await queue.report(old.number, 1, epoch(2)) == "stale"
        assert (await lease(queue, incarnation=first)) is Instruction.EXIT, "the old incarnation gets no work"
        new = await lease(queue)
        assert new.job.run == "r"
        following = asyncio.create_task(queue.next_report("r", 1))
        assert await queue.report(new.number, 0, epoch(1)) == "continue", "seen before: answered at once"
        assert await queue.report(new.number, 1, last(2)) == "continue"
        assert (await following).values["epoch"] == 2

    play(script())


def test_a_run_that_kills_every_group_is_lost() -> None:
    async def script() -> None:
        queue = RunQueue(max_attempts=2)
        await queue.submit(job("r"), "t")
        for _ in range(2):
            await queue.register("g", SHAPE)
            assert (await lease(queue)).job.run == "r"
        await queue.deregister("g")
        report = await queue.next_report("r", 0)
        assert isinstance(report, FinalReport)
        assert report.verdict == "lost"
        assert "2 times" in report.reason

    play(script())


def test_a_lease_without_heartbeat_lapses() -> None:
    async def script() -> None:
        queue = RunQueue(lapse_s=0.05)
        await queue.register("g", SHAPE)
        await queue.submit(job("r"), "t")
        got = await lease(queue)
        assert await queue.heartbeat(got.number)
        await asyncio.sleep(0.1)
        await queue.status()
        assert not await queue.heartbeat(got.number)
        assert (await queue.status()).queued == {SHAPE: 1}

    play(script())


def test_a_heartbeat_has_the_steps_that_are_done() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        await queue.submit(job("r"), "t")
        await queue.submit(job("s"), "t")
        got = await lease(queue)
        await queue.heartbeat(got.number, (41, 75))
        assert await queue.progress() == {"r": (41, 75), "s": (0, 0)}

    play(script())


@pytest.mark.parametrize("taken", [False, True])
def test_stop(taken: bool) -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        await queue.submit(job("r"), "t")
        if taken:
            got = await lease(queue)
            report = asyncio.create_task(queue.report(got.number, 0, epoch(1)))
            await queue.next_report("r", 0)
            await queue.stop("r")
            assert await report == "stop"
            assert await take(queue, 0.05) is Instruction.WAIT
            assert (await queue.next_report("r", 1)).verdict == "stopped"
        else:
            await queue.stop("r")
            assert (await queue.next_report("r", 0)).verdict == "stopped"
            assert await take(queue, 0.05) is Instruction.WAIT

    play(script())


def test_dissolved_and_closed_groups_leave() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("a", SHAPE)
        await queue.register("b", SHAPE)
        waiting = asyncio.create_task(lease(queue, "a"))
        await asyncio.sleep(0)
        await queue.dissolve("a")
        assert (await waiting) is Instruction.EXIT
        await queue.close()
        assert (await lease(queue, "b")) is Instruction.EXIT

    play(script())


def test_two_idle_groups_and_one_run() -> None:
    async def script() -> None:
        queue = RunQueue()
        for group in ("a", "b"):
            await queue.register(group, SHAPE)
        waiting = [asyncio.create_task(take(queue, 0.3, group)) for group in ("a", "b")]
        await asyncio.sleep(0.01)
        await queue.submit(job("r"), "t")
        got = await asyncio.gather(*waiting)
        assert sorted(lease is Instruction.WAIT for lease in got) == [False, True]

    play(script())


def test_a_withdrawn_run_that_is_submitted_again_is_a_new_one() -> None:
    async def script() -> None:
        queue = RunQueue()
        for group in ("a", "b"):
            await queue.register(group, SHAPE)
        await queue.submit(job("r"), "t")
        old = await lease(queue, "a")
        await queue.withdraw("r", "t")
        assert not await queue.submit(job("r", late=True), "t"), "an actor of the trial that has ended"
        assert await queue.next_report("r", 0) is None
        await queue.submit(job("r", second=True), "t2")
        new = await lease(queue, "b")
        assert new.job.payload == {"second": True}
        assert await queue.report(old.number, 0, epoch(1)) == "stale"
        assert await take(queue, 0.05, "a") is Instruction.WAIT
        assert await queue.report(new.number, 0, last()) == "continue"
        assert (await queue.next_report("r", 0)).verdict == "complete"

    play(script())


def test_a_lapse_wakes_idle_groups() -> None:
    async def script() -> None:
        queue = RunQueue(lapse_s=0.05)
        for group in ("a", "b"):
            await queue.register(group, SHAPE)
        await queue.submit(job("r"), "t")
        await lease(queue, "a")
        waiting = asyncio.create_task(take(queue, 5.0, "b"))
        await asyncio.sleep(0.1)
        await queue.status()
        assert (await asyncio.wait_for(waiting, 1)).job.run == "r"

    play(script())


def test_attempts_are_counted_since_the_last_new_report() -> None:
    """A long run on machines that come and go is not the cause of its deaths."""

    async def trial(queue: RunQueue) -> tuple[int, Any]:
        seen = 0
        while isinstance(report := await queue.next_report("r", seen), EpochReport):
            seen += 1
        return seen, report

    async def script() -> None:
        queue = RunQueue(max_attempts=2)
        await queue.submit(job("r"), "t")
        ended = asyncio.create_task(trial(queue))
        for reports in (1, 2, 3, 3, 3):
            await queue.register("g", SHAPE)
            if (got := await take(queue, 0.05)) is not Instruction.WAIT:
                for index in range(reports):
                    assert await queue.report(got.number, index, epoch(index + 1)) == "continue"
        seen, report = await ended
        assert seen == 3
        assert report.verdict == "lost"

    play(script())


def test_a_run_queue_that_was_started_again_asks_for_everything() -> None:
    async def script() -> None:
        former, queue = RunQueue(), RunQueue()
        incarnation = await former.register("g", SHAPE)
        await former.submit(job("r", x=1), "t")
        old = await lease(former)
        assert await queue.report(old.number, 0, epoch(1)) == "stale"
        assert not await queue.heartbeat(old.number)
        assert (await queue.take("g", incarnation, 1.0)) is Instruction.REGISTER
        assert await queue.next_report("r", 1) is None, "the trial had seen one report"
        assert await queue.register("g", SHAPE) != incarnation
        await queue.submit(job("r", x=1), "t")
        following = asyncio.create_task(queue.next_report("r", 1))
        new = await lease(queue)
        assert new.job.run == "r"
        assert new.number != old.number
        assert await queue.report(new.number, 0, epoch(1)) == "continue", "the trial has it already"
        second = asyncio.create_task(queue.report(new.number, 1, epoch(2)))
        assert (await following).values["epoch"] == 2
        second.cancel()

    play(script())


@pytest.mark.parametrize("verdict", ["infeasible", "out_of_memory", "error"])
def test_what_would_fail_again_is_the_result_at_once(verdict: str) -> None:
    """Rank 1 says why before the group dies: the reason is kept and the run is not tried again."""

    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        await queue.submit(job("r"), "t")
        got = await lease(queue)
        await queue.failed(got.number, verdict, "because")
        await queue.failed(got.number, "lost", "RuntimeError: connection closed by peer")
        assert await queue.next_report("r", 0) == FinalReport(verdict=verdict, reason="because")
        await queue.register("g", SHAPE)
        assert await take(queue, 0.05) is Instruction.WAIT

    play(script())


def test_what_may_do_better_is_tried_again_and_its_reason_kept() -> None:
    async def script() -> None:
        queue = RunQueue(max_attempts=2)
        for group in ("a", "b"):
            await queue.register(group, SHAPE)
        await queue.submit(job("r"), "t")
        for group in ("a", "b"):
            await queue.failed((await lease(queue, group)).number, "lost", f"{group} lost a peer")
        report = await queue.next_report("r", 0)
        assert (report.verdict, report.reason) == ("lost", "b lost a peer")

    play(script())


def test_io_that_fails_again_and_again_ends_the_session_and_no_trial() -> None:
    async def script() -> None:
        queue = RunQueue(max_attempts=2)
        await queue.register("g", SHAPE)
        for run in ("r", "other"):
            await queue.submit(job(run), "t")
        asking = [asyncio.create_task(queue.next_report(run, 0)) for run in ("r", "other")]
        for _ in range(2):
            await queue.failed((await lease(queue)).number, "interrupted", "OSError: disk full")
        for report in await asyncio.gather(*asking):
            assert report == FinalReport(verdict="interrupted", reason="OSError: disk full")
        assert (await queue.status()).abandoned == "OSError: disk full"
        await queue.submit(job("late"), "t")
        assert (await queue.next_report("late", 0)).verdict == "interrupted"
        assert await take(queue, 0.05) is Instruction.WAIT

    play(script())


def test_a_result_that_was_there_before_all_were_abandoned_is_delivered() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        for run in ("r", "other"):
            await queue.submit(job(run), "t")
        got = await lease(queue)
        await queue.report(got.number, 0, last())
        second = await lease(queue)
        report = asyncio.create_task(queue.report(second.number, 0, epoch(1)))
        await asyncio.sleep(0)
        await queue.abandon("interrupted")
        assert await report == "stop"
        assert (await queue.next_report("r", 0)).verdict == "complete"
        assert (await queue.next_report("other", 1)).verdict == "interrupted"

    play(script())


def test_whoever_waits_when_the_queue_closes_is_answered() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.submit(job("r"), "t")
        asking = asyncio.create_task(queue.next_report("r", 0))
        await asyncio.sleep(0)
        await queue.close()
        assert await asking == FinalReport(verdict="interrupted", reason="the session ended")

    play(script())


def test_a_run_that_two_trials_want_is_kept_for_the_second() -> None:
    async def script() -> None:
        queue = RunQueue()
        await queue.register("g", SHAPE)
        for claim in ("first", "second"):
            assert await queue.submit(job("r"), claim)
        got = await lease(queue)
        await queue.report(got.number, 0, last())
        await queue.withdraw("r", "first")
        assert (await queue.next_report("r", 0)).verdict == "complete"
        await queue.withdraw("r", "second")
        assert await queue.next_report("r", 0) is None

    play(script())
