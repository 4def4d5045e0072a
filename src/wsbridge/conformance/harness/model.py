"""A random model: Hypothesis plays sequences of sends, messages, pings, closes, faults and drops against a connector.

What the application saw is held to the grammar ``open (text | binary)* error* close``, the messages to what was sent,
and the reason to what happened first (RECV-4, RECV-5, CLOSE-3, CLOSE-7, CLOSE-10). A failing sequence is shrunk to the
shortest that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from wsbridge.conformance import lateness
from wsbridge.conformance.client import Closed, Opcode, WireError, WirePeer
from wsbridge.conformance.contract import CheckFailed, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.selection import MODEL_CHECK
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict
from wsbridge.protocols import WebSocketChannel

__all__ = ["run_model"]

_BOOM = "raise!"
_TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(["", "x" * 70_000]))
_DATA = st.one_of(st.binary(max_size=40), st.just(bytes(70_000)))
_VIOLATIONS = [(Opcode.TEXT, b"\xff", 0), (3, b"", 0), (Opcode.TEXT, b"x", 2), (Opcode.CONTINUATION, b"", 0)]
_CODES = st.sampled_from([1000, 1001, 1003, 1011, 3000, 3999, 4000, 4999])

Outcome = tuple[int | None, str | None, str]
"""What a reason may be: code, text and initiator; None stands for any."""


class _Machine(RuleBasedStateMachine):
    """One channel: the state is what was sent, what ended it, and whether its callbacks are held up."""

    target: SuiteTarget
    scale: float

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=self.target.conditions.new_event_loop)
        self.bench = Bench(self.target, self.scale)
        self.stack = contextlib.AsyncExitStack()
        self.sent: list[str | bytes] = []
        self.exact = True  # whether every message sent must be delivered
        self.raised = False
        self.ends: list[Outcome] = []
        self.peer: WirePeer
        self.channel: WebSocketChannel
        self.gate: asyncio.Event

    # ---- the parts --------------------------------------------------------------------------------------------------

    @initialize()
    def open(self) -> None:
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

        async def on_message(channel: WebSocketChannel, process: Any, message: str | bytes) -> None:
            await self.gate.wait()
            if message == _BOOM:
                raise RuntimeError(_BOOM)

        options = self.bench.options(
            on_text=on_message, on_binary=on_message, close_timeout=2 * self.scale, ping_interval=None
        )
        served: Served = await self.stack.enter_async_context(self.bench.serve(options))
        self.peer = await self.stack.enter_async_context(served.peer())
        self.channel = await self.bench.recorder.opened()
        await self.bench.recorder.wait("open-end")

    def _play(self, coroutine: Any) -> Any:
        """Run one step; a peer that finds the connection gone is right once something has ended it."""

        async def step() -> Any:
            try:
                return await coroutine
            except (OSError, WireError):
                if not self.ends:
                    raise
            return None

        return self.runner.run(step())

    def _message(self, message: str | bytes) -> None:
        if not self.ends and not self.raised:
            self.sent.append(message)

    def is_open(self) -> bool:
        return not self.ends

    def has_wire(self) -> bool:
        return self.target.has_wire

    # ---- what the peer does -----------------------------------------------------------------------------------------

    @rule(text=_TEXTS)
    def peer_sends_text(self, text: str) -> None:
        self._message(text)
        self._play(self.peer.send_text(text))

    @rule(data=_DATA)
    def peer_sends_binary(self, data: bytes) -> None:
        self._message(data)
        self._play(self.peer.send_binary(data))

    @precondition(lambda self: self.has_wire() and self.is_open())
    @rule(parts=st.lists(st.binary(max_size=20), min_size=2, max_size=4))
    def peer_sends_fragments(self, parts: list[bytes]) -> None:
        self._message(b"".join(parts))

        async def fragments() -> None:
            for number, part in enumerate(parts):
                opcode = Opcode.CONTINUATION if number else Opcode.BINARY
                await self.peer.send_frame(opcode, part, fin=number == len(parts) - 1)
                await self.peer.ping(b"between")

        self._play(fragments())

    @precondition(is_open)
    @rule()
    def a_callback_raises(self) -> None:
        self._message(_BOOM)
        self.raised = True
        self.ends.append((1011, "", "local"))
        self._play(self.peer.send_text(_BOOM))

    @rule(code=_CODES, text=st.text(max_size=20))
    def peer_closes(self, code: int, text: str) -> None:
        self.ends.append((code, text, "peer"))
        self._play(self.peer.send_close(code, text))

    @rule()
    def peer_closes_without_a_code(self) -> None:
        self.ends.append((1005, "", "peer"))
        self._play(self.peer.send_close())

    @rule()
    def peer_half_closes(self) -> None:
        self.ends.append((1006, "", "network"))
        self._play(self.peer.half_close())

    @rule()
    def peer_drops(self) -> None:
        self.exact = False  # a reset may overtake what the server has not read
        self.ends.append((1006, "", "network"))
        self.peer.drop()

    @precondition(has_wire)
    @rule(frame=st.sampled_from(_VIOLATIONS))
    def peer_breaks_the_protocol(self, frame: tuple[int, bytes, int]) -> None:
        opcode, payload, rsv = frame
        self.exact = False
        told = not self.bench.target.hides_violations
        self.ends.append((1007 if payload == b"\xff" else 1002, None, "local") if told else (1005, "", "peer"))
        self._play(self.peer.send_frame(opcode, payload, rsv=rsv))

    # ---- what the application does ----------------------------------------------------------------------------------

    @rule(text=_TEXTS)
    def application_sends(self, text: str) -> None:
        async def send() -> None:
            async with lateness.timeout(2 * self.scale):
                sent = await self.channel.send_text(text)
            true(sent or self.ends, "a send on an open channel returned False")
            if sent and not self.ends:
                equal(await self.peer.receive_text(), text, "what the application sent")

        self._play(send())

    @rule(code=_CODES, text=st.text(max_size=20))
    def application_closes(self, code: int, text: str) -> None:
        self.exact = False
        self.ends.append((code, text, "local"))

        async def close() -> None:
            self.channel.close(code, text)

        self.runner.run(close())

    @rule()
    def callbacks_are_held_up(self) -> None:
        self.gate.clear()

    @rule()
    def callbacks_go_on(self) -> None:
        self.gate.set()
        self.runner.run(asyncio.sleep(0.001))

    # ---- the judgement ----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.runner.run(self._judge())
        finally:
            self.runner.close()

    async def _judge(self) -> None:
        if not hasattr(self, "channel"):
            return
        try:
            self.gate.set()
            recorder = self.bench.recorder
            if not self.ends:
                self.ends.append((1000, "", "peer"))
                await self.peer.send_close(1000)
            with contextlib.suppress(OSError, Closed, WireError):
                await self.peer.wait_eof()
            self.peer.close()
            reason = await recorder.closed(timeout=5 * self.scale)
            seen = (reason.code, reason.text, reason.initiator)
            # a reset may overtake a close frame on its way
            ends = [
                (code, "" if who == "peer" and self.bench.target.loses_close_text else text, who)
                for code, text, who in self.ends
            ]
            allowed = [*ends, *([(1006, "", "network")] if len(self.ends) > 1 or not self.exact else [])]
            true(any(_fits(seen, end) for end in allowed), f"the reason {seen} fits none of what happened: {ends}")
            delivered = recorder.values("text", "binary")
            if self.exact and not self.raised:
                equal(delivered, self.sent, "the messages delivered")
            else:
                equal(delivered, self.sent[: len(delivered)], "the messages delivered, as far as they were")
            kinds = recorder.kinds()
            equal((kinds[0], kinds[-1]), ("open", "close"), "the first and the last callback")
            equal((kinds.count("open"), kinds.count("close")), (1, 1), "the number of on_open and on_close")
            equal(recorder.violations, [], "the order of callbacks")
            equal(await self.channel.send_text("late"), False, "a send after the end")
        finally:
            await self.stack.aclose()


def _fits(seen: tuple[int, str, str], end: Outcome) -> bool:
    return all(expected is None or expected == value for value, expected in zip(seen, end, strict=True))


def run_model(target: SuiteTarget, *, scale: float = 1.0, examples: int = 100, steps: int = 15) -> CheckResult:
    """Play ``examples`` random sequences of up to ``steps`` steps against ``target``, and return the result."""
    machine = type("Machine", (_Machine,), {"target": target, "scale": scale})
    started = time.perf_counter()
    message = details = ""
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                print_blob=False,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]
            ),
        )
    except (CheckFailed, WireError, OSError, TimeoutError, Flaky) as exc:
        message = f"{type(exc).__name__}: {exc}"
        details = traceback.format_exc() + "\n".join(getattr(exc, "__notes__", ()))
    seconds = round(time.perf_counter() - started, 3)
    verdict = Verdict.FAIL if message else Verdict.PASS
    return CheckResult(MODEL_CHECK, MODEL_CHECK.partition("/")[0], verdict, seconds, message, details)
