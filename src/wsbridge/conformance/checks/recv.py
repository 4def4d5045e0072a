"""RECV: receiving."""

from __future__ import annotations

import asyncio

from wsbridge.conformance.bench import Bench
from wsbridge.conformance.check import check, equal, true
from wsbridge.conformance.wire import Opcode


@check("RECV-1", black_box=True)
async def texts_arrive_exactly(bench: Bench) -> None:
    """Text messages come through as they were: empty, ASCII, every width of UTF-8, NUL, and 64 KiB."""
    texts = ["", "a", "\0", "\x7f\x80", "\u07ff\u0800", "\uffff\U00010000\U0010ffff", "\ud7ff\ue000", "x" * 65536]
    async with bench.reference() as served, served.peer("/echo") as peer:
        for text in texts:
            await peer.send_text(text)
            equal(await peer.receive_text(), text, "the echoed text")


@check("RECV-4")
async def messages_before_a_loss_are_delivered(bench: Bench) -> None:
    """Every complete message before a loss is delivered, in order, before on_close."""
    async with bench.serve(bench.options(on_text=lambda channel, process, text: asyncio.sleep(0.001))) as served:
        async with served.peer() as peer:
            for number in range(50):
                await peer.send_text(str(number))
            await peer.half_close()
            reason = await bench.recorder.closed()
        equal(bench.recorder.values("text"), [str(number) for number in range(50)], "the messages delivered")
        equal((reason.code, reason.initiator), (1006, "network"), "code and initiator")
        equal(bench.recorder.kinds()[-1], "close", "the last callback")


@check("RECV-9")
async def unmasked_frame(bench: Bench) -> None:
    """An unmasked frame is a violation: no callback, 1002 on both sides."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_frame(Opcode.TEXT, b"bare", mask=False)
        done = asyncio.ensure_future(bench.recorder.wait("text", timeout=0.3 * bench.scale))
        try:
            seen = await peer.receive_close(timeout=0.3 * bench.scale)
            observed = f"peer saw {seen.code}"
        except TimeoutError:
            observed = "delivered"
        await asyncio.wait((done,))
        done.exception()
        bench.outcome("RECV-9/unmasked-frame", observed, "peer saw 1002")
    true(bench.recorder.channels, "the channel opened")
