"""Faults of the kinds that were found by reading, planted for the random model: ``tests/test_conformance_model.py``.

None is registered in `BROKEN`, which holds the checks of each rule to a broken connector: here it is the model that
must tell of it, so each has a pattern for the message.
"""

# mypy: disable-error-code="misc"
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.conformance.breaking import Breakage, BrokenChannel, BrokenConnector
from tests.conformance.broken_channels import AnswersPingsBehindItsClose
from tests.conformance.broken_connectors import LosesWhatComesBehindTheRequest
from tests.conformance.broken_options import IgnoresTheSettingsOfCompression

__all__ = ["PLANTED", "Planted"]

T = TypeVar("T", bound=type[Any])


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault, and how it is found.

    Attributes:
        breakage: The fault.
        told: A pattern that the message of the failure has.
        sequences: Within how many it must be found.
        seed: Of the sequences.
    """

    breakage: Breakage
    told: str
    sequences: int
    seed: int


PLANTED: list[Planted] = []


def plants(kind: str, told: str, *, base: str = "websockets", sequences: int = 600, seed: int = 1) -> Callable[[T], T]:
    """Register a class as a fault of a kind."""

    def register(mixin: T) -> T:
        PLANTED.append(Planted(Breakage(mixin.__name__, kind, mixin, base), told, sequences, seed))
        return mixin

    return register


# ---- a slot that leaks on one path ----------------------------------------------------------------------------------


@plants("slots", "got 503, though only")
class KeepsThePlaceOfALostChannel(BrokenConnector):
    _lost = 0

    def release(self, channel: Any) -> None:
        if channel in self._channels and channel.reason is not None and channel.reason.initiator == "network":
            self._lost += 1
        super().release(channel)

    @property
    def has_room(self) -> bool:
        return self.max_channels is None or len(self._channels) + self._lost < self.max_channels


@plants("slots", "got 503, though only")
class KeepsThePlaceOfARefusedHandshake(BrokenConnector):
    """One that a leave stage has refused, after the channel was made."""

    _refused_late = 0

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        if source.channel is not None and outcome is not source.channel:
            self._refused_late += 1
        return outcome

    @property
    def has_room(self) -> bool:
        return self.max_channels is None or len(self._channels) + self._refused_late < self.max_channels


# ---- heads that TCP has cut -----------------------------------------------------------------------------------------


class _ReadsPiecesWrong(BrokenConnector):
    """What comes alone, and is the first byte of a frame, goes through `first_byte`."""

    def serve_protocols(self, sockets: Any, factory: Any, **options: Any) -> None:
        def made() -> Any:
            protocol = factory()
            received = protocol.data_received

            def data_received(data: bytes) -> None:
                received(self.first_byte(protocol, data) if len(data) == 1 and protocol.channel else data)

            protocol.data_received = data_received
            return protocol

        super().serve_protocols(sockets, made, **options)

    def first_byte(self, protocol: Any, data: bytes) -> bytes:
        raise NotImplementedError


@plants("heads", "reason of|delivered of|a send on")
class ForgetsThatACutHeadSaysDeflated(_ReadsPiecesWrong):
    def first_byte(self, protocol: Any, data: bytes) -> bytes:
        return bytes((data[0] & 0xBF,)) if protocol.protocol.extensions else data


@plants("heads", "reason of|delivered of|the delivery of|a send on")
class TakesTheOtherLimitForACutHead(_ReadsPiecesWrong):
    def first_byte(self, protocol: Any, data: bytes) -> bytes:
        given = protocol.channel.options
        if given.max_text_size != given.max_binary_size:
            protocol.assembler = type(protocol.assembler)(given.max_binary_size, given.max_text_size)
            protocol._limit()
        return data


# ---- a setting that is ignored --------------------------------------------------------------------------------------

plants("compression", "in what was agreed on with")(IgnoresTheSettingsOfCompression)


# ---- a clock that begins early --------------------------------------------------------------------------------------


@plants("idle", "was closed for it")
class CountsIdleTimeFromTheHandshake(BrokenChannel):
    """Its clock does not stand still while ``on_open`` runs."""

    __slots__ = ()

    def _is_busy(self: Any) -> bool:
        return super()._is_busy() and self._process is not None


# ---- a mount that forgets part of the path --------------------------------------------------------------------------


@plants("mount", "the path and the raw path")
class ForgetsWhereItIsMounted(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        request.raw_path = request.raw_path.removeprefix(request.root_path)
        return await super().handle_by(request, source, run)


# ---- a reason of a former end ---------------------------------------------------------------------------------------


@plants("reason", "the reason of")
class KeepsTheReasonOfAFormerChannel(BrokenChannel):
    """A channel that is lost has the reason of the one before it at the same path, which was not."""

    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        former: dict[str, Any] = vars(self._connector).setdefault("former_reasons", {})
        if initiator == "network" and (kept := former.get(self._path)) is not None:
            code, text, initiator = kept
        super()._set_reason(code, text, initiator)
        former[self._path] = code, text, initiator


# ---- an error stage that runs twice ---------------------------------------------------------------------------------


@plants("stages", "the stages that ran for")
class RunsErrorStagesAgain(BrokenConnector):
    def _application_chain(self, context: Any) -> Coroutine[Any, Any, Any]:
        return self._again(super()._application_chain(context), context)

    async def _again(self, running: Coroutine[Any, Any, Any], context: Any) -> Any:
        try:
            return await running
        except (Exception, asyncio.CancelledError) as exc:
            for interceptor in reversed(self.app.interceptors):
                with contextlib.suppress(Exception):
                    if interceptor.error is not None:
                        interceptor.error(context, exc)
            raise


# ---- what is read early ---------------------------------------------------------------------------------------------

plants("early", "the delivery of|the messages delivered|how many messages were|was not ended by the server")(
    LosesWhatComesBehindTheRequest
)


@plants("early", "the messages delivered|the delivery of")
class DeliversTwiceWhatComesWhileItOpens(BrokenChannel):
    __slots__ = ()

    def feed(self: Any, message: str | bytes) -> None:
        super().feed(message)
        if self.running is not None and self._process is None:  # which is what on_open will have returned
            super().feed(message)


# ---- a reader that stays paused -------------------------------------------------------------------------------------


@plants("paused", "did not come about|did not end|was not ended")
class NeverReadsOn(BrokenChannel):
    __slots__ = ()

    def _resume_reading(self: Any) -> None:
        pass


# ---- an answer after the end ----------------------------------------------------------------------------------------

plants("late", "behind the close frame", base="tornado")(AnswersPingsBehindItsClose)
