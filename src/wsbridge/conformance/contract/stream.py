"""The contract on messages read in a loop, and on typed messages (STREAM, CODEC)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["STREAM_RULES"]

STREAM_RULES: tuple[Rule, ...] = (
    rule(
        "STREAM-1",
        sentence="""`stream_handler(handler, ...)` returns options, whose channels are each served by a
        `handler(stream, request)` in a task of its own.""",
        text="""The options go wherever options do: to routes, interceptors and mounts. The handler begins when
        `on_open` would, and its request is the one of HS-2. The stream has the `id`, the `subprotocol` and the `reason`
        of its channel, and the `request`; the stream is the channel's process object.""",
    ),
    rule(
        "STREAM-2",
        sentence="""The messages come in the order of their arrival, each to one read: `async for`, `recv`, `recv_text`
        or `recv_binary`.""",
        text="""A text is a `str`, a binary message `bytes`, as with RECV-1 and RECV-2. `recv_text` and `recv_binary`
        raise `MessageKindError` if the next message is of the other kind; it stays the next one.""",
    ),
    rule(
        "STREAM-3",
        sentence="A read that is cancelled, or whose `timeout` passes, loses no message.",
        text="""`recv(timeout)` raises `TimeoutError` when no message has come in that time; the stream stays usable.
        A message that is there is returned whatever the timeout.""",
    ),
    rule(
        "STREAM-4",
        sentence="""At the end of the channel `async for` ends and raises nothing, and `recv` raises
        `ChannelClosedError`, at that call and every later one.""",
        text="""The error's `reason` is the channel's. Every complete message that came before the peer's close or the
        loss is read before that. After `stream.close()` nothing more is read. A read that waits ends as soon as nothing
        more can come, and no later than a send of another task is refused.""",
    ),
    rule(
        "STREAM-5",
        sentence="""One task may read while others send, and a second one that reads at the same time gets a
        `RuntimeError`.""",
        text="The first one's read goes on, and gets the message.",
    ),
    rule(
        "STREAM-6",
        sentence="""`await stream.send(message)` returns once the server has taken the message, and raises
        `ChannelClosedError` if the channel has ended.""",
        text="""It takes a `str`, a bytes-like object or a binary file, and keeps SEND-1 to SEND-7 in all else. The
        error has the `CloseReason`, also when messages that came before the end have not been read.""",
    ),
    rule(
        "STREAM-7",
        sentence="""When the handler returns, the channel is closed with 1000; when it raises, that is a failure of the
        application (ERR-1).""",
        text="""The failure is logged once, with the traceback, the channel's id and the path; the channel is closed
        with 1011; `on_error(channel, stream, exception)` is called, if given. A `ChannelClosedError` that leaves the
        handler after the end, alone or as all that a group of tasks raised, is not a failure. `on_close` is over only
        when the handler is.""",
    ),
    rule(
        "STREAM-8",
        sentence="""A handler that is not reading learns of the end by `await stream.wait_closed()`, or is cancelled at
        it, if the option `cancel_on_close` is set.""",
        text="""Without the option it runs on to its own end. It learns of the end as soon as the connector does,
        whatever is unread (CLOSE-6), and can still read that. From a peer that STREAM-9 holds back the server reads
        nothing more, and it learns that the peer has gone when a send or a ping fails: at the third ping, at the
        latest. `stop()` cancels a handler as it does an `on_close` (STOP-2), and leaves no task of it behind; one that
        the handler itself awaits does not wait for it (STOP-3).""",
    ),
    rule(
        "STREAM-9",
        sentence="A peer that sends more than the handler reads is held back by TCP, in bounded memory (FLOW-1).",
        text="""At most `receive_buffer` messages wait to be read, by default 16; one of more than 64 KiB fills the
        buffer by itself. What does not fit waits in the server, and at last in the peer.""",
        stochastic=True,
    ),
    rule(
        "STREAM-10",
        kind="library",
        sentence="What `stream_handler` cannot serve is refused when it is called, by an error that names it.",
        text="""A handler that is not a coroutine function or does not take a stream and a request, a codec that lacks a
        method, an unknown option, a callback that the handler makes needless, or an option of a wrong type:
        `TypeError`. A value out of range: `ValueError`.""",
    ),
    rule(
        "CODEC-1",
        sentence="""With the option `codec`, `on_message(channel, process, message)` and the reads of a stream get what
        its `decode` returns, and `channel.send` and `stream.send` send what its `encode` returns.""",
        text="""`on_message` serves the kinds of message that have no `on_text` or `on_binary`; it needs a codec. What
        `encode` raises reaches the caller as it is, and nothing is sent. `json_codec()` speaks JSON in text messages;
        `msgspec_codec(Type)` one type, checked, as JSON in text messages or as MessagePack in binary ones.""",
    ),
    rule(
        "CODEC-2",
        sentence="A message that does not decode closes the channel with 1007, one of the wrong kind with 1003.",
        text="""It reaches neither `on_message` nor a read. `on_error` gets a `MessageDecodeError`, whose cause is what
        `decode` raised, or the `MessageKindError` that it raised. Either is logged once, as a warning on the logger
        `wsbridge` that tells the channel's id, the path and what was wrong, cut and escaped (LOG-2), without a
        traceback, which would quote the message; the record has the exception as `error`. The messages before it are
        delivered. A codec's `invalid_code`, for protocols that have a code of their own, takes the place of both.""",
    ),
    rule(
        "CODEC-3",
        kind="library",
        sentence="`json_codec()` takes, refuses and writes the same, whatever other packages are installed.",
        text="""It knows dicts, lists, tuples, strings, numbers, bools and None; anything else is a `TypeError`, but for
        a key that is a number, a bool or None, which becomes its text. What is sent is compact, with all letters as
        they are. NaN and the infinities, numbers that a float cannot hold, and lone surrogates (RFC 8259, 8.2) are
        neither sent nor taken. Of equal keys the last counts.""",
    ),
)
