"""The clock that is put forward where everything waits: what it skips, and what it never skips."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from wsbridge.conformance import lateness
from wsbridge.conformance.hand_clock import QUIET, HandClockLoop, held, now
from wsbridge.conformance.harness.conditions import HandClock, eager_task

LONG = 60.0  # seconds, which no test waits


def on_hand_clock(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test, which is a coroutine function, in such a loop; it takes no more than some real seconds."""

    async def main() -> None:
        await test()

    def run() -> None:
        began = time.monotonic()
        with asyncio.Runner(loop_factory=HandClock().new_event_loop) as runner:
            assert isinstance(runner.get_loop(), HandClockLoop)
            runner.run(main())
        assert time.monotonic() - began < LONG / 2

    run.__name__ = test.__name__
    return run


async def limited(awaitable: Awaitable[object], seconds: float) -> None:
    async with lateness.timeout(seconds):
        await awaitable


@on_hand_clock
async def test_a_wait_takes_no_time_and_ends_when_it_is_due() -> None:
    began = now()
    await asyncio.sleep(LONG)
    assert LONG <= now() - began < LONG + 1


@on_hand_clock
async def test_timers_come_in_their_order() -> None:
    order: list[int] = []

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    await asyncio.gather(*(wait(seconds) for seconds in (300, 100, 200)))
    assert order == [100, 200, 300]


@on_hand_clock
async def test_what_is_on_its_way_comes_before_a_timer() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    began = now()
    async with asyncio.timeout(LONG):
        for _ in range(100):
            writer.write(b"there and back")
            await reader.readexactly(14)
    assert now() - began < LONG / 2
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("own", [False, True], ids=["the loop's executor", "another"])
def test_a_job_in_a_thread_is_waited_for(own: bool) -> None:
    @on_hand_clock
    async def test() -> None:
        with ThreadPoolExecutor() if own else contextlib.nullcontext() as executor:
            began = now()
            async with asyncio.timeout(LONG):
                job = asyncio.get_running_loop().run_in_executor(executor, time.sleep, 20 * QUIET)
                await job
            assert now() - began < LONG / 2

    test()


@on_hand_clock
async def test_a_job_is_waited_for_though_it_was_cancelled() -> None:
    ended = threading.Event()

    def work() -> None:
        time.sleep(20 * QUIET)
        ended.set()

    job = asyncio.get_running_loop().run_in_executor(None, work)
    await asyncio.sleep(0)
    job.cancel()
    await asyncio.sleep(LONG / 100)
    assert ended.is_set()


@on_hand_clock
async def test_after_a_job_the_clock_is_put_forward_again() -> None:
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
    began = now()
    await asyncio.sleep(LONG)
    assert now() - began >= LONG


@on_hand_clock
async def test_another_thread_is_waited_for() -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        time.sleep(20 * QUIET)
        loop.call_soon_threadsafe(told.set)

    thread = threading.Thread(target=tell)
    thread.start()
    async with asyncio.timeout(LONG):
        await told.wait()
    thread.join()


@on_hand_clock
async def test_while_it_is_held_it_goes_as_clocks_do() -> None:
    began = time.monotonic()
    with held():
        await asyncio.sleep(10 * QUIET)
    assert time.monotonic() - began >= 9 * QUIET


@on_hand_clock
async def test_a_limit_is_real_seconds_and_holds_the_clock_back() -> None:
    late: list[float] = []
    timer = asyncio.get_running_loop().call_later(LONG, lambda: late.append(now()))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await limited(asyncio.Event().wait(), 10 * QUIET)
    assert time.monotonic() - began >= 9 * QUIET
    assert late == []
    timer.cancel()


@on_hand_clock
async def test_what_needs_longer_than_a_limit_by_the_clock_is_late() -> None:
    """Most of the time is skipped, and the rest would fit into as many real seconds."""
    seconds = 40 * QUIET

    async def too_long() -> None:
        await asyncio.sleep(0.9 * seconds)
        await asyncio.sleep(0.5 * seconds)

    with pytest.raises(TimeoutError):
        await limited(too_long(), seconds)


@on_hand_clock
async def test_after_a_limit_the_clock_goes_on_from_where_it_was_stopped() -> None:
    seconds = 20 * QUIET
    timer = asyncio.ensure_future(asyncio.sleep(1.5 * seconds))

    async def without_end() -> None:
        await asyncio.sleep(0.9 * seconds)
        await asyncio.Event().wait()

    began = now()
    with pytest.raises(TimeoutError):
        await limited(without_end(), seconds)
    assert now() - began < 1.5 * seconds
    assert not timer.done()
    await timer


@on_hand_clock
async def test_what_is_due_within_a_limit_comes_at_once() -> None:
    began = time.monotonic()
    async with lateness.timeout(LONG):
        await asyncio.sleep(LONG - 1)
    assert time.monotonic() - began < LONG / 2


@on_hand_clock
async def test_a_limit_that_was_kept_is_forgotten() -> None:
    async with lateness.timeout(LONG):
        await asyncio.sleep(0)
    began = now()
    await asyncio.sleep(2 * LONG)
    assert now() - began >= 2 * LONG


def test_elsewhere_nothing_changes() -> None:
    async def main() -> None:
        began = time.monotonic()
        with held():
            await asyncio.sleep(2 * QUIET)
        assert time.monotonic() - began >= QUIET
        assert abs(now() - asyncio.get_running_loop().time()) < 1

    asyncio.run(main())
    with held():
        assert abs(now() - time.monotonic()) < 1


def test_it_is_asyncios_alone() -> None:
    pytest.importorskip("uvloop")
    with pytest.raises(ValueError, match="asyncio's alone, and not uvloop's"):
        HandClock(loop="uvloop").check()
    HandClock(debug="on").check()


def test_the_other_conditions_hold_too() -> None:
    loop = HandClock(debug="on", tasks="eager").new_event_loop()
    assert loop.get_debug()
    assert loop.get_task_factory() is eager_task
    loop.close()
