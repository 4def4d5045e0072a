"""Large messages that are deflated, while an executor is at work on them: ends, failures and cancels."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import zlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import wsbridge
from wsbridge import Application, CloseReason, WebSocketChannel, WebSocketOptions

pytest.importorskip("wsproto")  # for the client

from wsbridge.conformance.client import Binary, Close, Opcode, Pong, WirePeer, build_frame

pytestmark = pytest.mark.rule("SEND-9")

CONNECTORS = ("websockets", "tornado", "uvicorn", "uvicorn-wsproto", "hypercorn")
TIMEOUT = 20.0
NOISE = random.Random(1).randbytes(100_000)
LARGE = NOISE + bytes(300_000)


class Gate(ThreadPoolExecutor):
    """Begins nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__(1)
        self.is_open = threading.Event()
        self.is_asked = asyncio.Event()

    def submit(self, fn: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        self.is_asked.set()
        return super().submit(self._run, fn, *arguments, **options)

    def _run(self, fn: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.is_open.wait()
        return fn(*arguments, **options)


class GatedChannel:
    """A channel whose large messages wait at the gate, and its peer."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.messages: list[str | bytes] = []
        self.reasons: asyncio.Queue[CloseReason] = asyncio.Queue()
        self.channels: asyncio.Queue[WebSocketChannel[Any]] = asyncio.Queue()
        self.peer: WirePeer
        self.channel: WebSocketChannel[Any]

    async def ended(self) -> CloseReason:
        async with asyncio.timeout(TIMEOUT):
            return await self.reasons.get()

    async def asked(self) -> None:
        """Wait until the executor has something to do."""
        async with asyncio.timeout(TIMEOUT):
            await self.gate.is_asked.wait()
        self.gate.is_asked.clear()

    async def send_large(self, payload: bytes, opcode: int = Opcode.BINARY, behind: bytes = b"") -> None:
        await self.peer.send_raw(build_frame(opcode, payload, rsv=4) + behind)
        await self.asked()


def deflated(data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(flush)).removesuffix(b"\0\0\xff\xff")


@contextlib.asynccontextmanager
async def served(name: str, **options: Any) -> AsyncGenerator[GatedChannel, None]:
    made = GatedChannel()

    def take(channel: Any, process: None, message: str | bytes) -> None:
        made.messages.append(message)

    channel_options: WebSocketOptions[None] = WebSocketOptions(
        on_open=lambda channel, request: made.channels.put_nowait(channel),
        on_text=take,
        on_binary=take,
        on_close=lambda channel, process, reason: made.reasons.put_nowait(reason),
        compression=True,
        **options,
    )
    try:
        async with wsbridge.serve(Application([("/", channel_options)]), name) as connector:
            address: Any = connector.addresses[0]
            async with await WirePeer.connect(
                address, target="/", deflate="permessage-deflate", timeout=TIMEOUT
            ) as peer:
                assert peer.deflated
                asyncio.get_running_loop().set_default_executor(made.gate)  # what looked up addresses is done
                made.peer = peer
                made.channel = await made.channels.get()
                yield made
            made.gate.is_open.set()
    finally:
        made.gate.is_open.set()


@pytest.mark.parametrize("name", CONNECTORS)
async def test_a_message_that_came_before_a_loss_is_delivered_before_it(name: str) -> None:
    async with served(name) as made:
        await made.send_large(deflated(LARGE))
        made.peer.drop()
        assert await made.channel.send_text("into nothing") in (True, False)  # a write may be how it is noticed
        assert made.messages == []
        made.gate.is_open.set()
        reason = await made.ended()
        assert (reason.code, reason.initiator) == (1006, "network")
        assert [len(message) for message in made.messages] == [len(LARGE)]


@pytest.mark.parametrize("name", CONNECTORS)
async def test_what_is_inflated_behind_a_local_close_is_dropped(name: str) -> None:
    async with served(name) as made:
        await made.send_large(deflated(LARGE), behind=build_frame(Opcode.TEXT, b"behind"))
        made.channel.close(4000, "enough")
        assert await made.peer.receive_close() == Close(4000, "enough")
        made.gate.is_open.set()
        reason = await made.ended()
        assert (reason.code, reason.initiator, made.messages) == (4000, "local", [])


@pytest.mark.parametrize("name", CONNECTORS)
async def test_what_stands_behind_a_large_message_waits(name: str) -> None:
    async with served(name) as made:
        close = build_frame(Opcode.CLOSE, b"\x0f\xa0")
        behind = build_frame(Opcode.TEXT, b"behind") + build_frame(Opcode.PING, b"?")
        await made.send_large(deflated(LARGE), behind=behind + close)
        assert await made.channel.send_text("meanwhile")
        assert await made.peer.receive_text() == "meanwhile"
        assert (made.messages, made.channel.reason) == ([], None)
        made.gate.is_open.set()
        assert (await made.peer.receive_close()).code == 4000
        assert Pong(b"?") in made.peer.received
        assert (await made.ended()).code == 4000
        assert made.messages == [LARGE, "behind"]


@pytest.mark.parametrize("name", CONNECTORS)
@pytest.mark.parametrize(
    ("payload", "opcode", "code"),
    [
        (deflated(bytes(300_000)) + b"\xff" * 20, Opcode.BINARY, 1002),
        (deflated(b"x" * 300_000 + b"\xff"), Opcode.TEXT, 1007),
        (deflated(bytes(600_001)), Opcode.BINARY, 1009),
        (deflated(b"x" * 600_001), Opcode.TEXT, 1009),
    ],
    ids=["not deflated", "not UTF-8", "too big", "too big a text"],
)
async def test_the_rest_of_a_large_message_may_be_wrong(name: str, payload: bytes, opcode: int, code: int) -> None:
    async with served(name, max_text_size=600_000, max_binary_size=600_000) as made:
        made.gate.is_open.set()
        await made.peer.send_frame(opcode, payload, rsv=4)
        assert (await made.peer.receive_close()).code == code
        made.peer.close()
        reason = await made.ended()
        assert (reason.code, reason.initiator, made.messages) == (code, "local", [])


@pytest.mark.parametrize("name", CONNECTORS)
async def test_large_messages_of_every_kind_come_through(name: str) -> None:
    async with served(name) as made:
        made.gate.is_open.set()
        text = "\u20ac" * 100_000
        whole = deflated(LARGE)
        await made.peer.send_frame(Opcode.BINARY, deflated(LARGE, zlib.Z_FINISH) + b"\0", rsv=4)
        await made.peer.send_frame(Opcode.TEXT, deflated(text.encode()), rsv=4)
        await made.peer.send_frame(Opcode.BINARY, whole[:50_000], fin=False, rsv=4)
        await made.peer.ping(b"between")
        await made.peer.send_frame(Opcode.CONTINUATION, whole[50_000:])
        await made.peer.send_close(4000)
        assert (await made.peer.receive_close()).code == 4000
        await made.ended()
        assert made.messages == [LARGE, text, LARGE]


@pytest.mark.parametrize("name", CONNECTORS)
async def test_a_send_that_is_cancelled_while_it_deflates_is_whole(name: str) -> None:
    async with served(name) as made:
        sending = asyncio.create_task(made.channel.send_binary(LARGE))
        await made.asked()
        waiting = asyncio.create_task(made.channel.send_text("next"))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not waiting.done()
        made.gate.is_open.set()
        assert await waiting
        assert [await made.peer.receive_message(), await made.peer.receive_text()] == [Binary(LARGE), "next"]


@pytest.mark.parametrize("name", CONNECTORS)
async def test_control_frames_go_out_while_a_message_is_deflated(name: str) -> None:
    async with served(name) as made:
        sending = asyncio.create_task(made.channel.send_binary(LARGE))
        await made.asked()
        await made.peer.ping(b"!")
        assert await made.peer.receive() == Pong(b"!")
        made.gate.is_open.set()
        assert await sending
        assert await made.peer.receive_binary() == LARGE


@pytest.mark.parametrize("name", CONNECTORS)
async def test_a_peer_that_has_gone_is_no_error_for_what_is_deflated(name: str) -> None:
    async with served(name) as made:
        sending = asyncio.create_task(made.channel.send_binary(LARGE))
        await made.asked()
        made.peer.drop()
        assert (await made.ended()).code == 1006
        made.gate.is_open.set()
        assert await sending is False
