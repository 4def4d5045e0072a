"""HS-7, HS-8, HS-9 and HS-11: what an interceptor answers or adds, and what comes right after a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.checks.recv import PEER_SEES_1002, how_it_ended
from wsbridge.conformance.client import Closed, Opcode, Pong, Text, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench
from wsbridge.http import Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

# ---- HS-7 -----------------------------------------------------------------------------------------------------------


@check("HS-7", black_box=True)
async def a_refusal_seen_from_outside(bench: Bench) -> None:
    """The peer gets the status, the headers, repeated ones too, and the body of a response that an interceptor set."""
    async with bench.reference() as served:
        with variants() as variant:
            for status in (400, 401, 403, 418, 429, 500, 503):
                with variant():
                    answer = await ask(served, target=f"/reject/{status}")
                    equal(answer.status, status, "the status")
                    equal(answer.headers_all("X-Refused"), ["a", "b"], "the values of X-Refused")
                    equal(answer.body, b"refused\n", "the body")


@check("HS-7")
async def a_response_as_it_was_set(bench: Bench) -> None:
    """Status, headers in order, content type and body reach the peer as they were set, with nothing of a channel."""
    body = bytes(range(256)) * 400
    responses = {
        "/text": Response("caf\u00e9", 200),
        "/bytes": Response(body, 403, [("Content-Type", "application/x-test")]),
        "/empty": Response(b"", 404),
        "/nothing": Response(b"", 204),
        "/cookies": Response("", 302, [("Set-Cookie", "a=1"), ("Location", "/else"), ("Set-Cookie", "b=2")]),
    }

    def answer(context: Context) -> None:
        context["response"] = responses[context["request"].path]

    app = Application([("/{rest:path}", bench.options())], [Interceptor(name="answer", enter=answer)])
    async with bench.serve(app) as served:
        with variants() as variant:
            for path, response in responses.items():
                with variant():
                    got = await ask(served, target=path)
                    equal((got.status, got.body), (response.status_code, response.body), f"status and body of {path}")
                    for name in ("Content-Type", "Set-Cookie", "Location"):
                        if name != "Content-Type" or response.body:
                            equal(got.headers_all(name), response.headers.getlist(name), f"{name} of {path}")
                    for name in ("Upgrade", "Sec-WebSocket-Accept"):
                        equal(got.headers_all(name), [], f"{name} of {path}")
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("HS-7")
async def a_response_ends_the_chain(bench: Bench) -> None:
    """After an interceptor that sets a response no later one is entered, and no callback runs."""
    entered: list[str] = []

    def interceptor(name: str) -> Interceptor:
        async def enter(context: Context) -> None:
            await asyncio.sleep(0)
            entered.append(name)
            if context["request"].args.get("by") == name:
                context["response"] = Response(f"by {name}", 403)

        def leave(context: Context) -> None:
            entered.append(f"{name} left")

        return Interceptor(name=name, enter=enter, leave=leave)

    chain = (interceptor("route"), interceptor("last"), websocket_interceptor("never", bench.options()))
    async with bench.serve(Application([("/", chain)], [interceptor("app")])) as served:
        for name, expected in {
            "app": ["app", "app left"],
            "route": ["app", "route", "route left", "app left"],
            "last": ["app", "route", "last", "last left", "route left", "app left"],
        }.items():
            answer = await ask(served, target=f"/?by={name}")
            equal((answer.status, answer.body), (403, f"by {name}".encode()), "the answer")
            equal(entered, expected, "the stages that ran")
            entered.clear()
    equal(bench.recorder.kinds(), [], "the callbacks")


# ---- HS-8 -----------------------------------------------------------------------------------------------------------


@check("HS-8", black_box=True)
async def added_headers_seen_from_outside(bench: Bench) -> None:
    """Headers that an interceptor adds stand in the 101, a repeated one as often as it was added."""
    async with bench.reference() as served, served.peer("/headers") as peer:
        true(peer.response is not None, "there was no response")
        if peer.response is not None:
            equal(peer.response.status, 101, "the status")
            equal(peer.response.headers_all("X-Answer"), ["one", "two"], "the values of X-Answer")


@check("HS-8")
async def headers_of_every_stage(bench: Bench) -> None:
    """Headers added by any interceptor, in its enter or leave stage, stand in the 101, beside the subprotocol."""

    def adds(*values: tuple[str, str]) -> Callable[[Context], None]:
        def stage(context: Context) -> None:
            for name, value in values:
                context["websocket_channel_source"].response_headers.add(name, value)

        return stage

    app_wide = Interceptor(name="app", enter=adds(("X-App", "in")), leave=adds(("X-App", "out")))
    cookies = Interceptor(name="cookies", enter=adds(("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")))
    late = Interceptor(name="late", leave=adds(("X-Late", "so late; yet, in time")))
    options = bench.options(subprotocols=["chat"])
    chain = (cookies, late, websocket_interceptor("headers", options))
    async with (
        bench.serve(Application([("/", chain)], [app_wide])) as served,
        served.peer(subprotocols=["chat"]) as peer,
    ):
        await bench.recorder.wait("open")
        equal(peer.subprotocol, "chat", "the subprotocol")
        true(peer.response is not None, "there was no response")
        if peer.response is not None:
            equal(peer.response.headers_all("X-App"), ["in", "out"], "the values of X-App")
            equal(peer.response.headers_all("Set-Cookie"), ["a=1; Path=/", "b=2"], "the cookies")
            equal(peer.response.headers_all("X-Late"), ["so late; yet, in time"], "the value of X-Late")
    async with bench.serve(Application([("/", chain)])) as served:
        answer = await ask(served, subprotocols=["chat"])
        equal(answer.headers_all("X-App"), [], "the values of X-App where nothing adds it")
        equal(answer.headers_all("Set-Cookie"), ["a=1; Path=/", "b=2"], "the cookies of a second channel")


@check("HS-8")
async def headers_that_cannot_be_sent(bench: Bench) -> None:
    """A header that HTTP has no form for, on the 101 or another answer, is a 500, and is not sent in part."""
    for name, value in (("X(A", "b"), ("X A", "b"), ("", "b"), ("X-A", "b\x01"), ("X-A", "\u20ac")):

        def adds(context: Context, header: tuple[str, str] = (name, value)) -> None:
            context["websocket_channel_source"].response_headers.add(*header)

        def answers(context: Context, header: tuple[str, str] = (name, value)) -> None:
            context["response"] = Response("no", 403, [header])

        adding = (Interceptor(name="adds", enter=adds), websocket_interceptor("channel", bench.options()))
        app = Application([("/adds", adding), ("/answers", [Interceptor(name="answers", enter=answers)])])
        async with bench.serve(app) as served:
            for path in ("/adds", "/answers"):
                answer = await ask(served, target=path)
                equal((answer.status, answer.body), (500, b"Internal Server Error\n"), f"answer to {(name, value)}")
    equal(bench.recorder.kinds(), [], "the callbacks")
    logged = [record for record in bench.logs if record.levelname == "ERROR" and record.name == "wsbridge"]
    equal(len(logged), 10, "errors logged")


# ---- HS-9 -----------------------------------------------------------------------------------------------------------

_SECRET = "the-password-is-swordfish"


class _Secretive(Exception):
    """What an interceptor raises; neither its name nor its text may reach the peer."""


def _raises(context: Context) -> None:
    raise _Secretive(_SECRET)


async def _raises_later(context: Context) -> None:
    await asyncio.sleep(0)
    raise _Secretive(_SECRET)


@check("HS-9")
async def an_exception_is_500(bench: Bench) -> None:
    """An exception in any stage gets 500, is logged once with its traceback, and says nothing to the peer."""
    last = websocket_interceptor("last", bench.options())
    interceptors: dict[str, tuple[Interceptor, ...]] = {
        "plain enter": (Interceptor(name="raises", enter=_raises), last),
        "async enter": (Interceptor(name="raises", enter=_raises_later), last),
        "leave": (Interceptor(name="raises", leave=_raises), last),
        "async leave": (Interceptor(name="raises", leave=_raises_later), last),
        "error": (Interceptor(name="r", error=lambda context, exception: _raises(context), leave=_raises), last),
    }
    with variants() as variant:
        for where, chain in interceptors.items():
            with variant():
                for app in (Application([("/", chain)]), Application([("/", (last,))], chain[:-1])):
                    before = len(bench.logs)
                    async with bench.serve(app) as served:
                        answer = await ask(served)
                    equal(answer.status, 500, f"the status after an exception in {where}")
                    told = repr(answer.headers) + answer.body.decode("latin-1") + answer.reason
                    for word in (_SECRET, "Secretive", "Traceback", "raises"):
                        true(word not in told, f"the answer after an exception in {where} says {word!r}: {told}")
                    logged = [record for record in bench.logs[before:] if record.exc_info]
                    names = [type(record.exc_info[1]).__name__ for record in logged if record.exc_info]
                    equal(names, ["_Secretive"], f"the exceptions logged for {where}")
                    true(
                        logged[0].levelno >= logging.ERROR,
                        f"the exception in {where} is logged at the level {logged[0].levelno}",
                    )
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("HS-9")
async def an_exception_that_is_taken(bench: Bench) -> None:
    """An exception that an error stage takes is neither answered with 500 nor logged as an error."""

    def takes(context: Context, exception: Exception) -> None:
        context["response"] = Response(f"taken: {type(exception).__name__}", 422)

    chain = (Interceptor(name="raises", enter=_raises), websocket_interceptor("last", bench.options()))
    app = Application([("/", chain)], [Interceptor(name="takes", error=takes)])
    async with bench.serve(app) as served:
        answer = await ask(served)
        equal((answer.status, answer.body), (422, b"taken: _Secretive"), "the answer")
    equal([record.getMessage() for record in bench.logs if record.levelno >= logging.ERROR], [], "the errors logged")
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("HS-9")
async def after_an_exception_it_serves_on(bench: Bench) -> None:
    """An exception in the chain of one request leaves the next one, and the open channels, alone."""

    def sometimes(context: Context) -> None:
        if context["request"].args.get("raise"):
            _raises(context)

    app = Application([("/", bench.options())], [Interceptor(name="sometimes", enter=sometimes)])
    async with bench.serve(app) as served, served.peer() as first:
        for number in range(1, 4):
            equal((await ask(served, target="/?raise=yes")).status, 500, "the status")
            await first.send_text(str(number))
            await bench.recorder.wait("text", number)
        async with served.peer() as second:
            await second.send_text("second")
            await bench.recorder.wait("text", 4)


# ---- HS-11 ----------------------------------------------------------------------------------------------------------


def _text(text: str) -> bytes:
    return build_frame(Opcode.TEXT, text.encode())


@check("HS-11", black_box=True)
async def messages_behind_the_request(bench: Bench) -> None:
    """Messages in the same write as the request are answered after the 101, in order."""
    texts = [f"message {number}" for number in range(20)]
    async with bench.reference() as served, served.peer("/echo", tail=b"".join(map(_text, texts))) as peer:
        for text in texts:
            equal(await peer.receive_text(), text, "the echo")
        await peer.send_text("later")
        equal(await peer.receive_text(), "later", "the echo of what was sent after the 101")


@check("HS-11", black_box=True)
async def a_ping_behind_the_request(bench: Bench) -> None:
    """A ping in the same write as the request is answered after the 101."""
    async with bench.reference() as served, served.peer("/echo", tail=build_frame(Opcode.PING, b"early")) as peer:
        equal(await peer.receive(), Pong(b"early"), "what came first")


@check("HS-11", black_box=True)
async def a_close_behind_the_request(bench: Bench) -> None:
    """A close in the same write as the request, after a message, is answered after the message's answer."""
    tail = _text("first") + build_frame(Opcode.CLOSE, close_payload(4001, "early"))
    async with bench.reference() as served, served.peer("/echo", tail=tail) as peer:
        # the server has read the close when it answers the message, so that it may hold the answer back (SEND-1)
        close = await peer.receive_close()
        equal(close.code, 4001, "the code of the answer")
        await peer.wait_eof()


