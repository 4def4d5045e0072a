"""Connectors whose channels break a rule: each class violates the rule that it names, and most no other."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import replace
from typing import Any

from tests.conformance.breaking import BrokenChannel, breaks
from wsbridge._channel.ending import CLOSING, CUT, HERE, LOST, OPEN, OVER
from wsbridge.close import close_reason
from wsbridge.errors import ChannelNotOpenError, SendError

logger = logging.getLogger("wsbridge")


# ---- OPEN -----------------------------------------------------------------------------------------------------------


@breaks("OPEN-1")
class ForgetsTheProcessObject(BrokenChannel):
    __slots__ = ()

    async def _open(self: Any) -> None:
        await super()._open()
        self._process = object()


@breaks("OPEN-1")
class OpensTwice(BrokenChannel):
    __slots__ = ()

    async def _open(self: Any) -> None:
        request = self._request
        await super()._open()
        self._request = request  # which is let go of behind on_open
        await super()._open()


@breaks("OPEN-2")
class AwaitsNoCoroutine(BrokenChannel):
    """Runs each callback's coroutine in a task of its own and waits for none."""

    __slots__ = ()

    def text_received(self: Any, text: str) -> None:
        self._detach(super().text_received(text))

    def binary_received(self: Any, data: bytes) -> None:
        self._detach(super().binary_received(data))

    def _detach(self: Any, running: Any) -> None:
        self.running = None
        if running is not None:
            self._connector.loop.create_task(running)


