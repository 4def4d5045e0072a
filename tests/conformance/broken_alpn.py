"""Connectors that break HS-18: what becomes of a client that selects HTTP/2."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import logging
from typing import Any

from tests.conformance.breaking import BrokenConnector, breaks
from wsbridge.connector import alpn


@breaks("HS-18")
class TakesHttp2ForHttp1(BrokenConnector):
    def is_http2(self, tls: Any) -> Any:
        return False


@breaks("HS-18")
class SaysNothingOfHttp2(BrokenConnector):
    def is_http2(self, tls: Any) -> Any:
        return alpn.has_selected_http2(tls)


@breaks("HS-18")
class SaysItForEachConnection(BrokenConnector):
    """Of HTTP/1.1, too."""

    def is_http2(self, tls: Any) -> Any:
        self._warned_of_http2 = False
        logging.getLogger("wsbridge").warning(alpn.WARNING, self.name)
        return super().is_http2(tls)


@breaks("HS-18")
class HoldsHttp2ForEver(BrokenConnector):
    """Ends no such connection."""

    def refuse_http2(self, transport: Any) -> Any:
        is_refused = super().refuse_http2(transport)
        for timer in self._drains.values():
            self.clock.cancel(timer)
        return is_refused


@breaks("HS-18", base="aiohttp")  # whose server forgets what is not its own
class LeavesHttp2AtAStop(BrokenConnector):
    async def _stop_listening(self) -> None:
        await super()._stop_listening()
        for timer in self._drains.values():
            self.clock.cancel(timer)
        if self._drains:
            self._acceptor.abort = self._leave

    async def _leave(self) -> None:
        pass

    def _end_drains(self) -> None:
        pass

    def _drained(self, drain: Any) -> None:
        pass


@breaks("HS-18")
class CutsHttp2(BrokenConnector):
    """Without a word."""

    def refuse_http2(self, transport: Any) -> Any:
        is_refused = self.is_http2(transport.get_extra_info("ssl_object"))
        if is_refused:
            transport.abort()
        return is_refused