@check("HS-11")
async def they_are_delivered_after_on_open(bench: Bench) -> None:
    """Messages right after the request are delivered after on_open has returned, in order, then the peer's close."""
    texts = [str(number) for number in range(100)]
    tail = b"".join(map(_text, texts)) + build_frame(Opcode.CLOSE, close_payload(4002, "bye"))
    options = bench.options(on_open=lambda channel, request: asyncio.sleep(0.02))
    async with bench.serve(options) as served, served.peer(tail=tail) as peer:
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (4002, "bye", "peer"), "the reason")
        equal((await peer.receive_close()).code, 4002, "the code of the answer")
    equal(bench.recorder.values(), texts, "the messages")
    equal([event.kind for event in bench.recorder.events[:3]], ["open", "open-end", "text"], "the first events")


@check("HS-11", wire=True)
async def many_bytes_behind_the_request(bench: Bench) -> None:
    """However much is sent after the request without waiting for the 101, none of it is lost."""
    messages = [bytes([number]) * (16 * 1024) for number in range(40)]
    tail = b"".join(build_frame(Opcode.BINARY, message) for message in messages)
    async with bench.serve() as served, served.raw() as peer:
        built = handshake(served)
        await peer.request(built.encode() + tail[:100_001])
        await peer.send_raw(tail[100_001:])
        peer.start_websocket(built, await peer.read_response())
        await bench.recorder.wait("binary", len(messages))
    equal(bench.recorder.values() == messages, True, "whether the messages are those that were sent")