@breaks("OPEN-2")
class RunsPlainFunctionsInAThread(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        if self._text is None or self._reason is not None or inspect.iscoroutinefunction(self._text):
            return super().text_received(text)
        self.running = asyncio.to_thread(self._text, self, self._process, text)
        return self.running


@breaks("OPEN-2")
class AwaitsAnything(BrokenChannel):
    """Takes a task or future that ``on_open`` returns for its coroutine."""

    __slots__ = ()

    async def _open(self: Any) -> None:
        await super()._open()
        if isinstance(self._process, asyncio.Future):
            self._process = await asyncio.wait_for(asyncio.shield(self._process), 1)


@breaks("OPEN-3")
class DropsMessagesWhileOpening(BrokenChannel):
    __slots__ = ()

    def feed(self: Any, message: str | bytes) -> None:
        if self._wakeup is not None or self.running is None:
            super().feed(message)


@breaks("OPEN-4")
class SendsOfOnOpenAreLost(BrokenChannel):
    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        return True if self._wakeup is None and not self._queue else bool(await super().send_text(text))


@breaks("OPEN-5")
class CannotCloseInOnOpen(BrokenChannel):
    __slots__ = ()

    def close(self: Any, code: int = 1000, text: str = "") -> None:
        if self._wakeup is not None:
            super().close(code, text)


@breaks("OPEN-6")
class OpensInSpiteOfAnException(BrokenChannel):
    __slots__ = ()

    async def _open(self: Any) -> None:
        try:
            await super()._open()
        except ValueError:
            self._process = None
        except Exception:
            logger.exception("on_open raised")


@breaks("OPEN-7")
class CountsItsIds(BrokenChannel):
    __slots__ = ()

    async def run(self: Any) -> None:
        self.id = "1"
        await super().run()


@breaks("OPEN-8")
class TakesASecondCallback(BrokenChannel):
    __slots__ = ()

    def on_text(self: Any, callback: Any) -> None:
        self._text = callback

    def on_binary(self: Any, callback: Any, *, format: str = "bytes") -> None:
        self._binary = callback


@breaks("OPEN-9")
class HidesTheEndWhileOpening(BrokenChannel):
    __slots__ = ()

    def peer_closed(self: Any, code: int | None, text: str) -> None:
        if self._wakeup is None and self.running is not None:
            self._connector.loop.call_later(2, super().peer_closed, code, text)
        else:
            super().peer_closed(code, text)

    def connection_lost(self: Any) -> None:
        if self._wakeup is None and self.running is not None and self._task is not None:
            self._connector.loop.call_later(2, super().connection_lost)
        else:
            super().connection_lost()


@breaks("OPEN-10")
class RunsCallbacksOutsideOfTasks(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> None:
        self._step(super().text_received(text))

    def binary_received(self: Any, data: bytes) -> None:
        self._step(super().binary_received(data))

    def _step(self: Any, running: Any) -> None:
        self.running = None
        if running is None:
            return

        def step(_: object = None) -> None:
            try:
                waits_for = running.send(None)
            except StopIteration:
                return
            except Exception:
                logger.exception("a callback raised")
                return
            if waits_for is None:
                self._connector.loop.call_soon(step)
            else:
                waits_for._asyncio_future_blocking = False
                waits_for.add_done_callback(step)

        self._connector.loop.call_soon(step)


@breaks("OPEN-11")
class SendsBeforeItIsOpen(BrokenChannel):
    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        try:
            return bool(await super().send_text(text))
        except ChannelNotOpenError:
            return False

    def close(self: Any, code: int = 1000, text: str = "") -> None:
        if self._opened:
            super().close(code, text)


# ---- RECV -----------------------------------------------------------------------------------------------------------


@breaks("RECV-1")
class StripsText(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        return super().text_received(text.strip("\0 \r\n\t").replace("\U0010ffff", "?").replace("x", "", 1))


@breaks("RECV-2")
class DeliversByteArrays(BrokenChannel):
    __slots__ = ()

    def binary_received(self: Any, data: bytes) -> Any:
        return super().binary_received(bytearray(data))


@breaks("RECV-2")
class IgnoresTheFormat(BrokenChannel):
    __slots__ = ()

    def on_binary(self: Any, callback: Any, *, format: str = "bytes") -> None:
        super().on_binary(callback)


@breaks("RECV-4")
class DropsWhatComesBeforeTheEnd(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        if self._queue and self._reason is None and initiator != "local":  # an idle channel has none
            self._queue.clear()
        super()._set_reason(code, text, initiator)


@breaks("HS-11", base="tornado")
class DropsTheLastMessageOfAPeerThatHasLeft(DropsWhatComesBeforeTheEnd):
    __slots__ = ()


@breaks("RECV-4")
class TakesALossAtOnce(BrokenChannel):
    """A loss ends the channel, though what was read before is not taken yet."""

    __slots__ = ()

    def connection_gone(self: Any) -> None:
        self.connection_lost()


@breaks("RECV-4")
class DeliversOutOfOrder(BrokenChannel):
    __slots__ = ()

    def feed(self: Any, message: str | bytes) -> None:
        super().feed(message)
        self._queue.rotate(1)


@breaks("RECV-4")
class DeliversAfterALocalClose(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        self._dropping = False
        return super().text_received(text)

    def feed(self: Any, message: str | bytes) -> None:
        reason, self._reason = self._reason, None
        try:
            super().feed(message)
        finally:
            self._reason = self._reason or reason

    def _drop_undelivered(self: Any) -> None:
        pass


@breaks("RECV-5")
class OverlapsCallbacks(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> None:
        running = super().text_received(text)
        self.running = None
        if running is not None:
            self._connector.loop.create_task(running)


@breaks("RECV-6")
class RefusesAKindWithoutACallback(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        if self._text is None and self._reason is None:
            self._end(HERE, 1003, "")
        return super().text_received(text)

    def binary_received(self: Any, data: bytes) -> Any:
        if self._binary is None and self._reason is None:
            self._end(HERE, 1003, "")
        return super().binary_received(data)


@breaks("RECV-7")
class ReadsNothingBehindACallback(BrokenChannel):
    """Holds the peer back from the first message on."""

    __slots__ = ()

    def _resume_reading(self: Any) -> None:
        pass

    def feed(self: Any, message: str | bytes) -> None:
        super().feed(message)
        if not self._held:
            self._held = True
            self._hold_reading()


@breaks("HS-11")
class ReadsBeforeItIsOpen(BrokenChannel):
    """Takes what comes behind the request a moment before ``on_open`` runs."""

    __slots__ = ()

    async def run(self: Any) -> None:
        await asyncio.sleep(0.05)
        await super().run()


@breaks("RECV-7", base="tornado")
class ForgetsPingsOfASlowPeer(BrokenChannel):
    __slots__ = ()

    def ping_received(self: Any, payload: bytes) -> None:
        if not self._write_paused:
            super().ping_received(payload)


# ---- SEND -----------------------------------------------------------------------------------------------------------


@breaks("SEND-1")
class AlwaysSaysTrue(BrokenChannel):
    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        await super().send_text(text)
        return True

    async def send_binary(self: Any, data: Any) -> bool:
        await super().send_binary(data)
        return True


@breaks("SEND-1")
class RaisesForALoss(BrokenChannel):
    __slots__ = ()

    def _send_failed(self: Any, error: Exception) -> bool:
        raise error


@breaks("SEND-2")
class ReadsFilesOnTheLoop(BrokenChannel):
    __slots__ = ()

    async def _whole_message(self: Any, data: Any) -> Any:
        if not hasattr(data, "read"):
            return await super()._whole_message(data)
        data.seek(0)
        try:
            return bytes(data.read())
        except OSError:
            return b""


@breaks("SEND-2")
class KeepsWhatItWasGiven(BrokenChannel):
    """Sends a bytes-like object a moment later, when the caller may have changed it."""

    __slots__ = ()

    async def send_binary(self: Any, data: Any) -> bool:
        if not isinstance(data, bytearray):
            return bool(await super().send_binary(data))
        self._connector.loop.call_soon(lambda: self._send_binary(bytes(data)))
        return True


@breaks("SEND-3")
class SendsAnything(BrokenChannel):
    __slots__ = ()

    async def send_text(self: Any, text: Any) -> bool:
        return bool(await super().send_text(str(text).encode("utf-8", "replace").decode()))

    async def send_binary(self: Any, data: Any) -> bool:
        try:
            return bool(await super().send_binary(data))
        except TypeError:
            return False


@breaks("SEND-4")
class SendsAtRandom(BrokenChannel):
    """Gives way in front of a frame, so that what was sent later may overtake."""

    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        if text.__hash__() % 2:
            self._connector.loop.call_later(0.02, self._send_text, text)
            return True
        return bool(await super().send_text(text))

    async def send_binary(self: Any, data: Any) -> bool:
        if isinstance(data, bytes) and hash(data) % 2:
            self._connector.loop.call_later(0.02, self._send_binary, data)
            return True
        return bool(await super().send_binary(data))


@breaks("SEND-5")
class EndsWithACancelledSend(BrokenChannel):
    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        return bool(await self._cancelled_badly(super().send_text(text)))

    async def send_binary(self: Any, data: Any) -> bool:
        return bool(await self._cancelled_badly(super().send_binary(data)))

    async def _cancelled_badly(self: Any, sending: Any) -> Any:
        try:
            return await sending
        except asyncio.CancelledError:
            self._end(HERE, 1011, "")
            raise


@breaks("SEND-6")
class ClosesInFrontOfSends(BrokenChannel):
    """Its messages leave a moment after the send has said True."""

    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        if self._phase > OPEN:
            return False
        self._connector.loop.call_later(0.05, self._write_late, self._send_text, text)
        return True

    async def send_binary(self: Any, data: Any) -> bool:
        if self._phase > OPEN:
            return False
        self._connector.loop.call_later(0.05, self._write_late, self._send_binary, bytes(data))
        return True

    def _write_late(self: Any, send: Any, message: Any) -> None:
        if self._phase is OPEN:
            send(message)


@breaks("SEND-6")
class WaitsForTheTimeoutWhenTheConnectionIsLost(BrokenChannel):
    __slots__ = ()

    def _wake_senders(self: Any) -> None:
        self._slow = True


@breaks("SEND-6")
class ResetsAPeerThatSendsBehindItsClose(BrokenChannel):
    __slots__ = ()

    def _drainable(self: Any) -> None:
        return None


@breaks("SEND-6", base="tornado")
class AnswersPingsBehindItsClose(BrokenChannel):
    __slots__ = ()

    def ping_received(self: Any, payload: bytes) -> None:
        if self._write_paused:
            super().ping_received(payload)
        else:
            self._write_quietly(self._pong, payload)


@breaks("SEND-6", base="tornado")
class KeepsAPongForTheEnd(BrokenChannel):
    """Answers behind its close frame what came before it."""

    __slots__ = ()

    def resume_writing(self: Any) -> None:
        due, self._pong_due = self._pong_due, None
        super().resume_writing()
        if due is not None and self._phase < LOST:
            self._write_quietly(self._pong, due)


@breaks("SEND-7")
class HidesNativeFailures(BrokenChannel):
    __slots__ = ()

    def _send_failed(self: Any, error: Exception) -> bool:
        try:
            return bool(super()._send_failed(error))
        except SendError:
            return False


# ---- CLOSE ----------------------------------------------------------------------------------------------------------


@breaks("CLOSE-1")
class TheLastCloseWins(BrokenChannel):
    __slots__ = ()

    def close(self: Any, code: int = 1000, text: str = "") -> Any:
        if self._opened:
            self._reason = None
        super().close(code, text)
        return self


@breaks("CLOSE-1")
class ClosesALittleLater(BrokenChannel):
    __slots__ = ()

    def close(self: Any, code: int = 1000, text: str = "") -> None:
        self._connector.loop.call_later(0.3, super().close, code, text)


@breaks("CLOSE-2")
class TakesAnyCode(BrokenChannel):
    __slots__ = ()

    def close(self: Any, code: Any = 1000, text: Any = "") -> None:
        try:
            super().close(code, text)
        except (TypeError, ValueError):
            super().close(1000, "")


@breaks("CLOSE-3")
class ForgetsOnClose(BrokenChannel):
    __slots__ = ()

    async def _run_last(self: Any, name: str, callback: Any, argument: object) -> None:
        if name != "on_close":
            await super()._run_last(name, callback, argument)


@breaks("CLOSE-3")
class ClosesTwice(BrokenChannel):
    __slots__ = ()

    async def _run_last(self: Any, name: str, callback: Any, argument: object) -> None:
        await super()._run_last(name, callback, argument)
        await super()._run_last(name, callback, argument)


@breaks("CLOSE-3")
class ClosesWhileACallbackRuns(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        first = self._reason is None
        super()._set_reason(code, text, initiator)
        if first and self.running is not None and self._options.on_close is not None:
            running = self._options.on_close(self, self._process, self._reason)
            if asyncio.iscoroutine(running):
                self._connector.loop.create_task(running)


@breaks("CLOSE-4")
class EchoesNoCode(BrokenChannel):
    __slots__ = ()

    def _write_close(self: Any, code: int | None, text: str) -> None:
        super()._write_close(1000, "")


@breaks("CLOSE-5")
class WaitsForEver(BrokenChannel):
    """Cuts nobody off."""

    __slots__ = ()

    def _begin_timeout(self: Any) -> float:
        return float(super()._begin_timeout()) + 60


@breaks("CLOSE-5")
class LeavesWhoHalfClosesAndReadsNothing(BrokenChannel):
    __slots__ = ()

    def half_closed(self: Any) -> None:
        self.connection_lost()


@breaks("CLOSE-6")
class TellsTooLate(BrokenChannel):
    """Its reason is a plain string, and known only when the callbacks have ended."""

    __slots__ = ()

    @property
    def reason(self: Any) -> Any:
        return self._reason if self._phase >= OVER and self.running is None else None

    async def wait_closed(self: Any) -> Any:
        await super().wait_closed()
        await asyncio.sleep(10)
        return str(self._reason)


@breaks("CLOSE-7")
class ReportsALossAsAnEmptyClose(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        super()._set_reason(1005 if code == 1006 else code, text, initiator)


@breaks("CLOSE-7")
class ReportsEveryEndAsThePeers(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        super()._set_reason(code, text, "peer" if initiator != "peer" else "network")


@breaks("CLOSE-9")
class SpellsKeywordsInItsOwnWay(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: Any) -> None:
        keywords = {key: name.upper() for key, name in self._connector.close_keywords.items()}
        if self._reason is None:
            reason = close_reason(code or 1005, text, initiator, {code or 1005: f"CODE_{code}", **keywords})
            super()._set_reason(code, text, initiator)
            self._reason = reason


@breaks("CLOSE-9")
class NamesNoPrivateCode(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: Any) -> None:
        first = self._reason is None
        super()._set_reason(code, text, initiator)
        if first and self._reason.name in ("private", "registered", "unknown"):
            self._reason = replace(self._reason, name="other", keyword="other")


@breaks("CLOSE-10")
class TheLastEndWins(BrokenChannel):
    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        self._reason = None
        super()._set_reason(code, text, initiator)


@breaks("CLOSE-10")
class ThePeersCloseWins(BrokenChannel):
    __slots__ = ()

    def peer_closed(self: Any, code: int | None, text: str) -> None:
        if self._phase < OVER:
            self._reason = None
        super().peer_closed(code, text)


# ---- ERR ------------------------------------------------------------------------------------------------------------


@breaks("ERR-1")
class SwallowsWhatCallbacksRaise(BrokenChannel):
    __slots__ = ()

    async def _callback_failed(self: Any, error: BaseException) -> None:
        self.running = None
        if self._reason is None:
            self._end(HERE, 1000, "")


@breaks("ERR-1")
class LogsTwice(BrokenChannel):
    __slots__ = ()

    async def _callback_failed(self: Any, error: BaseException) -> None:
        await super()._callback_failed(error)
        logger.error("again: %s", self.id, exc_info=error)


@breaks("ERR-2")
class StopsAtWhatOnErrorRaises(BrokenChannel):
    """Lets what ``on_error`` and ``on_close`` raise go on, unlogged."""

    __slots__ = ()

    async def _run_last(self: Any, name: str, callback: Any, argument: object) -> None:
        try:
            result = callback(self, self._process, argument)
            if asyncio.iscoroutine(result):
                await result
        except (Exception, asyncio.CancelledError):
            self._end(CUT, 1006, "")


@breaks("ERR-3")
class TakesEveryCancelledErrorForACancel(BrokenChannel):
    __slots__ = ()

    def _was_cancelled(self: Any) -> bool:
        return True


@breaks("ERR-3")
class TakesEveryCancelForAnException(BrokenChannel):
    __slots__ = ()

    def _was_cancelled(self: Any) -> bool:
        return False


@breaks("ERR-3")
class CatchesSystemExit(BrokenChannel):
    __slots__ = ()

    async def _receive(self: Any) -> None:
        try:
            await super()._receive()
        except (SystemExit, KeyboardInterrupt) as exc:
            raise RuntimeError("swallowed") from exc


# ---- LIM, FLOW ------------------------------------------------------------------------------------------------------


@breaks("LIM-1")
class LimitsAreOneByteLower(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        limit = self._options.max_text_size
        if limit is not None and len(text.encode()) >= limit and self._reason is None:
            self._end(HERE, 1009, "")
        return super().text_received(text)

    def binary_received(self: Any, data: bytes) -> Any:
        limit = self._options.max_binary_size
        if limit is not None and len(data) >= limit and self._reason is None:
            self._end(HERE, 1009, "")
        return super().binary_received(data)


@breaks("LIM-2")
class IsNeverIdle(BrokenChannel):
    __slots__ = ()

    def _idle_until(self: Any, now: float, idle_timeout: float) -> float:
        return now + idle_timeout


@breaks("LIM-2")
class IsIdleWhileACallbackRuns(BrokenChannel):
    __slots__ = ()

    def _idle_until(self: Any, now: float, idle_timeout: float) -> float:
        running, self.running = self.running, None
        self._activity = min(self._activity, now - idle_timeout)
        try:
            return float(super()._idle_until(now, idle_timeout))
        finally:
            self.running = running


@breaks("LIM-3")
class TakesAnyPong(BrokenChannel):
    """Never misses one."""

    __slots__ = ()

    def _is_pong_late(self: Any, now: float) -> bool:
        self._pong_by = None
        return False


@breaks("LIM-3")
class NeverPings(BrokenChannel):
    __slots__ = ()

    def _ping(self: Any, payload: bytes) -> None:
        pass


@breaks("LIM-4")
class WaitsForEverForASlowPeer(BrokenChannel):
    __slots__ = ()

    def _is_stalled(self: Any, now: float, send_timeout: float) -> bool:
        return False


@breaks("LIM-4")
class TakesSlowForStuck(BrokenChannel):
    __slots__ = ()

    def _is_stalled(self: Any, now: float, send_timeout: float) -> bool:
        self._unsent = self._unsent_bytes()
        return bool(super()._is_stalled(now, send_timeout))


@breaks("FLOW-1")
class ReadsWithoutEnd(BrokenChannel):
    """Never holds a peer back."""

    __slots__ = ()

    def _hold_reading(self: Any) -> None:
        pass

    def _resume_reading(self: Any) -> None:
        pass


@breaks("FLOW-1")
class ReadsWhatItDoesNotParse(BrokenChannel):
    """Holds nobody back but its own parser: what comes piles up unread."""

    __slots__ = ()

    def _hold_reading(self: Any) -> None:
        self._connection._held = True

    def _resume_reading(self: Any) -> None:
        self._connection.resume()


@breaks("FLOW-2")
class BuffersWithoutEnd(BrokenChannel):
    """Never holds a send back."""

    __slots__ = ()

    def pause_writing(self: Any) -> None:
        pass


@breaks("FLOW-2", base="picows")  # the fastest, of which a flood sees the most
class PilesUpPongs(BrokenChannel):
    """Answers every ping, whether the peer reads the answers or not."""

    __slots__ = ()

    def ping_received(self: Any, payload: bytes) -> None:
        if self._phase < CLOSING:
            self._pong(payload)


@breaks("FLOW-3")
class WaitsForAllChannels(BrokenChannel):
    """Its callbacks run one at a time over all channels."""

    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        running = super().text_received(text)
        if running is None:
            return None
        self.running = self._alone(running)
        return self.running

    def binary_received(self: Any, data: bytes) -> Any:
        running = super().binary_received(data)
        if running is None:
            return None
        self.running = self._alone(running)
        return self.running

    async def _alone(self: Any, running: Any) -> None:
        lock = self._connector.__dict__.setdefault("lock", asyncio.Lock())
        async with lock:
            await running


# ---- THR ------------------------------------------------------------------------------------------------------------


@breaks("THR-1")
class ChecksNoThread(BrokenChannel):
    __slots__ = ()

    def _check_loop(self: Any) -> None:
        pass


@breaks("THR-3")
class IsKeptForEver(BrokenChannel):
    __slots__ = ()

    def _release(self: Any) -> None:
        super()._release()
        self._connector.__dict__.setdefault("kept", []).append(self)


@breaks("STOP-2")
class SaysNothingAtAStop(BrokenChannel):
    __slots__ = ()

    def shut_down(self: Any) -> None:
        pass


@breaks("STOP-3")
class LeavesATask(BrokenChannel):
    __slots__ = ()

    def _release(self: Any) -> None:
        super()._release()
        self._connector.__dict__.setdefault("left", []).append(self._connector.loop.create_task(asyncio.sleep(30)))
