"""The run queue's rules, in an event loop, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from lethe.pool.run_queue import RunQueue

SHAPE = "1x1xcpu"


def play(script: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(script, 10))


async def take(box: RunQueue, wait_s: float = 1.0, group: str = "g") -> Any:
    """As the group's newest process."""
    return await box.take(group, box._groups[group].incarnation, wait_s)


async def lease(box: RunQueue, group: str = "g", incarnation: int | None = None) -> Any:
    return await (take(box, group=group) if incarnation is None else box.take(group, incarnation, 1.0))


def test_a_run_goes_through_in_lockstep() -> None:
    async def script() -> None:
        box = RunQueue()
        await box.register("g", SHAPE)
        await box.submit("r", {"x": 1}, SHAPE, "t")
        got = await lease(box)
        assert (got["kind"], got["run"], got["payload"]) == ("run", "r", {"x": 1})
        first = asyncio.create_task(box.report(got["lease"], 0, {"epoch": 1}))
        assert await box.next_report("r", 0) == {"epoch": 1}
        await asyncio.sleep(0.02)
        assert not first.done(), "a report waits until the trial asks for the next one"
        following = asyncio.create_task(box.next_report("r", 1))
        assert await first == "continue"
        assert await box.report(got["lease"], 1, {"epoch": 2, "final": True}) == "continue"
        assert (await following)["epoch"] == 2

    play(script())


def test_submit_is_idempotent_and_shapes_are_kept_apart() -> None:
    async def script() -> None:
        box = RunQueue()
        await box.register("g", SHAPE)
        await box.submit("wide", {}, "2x1xcpu", "t")
        await box.submit("r", {}, SHAPE, "t")
        await box.submit("r", {"second": True}, SHAPE, "t")
        assert (await lease(box))["payload"] == {}
        assert await take(box, 0.05) is None, "nothing of this shape is left"
        assert (await box.status())["queued"] == {"2x1xcpu": 1}

    play(script())


def test_a_dead_group_gives_its_run_back_and_its_reports_are_stale() -> None:
    async def script() -> None:
        box = RunQueue()
        first = await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        old = await lease(box)
        waiting = asyncio.create_task(box.report(old["lease"], 0, {"epoch": 1}))
        assert await box.next_report("r", 0) == {"epoch": 1}
        await box.register("g", SHAPE)
        assert await waiting == "stale"
        assert await box.report(old["lease"], 1, {"epoch": 2}) == "stale"
        assert (await lease(box, incarnation=first))["kind"] == "exit", "the old incarnation gets no work"
        new = await lease(box)
        assert new["run"] == "r"
        following = asyncio.create_task(box.next_report("r", 1))
        assert await box.report(new["lease"], 0, {"epoch": 1}) == "continue", "seen before: answered at once"
        assert await box.report(new["lease"], 1, {"epoch": 2, "final": True}) == "continue"
        assert (await following)["epoch"] == 2

    play(script())


def test_a_run_that_kills_every_group_is_lost() -> None:
    async def script() -> None:
        box = RunQueue(max_attempts=2)
        await box.submit("r", {}, SHAPE, "t")
        for _ in range(2):
            await box.register("g", SHAPE)
            assert (await lease(box))["run"] == "r"
        await box.gone("g")
        report = await box.next_report("r", 0)
        assert report["final"]
        assert report["verdict"] == "lost"
        assert "2 times" in report["reason"]

    play(script())


def test_a_lease_without_heartbeat_lapses() -> None:
    async def script() -> None:
        box = RunQueue(lapse_s=0.05)
        await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        got = await lease(box)
        assert await box.heartbeat(got["lease"])
        await asyncio.sleep(0.1)
        await box.status()
        assert not await box.heartbeat(got["lease"])
        assert (await box.status())["queued"] == {SHAPE: 1}

    play(script())


