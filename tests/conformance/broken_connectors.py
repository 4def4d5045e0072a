"""Connectors that break a rule of handshakes, starting, stopping or mounting."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import asyncio
import contextlib
import socket
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from tests.conformance.breaking import BrokenConnector, breaks
from wsbridge.http import Response
from wsbridge.protocols import Deviation


@breaks("HS-2")
class TellsLessOfTheRequest(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        request.path = unquote(request.path).lower()
        request.raw_path = request.path
        request.remote_address = ("127.0.0.2", 1)
        request.query_string = request.query_string.upper()
        request.scheme = "http"
        for name in set(request.headers.keys()):
            if name.lower() not in ("host", "upgrade", "connection") and not name.lower().startswith("sec-websocket"):
                request.headers[name] = request.headers[name].strip().title()
        request.subprotocols = tuple(sorted(request.subprotocols))
        return await super().handle_by(request, source, run)


@breaks("HS-2")
class BelievesAnyProxy(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        request.scheme, request.remote_address = "wss", ("192.0.2.1", 0)
        return await super().handle_by(request, source, run)


@breaks("HS-3")
class ThePeersOrderDecides(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        if getattr(outcome, "_options", None) is not None and outcome._options.subprotocols:
            offered = request.subprotocols
            outcome.subprotocol = offered[0] if offered else None
        return outcome


@breaks("HS-4")
class TakesAnyHandshake(BrokenConnector):
    """Answers everything with 400, whatever is wrong, and interceptors never see it."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        return Response("no", 400) if isinstance(outcome, Response) else outcome


