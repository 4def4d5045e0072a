"""Connectors that lose places (HS-12): each by one of the ways in which a handshake or a channel ends."""

# mypy: disable-error-code="misc"
from __future__ import annotations

from typing import Any

from tests.conformance.breaking import BrokenConnector, breaks
from wsbridge.http import Response


class _Loses(BrokenConnector):
    """Counts places that nobody has any more."""

    lost = 0

    @property
    def has_room(self) -> bool:
        return self.max_channels is None or len(self._channels) + self.lost < self.max_channels

    def is_lost(self, channel: Any) -> int:
        return 0

    def release(self, channel: Any) -> None:
        self.lost += channel in self._channels and self.is_lost(channel)
        super().release(channel)


@breaks("HS-12")
class KeepsThePlaceOfARefusal(_Loses):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        self.lost += source.channel is not None and isinstance(outcome, Response)
        return outcome


@breaks("HS-12")
class KeepsThePlaceOfAPeerThatLeft(_Loses):
    def is_lost(self, channel: Any) -> bool:
        return not channel._opened and not self.is_stopping


@breaks("HS-12")
class KeepsThePlaceOfAnException(_Loses):
    def is_lost(self, channel: Any) -> bool:
        return bool(channel.reason.code == 1011 and channel.reason.text == "")


@breaks("HS-12")
class KeepsThePlaceOfAPeerThatErrs(_Loses):
    def is_lost(self, channel: Any) -> bool:
        return channel.reason.code in (1001, 1002, 1007, 1009)


@breaks("HS-12")
class KeepsThePlaceOfAPeerThatIsCutOff(_Loses):
    def is_lost(self, channel: Any) -> bool:
        return bool(channel.reason.code == 1008)


@breaks("HS-12")
class KeepsPlacesOverAStop(_Loses):
    async def stop_channels(self, caller: Any = None) -> None:
        self.lost += len(self._channels) + len(self._handshakes)
        await super().stop_channels(caller)


@breaks("HS-12")
class GivesAPlaceBackTwice(_Loses):
    def is_lost(self, channel: Any) -> int:
        return -1


@breaks("CTX-3")
class UpgradesAsOftenAsAsked(BrokenConnector):
    """Makes a channel for each call, and forgets those before the last."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        kind = type(source)

        def initialize_websocket(self: Any, context: Any, options: Any) -> Any:
            self.channel = None
            return kind.initialize_websocket(self, context, options)

        over = {"initialize_websocket": initialize_websocket, "overrides_internals": True}
        source.__class__ = type("Forgetful", (kind,), over)
        return await super().handle_by(request, source, run)
