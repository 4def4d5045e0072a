"""Why a target is not reached, and what was tried: the sentences of the committed page."""

from benchmarks.plan import Finding

NOT_DECIDED = "The target lies inside the interval: more rounds on a quieter machine would tell."
NOISY = "The interval is wider than 10 %: the machine did something else meanwhile."
UNKNOWN = "No reason is known yet."

_VISIT = (
    "What HS-2 to HS-12 ask of every handshake (a request object, the checks that servers leave out, interceptors, "
    "limits), and an end that is told alike on every server, is done in Python beside what the server does anyway"
)
REASONS: dict[tuple[str, str], str] = {
    ("connect, echo, close", "wsbridge-picows"): (
        "picows parses a request in C, checks little of it and answers within one callback, which makes it the "
        f"cheapest visit of all. {_VISIT}: 340,000 instructions beside picows' 430,000. It was 410,000: a plain head "
        "is now parsed by two regular expressions and not by callbacks of llhttp, the channel lives in the task of "
        "its handshake, and reading is not paused in between. To reach 0.90 it would have to be a seventh of what "
        "is left."
    ),
    ("connect, echo, close", "wsbridge-aiohttp"): (
        f"{_VISIT}: 120,000 to 140,000 instructions beside aiohttp's 730,000. It was 190,000: headers are looked "
        "through once, handshake and channel share one coroutine, a close that ends at once sets no timer. The rest "
        "is spread over some 120 calls."
    ),
    ("connect, echo, close", "wsbridge-tornado"): (
        f"{_VISIT}. A channel has two tasks here, one that reads by tornado's own coroutines and one that runs "
        "callbacks (OPEN-10), where a handler of tornado's is called by the reader: nine more callbacks of the "
        "event loop, and two more events of reading, for each visit. To read and to run callbacks in one task was "
        "not tried: the end must be noticed while a callback runs (SEND-1), which a reader that waits for it "
        "cannot."
    ),
    ("connect, echo, close", "wsbridge-"): (
        f"{_VISIT}. On websockets it was 280,000 instructions beside 1,200,000 and is 90,000 to 200,000, since a "
        "head that came at once is parsed at once."
    ),
    ("echo 64 B text", "wsbridge-aiohttp"): (
        "aiohttp's own echo, in its usual idiom, costs 0.57 to 0.62 of Starlette's here: its reader, its queue and its "
        "writer are below every message, and wsbridge adds the little that the first line of the table shows."
    ),
    ("echo 64 KiB binary", "wsbridge-picows"): (
        "picows' listener is called by the read, and its echo is written from there: no task, no queue, no wait. A "
        "callback of wsbridge's may be a coroutine and runs in the channel's task (OPEN-10), one turn of the loop "
        "later, and that is 2 microseconds for a message of any size beside 20. The payload is not copied once "
        "more: both sides copy it once from the read buffer, and both write it from where it lies, by the same "
        "system calls. Tried, and kept: two answers of one read in one write, which takes the ratio from 1.16 to about "
        "1.10. The native echo promises less for "
        "that: no order of callbacks, no back-pressure, no UTF-8 check."
    ),
    ("growth of the cost of a message, all channels", "wsbridge-"): (
        "With all channels in turn, the state of a channel is in no cache of the processor when its message comes. "
        "That grows on every server, as the native line beside it shows. With 10 that talk among as many, it is "
        "flat: nothing in wsbridge is done for channels that are idle. An idle channel has been made 0.7 to 2.3 KiB "
        "smaller."
    ),
    ("memory of an idle channel", "wsbridge-"): (
        "A channel has a task for its callbacks (OPEN-10), with its coroutines, and a record of its end, its limits "
        "and its deadlines. Its queue, its request and its last message are let go of when it is idle, and "
        "attributes are slots, so that no dictionary is CPython's for it alone."
    ),
}
"""By the beginning of the workload's title and of the subject; the first that fits."""


def reason(finding: Finding) -> str:
    """Return why a target is not reached."""
    if finding.noisy:
        return NOISY
    known = next(
        (
            sentence
            for (workload, subject), sentence in REASONS.items()
            if finding.workload.startswith(workload) and finding.subject.startswith(subject)
        ),
        "",
    )
    if finding.verdict == "not decided":
        return f"{NOT_DECIDED} {known}".rstrip()
    return known or UNKNOWN
