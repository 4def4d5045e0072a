"""A central system for charge points (OCPP 1.6) with the package `ocpp`, which reads and sends through the stream.

    wsbridge serve ocpp_central_system:app --app-dir examples --connector aiohttp

A charge point connects to ``/ocpp/{its id}``. It needs ``pip install ocpp``.
"""

import asyncio
from datetime import UTC, datetime

from ocpp.routing import after, on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, AuthorizationStatus, RegistrationStatus

from wsbridge import Application, MessageStream, Request, stream_handler

KNOWN = {"ada-card"}  # in earnest: ask whoever issues the cards


class Connected(ChargePoint):
    """A charge point, seen from here: its requests are answered, and it is told what to do."""

    def __init__(self, id: str, stream: MessageStream) -> None:
        super().__init__(id, stream, response_timeout=10)
        self.calls = asyncio.TaskGroup()
        self.ready: asyncio.Task[None] | None = None

    @on(Action.boot_notification)
    def on_boot(self, charge_point_model: str, charge_point_vendor: str, **details: object) -> object:
        return call_result.BootNotification(now(), interval=300, status=RegistrationStatus.accepted)

    @after(Action.boot_notification)
    def after_boot(self, **details: object) -> None:
        self.ready = self.calls.create_task(self.start_charging())

    @on(Action.heartbeat)
    def on_heartbeat(self) -> object:
        return call_result.Heartbeat(now())

    @on(Action.authorize)
    def on_authorize(self, id_tag: str) -> object:
        status = AuthorizationStatus.accepted if id_tag in KNOWN else AuthorizationStatus.invalid
        return call_result.Authorize({"status": status})

    async def start_charging(self) -> None:
        """Call the charge point, while it may call us."""
        configuration = await self.call(call.GetConfiguration(key=["ConnectorCount"]))
        for connector in range(1, int(configuration.configuration_key[0]["value"]) + 1):
            await self.call(call.RemoteStartTransaction(id_tag="ada-card", connector_id=connector))


def now() -> str:
    return datetime.now(UTC).isoformat()


async def serve(stream: MessageStream, request: Request) -> None:
    if stream.subprotocol is None:
        stream.close(1002, "ocpp1.6 is spoken here")
        return
    charge_point = Connected(request.path_params["id"], stream)
    async with charge_point.calls:  # ends with the channel: whoever reads or sends then gets ChannelClosedError
        await charge_point.start()


app = Application([("/ocpp/{id}", stream_handler(serve, subprotocols=["ocpp1.6"]))])
