"""Connectors that do to the suite what no connector should, by the worst means: it must survive each."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from aiohttp import WSMsgType

from wsbridge.connector import BaseConnector
from wsbridge.connectors._aiohttp_native import WebSocket
from wsbridge.connectors.aiohttp import Connector


class StartHangs(Connector):
    overrides_internals = True

    async def start(self) -> None:
        await asyncio.Event().wait()


class StartBlocks(Connector):
    overrides_internals = True

    async def start(self) -> None:
        time.sleep(3600)  # noqa: ASYNC251 (which is the point)


class StartBlocksForGood(Connector):
    overrides_internals = True

    async def start(self) -> None:
        while True:
            try:
                time.sleep(3600)  # noqa: ASYNC251
            except BaseException:
                continue


class StartExits(Connector):
    overrides_internals = True

    async def start(self) -> None:
        print("a last word", file=sys.stderr, flush=True)
        os._exit(3)


class StartIsKilled(Connector):
    overrides_internals = True

    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class StartCallsSystemExit(Connector):
    overrides_internals = True

    async def start(self) -> None:
        raise SystemExit(4)


class StartRaises(Connector):
    overrides_internals = True

    async def start(self) -> None:
        raise RuntimeError("no wheels")


class StopHangs(Connector):
    overrides_internals = True

    async def stop(self) -> None:
        await super().stop()
        await asyncio.Event().wait()


class StopLeavesATask(Connector):
    overrides_internals = True

    async def stop(self) -> None:
        await super().stop()
        self.left = asyncio.create_task(asyncio.Event().wait())


class StopLeavesAThread(Connector):
    overrides_internals = True

    async def stop(self) -> None:
        await super().stop()
        threading.Thread(target=threading.Event().wait, name="stray", daemon=True).start()


class Prints(Connector):
    overrides_internals = True

    async def start(self) -> None:
        print("garbage")
        await super().start()


class LeavesAChild(Connector):
    """Its process dies, and leaves a child that has its pipes."""

    overrides_internals = True

    async def start(self) -> None:
        child = os.fork()
        if child == 0:
            time.sleep(3600)  # noqa: ASYNC251
        os.write(2, f"child {child}\n".encode())
        os._exit(5)


class AnswersPingsWithoutTheirPayload(Connector):
    """Has one small fault, by which a failure is shown from start to end."""

    overrides_internals = True

    async def start(self) -> None:
        async def pong(native: Any, message: bytes = b"") -> None:
            await native.send_frame(b"", WSMsgType.PONG)

        WebSocket.pong = pong  # type: ignore[method-assign,assignment]  # for good: it has a process of its own
        await super().start()


class RefusesWhatItHas(Connector):
    features = Connector.features - {"ping"}
    # and yet ping_interval is accepted

    def check_options(self, options: Any) -> None:
        return


class DeclaresWhatNobodyKnows(Connector):
    deviations = {**Connector.deviations, "RECV-1/nonsense": next(iter(Connector.deviations.values()))}  # noqa: RUF012


class IsBrokenInItself(Connector):
    deviations = None  # type: ignore[assignment]


class _Mute(asyncio.Protocol):
    def __init__(self, kept: list[object]) -> None:
        self._kept = kept

    def data_received(self, data: bytes) -> None:
        self._kept.append(asyncio.ensure_future(self._answer(data)))  # and so asyncio tells of no exception of it

    async def _answer(self, data: bytes) -> None:
        raise AttributeError("no attribute 'wirte'")


class AnswersNothing(BaseConnector):
    """Its only way to answer raises, in a task that it keeps."""

    name = "mute"
    connector_api = 2

    async def _start(self, sockets: list[socket.socket]) -> None:
        self._kept: list[object] = []
        self.serve_protocols(sockets, lambda: _Mute(self._kept))

    async def _stop(self) -> None:
        self._kept.clear()


class IsNoConnector:
    pass