@breaks("HS-5")
class AnUnknownPathIsForbidden(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        return Response("no", 403) if isinstance(outcome, Response) and outcome.status_code == 404 else outcome


@breaks("HS-6")
class LetsAnyOriginIn(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        request.headers.remove("Origin")
        return await super().handle_by(request, source, run)


@breaks("HS-6")
class LetsNoOriginIn(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        if "Origin" in request.headers:
            request.headers["Origin"] = "null"
        return await super().handle_by(request, source, run)


@breaks("HS-7")
class AnswersInItsOwnWords(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        return Response("refused", outcome.status_code) if isinstance(outcome, Response) else outcome


@breaks("HS-8")
class DropsAddedHeaders(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        source.response_headers.clear()
        return outcome


@breaks("HS-9")
class TellsWhatFailed(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        failure: list[Exception] = []

        async def watched(context: Any) -> Any:
            try:
                return await run(context)
            except Exception as exc:
                failure.append(exc)
                raise

        outcome = await super().handle_by(request, source, watched)
        return Response(repr(failure[0]), 500) if failure else outcome


@breaks("HS-10")
class WaitsForEverForARequest(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        options["handshake_timeout"] = 3600
        super().__init__(app, **options)


@breaks("HS-11")
class LosesWhatComesBehindTheRequest(BrokenConnector):
    """Sends its 101 late, and takes what came until then for nothing."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        feed = getattr(type(outcome), "feed", None)
        if feed is not None:
            outcome._text = outcome._binary = None
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, setattr, outcome, "_text", outcome._options.on_text)
            loop.call_later(0.05, setattr, outcome, "_binary", outcome._options.on_binary)
        return outcome


@breaks("HS-12")
class TakesAnyNumber(BrokenConnector):
    @property
    def has_room(self) -> bool:
        return True


@breaks("CTX-3")
class OpensBeforeTheLeaveStages(BrokenConnector):
    """Takes the channel as it is after the enter stages, whatever comes then."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        async def undone(context: Any) -> Any:
            try:
                context = await run(context)
            except Exception:
                if source.channel is None:
                    raise
            if source.channel is not None:
                context["websocket_channel"] = source.channel
                context["response"] = None
            return context

        return await super().handle_by(request, source, undone)


@breaks("CLOSE-8")
class DeclaresWhatDoesNotHappen(BrokenConnector):
    deviations = MappingProxyType({"RECV-1/no-such-scenario": Deviation("lost", "")})


@breaks("STOP-1")
class TellsNoAddress(BrokenConnector):
    @property
    def addresses(self) -> Any:
        return tuple((address[0], 1) if isinstance(address, tuple) else address for address in super().addresses)


@breaks("CLOSE-9")
class SpellsKeywordsAsItsServerDoes(BrokenConnector):
    close_keywords = {1000: "NORMAL_CLOSURE", 1001: "going_away", 1002: ""}  # noqa: RUF012


class _EveryCode(dict[int, str]):
    def get(self, code: int, default: Any = None) -> Any:
        return f"code-{code}"


@breaks("CLOSE-9")
class HasAKeywordForEveryCode(BrokenConnector):
    close_keywords = _EveryCode()


@breaks("HS-11")
class ForgetsAChannelThatHasEnded(BrokenConnector):
    """Looks once more whether the peer is still there, when the chain has run."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        await asyncio.sleep(0.02)
        transport = getattr(getattr(outcome, "native", None), "transport", None)
        if transport is not None:
            transport.abort()
        return outcome


@breaks("STOP-1")
class RemembersItsAddress(BrokenConnector):
    @property
    def addresses(self) -> Any:
        return super().addresses or (("127.0.0.1", 8000),)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.addresses[0][1]}"


@breaks("STOP-1")
class StartsTwice(BrokenConnector):
    async def start(self) -> None:
        if not self._running:
            await super().start()


@breaks("STOP-1")
class LeavesASocketWhenItCannotStart(BrokenConnector):
    left: list[socket.socket] = []  # noqa: RUF012

    async def start(self) -> None:
        try:
            await super().start()
        except OSError:
            self.left.append(socket.socket())
            raise RuntimeError("no") from None


@breaks("STOP-2")
class StopsAtOnce(BrokenConnector):
    async def stop_channels(self, caller: Any = None) -> None:
        for channel in self.channels:
            channel.cut_off()
            channel.cancel()
        await super().stop_channels(caller)


@breaks("STOP-2")
class GivesUpNobody(BrokenConnector):
    """Waits far beyond its time."""

    async def _until_empty(self, caller: Any, timeout: float) -> None:
        await super()._until_empty(caller, timeout * 4 + 3)


@breaks("STOP-3")
class LeavesASocket(BrokenConnector):
    async def stop(self) -> None:
        await super().stop()
        self.__dict__.setdefault("left", []).append(socket.socket())


@breaks("STOP-3")
class StartsOnce(BrokenConnector):
    async def start(self) -> None:
        if self.__dict__.setdefault("begun", False):
            raise RuntimeError("it can be started only once")
        self.__dict__["begun"] = True
        await super().start()


@breaks("STOP-4")
class IgnoresTls(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        options.pop("ssl", None)
        options.pop("reuse_port", None)
        options.pop("unix_path", None)
        super().__init__(app, **options)


@breaks("STOP-4")
class SharesEveryPort(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        options["reuse_port"] = not options.get("reuse_port", False)
        super().__init__(app, **options)


@breaks("STOP-5")
class ServesOnWhileItStops(BrokenConnector):
    """Lets handshakes that are under way finish in their own time."""

    async def stop_channels(self, caller: Any = None) -> None:
        under_way = set(self._handshakes)
        self._handshakes.clear()
        if under_way:
            await asyncio.wait(under_way)
        await super().stop_channels(caller)


@breaks("STOP-6")
class KnowsNoLifespan(BrokenConnector):
    """Enters it in `start` and leaves it in `stop`, whoever calls them and whatever it raises."""

    async def start(self) -> None:
        lifespan = self.app.lifespan
        self.app.lifespan = None
        try:
            await super().start()
        finally:
            self.app.lifespan = lifespan
        if lifespan is not None:
            self.entered = lifespan(self.app)
            with contextlib.suppress(Exception):
                await self.entered.__aenter__()

    async def stop(self) -> None:
        if getattr(self, "entered", None) is not None:
            with contextlib.suppress(Exception):
                await self.entered.__aexit__(None, None, None)
        await super().stop()


@breaks("MOUNT-1")
class MountsBadly(BrokenConnector):
    """Its mount answers nothing that is right, and does not stop."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        return Response("no", 418)

    async def stop_mount(self) -> None:
        await asyncio.sleep(3600)


@breaks("MOUNT-1")
class NeverStopsItsMount(BrokenConnector):
    async def stop_mount(self) -> None:
        pass


@breaks("MOUNT-2")
class TicksWithoutChannels(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        self.linger(self.loop.time() + 600, lambda: None)
        return outcome


@breaks("THR-1")
class StopsFromAnyLoop(BrokenConnector):
    def check_loop(self) -> None:
        pass


@breaks("RECV-10")
class TakesFragmentsItDoesNotHave(BrokenConnector):
    """Says that it has a feature which it lacks."""

    features = frozenset({"size-limit", "ping", "compression", "unix-socket", "mount", "fragments"})


@breaks("RECV-4")
class AnswersNothing(BrokenConnector):
    """Refuses every request, and forgets that it does."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        return Response("no", 500)

    mount_harness = f"{__name__}:no_mount"


@contextlib.asynccontextmanager
async def no_mount(*arguments: Any, **options: Any) -> Any:
    """Serve nothing, as `AnswersNothing` has it."""
    raise RuntimeError("there is no mount")
    yield
