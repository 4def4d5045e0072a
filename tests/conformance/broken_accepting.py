"""Connectors that break a rule about listening, accepting, and peers that do no more than connect."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any

from tests.conformance.breaking import BrokenChannel, BrokenConnector, breaks
from wsbridge.connector import BaseChannel
from wsbridge.connector.accepting import Acceptor
from wsbridge.connector.sockets import BACKLOG, listen
from wsbridge.interceptor import Context, _execute

logger = logging.getLogger("wsbridge")


@breaks("STOP-1")
class ListensBeforeItsLifespan(BrokenConnector):
    async def _bind(self) -> None:
        await super()._bind()
        if self.unix_path is None:
            listen(self._sockets)


@breaks("STOP-1")
class BindsBehindItsLifespan(BrokenConnector):
    async def _bind(self) -> None:
        pass

    async def _listen(self) -> None:
        await super()._bind()
        await super()._listen()


@breaks("STOP-1")
class LetsFewWait(BrokenConnector):
    async def _listen(self) -> None:
        await super()._listen()
        for sock in self._sockets:
            sock.listen(16)


@breaks("HS-10")
class WaitsForTls(BrokenConnector):
    """Gives TLS all the time of the world."""

    def accept(self, acceptor: Any) -> None:
        if "ssl" in acceptor._options:
            acceptor._options["ssl_handshake_timeout"] = 60
        super().accept(acceptor)


@breaks("STOP-3")
class ForgetsTlsAtTheStop(BrokenConnector):
    def accept(self, acceptor: Any) -> None:
        async def abort() -> None:
            acceptor._connecting.clear()
            await type(acceptor).abort(acceptor)

        acceptor.abort = abort
        super().accept(acceptor)


@breaks("CLOSE-5")
class FailsLater(BrokenChannel):
    """Cuts what has ended, and fails."""

    __slots__ = ()

    def _release(self: Any) -> None:
        def cut() -> None:
            raise AttributeError("it has ended")

        if self._secure:
            self._connector.linger(self._connector.clock.time() + self._options.close_timeout, cut)
        BaseChannel._release(self)


@breaks("STOP-7")
class IgnoresTheMode(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        options.pop("unix_mode", None)
        super().__init__(app, **options)


@breaks("STOP-7")
class RemovesTheFileLate(BrokenConnector):
    """Removes whatever is there, when all has ended."""

    def _forget_sockets(self) -> None:
        super()._forget_sockets()
        if self.unix_path is not None and os.path.exists(self.unix_path):
            os.unlink(self.unix_path)


@breaks("STOP-7")
class TakesEveryPath(BrokenConnector):
    """Takes a path without a look whether somebody listens there."""

    async def _bind(self) -> None:
        if self.unix_path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.unix_path)
        await super()._bind()

    async def _listen(self) -> None:
        if self._unix_socket is None:
            await super()._listen()
            return
        self._unix_socket.sock.listen(BACKLOG)
        self._addresses = (self._unix_socket.path,)


@breaks("STOP-8")
class SpinsWithoutDescriptors(BrokenConnector):
    """Logs each try, and tries at once again, when it has ended too."""

    def accept(self, acceptor: Any) -> None:
        loop = self.loop

        def log() -> None:
            logger.error("no descriptor")

        def complain(error: OSError) -> None:
            log()
            loop.call_later(1, log)

        def pause() -> None:
            """Go on."""

        acceptor._complain, acceptor._pause = complain, pause
        super().accept(acceptor)


@breaks("STOP-9")
class ResetsWhoWaits(BrokenConnector):
    """Closes the sockets as they are, and cuts who has not asked yet."""

    def accept(self, acceptor: Acceptor) -> None:
        async def answer_last(until: float) -> None:
            pass

        vars(acceptor)["answer_last"] = answer_last
        super().accept(acceptor)

    async def _stop_listening(self) -> None:
        acceptor: Any = self._acceptor

        def nobody(sock: socket.socket) -> bool:
            return False

        acceptor._accept = nobody
        acceptor.stop()
        await acceptor.abort()


@breaks("HS-13", base="aiohttp")
class WaitsForReaders(BrokenConnector):
    def answering(self, connection: Any) -> None:
        pass


@breaks("HS-13", base="aiohttp")
class CutsChannelsToo(BrokenConnector):
    """Holds a channel to the deadline of an answer that came before it."""

    def upgraded(self, connection: Any) -> None:
        pass


@breaks("CTX-6")
class ForgetsWhoEntered(BrokenConnector):
    """Runs no error stage for a handshake that is cancelled, nor lets a stage fail by a CancelledError."""

    async def _application_chain(self, context: Context) -> Context:
        return await _execute(context, self.app.interceptors, self.app.route, [])