@check("HS-11")
async def sent_while_the_chain_runs(bench: Bench) -> None:
    """What arrives while interceptors still decide waits for the 101 as well, whether or not they let it in."""
    released = asyncio.Event()

    async def wait(context: Context) -> None:
        bench.recorder.log("deciding")
        await released.wait()
        if context["request"].args.get("refuse"):
            context["response"] = Response("no", 403)

    app = Application([("/", bench.options())], [Interceptor(name="wait", enter=wait)])
    async with bench.serve(app) as served:
        for number, target in enumerate(("/", "/?refuse=yes"), 1):
            released.clear()
            async with served.raw() as peer:
                built = handshake(served, target)
                await peer.request(built.encode())
                await bench.recorder.wait("deciding", number)
                await peer.send_raw(_text("one") + build_frame(Opcode.PING, b"two"))
                await peer.send_raw(_text("three"))
                await peer.expect_silence(0.05)
                released.set()
                answer = await peer.read_response()
                equal(answer.status, 101 if number == 1 else 403, "the status")
                if number == 1:
                    peer.start_websocket(built, answer)
                    await bench.recorder.wait("text", 2)
                    equal(await peer.receive(), Pong(b"two"), "the answer to the ping")
    equal(bench.recorder.values(), ["one", "three"], "the messages")
    equal(bench.recorder.kinds().count("open"), 1, "how often on_open ran")