@pytest.mark.parametrize("taken", [False, True])
def test_stop(taken: bool) -> None:
    async def script() -> None:
        box = RunQueue()
        await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        if taken:
            got = await lease(box)
            report = asyncio.create_task(box.report(got["lease"], 0, {"epoch": 1}))
            await box.next_report("r", 0)
            await box.stop("r")
            assert await report == "stop"
            assert await take(box, 0.05) is None
            assert (await box.next_report("r", 1))["verdict"] == "stopped"
        else:
            await box.stop("r")
            assert (await box.next_report("r", 0))["verdict"] == "stopped"
            assert await take(box, 0.05) is None

    play(script())


def test_dissolved_and_closed_groups_leave() -> None:
    async def script() -> None:
        box = RunQueue()
        await box.register("a", SHAPE)
        await box.register("b", SHAPE)
        waiting = asyncio.create_task(lease(box, "a"))
        await asyncio.sleep(0)
        await box.dissolve("a")
        assert (await waiting)["kind"] == "exit"
        await box.close()
        assert (await lease(box, "b"))["kind"] == "exit"

    play(script())


def test_two_idle_groups_and_one_run() -> None:
    async def script() -> None:
        box = RunQueue()
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        waiting = [asyncio.create_task(take(box, 0.3, group)) for group in ("a", "b")]
        await asyncio.sleep(0.01)
        await box.submit("r", {}, SHAPE, "t")
        got = await asyncio.gather(*waiting)
        assert sorted(lease is None for lease in got) == [False, True]

    play(script())


def test_a_forgotten_run_that_is_submitted_again_is_a_new_one() -> None:
    async def script() -> None:
        box = RunQueue()
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        old = await lease(box, "a")
        await box.forget("r", "t")
        assert not await box.submit("r", {"late": True}, SHAPE, "t"), "an actor of the trial that has ended"
        assert await box.next_report("r", 0) is None
        await box.submit("r", {"second": True}, SHAPE, "t2")
        new = await lease(box, "b")
        assert new["payload"] == {"second": True}
        assert await box.report(old["lease"], 0, {"epoch": 1}) == "stale"
        assert await take(box, 0.05, "a") is None
        assert await box.report(new["lease"], 0, {"final": True, "verdict": "complete"}) == "continue"
        assert (await box.next_report("r", 0))["verdict"] == "complete"

    play(script())


def test_a_lapse_wakes_idle_groups() -> None:
    async def script() -> None:
        box = RunQueue(lapse_s=0.05)
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        await lease(box, "a")
        waiting = asyncio.create_task(take(box, 5.0, "b"))
        await asyncio.sleep(0.1)
        await box.status()
        assert (await asyncio.wait_for(waiting, 1))["run"] == "r"

    play(script())


def test_attempts_are_counted_since_the_last_new_report() -> None:
    """A long run on machines that come and go is not the cause of its deaths."""

    async def trial(box: RunQueue) -> tuple[int, Any]:
        seen = 0
        while not (report := await box.next_report("r", seen)).get("final"):
            seen += 1
        return seen, report

    async def script() -> None:
        box = RunQueue(max_attempts=2)
        await box.submit("r", {}, SHAPE, "t")
        ended = asyncio.create_task(trial(box))
        for reports in (1, 2, 3, 3, 3):
            await box.register("g", SHAPE)
            if (got := await take(box, 0.05)) is not None:
                for index in range(reports):
                    assert await box.report(got["lease"], index, {"epoch": index + 1}) == "continue"
        seen, report = await ended
        assert seen == 3
        assert report["verdict"] == "lost"

    play(script())


