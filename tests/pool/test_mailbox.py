"""The mailbox's rules, in an event loop, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from lethe.pool.mailbox import Mailbox

SHAPE = "1x1xcpu"


def play(script: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(script, 10))


async def lease(box: Mailbox, group: str = "g", incarnation: int = 1) -> Any:
    return await box.take(group, incarnation, 1.0)


def test_a_run_goes_through_in_lockstep() -> None:
    async def script() -> None:
        box = Mailbox()
        await box.register("g", SHAPE)
        await box.submit("r", {"x": 1}, SHAPE)
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
        box = Mailbox()
        await box.register("g", SHAPE)
        await box.submit("wide", {}, "2x1xcpu")
        await box.submit("r", {}, SHAPE)
        await box.submit("r", {"second": True}, SHAPE)
        assert (await lease(box))["payload"] == {}
        assert await box.take("g", 1, 0.05) is None, "nothing of this shape is left"
        assert (await box.status())["queued"] == {"2x1xcpu": 1}

    play(script())


def test_a_dead_group_gives_its_run_back_and_its_reports_are_stale() -> None:
    async def script() -> None:
        box = Mailbox()
        await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE)
        old = await lease(box)
        waiting = asyncio.create_task(box.report(old["lease"], 0, {"epoch": 1}))
        assert await box.next_report("r", 0) == {"epoch": 1}
        assert await box.register("g", SHAPE) == 2
        assert await waiting == "stale"
        assert await box.report(old["lease"], 1, {"epoch": 2}) == "stale"
        assert (await lease(box, incarnation=1))["kind"] == "exit", "the old incarnation gets no work"
        new = await lease(box, incarnation=2)
        assert new["run"] == "r"
        following = asyncio.create_task(box.next_report("r", 1))
        assert await box.report(new["lease"], 0, {"epoch": 1}) == "continue", "seen before: answered at once"
        assert await box.report(new["lease"], 1, {"epoch": 2, "final": True}) == "continue"
        assert (await following)["epoch"] == 2

    play(script())


def test_a_run_that_kills_every_group_is_lost() -> None:
    async def script() -> None:
        box = Mailbox(max_attempts=2)
        await box.submit("r", {}, SHAPE)
        for incarnation in (1, 2):
            assert await box.register("g", SHAPE) == incarnation
            assert (await lease(box, incarnation=incarnation))["run"] == "r"
        await box.gone("g")
        report = await box.next_report("r", 0)
        assert report["final"] and report["verdict"] == "lost" and "2 times" in report["reason"]

    play(script())


def test_a_lease_without_heartbeat_lapses() -> None:
    async def script() -> None:
        box = Mailbox(lapse_s=0.05)
        await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE)
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
        box = Mailbox()
        await box.register("g", SHAPE)
        await box.submit("r", {}, SHAPE)
        if taken:
            got = await lease(box)
            report = asyncio.create_task(box.report(got["lease"], 0, {"epoch": 1}))
            await box.next_report("r", 0)
            await box.stop("r")
            assert await report == "stop"
            assert await box.take("g", 1, 0.05) is None
            assert (await box.next_report("r", 1))["verdict"] == "stopped"
        else:
            await box.stop("r")
            assert (await box.next_report("r", 0))["verdict"] == "stopped"
            assert await box.take("g", 1, 0.05) is None

    play(script())


def test_dissolved_and_closed_groups_leave() -> None:
    async def script() -> None:
        box = Mailbox()
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
        box = Mailbox()
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        waiting = [asyncio.create_task(box.take(group, 1, 0.3)) for group in ("a", "b")]
        await asyncio.sleep(0.01)
        await box.submit("r", {}, SHAPE)
        got = await asyncio.gather(*waiting)
        assert sorted(lease is None for lease in got) == [False, True]

    play(script())


def test_a_forgotten_run_that_is_submitted_again_is_a_new_one() -> None:
    async def script() -> None:
        box = Mailbox()
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        await box.submit("r", {}, SHAPE)
        old = await lease(box, "a")
        await box.forget("r")
        await box.submit("r", {"second": True}, SHAPE)
        new = await lease(box, "b")
        assert new["payload"] == {"second": True}
        assert await box.report(old["lease"], 0, {"epoch": 1}) == "stale"
        assert await box.take("a", 1, 0.05) is None
        assert await box.report(new["lease"], 0, {"final": True, "verdict": "complete"}) == "continue"
        assert (await box.next_report("r", 0))["verdict"] == "complete"

    play(script())


def test_a_lapse_wakes_idle_groups() -> None:
    async def script() -> None:
        box = Mailbox(lapse_s=0.05)
        for group in ("a", "b"):
            await box.register(group, SHAPE)
        await box.submit("r", {}, SHAPE)
        await lease(box, "a")
        waiting = asyncio.create_task(box.take("b", 1, 5.0))
        await asyncio.sleep(0.1)
        await box.status()
        assert (await asyncio.wait_for(waiting, 1))["run"] == "r"

    play(script())
