"""The contract on an open channel: messages, its end, limits, back-pressure (RECV, SEND, CLOSE, ERR, LIM, FLOW)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["MESSAGE_RULES"]

MESSAGE_RULES: tuple[Rule, ...] = (
    rule(
        "RECV-1",
        level="rfc",
        section="RFC 6455, 5.6",
        sentence="""A text message is delivered as a `str`, to the letter: the empty one, every Unicode scalar value,
        and any length up to the limit.""",
    ),
    rule(
        "RECV-2",
        sentence="A binary message is delivered as `bytes`, or in the form that was asked for.",
        text="""`channel.on_binary(callback, format=...)` asks: `"bytes"`; `"memoryview"`, which is read-only and stays
        valid after the callback; or `"stream"`, a binary file whose position is 0.""",
    ),
    rule(
        "RECV-3",
        level="rfc",
        section="RFC 6455, 5.4",
        sentence="Fragments are put together, with control frames between them and UTF-8 sequences split across them.",
    ),
    rule(
        "RECV-4",
        sentence="""Messages are delivered in the order in which they came in, text and binary in one line, and none
        twice.""",
        text="""Each complete message from before the peer's close, or before the loss, is delivered before `on_close`,
        and none after it. A local close, whatever caused it, drops the messages that are not delivered yet; what the
        peer still sends is read and dropped until its close frame.""",
    ),
    rule(
        "RECV-5",
        sentence="The callbacks of one channel never overlap; those of different channels run at the same time.",
        stochastic=True,
    ),
    rule(
        "RECV-6",
        sentence="A message of a kind that has no callback is dropped, and the channel stays open.",
    ),
    rule(
        "RECV-7",
        level="rfc",
        section="RFC 6455, 5.5.2",
        sentence="""A ping is answered with a pong of the same payload, within 1 s as long as no callback of the
        channel runs.""",
    ),
    rule(
        "RECV-8",
        level="rfc",
        section="RFC 6455, 8.1",
        sentence="Text that is not UTF-8 reaches no callback: the reason's code is 1007, and the peer gets 1007.",
    ),
    rule(
        "RECV-9",
        level="rfc",
        section="RFC 6455, 5.2 and 5.5",
        sentence="A violation of the protocol reaches no callback: the reason's code is 1002, and the peer gets 1002.",
        text="""Violations are a reserved bit or opcode, a continuation of nothing, a control frame that is oversized or
        fragmented, a frame without a mask, and a close with a code or payload that may not be. A close in the middle of
        a fragmented message is not one.""",
    ),
    rule(
        "RECV-10",
        level="feature",
        features=("fragments",),
        sentence="A callback that asked for the parts of messages gets them as they come in, in bounded memory.",
    ),
    rule(
        "SEND-1",
        sentence="""`await send_text(str)` and `await send_binary(data)` return True when the server has taken the
        message, and False when the channel has ended.""",
        text="""True does not mean that the peer has it. False comes from the local close on, and from the moment that
        the server has read the peer's close or noticed the loss. That moment may lie before the delivery of earlier
        messages, which are delivered all the same; and, while a callback runs, as late as the end of that callback or
        the first write that fails. A peer that is gone is never an exception, and every `OSError` of the transport
        counts as a loss. A send waits for no close handshake.""",
    ),
    rule(
        "SEND-2",
        sentence="`send_binary` takes any bytes-like object, or a binary file.",
        text="""A file is read from its position to its end, off the event loop, and is not closed. What its `read`
        raises comes out of the send as it is, and nothing is sent. A bytes-like object may be changed as soon as the
        send has returned.""",
    ),
    rule(
        "SEND-3",
        sentence="""A value of a wrong type, a text file included, raises `TypeError`, and text that UTF-8 cannot
        encode raises `UnicodeEncodeError`.""",
        text="Nothing has been sent then, and the channel can be used as before.",
    ),
    rule(
        "SEND-4",
        sentence="""Several tasks may send at the same time: each message arrives in one piece and unchanged, and those
        of one task in its order.""",
        stochastic=True,
    ),
    rule(
        "SEND-5",
        sentence="""A send that is cancelled has sent all of its message or nothing of it, and harms no other send; the
        channel can be used as before.""",
        stochastic=True,
    ),
    rule(
        "SEND-6",
        section="RFC 6455, 5.5.1",
        sentence="The close frame comes after everything for which a send returned True, and nothing comes after it.",
        text="""That holds for messages that an executor deflates as well. A send that is under way at a close returns
        True if its frame gets in front of the close frame, and False if not: at once where the peer or the network
        ended the channel, and within `close_timeout` otherwise. Nothing means no frame of any kind, a second close
        neither, and no HTTP: none is written after a 101, whatever the peer sends or the application raises.""",
    ),
    rule(
        "SEND-7",
        sentence="Any other failure of the server raises `SendError`, chained to it, and the channel ends with 1011.",
    ),
    rule(
        "SEND-8",
        level="feature",
        section="RFC 7692, 7",
        features=("compression",),
        sentence="""With the option `compression`, messages to and from a peer that offers it are deflated, and every
        rule holds as without.""",
        text="""What is agreed on is the first offer that can be taken, on every connector (FRAME-33 to FRAME-38,
        FRAME-53, FRAME-54). `Compression(...)` says more: `window_bits` is the largest window of this side, and of a
        peer that lets it be told; `memory_level` is zlib's; `context_takeover=False` has each message stand alone, in
        both directions. The 101 tells what the peer must know of that. A connector whose server has no such setting
        refuses it.""",
    ),
    rule(
        "SEND-9",
        level="feature",
        section="RFC 7692, 7",
        features=("compression",),
        sentence="A large message is deflated and inflated outside the event loop, and holds up no other channel.",
        text="""Large is more than 64 KiB when it is inflated; of what comes in as much, or a read of 4 KiB, is inflated
        at once. Meanwhile other sends on the channel wait (SEND-4), the close frame too (SEND-6), control frames go
        out, and what comes after the message is handled after it (RECV-4).""",
        stochastic=True,
    ),
    rule(
        "CLOSE-1",
        sentence="""`close(code=1000, text="")` is a plain function for any task and any callback, and returns at
        once.""",
        text="""What it returns may be awaited and need not be; awaited it is None. The close frame comes after each
        send that was accepted before. The first call wins and later ones do nothing. From then on sends return False,
        and no callback for a message starts; that holds too where the end was the peer's. In `on_error` and in
        `on_close` it does nothing.""",
    ),
    rule(
        "CLOSE-2",
        section="RFC 6455, 7.4",
        sentence="""`close` raises `ValueError` for a code other than 1000-1003, 1007-1014 and 3000-4999 and for a text
        of over 123 bytes in UTF-8, and `TypeError` for a wrong type.""",
        text="Every call is checked, and after such an error the channel is as open as before.",
    ),
    rule(
        "CLOSE-3",
        sentence="""`on_close(channel, process, reason)` runs exactly once, when every other callback of the channel
        has ended.""",
        text="""It runs as soon as the peer's close frame is in, or the connection is lost, or `close_timeout`, by
        default 10 s, has gone by since the local close.""",
    ),
    rule(
        "CLOSE-4",
        level="rfc",
        section="RFC 6455, 5.5.1",
        sentence="""The peer gets the code and the text that `close` was given; a peer that closes gets its own code
        and text back, and an empty close frame for an empty one.""",
    ),
    rule(
        "CLOSE-5",
        section="RFC 6455, 7.1.1",
        sentence="""A peer that does not answer a close, or that answers and keeps the TCP connection open, is cut off
        after `close_timeout`.""",
    ),
    rule(
        "CLOSE-6",
        sentence="The reason is a frozen `CloseReason`, and it is told within 1 s of the server's having read the end.",
        text="""It has a `code`; a `text`; an `initiator`, which is `"peer"`, `"local"` or `"network"`; a `name`, the
        portable keyword of the code; and a `keyword`, the connector's own one. `str(reason)` is the keyword, and a
        reason equals no `str`.

        `channel.reason`, which is None while the channel is open, and `await channel.wait_closed()`, which returns the
        reason, tell it on any task, in a callback too, whether or not that still runs and messages from before the end
        still wait. What they have once told never changes. The messages from before the end are still delivered, and
        then `on_close` runs. A local end is told at once.""",
    ),
    rule(
        "CLOSE-7",
        sentence="Code, text and initiator say what has happened, and the same on every connector:",
    ),
    rule(
        "CLOSE-8",
        sentence="""What cannot be worked around in a server is declared, scenario by scenario, and the declaration is
        checked.""",
        text="""A connector's `deviations` say for a scenario what happens instead. The suite checks that just this
        happens, and lists it in its report. The goal is to have none. Before one is declared, a way around it has been
        tried, and the declaration tells which. The connectors of this project declare this and no more:""",
    ),
    rule(
        "CLOSE-9",
        sentence="""Every code has a portable name, and, where the server has a name for it, the connector's own
        keyword.""",
        text="""The connector's table has each code that its server names, spelled as the server does, in lower case and
        with hyphens: from aiohttp's `WSCloseCode` come `ok` and `invalid-text`, from websockets' `CloseCode`
        `normal-closure` and `invalid-data`; tornado names none. A code that is not in the connector's table gets the
        portable name as its keyword. A code that has neither is `registered` from 3000 to 3999, `private` from 4000 to
        4999 and else `unknown`, as `keyword` and as `name`. The portable names are Pedestal's:""",
    ),
    rule(
        "CLOSE-10",
        sentence="The first end that a channel comes upon is its end, and never changes.",
        text="""It comes upon a local close when `close` is called, upon an exception when it is raised, and upon the
        peer's close, a violation and the loss of the connection when the connector learns that the server has read
        them, whatever messages from before that wait to be delivered. What `close` and an exception do then is no more
        than that no further message is delivered. No other channel has anything of it, neither one
        beside it nor one after it. When two closes cross, the local one wins if `close` was called
        first; the peer may get to see either frame.""",
        stochastic=True,
    ),
    rule(
        "ERR-1",
        sentence="""A callback that raises is logged, the channel is closed with 1011, then `on_error` runs, and then
        `on_close`.""",
        text="""It is logged once, as an error on the logger `wsbridge`, with the traceback, the id of the channel and
        the path; a message of the peer's that does not decode is a warning of one line (CODEC-2).
        `on_error(channel, process, exception)`, where there is one, gets None as the process if it was `on_open` that
        raised; whether `on_close` runs then, OPEN-6 says. What a callback raises after the channel has ended is logged
        and handed to `on_error`, and the reason stays what it was. Either way no further message is delivered. Other
        channels do not notice.""",
    ),
    rule(
        "ERR-2",
        sentence="What `on_close` or `on_error` raises is logged, and nothing else changes.",
        text="Sends in them return False.",
    ),
    rule(
        "ERR-3",
        sentence="""A `CancelledError` that comes out of a callback whose task nobody cancelled is an exception like
        any other.""",
        text="""A task that *was* cancelled closes its channel with 1011, unless that has ended already, runs `on_close`
        and raises the cancellation again. `KeyboardInterrupt` and `SystemExit` are never caught.""",
    ),
    rule(
        "LIM-1",
        level="feature",
        section="RFC 6455, 10.4",
        features=("size-limit",),
        sentence="A message of just the limit is delivered, and one byte more gets 1009.",
        text="""`max_text_size` and `max_binary_size` count the payload of the whole message after inflation, that of a
        text in UTF-8. The 1009 comes as soon as the declared size, or the sum so far, is over the limit; no more is
        held than twice the limit and one read from the socket. Fragments without end, and empty ones too, are held in
        bounded memory.""",
    ),
    rule(
        "LIM-6",
        level="feature",
        features=("size-limit",),
        sentence="A size limit may be any number from 1 on, or None, and one kind's may differ from the other's.",
        text="It holds whether messages are deflated or not. No number is too high for a server.",
    ),
    rule(
        "LIM-2",
        sentence="`idle_timeout` without a message in or out closes the channel with 1001.",
        text="""The time counts from the 101, and anew from each message, which counts when it is whole, whether it has
        a callback or not. Pings, pongs and parts of a message do not count. While a callback of the channel runs, its
        clock stands still.""",
    ),
    rule(
        "LIM-3",
        level="feature",
        section="RFC 6455, 5.5.2",
        features=("ping",),
        sentence="""A peer that answers no ping is sent a close with 1011 within `ping_interval` and `ping_timeout` and
        1 s, and is cut off at once; `on_close` follows.""",
        text="""The first ping is due `ping_interval` after the 101, and messages put none off. While a callback of the
        channel runs, its clock stands still.""",
    ),
    rule(
        "LIM-4",
        sentence="When no byte has left the write buffer for `send_timeout`, the channel is cut off.",
        text="The send that waits returns False, and `on_close` follows at once, with 1008.",
    ),
    rule(
        "LIM-5",
        kind="library",
        sentence="""Options are checked when they are made: a wrong type or value raises an error that names the
        option, and an unknown option is a `TypeError`.""",
        text="These are all of them, with what they are by default; times are in seconds, sizes in bytes:",
    ),
    rule(
        "FLOW-1",
        sentence="While a callback runs, TCP holds back a peer that floods, and memory stays bounded.",
        text="""Measured: less than 16 MiB for a flood of 256 MiB, whatever the size of its messages, empty ones
        included.""",
        stochastic=True,
    ),
    rule(
        "FLOW-2",
        sentence="A send to a peer that does not read waits, and memory stays bounded.",
        text="Measured: less than 16 MiB when 256 MiB are offered, by one task or by 128 of them.",
        stochastic=True,
    ),
    rule(
        "FLOW-3",
        sentence="A channel that is stuck, or whose peer floods, holds up no other one.",
        text="""A flood of tiny frames takes no more than 10 ms of CPU within a turn of the event loop, where callbacks
        take none to speak of: reading, parsing and delivering each have a budget for each channel and turn.""",
        stochastic=True,
    ),
    rule(
        "FLOW-4",
        sentence="A loop that sends, and looks at nothing, leaves everything else on the event loop its turns.",
        text="""What is awaited and answers that a channel has ended, whether a send, a put, or a stream's read, lets
        others have their turn before it does; and so does one in 64 sends that follow each other on an open channel.
        After 1000 answers in a row one warning is logged.""",
    ),
)