def test_a_run_queue_that_was_started_again_asks_for_everything() -> None:
    async def script() -> None:
        former, box = RunQueue(), RunQueue()
        incarnation = await former.register("g", SHAPE)
        await former.submit("r", {"x": 1}, SHAPE, "t")
        old = await lease(former)
        assert await box.report(old["lease"], 0, {"epoch": 1}) == "stale"
        assert not await box.heartbeat(old["lease"])
        assert (await box.take("g", incarnation, 1.0))["kind"] == "register"
        assert await box.next_report("r", 1) is None, "the trial had seen one report"
        assert await box.register("g", SHAPE) != incarnation
        await box.submit("r", {"x": 1}, SHAPE, "t")
        following = asyncio.create_task(box.next_report("r", 1))
        new = await lease(box)
        assert new["run"] == "r"
        assert new["lease"] != old["lease"]
        assert await box.report(new["lease"], 0, {"epoch": 1}) == "continue", "the trial has it already"
        second = asyncio.create_task(box.report(new["lease"], 1, {"epoch": 2}))
        assert (await following)["epoch"] == 2
        second.cancel()

    play(script())


@pytest.mark.parametrize("verdict", ["infeasible", "out_of_memory", "error"])
def test_what_would_fail_again_is_the_result_at_once(verdict: str) -> None:
    """Rank 1 says why before the group dies: the reason is kept and the run is not tried again."""

    async def script() -> None:
        box = RunQueue()
        await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        got = await lease(box)
        await box.failed(got["lease"], verdict, "because")
        await box.failed(got["lease"], "lost", "RuntimeError: connection closed by peer")
        assert await box.next_report("r", 0) == {"final": True, "verdict": verdict, "reason": "because"}
        await box.register("g", SHAPE)
        assert await take(box, 0.05) is None

    play(script())


def test_what_may_do_better_is_tried_again_and_its_reason_kept() -> None:
    async def script() -> None:
        box = RunQueue(max_attempts=2)
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        await box.submit("r", {}, SHAPE, "t")
        for group in ("a", "b"):
            await box.failed((await lease(box, group))["lease"], "lost", f"{group} lost a peer")
        report = await box.next_report("r", 0)
        assert (report["verdict"], report["reason"]) == ("lost", "b lost a peer")

    play(script())


def test_io_that_fails_again_and_again_ends_the_session_and_no_trial() -> None:
    async def script() -> None:
        box = RunQueue(max_attempts=2)
        await box.register("g", SHAPE)
        for run in ("r", "other"):
            await box.submit(run, {}, SHAPE, "t")
        asking = [asyncio.create_task(box.next_report(run, 0)) for run in ("r", "other")]
        for _ in range(2):
            await box.failed((await lease(box))["lease"], "interrupted", "OSError: disk full")
        for report in await asyncio.gather(*asking):
            assert report == {"final": True, "verdict": "interrupted", "reason": "OSError: disk full"}
        assert (await box.status())["abandoned"] == "OSError: disk full"
        await box.submit("late", {}, SHAPE, "t")
        assert (await box.next_report("late", 0))["verdict"] == "interrupted"
        assert await take(box, 0.05) is None

    play(script())


def test_a_result_that_was_there_before_all_were_abandoned_is_delivered() -> None:
    async def script() -> None:
        box = RunQueue()
        await box.register("g", SHAPE)
        for run in ("r", "other"):
            await box.submit(run, {}, SHAPE, "t")
        got = await lease(box)
        await box.report(got["lease"], 0, {"final": True, "verdict": "complete"})
        second = await lease(box)
        report = asyncio.create_task(box.report(second["lease"], 0, {"epoch": 1}))
        await asyncio.sleep(0)
        await box.abandon("interrupted")
        assert await report == "stop"
        assert (await box.next_report("r", 0))["verdict"] == "complete"
        assert (await box.next_report("other", 1))["verdict"] == "interrupted"

    play(script())


def test_a_run_that_two_trials_want_is_kept_for_the_second() -> None:
    async def script() -> None:
        box = RunQueue()
        await box.register("g", SHAPE)
        for claim in ("first", "second"):
            assert await box.submit("r", {}, SHAPE, claim)
        got = await lease(box)
        await box.report(got["lease"], 0, {"final": True, "verdict": "complete"})
        await box.forget("r", "first")
        assert (await box.next_report("r", 0))["verdict"] == "complete"
        await box.forget("r", "second")
        assert await box.next_report("r", 0) is None

    play(script())
