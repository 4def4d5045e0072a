"""What one sequence is played on: a server of its own, the application that it serves, and the peers' channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import count
from typing import Any, Literal, cast

from wsbridge.application import Application
from wsbridge.conformance.client import Closed, HandshakeRefused, HandshakeRequest, HttpResponse, Opcode, build_frame
from wsbridge.conformance.contract import CheckFailed, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.model.declared import Declared
from wsbridge.conformance.harness.model.drawn import Opening, Setup
from wsbridge.conformance.harness.model.judgement import agreement_is_right, judge
from wsbridge.conformance.harness.model.line import Boom, Line
from wsbridge.conformance.harness.mounted import MOUNTED_AT, mounted
from wsbridge.conformance.harness.recorder import Event
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.errors import ChannelClosedError, UnsupportedOptionError
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import Compression
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream, stream_handler

__all__ = ["KNOCKS", "Knock", "Play"]

Knock = Literal[
    "one more channel",
    "a path that no route matches",
    "no key",
    "an exception in an enter stage",
    "an exception in a leave stage",
    "an exception that an error stage takes",
    "a peer that leaves before its answer",
]
KNOCKS: tuple[Knock, ...] = (
    "one more channel",
    "one more channel",
    "an exception in a leave stage",
    "an exception that an error stage takes",
    "an exception in an enter stage",
    "a peer that leaves before its answer",
    "a path that no route matches",
    "no key",
)
_TAKEN = 418  # the status of what an error stage answers
_IDLE = 0.15  # seconds, stretched
_PINGS = 0.03  # seconds, stretched
_CLOSE_TIMEOUT = 4.0  # seconds, stretched: longer than a sequence takes
_NARROW = 4096  # bytes of a small receive buffer
_A_MOMENT = 0.02  # seconds for the server to see that a peer has left
_FAILS: dict[str, str] = {
    "an exception in an enter stage": "enter",
    "an exception in a leave stage": "leave",
    "an exception that an error stage takes": "taken",
    "a peer that leaves before its answer": "waits",
}
_STAGES: dict[str, list[list[str]]] = {
    "enter": [["outer enter", "inner enter", "inner error", "outer error"]],
    "leave": [["outer enter", "inner enter", "inner leave", "outer error"]],
    "taken": [["outer enter", "inner enter", "inner error", "outer error"]],
    "waits": [
        ["outer enter", "inner enter", "inner leave", "outer leave"],
        ["outer enter", "inner enter", "inner error", "outer error"],
    ],
    "": [["outer enter", "inner enter", "inner leave", "outer leave"]],
}


def fitted(setup: Setup, target: SuiteTarget) -> Setup:
    """Return ``setup`` but for what the connector cannot do."""
    features = target.features
    is_mounted = setup.mounted and "mount" in features
    return Setup(
        compression=setup.compression if "compression" in features else False,
        limits=setup.limits if "size-limit" in features else (None, None),
        max_channels=None if is_mounted else setup.max_channels,  # MOUNT-1
        receive_buffer=setup.receive_buffer,
        pings=setup.pings and "ping" in features,
        idle=setup.idle,
        mounted=is_mounted,
    )


class Play:
    """The server of one sequence, and all that goes on at it.

    Attributes:
        target: What is checked.
        bench: Of this sequence alone.
        setup: How the server is set up.
        declared: What its connector declares to do differently.
        idle_timeout: In seconds, where the setup has one.
        lines: Every channel that was opened or tried, by its key.
        faults: What was found wrong where nothing can be raised, such as in a callback.
        expected_errors: How many errors the application has made, each of which is logged once.
    """

    def __init__(self, bench: Bench, setup: Setup) -> None:
        self.bench = bench
        self.target = bench.target
        self.setup = fitted(setup, bench.target)
        self.declared = Declared(bench.target)
        self.idle_timeout = _IDLE * bench.scale
        self.lines: dict[int, Line] = {}
        self.faults: list[str] = []
        self.expected_errors = 0
        self.served: Served
        self._stack = contextlib.AsyncExitStack()
        self._keys = count(1)
        self._stages: dict[str, list[str]] = {}
        self._waiting: dict[str, asyncio.Event] = {}  # of handshakes that wait in an enter stage
        self._released = asyncio.Event()

    def fault(self, message: str) -> None:
        """Note what is wrong; the step that runs fails with it."""
        self.faults.append(message)

    def check_faults(self) -> None:
        """Fail with the first fault that was noted, if there is one."""
        if self.faults:
            raise CheckFailed(self.faults[0])
        if self.bench.recorder.violations:
            raise CheckFailed(self.bench.recorder.violations[0])

    def told_text(self, text: str) -> str | None:
        """Return the text that the application is told of a peer's close."""
        return "" if self.target.loses_close_text else text

    def events_of(self, line: Line) -> list[Event]:
        """Return what the callbacks of a channel have logged."""
        if line.channel is None:
            return []
        id = line.channel.id
        return [event for event in self.bench.recorder.events if event.channel == id]

    # ---- the server and its application -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the server; a setting of compression that the connector refuses is left at its default."""
        try:
            self.served = await self._stack.enter_async_context(self._serve())
        except UnsupportedOptionError:
            if not isinstance(self.setup.compression, Compression):
                raise
            self.setup = Setup(
                True,
                self.setup.limits,
                self.setup.max_channels,
                self.setup.receive_buffer,
                self.setup.pings,
                self.setup.idle,
                self.setup.mounted,
            )
            self.served = await self._stack.enter_async_context(self._serve())

    @contextlib.asynccontextmanager
    async def _serve(self) -> AsyncGenerator[Served, None]:
        app = self._application()
        if self.setup.mounted:
            async with mounted(self.bench, app) as (served, _):
                served.path = MOUNTED_AT
                yield served
            return
        async with self.bench.serve(app, max_channels=self.setup.max_channels) as served:
            yield served

    def _application(self) -> Application:
        scale = self.bench.scale
        texts, binaries = self.setup.limits
        options: dict[str, Any] = {
            "max_text_size": texts,
            "max_binary_size": binaries,
            "compression": self.setup.compression,
            "close_timeout": _CLOSE_TIMEOUT * scale,
            "ping_interval": _PINGS * scale if self.setup.pings else None,
            "ping_timeout": None,
            "idle_timeout": self.idle_timeout if self.setup.idle else None,
        }

        async def on_open(channel: WebSocketChannel, request: Request) -> Line | None:
            line = self._arrived(channel, request)
            if line is not None:
                await line.gate.wait()
            return line

        async def on_message(channel: WebSocketChannel, process: Any, message: str | bytes) -> None:
            if not isinstance(process, Line):
                self.fault(f"the process object of a channel is {process!r}, which is not what on_open returned")
            elif not await process.take(channel, message):
                self.fault("a callback was told to return, which is for handlers of streams")

        def on_error(channel: WebSocketChannel, process: object, error: Exception) -> None:
            if isinstance(process, Line):
                process.seen.errors += 1
            if not isinstance(error, Boom):
                self.fault(f"on_error got {error!r}, which the application has not raised")

        calls = self.bench.options(
            on_open=on_open, on_text=on_message, on_binary=on_message, on_error=on_error, **options
        )
        streams = stream_handler(
            self._handle,
            on_error=self._on_stream_error,
            receive_buffer=self.setup.receive_buffer,
            **cast(Any, options),
        )
        routes = [("/calls/{rest:path}", calls), ("/stream/{rest:path}", streams)]
        return Application(cast(Any, routes), [self._interceptor("outer"), self._interceptor("inner")])

    def _arrived(self, channel: WebSocketChannel, request: Request) -> Line | None:
        line = self.lines.get(int(request.args.get("line", "0")))
        if line is None:
            self.fault(f"the application got a channel for {request.raw_path}?{request.query_string!r}")
            return None
        line.arrived(channel)
        raw = self.served.path + line.opening.path
        told = (request.path, request.raw_path)
        if told != (line.opening.decoded, raw):
            self.fault(f"the path and the raw path of {raw} are told as {told}")
        return line

    async def _handle(self, stream: MessageStream[str | bytes], request: Request) -> None:
        line = self._arrived(stream.channel, request)
        if line is None:
            return
        line.stream = stream
        log = self.bench.recorder.log
        log("open", stream.id, request, line)
        await line.gate.wait()
        log("open-end", stream.id, None, line)

        async def take(message: str | bytes) -> bool:
            kind = "text" if isinstance(message, str) else "binary"
            log(kind, stream.id, message, line)
            try:
                return await line.take(stream.channel, message)
            finally:
                log(f"{kind}-end", stream.id, None, line)

        try:
            if line.opening.style == "a stream in a loop":
                async for message in stream:
                    if not await take(message):
                        return
            timeout = 0.005 if line.opening.style == "a stream by recv with timeouts" else None
            while True:
                try:
                    message = await stream.recv(timeout)
                except TimeoutError:
                    continue
                if not await take(message):
                    return
        except ChannelClosedError:
            pass
        finally:
            log("close", stream.id, stream.reason, line)
            log("close-end", stream.id, None, line)

    def _on_stream_error(self, channel: WebSocketChannel, stream: object, error: Exception) -> None:
        for line in self.lines.values():
            if line.channel is channel:
                line.seen.errors += 1
        if not isinstance(error, Boom):
            self.fault(f"on_error got {error!r}, which the application has not raised")

    def _interceptor(self, name: str) -> Interceptor:
        """Return an interceptor whose stages note that they ran; the inner one does what the query asks for."""

        def noted(context: Context, stage: str) -> str:
            args = context["request"].args
            self._stages.setdefault(args.get("line", "?"), []).append(f"{name} {stage}")
            return str(args.get("fails", "")) if name == "inner" or stage == "error" else ""

        async def enter(context: Context) -> None:
            fails = noted(context, "enter")
            if fails in ("enter", "taken"):
                raise Boom("raised by an enter stage of the model")
            if fails == "waits":
                self._waiting[context["request"].args["line"]].set()
                await self._released.wait()

        def leave(context: Context) -> None:
            if noted(context, "leave") == "leave":
                raise Boom("raised by a leave stage of the model")

        def error(context: Context, exception: Exception) -> Context:
            if noted(context, "error") == "taken" and name == "outer":
                context["response"] = Response("taken", _TAKEN)
                return context
            raise exception

        return Interceptor(name=name, enter=enter, leave=leave, error=error)

    async def stop(self) -> None:
        """Stop the server, whose channels have all ended."""
        await self._stack.aclose()

    # ---- channels ---------------------------------------------------------------------------------------------------

    def line(self, name: str, opening: Opening) -> Line:
        """Return a channel that is still to be opened."""
        key = next(self._keys)
        made = self.lines[key] = Line(self, key, name, opening)
        return made

    async def open(self, line: Line) -> None:
        """Make the handshake, which must be answered by a 101 since there is room, and start to read."""
        opening, has_wire = line.opening, self.target.has_wire
        early: list[bytes] = []
        for number, size in enumerate(opening.early):
            content = (b"%d." % number)[:size].ljust(size, b"\0")
            line.account("binary", content)
            early.append(build_frame(Opcode.BINARY, content))

        async def connect() -> None:
            self._stages.pop(str(line.key), None)
            line.peer = await line.stack.enter_async_context(
                self.served.peer(
                    f"{opening.path}?line={line.key}",
                    deflate=opening.offer or False,
                    tail=b"".join(early),
                    recv_buffer=_NARROW if opening.narrow and has_wire else None,
                )
            )

        await self._when_there_is_room(connect, f"the handshake of {line.name}")
        line.peer.auto_pong = line.peer.auto_close = False  # which would go between the pieces of a frame
        response = line.peer.response
        assert response is not None
        agreement_is_right(
            self.setup.compression, opening.offer, response.headers_all("Sec-WebSocket-Extensions"), line.name
        )
        line.start_reading()
        await line.until(lambda: line.has_seen("open" if line.is_held else "open-end"), "on_open")
        if line.is_open and not line.is_held:
            equal(self._stages.get(str(line.key)), _STAGES[""][0], f"the stages for the handshake of {line.name}")

    async def _when_there_is_room(self, handshake: Callable[[], Awaitable[None]], what: str) -> None:
        """Make a handshake, again while it gets 503: a place is given back a moment after ``on_close``."""
        refused: list[HttpResponse] = []

        async def shaken() -> bool:
            try:
                await handshake()
            except HandshakeRefused as exc:
                if exc.response.status != 503:
                    raise
                refused.append(exc.response)
                return False
            return True

        deadline = asyncio.get_running_loop().time() + 2 * self.bench.scale + self.bench.lost
        while not await shaken():
            if asyncio.get_running_loop().time() > deadline:
                raise CheckFailed(
                    f"{what} got 503, though only {self.held()} of {self.setup.max_channels} channels are there"
                )
            await asyncio.sleep(0.005)

    def held(self) -> int:
        """Return how many channels are there, as far as the application can tell."""
        return sum(line.channel is not None and not line.has_left for line in self.lines.values())

    @property
    def is_full(self) -> bool:
        """Whether there may be no room for one more channel."""
        return self.setup.max_channels is not None and self.held() >= self.setup.max_channels

    # ---- handshakes beside the channels -----------------------------------------------------------------------------

    async def knock(self, what: Knock) -> None:
        """Make one more handshake, whose answer is held to what it must be; no channel is left of it."""
        if what == "one more channel":
            await self._one_more()
            return
        key, fails = next(self._keys), _FAILS.get(what, "")
        path = "/nowhere" if what == "a path that no route matches" else "/calls/knock"
        target = f"{self.served.path}{path}?line={key}&fails={fails}"
        replace: dict[str, Any] = {"Sec-WebSocket-Key": None} if what == "no key" else {}
        request = HandshakeRequest.build(self.served.address, target=target, replace=replace)
        async with self.served.raw() as peer:
            if fails == "waits":
                waiting = self._waiting[str(key)] = asyncio.Event()
                self._released.clear()
                await peer.request(request.encode())
                await self.bench.within(waiting.wait(), "the enter stages of a handshake")
                peer.drop()
                await asyncio.sleep(_A_MOMENT)
                self._released.set()
            else:
                await peer.request(request.encode())
                status = (await peer.read_response()).status
                allowed = {"enter": [500], "leave": [500], "taken": [_TAKEN], "": [400 if replace else 404]}[fails]
                true(status in allowed, f"the answer to {what}: expected {allowed[0]}, got {status}")
        if fails in ("enter", "leave"):
            self.expected_errors += 1
        if fails:
            stages = self._stages.setdefault(str(key), [])
            ways = _STAGES[fails]
            await self.bench.settle(lambda: len(stages) >= len(ways[0]), f"the stages for {what}, after {stages},")
            await asyncio.sleep(0)  # for one that would run twice
            if stages not in ways:
                raise CheckFailed(f"the stages that ran for {what}: expected {ways[0]}, got {stages}")

    async def _one_more(self) -> None:
        """Open one more channel, which is refused with 503 if there is no room, and closed again if there is."""
        most = self.setup.max_channels
        sure = sum(line.channel is not None and line.is_open for line in self.lines.values())
        if most is not None and self.is_full:
            request = HandshakeRequest.build(self.served.address, target=f"{self.served.path}/calls/a?line=0")
            if sure < most:
                return  # one that ends may or may not have given its place back
            async with self.served.raw() as peer:
                await peer.request(request.encode())
                answer = await peer.read_response()
                equal(answer.status, 503, f"the status of a handshake with {sure} of {most} channels open")
                true(answer.header("Retry-After"), "the 503 has no Retry-After")
            return
        line = self.line("one more", Opening())
        await self.open(line)
        await judge(line)

    async def every_place_is_back(self) -> None:
        """Open as many channels as there may be, when all others have ended, and close them again."""
        if self.setup.max_channels is None:
            return
        lines = [
            self.line(f"channel {number} at the end", Opening()) for number in range(1, self.setup.max_channels + 1)
        ]
        for line in lines:
            await self.open(line)
        for line in lines:
            await judge(line)

    async def release(self) -> None:
        """Let go of everything, when a sequence has failed."""
        self._released.set()
        for line in self.lines.values():
            with contextlib.suppress(Closed, OSError):
                if hasattr(line, "peer"):
                    line.peer.drop()
            await line.release()
