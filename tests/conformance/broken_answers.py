"""Connectors that break a rule of what stands in the log, of requests with a body, or of large ones."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import logging
from typing import Any

from tests.conformance.breaking import BrokenChannel, BrokenConnector, breaks
from wsbridge._channel.ending import HERE
from wsbridge.http import Response, has_body

logger = logging.getLogger("wsbridge")

# ---- LOG ------------------------------------------------------------------------------------------------------------


@breaks("LOG-1")
class TellsOfEachMessage(BrokenChannel):
    __slots__ = ()

    def feed(self, message: Any) -> None:
        logger.info("a message came: %r", message)
        super().feed(message)

    def peer_closed(self, code: int | None, text: str) -> None:
        logger.error("the peer says %s", text)
        super().peer_closed(code, text)


@breaks("LOG-2")
class LogsPathsInFull(BrokenChannel):
    __slots__ = ()

    async def _callback_failed(self, error: BaseException) -> None:
        logger.error("a callback at %s failed", self._path, exc_info=error)  # type: ignore[attr-defined]
        if self._reason is None:  # type: ignore[attr-defined]
            self._end(HERE, 1011, "")  # type: ignore[attr-defined]


@breaks("LOG-2")
class LogsBadMessages(BrokenChannel):
    __slots__ = ()

    async def _callback_failed(self, error: BaseException) -> None:
        logger.warning("a message is bad: %s", error.__cause__, exc_info=error)
        if self._reason is None:  # type: ignore[attr-defined]
            self._end(HERE, 1007, "")  # type: ignore[attr-defined]


@breaks("LOG-3")
class WritesToWhoIsGone(BrokenChannel):
    """Writes byte for byte: once a write has failed, more of them follow in the same turn."""

    __slots__ = ()

    def _flush(self) -> None:
        for byte in b"".join(self._protocol.data_to_send()):  # type: ignore[attr-defined]
            self._transport.write(bytes([byte]))  # type: ignore[attr-defined]


@breaks("LOG-3")
class AsksItsOwnSideOfTls(BrokenChannel):
    __slots__ = ()

    def _flush(self) -> None:
        for byte in b"".join(self._protocol.data_to_send()):  # type: ignore[attr-defined]
            if not self._transport.is_closing():  # type: ignore[attr-defined]
                self._transport.write(bytes([byte]))  # type: ignore[attr-defined]


@breaks("LOG-3")
class TellsOfALoss(BrokenChannel):
    __slots__ = ()

    def connection_lost(self) -> None:
        logger.warning("channel %s is lost", self.id)  # type: ignore[attr-defined]
        super().connection_lost()


# ---- HS -------------------------------------------------------------------------------------------------------------


@breaks("HS-16")
class RefusesBodiesItself(BrokenConnector):
    async def _handled(self, request: Any, source: Any, run: Any) -> Any:
        return Response("", 400) if has_body(request) else await super()._handled(request, source, run)


@breaks("HS-16", base="aiohttp")
class GoesOnAfterABody(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        return await self._handled(request, source, run)


@breaks("HS-17")
class TakesAnyHead(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.max_head_size = 2**40


@breaks("HS-17")
class TakesSmallHeadsAlone(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.max_head_size = 8190


# ---- CLOSE ----------------------------------------------------------------------------------------------------------


@breaks("CLOSE-4", base="aiohttp")
class KeepsThePeersText(BrokenChannel):
    __slots__ = ()

    def _write_close(self: Any, code: int | None, text: str) -> None:
        super()._write_close(code, "" if self._reason.initiator == "peer" else text)
