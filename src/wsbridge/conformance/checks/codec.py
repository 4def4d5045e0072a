"""CODEC: typed messages, in callbacks and in streams."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from typing import Any

from wsbridge.application import Application
from wsbridge.codec import Codec, json_codec
from wsbridge.conformance.checks.stream import handled, read_all
from wsbridge.conformance.client import Close, Opcode, build_frame
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.errors import MessageDecodeError, MessageKindError
from wsbridge.http import Request
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream


@dataclass(frozen=True)
class Amount:
    """What the codec of these checks speaks of."""

    cents: int


class AmountCodec:
    """Amounts as numbers in binary messages."""

    def encode(self, message: Amount, /) -> bytes:
        """Return the number."""
        return str(message.cents).encode()

    def decode(self, data: str | bytes, /) -> Amount:
        """Return the amount."""
        if isinstance(data, str):
            raise MessageKindError("amounts are binary")
        return Amount(int(data))


def _both(bench: Bench, codec: Codec[Any], **options: Any) -> Application:
    """Return an application that reads typed messages in either style, logs each, and sends it back."""

    async def on_message(channel: WebSocketChannel, process: Any, message: Any) -> None:
        bench.recorder.log("got", channel.id, message)
        equal(await channel.send(message), True, "what send returned")

    async def handler(stream: MessageStream[Any], request: Request) -> None:
        async for message in stream:
            bench.recorder.log("got", stream.id, message)
            await stream.send(message)

    return Application(
        [
            ("/callback", bench.bare_options(on_message=on_message, codec=codec, **options)),
            ("/stream", handled(bench, handler, codec=codec, **options)),
        ]
    )


STYLES = ("/callback", "/stream")


# ---- CODEC-1 --------------------------------------------------------------------------------------------------------


@check("CODEC-1")
async def objects_in_and_out(bench: Bench) -> None:
    """Callbacks and reads get what `decode` returns, and sends send what `encode` returns, in order."""
    amounts = [Amount(number) for number in range(30)]
    async with bench.serve(_both(bench, AmountCodec())) as served:
        for style in STYLES:
            bench.recorder.events.clear()
            async with served.peer(style) as peer:
                for amount in amounts:
                    await peer.send_binary(str(amount.cents).encode())
                for amount in amounts:
                    equal(await peer.receive_binary(), str(amount.cents).encode(), f"what comes back from {style}")
                equal(bench.recorder.values("got"), amounts, f"what {style} got")


@check("CODEC-1")
async def json_in_and_out(bench: Bench) -> None:
    """`json_codec()` speaks JSON in text messages."""
    values: tuple[object, ...] = ({"a": [1, 2.5, None, True], "\N{SNOWMAN}": "\n"}, "text", 7, None, [], "x" * 70_000)
    async with bench.serve(_both(bench, json_codec())) as served:
        for style in STYLES:
            async with served.peer(style) as peer:
                for value in values:
                    await peer.send_text(json.dumps(value))
                    equal(json.loads(await peer.receive_text()), value, f"what comes back from {style}")


@check("CODEC-1")
async def beside_a_callback_of_its_own(bench: Bench) -> None:
    """`on_message` serves the kinds that have no callback of their own."""

    def on_message(channel: WebSocketChannel, process: Any, message: Amount) -> None:
        bench.recorder.log("got", channel.id, message)

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        bench.recorder.log("got", channel.id, text)

    options = bench.bare_options(on_text=on_text, on_message=on_message, codec=AmountCodec())
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_binary(b"7")
        await peer.send_text("seven")
        await bench.recorder.wait("got", 2)
        equal(bench.recorder.values("got"), [Amount(7), "seven"], "what the callbacks got")


@check("CODEC-1")
async def what_does_not_encode_is_not_sent(bench: Bench) -> None:
    """What `encode` raises reaches the caller of `send` as it is; nothing is sent and the channel stays usable."""

    async def handler(stream: MessageStream[Any], request: Request) -> None:
        await _attempt(stream)
        await stream.send(Amount(2))

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        await _attempt(channel)
        await channel.send(Amount(2))

    async def _attempt(sender: Any) -> None:
        try:
            await sender.send(object())
        except AttributeError:
            return
        fail("a send of what does not encode raised nothing")

    codec = AmountCodec()
    routes = [("/callback", bench.bare_options(on_open=on_open, codec=codec))]
    routes.append(("/stream", handled(bench, handler, codec=codec)))
    async with bench.serve(Application(routes)) as served:
        for style in STYLES:
            async with served.peer(style) as peer:
                equal(await peer.receive_binary(), b"2", f"the first message from {style}")


@check("CODEC-1")
async def send_without_a_codec(bench: Bench) -> None:
    """Without a codec `channel.send` takes what `send_text` and `send_binary` take, and answers False after the end."""

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        for message in ("text", b"bytes", bytearray(b"array"), io.BytesIO(b"file")):
            equal(await channel.send(message), True, "what send returned")
        channel.close()
        equal((await channel.send("late"), await channel.send(b"late")), (False, False), "what send returned then")
        bench.recorder.log("opened")

    async with bench.serve(bench.bare_options(on_open=on_open)) as served, served.peer() as peer:
        got = [(await peer.receive_message()).data for _ in range(4)]
        equal(got, ["text", b"bytes", b"array", b"file"], "what the peer got")
        equal(await peer.receive_close(), Close(1000, ""), "what comes then")
        await bench.recorder.wait("opened")


# ---- CODEC-2 --------------------------------------------------------------------------------------------------------


def error_is_told(message: str, path: str) -> bool:
    return path in message and ("does not decode: invalid literal" in message or "amounts are binary" in message)


async def _refused(bench: Bench, opcode: Opcode, payload: bytes, code: int, kind: type[Exception]) -> None:
    """Send a good message, a bad one and a good one; check what each style makes of them."""

    def on_error(channel: WebSocketChannel, process: Any, error: Exception) -> None:
        bench.recorder.log("told", channel.id, error)

    good = build_frame(Opcode.BINARY, b"7")
    async with bench.serve(_both(bench, AmountCodec(), on_error=on_error)) as served:
        for number, style in enumerate(STYLES, 1):
            bench.logs.clear()
            async with served.peer(style) as peer:
                await peer.send_raw(good + build_frame(opcode, payload) + good)
                error = (await bench.recorder.wait("told", number)).value
                true(type(error) is kind, f"on_error got {error!r}")
                end = (await peer.drain()).end
                true(isinstance(end, Close) and end.code == code, f"the peer of {style} saw {end}, not {code}")
                equal(bench.recorder.values("got"), [Amount(7)] * number, f"what {style} was given")
            records = [record for record in bench.logs if record.levelno > logging.DEBUG]
            equal([record.levelno for record in records], [logging.WARNING], "the levels of what was logged")
            true(getattr(records[0], "error", None) is error, "the record has not the exception as `error`")
            true(records[0].exc_info is None, "it was logged with a traceback")
            true(error_is_told(records[0].getMessage(), style), f"it was logged as {records[0].getMessage()!r}")
            if kind is MessageDecodeError:
                true(isinstance(error.__cause__, ValueError), f"its cause is {error.__cause__!r}")
        equal(len(bench.recorder.all("told")), 2, "how often on_error was told")


@check("CODEC-2")
async def undecodable_closes_with_1007(bench: Bench) -> None:
    """A message that does not decode gets 1007, and reaches `on_error` and no callback or read."""
    await _refused(bench, Opcode.BINARY, b"seven", 1007, MessageDecodeError)


@check("CODEC-2")
async def wrong_kind_closes_with_1003(bench: Bench) -> None:
    """A message of a kind that the codec does not read gets 1003, and reaches `on_error` and no callback or read."""
    await _refused(bench, Opcode.TEXT, b"7", 1003, MessageKindError)


@check("CODEC-2")
async def stream_ends_behind_what_was_good(bench: Bench) -> None:
    """A handler that is slow reads what came before the message that did not decode, and then the end with 1007."""

    async def handler(stream: MessageStream[Amount], request: Request) -> None:
        await stream.wait_closed()
        await read_all(bench, stream)

    good = b"".join(build_frame(Opcode.BINARY, str(number).encode()) for number in range(5))
    async with bench.serve(handled(bench, handler, codec=AmountCodec())) as served, served.peer() as peer:
        await peer.send_raw(good + build_frame(Opcode.BINARY, b"five") + good)
        reason = (await bench.recorder.wait("end")).value
        equal((reason.code, reason.initiator), (1007, "local"), "the reason")
        equal(bench.recorder.values("got"), [Amount(number) for number in range(5)], "what was read")


@check("CODEC-2")
async def json_that_is_none(bench: Bench) -> None:
    """`json_codec()` refuses what is not JSON with 1007, and a binary message with 1003."""
    async with bench.serve(_both(bench, json_codec())) as served:
        for style in STYLES:
            for text in ("", "{", "nul", "{'a': 1}", "[1,]", "NaN"):
                async with served.peer(style) as peer:
                    await peer.send_text(text)
                    equal((await peer.receive_close()).code, 1007, f"the code for {text!r} from {style}")
            async with served.peer(style) as peer:
                await peer.send_binary(b"{}")
                equal((await peer.receive_close()).code, 1003, f"the code for a binary message from {style}")
    equal(bench.recorder.values("got"), [], "what was given to callbacks and reads")


@check("CODEC-2")
async def invalid_code_of_the_codec(bench: Bench) -> None:
    """A codec's `invalid_code` is what a channel is closed with, for what does not decode and for the wrong kind."""
    async with bench.serve(_both(bench, json_codec(4400))) as served:
        for style in STYLES:
            for opcode, payload in ((Opcode.TEXT, b"{"), (Opcode.BINARY, b"{}")):
                async with served.peer(style) as peer:
                    await peer.send_raw(build_frame(opcode, payload))
                    equal((await peer.receive_close()).code, 4400, f"the code for {payload!r} from {style}")
    equal(bench.recorder.values("got"), [], "what was given to callbacks and reads")
