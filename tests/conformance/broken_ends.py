"""Connectors that tell of an end too late, and such that hold the event loop."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.breaking import BrokenChannel, breaks
from wsbridge._channel.ending import OVER


@breaks("CLOSE-6")
class TellsOfTheEndAfterTheMessages(BrokenChannel):
    """A callback that waits for the end waits for itself."""

    __slots__ = ()

    def _set_reason(self: Any, code: int | None, text: str, initiator: str) -> None:
        if self._queue and self._reason is None and not self._dropping and initiator != "local":
            self._connector.loop.call_later(0.01, self._set_reason, code, text, initiator)
        else:
            super()._set_reason(code, text, initiator)


@breaks("CLOSE-10")
class AnExceptionChangesTheReason(BrokenChannel):
    __slots__ = ()

    async def _callback_failed(self: Any, error: BaseException) -> None:
        self._reason = None
        self._set_reason(1011, "", "local")
        await super()._callback_failed(error)


@breaks("CLOSE-10")
class DeliversOnAfterTheEnd(BrokenChannel):
    """Neither a close nor an exception keeps what came before the peer's end from being delivered."""

    __slots__ = ()

    def _drop(self: Any) -> None:
        if self._reason is None or self._reason.initiator == "local":
            super()._drop()


@breaks("FLOW-3")
class DeliversWhateverWaits(BrokenChannel):
    """Has no budget: what one peer sends is delivered in one turn of the event loop."""

    __slots__ = ()

    def _hold_reading(self: Any) -> None:
        pass

    async def _receive(self: Any) -> None:
        while self._phase < OVER:
            await asyncio.sleep(0.02)
            queue, self._queue = list(self._queue), type(self._queue)()
            for message in queue:
                result = self.text_received(message) if isinstance(message, str) else self.binary_received(message)
                if result is not None:
                    await result
                    self.running = None


@breaks("FLOW-4")
class AnswersAtOnceThatItHasEnded(BrokenChannel):
    __slots__ = ()

    async def _refuse(self: Any) -> bool:
        return False


@breaks("FLOW-4")
class SendsWithoutEnd(BrokenChannel):
    __slots__ = ()

    async def send_text(self: Any, text: str) -> bool:
        self._burst = 0
        return bool(await super().send_text(text))
