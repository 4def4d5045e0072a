"""What is held against a channel of the random model: while it is played, and when it has ended.

The rules are those of the contract; what a connector declares to do differently is asked for in one place, `Declared`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from wsbridge.close import CloseReason
from wsbridge.conformance import lateness
from wsbridge.conformance.client import Close, Pong
from wsbridge.conformance.contract import CheckFailed, equal, true
from wsbridge.conformance.harness.model.line import Line
from wsbridge.options import Compression

__all__ = ["agreement_is_right", "all_has_settled", "judge"]

_CALLBACKS = re.compile(r"open (?:(?:text|binary) )*(?:error )*close ")
_EARLY = 0.75  # of an idle_timeout: a clock that sleeps for a while counts a little less


# ---- the handshake --------------------------------------------------------------------------------------------------


def agreement_is_right(compression: bool | Compression, offer: str, told: Sequence[str], name: str) -> None:
    """Check what the 101 says of deflate against the setting and the offer (SEND-8, FRAME-33 to FRAME-38).

    That it answers the offer at all the client has checked.
    """
    if compression is False or not offer:
        equal(list(told), [], f"the extensions of {name}, which were not to be agreed on")
        return
    true(told, f"deflate was not agreed on with {name}, which offered {offer!r}")
    said, asked = _parameters(told[0]), _parameters(offer)
    setting = compression if isinstance(compression, Compression) else Compression()
    for side in ("server", "client"):
        stands_alone = f"{side}_no_context_takeover"
        # that the client alone would do without is a hint, which need not be taken up (RFC 7692, 7.1.1.2)
        if setting.context_takeover is False or (side == "server" and stands_alone in asked):
            true(stands_alone in said, f"{stands_alone} is not in what was agreed on with {name}: {told[0]!r}")
        bits = f"{side}_max_window_bits"
        if side == "client" and (bits not in asked or setting.window_bits is None):
            continue  # what a client will keep to by itself need not be told it
        most = min(int(value) for value in (setting.window_bits or 15, asked.get(bits) or 15))
        got = int(said.get(bits) or 15)
        true(got <= most, f"{bits} is {got} in what was agreed on with {name}, and may be {most}: {told[0]!r}")


def _parameters(extension: str) -> dict[str, str | None]:
    found = [part.strip().partition("=") for part in extension.split(";")[1:]]
    return {name: value or None for name, _, value in found}


# ---- while it is played ---------------------------------------------------------------------------------------------


async def all_has_settled(line: Line) -> None:
    """Wait until all that was done has had its effect, as far as nothing is held up, and look at that."""
    if not line.is_open:
        await _end_is_known(line)
        return
    if line.is_held or line.may_be_idle or (line.opening.echoes and not line.reads):
        return
    await line.until(lambda: line.out.is_done or not line.is_open, "what its peer writes")
    await line.until(
        lambda: line.seen.handled >= len(line.sent) or not line.is_open, f"the delivery of {len(line.sent)} messages"
    )
    if not line.reads or not line.is_open:
        return
    await line.until(lambda: line.app.is_done or not line.is_open, "what the application sends")
    await line.until(
        lambda: len(line.messages_received()) >= len(line.seen.sent) or not line.is_open,
        "the arrival of what the application has sent",
    )
    if line.pings:
        last = Pong(line.pings[-1])
        await line.until(lambda: last in line.peer.received or not line.is_open, f"the pong for {line.pings[-1]!r}")
    if line.is_open:
        equal(line.seen.messages, line.sent, f"the messages delivered of {line.name}")
        equal(line.messages_received(), line.seen.sent, f"the messages that {line.name} got")


async def _end_is_known(line: Line) -> None:
    """Wait until the connector knows the end (CLOSE-6), where it can: a peer that is held back is not read from."""
    if line.known() is None and line.reads and (not line.is_held or _is_read_to_its_end(line)):
        await line.until(lambda: line.known() is not None, f"an end that comes of {_told(line.ends)}")
    if (reason := line.known()) is not None:
        _fits(line, reason)


def _is_read_to_its_end(line: Line) -> bool:
    """Tell whether the server reads all that the peer has sent, though its callbacks are held up."""
    if line.trap or (line.has_oversized and line.play.declared.measures_late):
        return False  # it ends when they go on
    waiting = line.sent[len(line.seen.messages) :]
    room = min(8, line.setup.receive_buffer) if line.opening.is_stream else 8
    return len(waiting) < room and sum(map(len, waiting)) < 8192


# ---- when it has ended ----------------------------------------------------------------------------------------------


async def judge(line: Line) -> None:
    """Have a channel end, if it has not, and hold all that was seen of it against all that was done.

    Raises:
        CheckFailed: Something is not as it must be.
    """
    await _ended(line)
    reason = line.known()
    assert reason is not None
    _fits(line, reason)
    _callbacks_are_right(line, reason)
    _delivered_is_right(line, reason)
    _received_is_right(line, reason)
    await _nothing_more(line)
    line.is_judged = True
    await line.release()


async def _ended(line: Line) -> None:
    """Let everything go on to its end."""
    line.gate.set()
    line.start_reading()
    if line.is_open:
        await all_has_settled(line)
    if line.is_open:
        await line.peer_closes(1000, "the end")
    line.opening_is_over()
    if (close := line.close_frame()) is not None:
        line.answer_close(close)
    reader = line.reading()
    if reader is not None and not line.has_dropped:
        await lateness.wait((reader,), line.play.bench.timeout)
        if not reader.done():
            raise CheckFailed(f"the connection of {line.name} was not ended by the server, after {_told(line.ends)}")
        if line.faults:
            raise line.faults[0]
    line.peer.close()
    await line.until(lambda: line.is_over, f"on_close, or the end of its handler, after {_told(line.ends)}")
    await line.until(lambda: line.app.is_done, "an answer to every send of the application")
    await line.until(lambda: line.known() is not None, "the reason")
    watcher = line.watched()
    if watcher is not None:
        await line.until(watcher.done, "the end of wait_closed()")
        watcher.result()
    for error in line.app.errors:
        raise CheckFailed(f"a send of the application on {line.name} raised {error!r}") from error


def _fits(line: Line, reason: CloseReason) -> None:
    """Check the reason against what happened first (CLOSE-7, CLOSE-10)."""
    if line.may_be_idle and (reason.code, reason.text, reason.initiator) == (1001, "idle timeout", "local"):
        _was_idle(line)
        return
    true(
        any(end.fits(reason) for end in line.ends),
        f"the reason of {line.name} is {reason.code} {reason.text!r} by {reason.initiator}, which fits none of what "
        f"may have ended it: {_told(line.ends)}",
    )


def _was_idle(line: Line) -> None:
    """Check that nothing happened for as long as the idle timeout says, and that no callback ran (LIM-2).

    A stream's handler is not a callback: it may run while the channel is idle.
    """
    idle = line.play.idle_timeout
    recorder = line.play.bench.recorder
    counts = ("open",) if line.opening.is_stream else ("open-end", "text-end", "binary-end")
    active = [recorder.started_at + event.at for event in line.play.events_of(line) if event.kind in counts]
    active = [at for at in active + line.active_at if at <= line.reason_at]
    if not active:
        raise CheckFailed(f"{line.name}, whose idle timeout is {idle:g} s, was closed for it before on_open returned")
    quiet = line.reason_at - max(active)
    if quiet < _EARLY * idle:
        raise CheckFailed(f"{line.name}, whose idle timeout is {idle:g} s, was closed for it after {quiet:.3f} s")


def _callbacks_are_right(line: Line, reason: CloseReason) -> None:
    kinds = line.kinds()
    if not _CALLBACKS.fullmatch("".join(f"{kind} " for kind in kinds)):
        raise CheckFailed(f"the callbacks of {line.name} are not open (text | binary)* error* close: {kinds}")
    equal(line.seen.errors, line.seen.raised, f"how often on_error of {line.name} ran")
    told = [event.value for event in line.play.events_of(line) if event.kind == "close"]
    if not line.opening.is_stream:
        equal(told, [reason], f"the reason that on_close of {line.name} got")


def _delivered_is_right(line: Line, reason: CloseReason) -> None:
    """Check what was delivered (RECV-4): all, or, after a local end, as much as had been; in order and unchanged."""
    delivered, sent = line.seen.messages, line.sent
    kinds = [event.kind for event in line.play.events_of(line) if event.kind in ("text", "binary")]
    equal(kinds, ["text" if isinstance(one, str) else "binary" for one in delivered], f"the kinds for {line.name}")
    equal(delivered, sent[: len(delivered)], f"the messages delivered of {line.name}, as far as they were")
    if line.delivered_at_close is not None:
        equal(len(delivered), line.delivered_at_close, f"how many were delivered of {line.name}, at and after close()")
    elif reason.initiator != "local" and not (line.has_dropped or line.seen.raised or line.trap):
        equal(len(delivered), len(sent), f"how many messages were delivered of {line.name} before its end")


def _received_is_right(line: Line, reason: CloseReason) -> None:
    """Check what the peer got: what was sent, in order (SEND-6), pongs, and the close frame (CLOSE-4)."""
    received, sent = line.messages_received(), line.seen.sent
    could = sent if line.play.declared.sends_before_close else line.seen.begun
    equal(received, could[: len(received)], f"the messages that {line.name} got, as far as it did")
    pongs = [event.payload for event in line.peer.received if isinstance(event, Pong)]
    left = iter(line.pings)
    if not all(any(payload == ping for ping in left) for payload in pongs):
        raise CheckFailed(f"the pongs that {line.name} got, {pongs}, are not for its pings, {line.pings}, in order")
    close = line.close_frame()
    if close is None:
        is_undisturbed = len(line.ends) == 1 and not (line.has_dropped or line.half_closed or line.may_be_idle)
        if is_undisturbed and line.play.declared.ends_by_close:
            raise CheckFailed(f"{line.name} got no close frame, though its end is {_told(line.ends)}")
        return
    if line.play.declared.sends_before_close:
        equal(len(received), len(sent), f"how many messages {line.name} got before the close frame")
    _close_is_right(line, reason, close)


def _close_is_right(line: Line, reason: CloseReason, close: Close) -> None:
    allowed = [(end.code, end.text) for end in line.ends if end.initiator == "local"]
    if line.may_be_idle:
        allowed.append((1001, "idle timeout"))
    if line.answer is not None:
        allowed.append(line.answer)  # where that and a close cross, either frame may be read
    if not any(code == close.code and text in (None, close.text) for code, text in allowed):
        raise CheckFailed(f"{line.name} got {close}, and its end is {reason.code} by {reason.initiator}: {allowed}")


async def _nothing_more(line: Line) -> None:
    """Check that a send after the end is refused, and that nothing is written after it."""
    assert line.channel is not None
    equal(await line.channel.send_text("late"), False, f"a send on {line.name} after its end")
    equal(line.channel.reason, line.reason, f"the reason of {line.name} after its end")


def _told(ends: Iterable[object]) -> str:
    return ", or ".join(map(str, ends)) or "nothing"
