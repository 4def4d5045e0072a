"""The contract on the context of a request, and on the queue in front of a channel (CTX, CONN)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["CONTEXT_RULES"]

CONTEXT_RULES: tuple[Rule, ...] = (
    rule(
        "CTX-1",
        kind="library",
        sentence="The context is a plain `dict` with four documented keys, to which interceptors may add their own.",
        text="""The keys are `request`, `response`, `websocket_channel_source` and `websocket_channel`.""",
    ),
    rule(
        "CTX-2",
        kind="library",
        sentence="""An `Interceptor` has a name and up to three stages, `enter`, `leave` and `error`, each a plain or a
        coroutine function.""",
        text="""The enter stages run in order, the leave stages in reverse. After an exception the error stages run in
        reverse until one takes it. A `response` in the context ends the enter stages. When a handshake is cancelled,
        since its peer leaves or the connector stops, the error stages of all that have entered run with the
        `asyncio.CancelledError`, so that each lets go of what it holds; none can take it.""",
    ),
    rule(
        "CTX-3",
        sentence="""`upgrade_request_to_websocket(context, options)` is a plain function that turns a request into a
        channel.""",
        text="""It checks the request (HS-4), calls `initialize_websocket`, a plain method, of the source that the
        connector put into the context, and returns the context: with `websocket_channel` set, or with `response` if the
        request is refused. A request makes one channel: a second call for it raises `UpgradeError`. The 101 is sent
        when the leave stages have run, and `on_open` runs after that. A leave or error stage that sets a `response`, or
        raises, ends the channel before it began: no callback runs, and the peer gets that response.""",
    ),
    rule(
        "CTX-4",
        kind="library",
        sentence="Where the context holds no WebSocket source, `upgrade_request_to_websocket` raises `UpgradeError`.",
    ),
    rule(
        "CTX-5",
        kind="library",
        sentence="`websocket_interceptor(name, options)` is that call as the enter stage of an interceptor.",
    ),
    rule(
        "CTX-6",
        sentence="""When a handshake is cancelled, the error stages of the interceptors that have entered run, in
        reverse, with the `asyncio.CancelledError`.""",
        text="""None can take it: the cancellation goes on when all have run, and at a stop the request gets 503. What
        one raises is logged. `stop()` waits for them as it does for `on_close`. A `CancelledError` that a stage raises
        though nobody cancelled the handshake is a failure like any other, for the error stages and for HS-9.""",
    ),
    rule(
        "CTX-7",
        sentence="""Each interceptor that has entered leaves once, in reverse, by its leave stage or by its error stage,
        whichever way the handshake ends.""",
        text="""That holds where a stage raises, answers or takes an exception, where the request is refused or its peer
        leaves, and at a stop. One whose own enter stage raises leaves by its error stage; one whose leave stage raises
        has left by that.""",
    ),
    rule(
        "CONN-1",
        kind="library",
        sentence="""`start_ws_connection` returns a `WebSocketConnection`, a queue that sends its messages one after
        another.""",
        text="It holds at most `send_buffer` messages, by default 10.",
    ),
    rule(
        "CONN-2",
        kind="library",
        sentence="""A message is queued by `put`, which waits for room, by `put_nowait`, which raises
        `asyncio.QueueFull` when there is none, or by `send`, which waits for the result too.""",
        text="""`await send(message)` returns `SendResult.SUCCESS` or `SendResult.CLOSED` for its own message, or raises
        the exception that sending it raised. An exception that nobody waits for is logged, once.""",
    ),
    rule(
        "CONN-3",
        kind="library",
        sentence="An exception does not stop the queue; the end of the channel does.",
        text="""From then on, every put or send that waits, and every one that follows, gets `CLOSED`; a put returns it.
        The channel itself is not closed by any of this.""",
    ),
    rule(
        "CONN-4",
        kind="library",
        sentence="""`await close(code, text)` sends what is queued and then closes the channel; leaving the connection's
        `async with` block does the same.""",
        text="The code is 1000 and the text empty if they are left out; those that cannot be sent are refused at once.",
    ),
    rule(
        "CONN-5",
        kind="library",
        sentence="""A connection that is dropped without a close leaves no task behind: a sender runs only while
        something is queued.""",
    ),
    rule(
        "CONN-6",
        kind="library",
        sentence="""A message is encoded by the channel's codec when it is put, and what is wrong with it is raised
        there.""",
        text="""That is what the codec raises; and, without one too, `TypeError` for what is not a message and
        `UnicodeEncodeError` for a text that UTF-8 cannot encode. Nothing is queued then.""",
    ),
    rule(
        "CONN-7",
        kind="library",
        sentence="A put or a send that is cancelled while its message waits has sent nothing, and never will.",
        text="""It may wait for a place, in the queue, or for a peer that reads too slowly. A message that is being
        written is sent in whole or not at all (SEND-5). No other message is disturbed by it.""",
    ),
)
