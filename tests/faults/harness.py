"""One run: a connector, a proxy that harms, and 200 clients; and what it comes to."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.actors import HANDSHAKE_TIMEOUT, Deliberate, Ledger, PlannedClient
from tests.faults.judge import Figures, judge
from tests.faults.plan import FAULTS, Blocks, Plan, make_plans
from tests.faults.proxy import Link, Mixer, Proxy
from wsbridge.conformance import lateness
from wsbridge.conformance.harness.bench import Bench, watched
from wsbridge.conformance.harness.target import SuiteTarget

__all__ = ["CHANNELS", "Run", "run"]

CHANNELS = 200
LIMIT = 120.0  # seconds that a run may take, as the others here times its scale
SHUTDOWN_TIMEOUT = 6.0
PATIENCE = 30.0  # seconds
_STALL = 0.7  # seconds that a run may lose to the machine, and be to blame for what it finds
_MOST = 4.0  # what its times are stretched by at most
TRIES = 3
KEPT = "the end of every channel, which something keeps alive,"


@dataclass(slots=True)
class Run:
    """What came of a run: ``found`` is empty if every rule held.

    Attributes:
        stall: The seconds that the machine kept from it (`wsbridge.conformance.lateness`).
        scale: What every time was stretched by.
    """

    connector: str
    seed: int
    channels: int
    figures: Figures = field(default_factory=Figures)
    stall: float = 0.0
    scale: float = 1.0
    found: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    @property
    def command(self) -> str:
        """What repeats it."""
        return (
            f"python -m tests.faults --connector {self.connector} --seed {self.seed} --runs 1 "
            f"--channels {self.channels}"
        )

    def __str__(self) -> str:
        """Return what is wrong, for people."""
        shown = "\n  ".join(self.found[:30])
        more = f"\n  and {len(self.found) - 30} more" if len(self.found) > 30 else ""
        return f"{self.connector}, seed {self.seed}: {len(self.found)} found\n  {shown}{more}\nagain: {self.command}"


def run(
    target: SuiteTarget,
    seed: int,
    *,
    channels: int = CHANNELS,
    faults: tuple[Any, ...] = FAULTS,
    only: Sequence[int] = (),
    patience: float = PATIENCE,
    tries: int = TRIES,
    verbose: bool = False,
) -> Run:
    """Play the plans of ``seed`` against a connector, in an event loop of their own, and judge what came of it.

    A run that fails, and from which the machine kept much, says nothing of the connector, and is repeated: with more
    time for all, since the channels' own timeouts go on while nobody gets to do what they wait for.

    Args:
        target: The connector.
        seed: What all plans follow from.
        channels: How many.
        faults: The kinds of faults.
        only: The numbers of the plans to play, if not all.
        patience: Seconds within which what has ended must be gone, and what is sent must come.
        tries: How often it runs at most.
        verbose: Put the clients' wire logs into what is found.
    """
    scale = 1.0
    for _ in range(tries):
        result = Run(target.name, seed, channels, scale=scale)
        with lateness.measured() as meter:
            _run(target, result, faults=faults, only=only, patience=patience, verbose=verbose)
        result.stall = meter.lost
        if result.stall < _STALL or not result.found:
            return result
        scale = min(scale * meter.stretch, _MOST)
    result.found.append(f"the machine kept {result.stall:.1f} s from it, in run {tries} too: this one says nothing")
    return result


def _run(
    target: SuiteTarget,
    result: Run,
    *,
    faults: tuple[Any, ...],
    only: Sequence[int],
    patience: float,
    verbose: bool,
) -> None:
    bench = Bench(target, result.scale)
    started = time.perf_counter()
    plans = make_plans(result.seed, result.channels, compression="compression" in target.features, faults=faults)
    plans = [plan for plan in plans if not only or plan.number in only]
    with watched(bench) as left, asyncio.Runner(loop_factory=target.conditions.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(
            lambda _, context: result.found.append(
                f"the event loop reported {context.get('message')}: {context.get('exception')!r}"
            )
        )
        runner.run(_play(bench, plans, result, patience * result.scale, verbose))
    result.found += left
    result.seconds = round(time.perf_counter() - started, 2)


async def _play(bench: Bench, plans: list[Plan], result: Run, patience: float, verbose: bool) -> None:
    target, seed, scale = bench.target, result.seed, result.scale
    blocks = Blocks(seed)
    ledger = Ledger(plans, blocks, scale)
    connector = target.connector
    assert connector is not None
    application = ledger.application(target.neutral, compression="compression" in target.features)
    server = connector(
        application, shutdown_timeout=SHUTDOWN_TIMEOUT * scale, handshake_timeout=HANDSHAKE_TIMEOUT * scale
    )
    await server.start()
    proxy = Proxy(server.addresses[0][:2], seed)
    clients = {plan.number: PlannedClient(plan, blocks, patience) for plan in plans}
    try:
        async with lateness.timeout(LIMIT * scale):
            await _talk(plans, clients, ledger, proxy, server, result, patience)
    except TimeoutError:
        result.found.append(f"the run did not end within {LIMIT * scale:g} s")
    finally:
        ledger.stopping = True
        await server.stop()
    result.found += await proxy.finish(patience)
    result.found += ledger.faults
    await _until(lambda: not ledger.tasks, "the sends that wait", result, patience)
    for plan in plans:
        figures, found = judge(plan, ledger, clients[plan.number], proxy.links.get(plan.number) or _never(plan, seed))
        result.figures.add(figures)
        result.found += [f"{text}\n    {plan}" for text in found]
        if found and verbose:
            result.found += clients[plan.number].log.lines()
    _read_logs(bench, result)
    gc.collect()
    await _until(lambda: not _others(), "the end of every task", result, patience)
    result.found += [f"a task is left: {task.get_coro()!r}" for task in _others()]
    await _until(lambda: not any(reference() for reference in ledger.channels), KEPT, result, patience)


def _read_logs(bench: Bench, result: Run) -> None:
    """Find what was logged and nobody asked for, and drop the records, whose tracebacks keep channels alive."""
    for record in bench.logs:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.WARNING and not isinstance(error, Deliberate):
            result.found.append(f"logged: {record.getMessage()} ({error!r})")
    bench.logs.clear()


async def _talk(
    plans: list[Plan],
    clients: dict[int, PlannedClient],
    ledger: Ledger,
    proxy: Proxy,
    server: Any,
    result: Run,
    patience: float,
) -> None:
    """Let all clients play; those that live until the connector stops go on until the others have ended."""
    tasks = {plan.number: asyncio.create_task(clients[plan.number].play(proxy.open(plan))) for plan in plans}
    watches = [asyncio.create_task(_lift(ledger, proxy, plan.number)) for plan in plans if plan.fault.kind == "stuck"]
    staying = {plan.number for plan in plans if plan.ending == "stop"}
    await _ended([task for number, task in tasks.items() if number not in staying])

    def is_quiet() -> bool:
        return len(getattr(server, "channels", ())) <= len(staying) and all(
            len(seen.closes) >= seen.on_open_returned for number, seen in ledger.seen.items() if number not in staying
        )

    await _until(is_quiet, "on_close of every channel whose client has gone", result, patience)
    if (left := len(getattr(server, "channels", ()))) > len(staying):
        result.found.append(f"the connector keeps {left} channels, and {len(staying)} clients are connected")
    ledger.stopping = True
    await server.stop()
    await _ended(list(tasks.values()))
    for task in watches:
        task.cancel()
    await asyncio.gather(*watches, return_exceptions=True)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    if tasks:
        done, _ = await asyncio.wait(tasks)
        for task in done:
            task.result()


async def _lift(ledger: Ledger, proxy: Proxy, number: int) -> None:
    """Read on behind a server that is stuck, as soon as it has told the application of an end: it must have ended."""
    await ledger.seen[number].closed.wait()
    proxy.links[number].released.set()


async def _until(condition: Any, what: str, result: Run, patience: float) -> None:
    deadline = lateness.Deadline(patience)
    while not condition():
        if deadline.left() <= 0:
            result.found.append(f"{what} did not come within {patience:g} s")
            return
        await asyncio.sleep(0.01)


def _others() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def _never(plan: Plan, seed: int) -> Link:
    """Return a link on which nothing has happened, where the run ended before it was made."""
    return Link(plan, Mixer(random.Random(seed)), seed)