@check("HS-11", wire=True)
async def violations_behind_the_request(bench: Bench) -> None:
    """A violation right after the request gets what it would get later: the 101, on_open, then 1002 or 1007."""
    violations = {
        "a reserved opcode": (build_frame(3, b"?"), 1002),
        "a reserved bit": (build_frame(Opcode.TEXT, b"?", rsv=2), 1002),
        "a stray continuation": (build_frame(Opcode.CONTINUATION, b"?"), 1002),
        "invalid UTF-8": (build_frame(Opcode.TEXT, b"\xff\xfe"), 1007),
    }
    async with bench.serve() as served:
        for count, (what, (frame, code)) in enumerate(violations.items(), 1):
            async with served.peer(tail=_text(what) + frame) as peer:
                with contextlib.suppress(Closed):  # what the peer sees is the matter of RECV-8 and RECV-9
                    await peer.receive_close()
            # the peer has ended the connection, which a server waits for that reads no frames any more
            reason = await bench.recorder.closed(count)
            equal((reason.code, reason.initiator), (code, "local"), f"code and initiator for {what}")
            equal(bench.recorder.values("text"), list(violations)[:count], "the messages before it")
    equal(bench.recorder.kinds(), ["open", "text", "close"] * len(violations), "the callbacks")


@check("HS-11")
async def the_end_behind_the_request(bench: Bench) -> None:
    """A peer that ends its side right after a message has left (HS-10), or its message comes before the loss."""
    async with bench.serve() as served, served.raw() as peer:
        await peer.request(handshake(served).encode() + _text("last"))
        await peer.half_close()
        try:
            equal((await peer.read_response()).status, 101, "the status")
        except Closed:
            equal(bench.recorder.kinds(), [], "the callbacks without a 101")
            return
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (1006, "network"), "code and initiator")
        equal(bench.recorder.kinds(), ["open", "text", "close"], "the callbacks")


@contextlib.asynccontextmanager
async def _behind_on_open(bench: Bench, frame: bytes) -> AsyncGenerator[WirePeer]:
    """Send ``frame`` right after the request: on_open must find the channel open, and what it sends comes first."""

    async def on_open(channel: WebSocketChannel, request: object) -> None:
        equal(channel.reason, None, "the reason when on_open begins")
        true(await channel.send_text("first"), "the first send of on_open returned False")

    async with bench.serve(bench.options(on_open=on_open)) as served, served.peer(tail=frame) as peer:
        await bench.recorder.wait("open-end")
        equal(await peer.receive(), Text("first"), "what the peer gets first")
        yield peer


@check("HS-11")
async def a_ping_comes_behind_on_open(bench: Bench) -> None:
    """A ping right after the request is answered after what on_open sends at once."""
    async with _behind_on_open(bench, build_frame(Opcode.PING, b"early")) as peer:
        equal(await peer.receive(), Pong(b"early"), "the answer")


@check("HS-11")
async def a_close_comes_behind_on_open(bench: Bench) -> None:
    """A close after the request ends no channel before on_open has begun: what it sends at once reaches the peer."""
    async with _behind_on_open(bench, build_frame(Opcode.CLOSE, close_payload(4001, "early"))) as peer:
        equal((await peer.receive_close()).code, 4001, "the code of the answer")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (4001, "early", "peer"), "the reason")


@check("HS-11", wire=True)
async def a_violation_comes_behind_on_open(bench: Bench) -> None:
    """A violation after the request ends no channel before on_open has begun; what it sends at once comes first."""
    async with _behind_on_open(bench, build_frame(3, b"?")) as peer:
        bench.outcome(PEER_SEES_1002, await how_it_ended(peer), "peer saw 1002")
        peer.close()  # which a server waits for that reads no frames any more
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (1002, "local"), "code and initiator")
