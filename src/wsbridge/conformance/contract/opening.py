"""The contract on how a channel opens (OPEN)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["OPENING_RULES"]

OPENING_RULES: tuple[Rule, ...] = (
    rule(
        "OPEN-1",
        sentence="""`on_open(channel, request)` runs once, before every other callback, and what it returns is handed
        to each of them.""",
        text="""It is the same object every time: the process object. Without an `on_open` it is None.""",
    ),
    rule(
        "OPEN-2",
        sentence="A callback is a coroutine function, or a plain function, which runs on the event loop.",
        text="""If a plain function returns a *coroutine*, that is awaited; anything else, a Task or a Future as well,
        is a value like any other and is not awaited. Of a callback for messages, whose value nobody needs, another
        object with `__await__` is awaited too, as compiled functions return it. The process object is what `on_open`
        returns, or what its coroutine does.""",
    ),
    rule(
        "OPEN-3",
        sentence="""Messages that come in while `on_open` runs wait in bounded memory, and are delivered in order after
        it.""",
    ),
    rule(
        "OPEN-4",
        sentence="What `on_open` sends reaches the peer, and before any answer to the peer's messages.",
    ),
    rule(
        "OPEN-5",
        sentence="""`on_open` may close the channel; then no message is delivered, and `on_close` runs after `on_open`
        has returned.""",
    ),
    rule(
        "OPEN-6",
        sentence="If `on_open` raises, that is logged and the channel is closed with 1011.",
        text="`on_close` runs if, and only if, `on_open` has returned, or there is none.",
    ),
    rule(
        "OPEN-7",
        sentence="""`channel.id` is 128 random bits as text, so that no two channels share one, in whatever worker or
        on whatever machine.""",
    ),
    rule(
        "OPEN-8",
        sentence="""A channel takes one callback for text and one for binary messages, from the options or by
        `channel.on_text` and `channel.on_binary`.""",
        text="""The call may come at any time before the end, and the callback serves the messages that are delivered
        after it. A second one raises `CallbackAlreadySetError`, and the first stays in force.""",
    ),
    rule(
        "OPEN-9",
        sentence="""An `on_open` that runs for long, such as a loop that only sends, does not hide the end of the
        channel.""",
        text="""When no message came in before it, a close or a loss is noticed within 1 s: sends return False and
        `wait_closed()` resolves. `on_open` is cancelled by `stop()` and by nothing else.""",
    ),
    rule(
        "OPEN-10",
        sentence="""A callback that is a coroutine runs inside an `asyncio.Task`, so that `asyncio.timeout`,
        `asyncio.TaskGroup` and `asyncio.current_task` work in it.""",
    ),
    rule(
        "OPEN-11",
        sentence="""Before `on_open` starts, a send and `close` raise `ChannelNotOpenError`; callbacks can be
        registered.""",
    ),
    rule(
        "OPEN-12",
        kind="library",
        sentence="What is handed over to be called is checked then: that it can be called as it will be, and will run.",
        text="""A callback, a handler, an interceptor's stage or a `lifespan` that does not take as many arguments, has
        further ones that are required, or is a generator or async generator function raises a `TypeError` with its
        name, file and line, and with what it must take. Methods, partials, classes, objects with `__call__` and
        decorated functions are callables like any other. What cannot be told is taken: a callable without a signature,
        or a decorator that takes any arguments.""",
    ),
)
