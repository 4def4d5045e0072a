"""MOUNT: inside an application of the server's own framework.

A connector makes its mount known to the suite by a `wsbridge.conformance.mounts.Harness`, which its ``mount_harness``
names; one without it lacks the feature ``"mount"``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from wsbridge._channel.clock import Clock
from wsbridge.application import Application
from wsbridge.conformance.checks import (
    context,
    early_bytes,
    hs,
    hs_answers,
    hs_places,
    hs_refused,
    opening,
    opening_channel,
    recv,
    stages,
)
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.client import Closed, HttpResponse, Ping
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served, open_descriptors
from wsbridge.conformance.harness.mounted import MOUNTED_AT, mounted
from wsbridge.connector import Mount
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

__all__: list[str] = []

_PLAIN: dict[str, str | None] = {
    "Upgrade": None,
    "Connection": None,
    "Sec-WebSocket-Key": None,
    "Sec-WebSocket-Version": None,
}


async def _plain(served: Served, path: str, **request: Any) -> HttpResponse:
    return await ask(served, target=path, replace=_PLAIN, **request)


# ---- MOUNT-1: the mount ---------------------------------------------------------------------------------------------


@check("MOUNT-1", needs=["mount"])
async def beside_what_is_there(bench: Bench) -> None:
    """What the application serves itself goes on beside the mount, and no request for it reaches the mount."""
    async with mounted(bench) as (served, _), served.peer(MOUNTED_AT) as peer:
        await bench.recorder.wait("open")
        for _ in range(2):
            answer = await _plain(served, "/plain")
            equal((answer.status, answer.body), (200, b"plain"), "the framework's own answer")
            equal((await _plain(served, "/other")).status, 404, "the status of a path that nobody serves")
            for path in ("/other", "/plain", f"{MOUNTED_AT}-not", f"{MOUNTED_AT}/more", "/"):
                answer = await ask(served, target=path)
                true(answer.status != 101, f"a handshake for {path} opened a channel")
        await peer.send_text("on")
        await bench.recorder.wait("text")
    equal(bench.recorder.kinds().count("open"), 1, "how often on_open ran")


@check("MOUNT-1", needs=["mount"])
async def options_at_a_path(bench: Bench) -> None:
    """Options are served at the path, with the whole of the request, in both directions, to its close."""

    async def answer(channel: WebSocketChannel, process: object, text: str) -> None:
        await channel.send_text(f"answer to {text}")

    options = bench.options(on_text=answer, subprotocols=["b", "a"], on_open=lambda channel, request: "process")
    async with mounted(bench, options) as (served, _):
        async with served.peer(f"{MOUNTED_AT}?a=1", subprotocols=["a", "b"], headers=[("X-Some", "thing")]) as peer:
            equal(peer.subprotocol, "b", "the subprotocol")
            await peer.send_text("hello")
            equal(await peer.receive_text(), "answer to hello", "the answer")
            await peer.send_close(4001, "bye")
            equal((await peer.receive_close()).code, 4001, "the code of the answered close")
            local = peer.local_address
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (4001, "bye", "peer"), "the reason")
        request: Request = bench.recorder.values("open")[0]
        equal((request.raw_path, request.query_string), (MOUNTED_AT, b"a=1"), "raw path and query")
        equal((request.method, request.headers["X-Some"]), ("GET", "thing"), "method and header")
        equal(len(request.path_params), 0, "how many path parameters there are")
        equal((request.remote_address, request.host), (local, served.host), "remote address and host")
        equal(bench.recorder.all("close")[0].process, "process", "the process object")


@check("MOUNT-1", needs=["mount"])
async def an_application_below_a_path(bench: Bench) -> None:
    """A whole application is served below the path, which its routes do not name; the rest is the framework's."""
    seen: list[str] = []

    def enter(ctx: Context) -> None:
        request = ctx["request"]
        seen.append(request.path)
        if request.path == "/health":
            ctx["response"] = Response(f"{request.method} {request.root_path}", 200)

    routes = [(path, bench.options()) for path in ("/", "/echo", "/rooms/{name}/{rest:path}")]
    async with mounted(bench, Application(routes, [Interceptor(name="see", enter=enter)])) as (served, _):
        for method in ("GET", "POST"):
            answer = await _plain(served, f"{MOUNTED_AT}/health", method=method)
            expected = (200, f"{method} {MOUNTED_AT}".encode())
            equal((answer.status, answer.body), expected, f"the interceptor's answer to a plain {method}")
        equal((await ask(served, target=f"{MOUNTED_AT}/nowhere")).status, 404, "the status of a path without a route")
        for path in ("/plain", f"{MOUNTED_AT}echo", "/echo", "/"):
            await ask(served, target=path)
        equal(seen, ["/health", "/health", "/nowhere"], "the paths that reached the application")
        targets: dict[str, tuple[str, dict[str, str]]] = {
            "/": ("/", {}),
            "/echo?x=y": ("/echo", {}),
            "/rooms/caf%C3%A9/a%2Fb/c": ("/rooms/caf\u00e9/a/b/c", {"name": "caf\u00e9", "rest": "a/b/c"}),
        }
        for count, (target, (path, parameters)) in enumerate(targets.items(), 1):
            async with served.peer(MOUNTED_AT + target) as peer:
                request = (await bench.recorder.wait("open", count)).value
                equal((request.path, request.path_params), (path, parameters), "path and parameters")
                raw = MOUNTED_AT + target.partition("?")[0]
                equal((request.root_path, request.raw_path), (MOUNTED_AT, raw), "root path and raw path")
                await peer.send_text("on")
                await bench.recorder.wait("text", count)
    equal(bench.recorder.kinds().count("open"), len(targets), "how often on_open ran")


@check("MOUNT-1", needs=["mount"])
async def its_handshakes_are_refused_alike(bench: Bench) -> None:
    """Options in a mount refuse handshakes as ever, with the statuses of HS-4, whatever the framework would do."""
    requests: list[tuple[int, dict[str, Any]]] = [
        (405, {"method": "POST"}),
        (405, {"method": "DELETE"}),
        (426, {"replace": {"Upgrade": None, "Connection": None}}),
        (426, {"replace": {"Upgrade": "h2c"}}),
        (426, {"replace": {"Sec-WebSocket-Version": "8"}}),
        (400, {"replace": {"Sec-WebSocket-Key": "bad"}}),
        (400, {"replace": {"Sec-WebSocket-Key": None}}),
        (403, {"headers": [("Origin", "http://evil.example")]}),
        (403, {"headers": [("Origin", "null")]}),
    ]
    async with mounted(bench, bench.options(origins=["https://good.example"])) as (served, _):
        for status, request in requests:
            equal((await ask(served, target=MOUNTED_AT, **request)).status, status, f"the status for {request}")
        equal(bench.recorder.kinds(), [], "the callbacks")
        async with served.peer(MOUNTED_AT, headers=[("Origin", "https://good.example")]) as peer:
            await peer.send_text("well")
            await bench.recorder.wait("text")


@check("MOUNT-1", needs=["mount"])
async def what_the_framework_refuses(bench: Bench) -> None:
    """A handshake that the framework refuses, with much sent after it, leaves nothing behind once its peer has left."""
    async with mounted(bench) as (served, _):
        await _plain(served, "/plain")
        descriptors = open_descriptors()
        for path in ("/other", f"{MOUNTED_AT}/more"):
            async with served.raw() as peer:
                # more requests, since a framework may well complain of frames where it expects HTTP
                await peer.request(handshake(served, path, headers=[("X-Long", "x" * 4000)]).encode() * 60)
                true((await peer.read_response()).status >= 400, f"a handshake for {path} opened a channel")
            await bench.settle(lambda: open_descriptors() <= descriptors, f"the end of the connection for {path}")
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("MOUNT-1", needs=["mount"])
async def mount_stop(bench: Bench) -> None:
    """`await mount.stop()` closes its channels with 1001 and lets none in any more; the application serves on."""
    async with mounted(bench) as (served, mount), served.peer(MOUNTED_AT) as first, served.peer(MOUNTED_AT) as second:
        await bench.recorder.wait("open", 2)
        stops = [asyncio.ensure_future(mount.stop()) for _ in range(2)]
        for peer in (first, second):
            close = await peer.receive_close()
            equal((close.code, close.text), (1001, "server shutdown"), "code and text of the close")
        for stop in stops:
            await bench.within(stop, "mount.stop()")
        reasons = [(event.value.code, event.value.initiator) for event in bench.recorder.all("close")]
        equal(reasons, [(1001, "local")] * 2, "the reasons, when stop() has returned")
        answer = await ask(served, target=MOUNTED_AT)
        equal(answer.status, 503, "the status of a handshake after stop()")
        equal((await _plain(served, "/plain")).body, b"plain", "the framework's own answer after stop()")
        await bench.within(mount.stop(), "a second mount.stop()")
    equal(bench.recorder.kinds(), ["open", "open", "close", "close"], "the callbacks")


@check("MOUNT-1", needs=["mount"])
async def the_frameworks_shutdown(bench: Bench) -> None:
    """The application's shutdown, done as its users are told to, ends the channels with 1001 and on_close."""
    closes: list[Any] = []

    async def read(peer: Any) -> None:
        closes.append(await peer.receive_close())

    async with contextlib.AsyncExitStack() as peers:
        async with mounted(bench) as (served, _):
            reading = [
                asyncio.ensure_future(read(await peers.enter_async_context(served.peer(MOUNTED_AT)))) for _ in range(2)
            ]
            await bench.recorder.wait("open", 2)
        reasons = [(event.value.code, event.value.initiator) for event in bench.recorder.all("close")]
        equal(reasons, [(1001, "local")] * 2, "the reasons, when the application has been shut down")
        await bench.within(asyncio.gather(*reading), "the close frames")
    equal([(close.code, close.text) for close in closes], [(1001, "server shutdown")] * 2, "the close frames")


@check("MOUNT-1", needs=["mount"])
async def stop_is_bounded(bench: Bench) -> None:
    """mount.stop() cuts off a peer that does not answer, and cancels a callback that does not end (STOP-2)."""

    async def hang(channel: WebSocketChannel, process: object, text: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bench.recorder.log("cancelled")
            raise

    options = bench.options(on_text=hang)
    limit = 0.4 * bench.scale
    async with mounted(bench, options, shutdown_timeout=limit) as (served, mount), served.peer(MOUNTED_AT) as peer:
        peer.auto_close = False
        await peer.send_text("hang")
        await bench.recorder.wait("text")
        await bench.within(mount.stop(), "mount.stop()", timeout=limit + 0.25 + bench.scale)
        equal(bench.recorder.kinds(), ["open", "text", "cancelled", "close"], "the callbacks, when it has returned")
        equal((await peer.receive_close()).code, 1001, "the code of the close")
        await peer.wait_eof()


@check("MOUNT-1", needs=["mount"])
async def stop_from_a_callback(bench: Bench) -> None:
    """mount.stop() awaited from a callback of one of its channels does not deadlock (STOP-3)."""
    mounts: list[Mount] = []

    async def stops(channel: WebSocketChannel, process: object, text: str) -> None:
        await bench.within(mounts[0].stop(), "mount.stop() in a callback")
        bench.recorder.log("stopped")

    limit = 0.5 * bench.scale
    async with mounted(bench, bench.options(on_text=stops), shutdown_timeout=limit) as (served, mount):
        mounts.append(mount)
        async with served.peer(MOUNTED_AT) as first, served.peer(MOUNTED_AT) as second:
            await bench.recorder.wait("open", 2)
            await first.send_text("stop")
            equal((await second.receive_close()).code, 1001, "the code of the other channel's close")
            await bench.recorder.wait("stopped")
            await bench.recorder.closed(2)


@check("MOUNT-1", needs=["mount"])
async def a_handshake_under_way_at_its_stop(bench: Bench) -> None:
    """A handshake that is under way at mount.stop() is refused or closed; it does not hang (STOP-5)."""
    released = asyncio.Event()

    async def wait(ctx: Context) -> None:
        bench.recorder.log("deciding")
        await released.wait()

    chain = (Interceptor(name="wait", enter=wait), websocket_interceptor("/", bench.options()))
    async with mounted(bench, Application([("/", chain)])) as (served, mount), served.raw() as peer:
        await peer.request(handshake(served, f"{MOUNTED_AT}/").encode())
        await bench.recorder.wait("deciding")
        stopping = asyncio.ensure_future(mount.stop())
        try:
            with contextlib.suppress(Closed):
                answer = await peer.read_response()
                equal(answer.status, 503, "the status of the handshake under way")
        finally:
            released.set()
            await bench.within(stopping, "mount.stop()")
    equal(bench.recorder.kinds(), ["deciding"], "the callbacks")


# ---- MOUNT-1: the other rules there ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _MountedBench(Bench):
    """A bench whose servers are applications of the framework with the handler mounted."""

    @contextlib.asynccontextmanager
    async def serve(
        self, handler: WebSocketOptions[Any] | Application | None = None, **options: Any
    ) -> AsyncGenerator[Served, None]:
        handler = self.options() if handler is None else handler
        app = handler if isinstance(handler, Application) else Application([("/", handler)])
        async with mounted(self, app, **options) as (served, _):
            served.path = MOUNTED_AT
            yield served


def _check_mounted(rule: str, function: Callable[[Bench], Awaitable[None]]) -> None:
    """Register a check of another rule once more, for a mount."""

    async def run(bench: Bench) -> None:
        inside = _MountedBench(bench.target, bench.scale)
        for field in fields(bench):
            setattr(inside, field.name, getattr(bench, field.name))
        await function(inside)

    run.__name__ = f"{rule.lower().replace('-', '_')}_{function.__name__}"
    run.__doc__ = f"In a mount as elsewhere: {function.__doc__}"
    check("MOUNT-1", needs=["mount"])(run)


_ALSO_MOUNTED: Sequence[tuple[str, Sequence[Callable[[Bench], Awaitable[None]]]]] = (
    ("HS-1", (hs.accept_key, hs.connection_as_a_list, hs.upgrade_as_a_list, hs.nothing_unasked_in_the_101)),
    ("HS-2", (hs.the_path_is_decoded, hs.the_query, hs.path_parameters, hs.headers, hs.cookies, hs.remote_address)),
    ("HS-2", (hs.forwarded_headers_are_not_believed, hs.offered_subprotocols, hs.method_scheme_and_host)),
    ("HS-3", (hs.the_options_order_decides, hs.offers_over_several_lines, hs.the_channel_tells)),
    ("HS-4", (hs_refused.another_method, hs_refused.no_upgrade, hs_refused.another_version, hs_refused.a_bad_key)),
    ("HS-4", (hs_refused.http_1_0, hs_refused.interceptors_come_first)),
    ("HS-4", (hs_refused.then_routing_then_the_routes_interceptors,)),
    ("HS-5", (hs_refused.an_unknown_path, hs_refused.almost_a_route)),
    ("HS-6", (hs_refused.ones_own_host_and_port, hs_refused.listed_origins, hs_refused.null_or_unparsable)),
    ("HS-7", (hs_answers.a_refusal_seen_from_outside, hs_answers.a_response_as_it_was_set)),
    ("HS-8", (hs_answers.headers_of_every_stage,)),
    ("HS-9", (hs_answers.an_exception_is_500,)),
    ("HS-11", (hs_answers.messages_behind_the_request, hs_answers.they_are_delivered_after_on_open)),
    ("HS-11", (hs_answers.many_bytes_behind_the_request, hs_answers.violations_behind_the_request)),
    ("HS-11", (early_bytes.whatever_stands_behind_the_request,)),
    ("HS-11", (early_bytes.whatever_stands_behind_the_request_of_a_slow_chain,)),
    ("HS-12", (hs_places.however_a_handshake_ends, hs_places.however_a_channel_ends)),
    ("OPEN-1", (opening.its_result_goes_to_all,)),
    ("OPEN-3", (opening.messages_wait_for_on_open,)),
    ("OPEN-5", (opening.a_close_in_on_open,)),
    ("OPEN-6", (opening.it_raises,)),
    ("OPEN-9", (opening_channel.the_end_is_noticed,)),
    ("CTX-3", (context.the_101_follows_the_leave_stages, context.a_leave_stage_that_raises)),
    ("CTX-7", (stages.each_leaves_once, stages.each_leaves_once_when_a_peer_leaves)),
    ("RECV-1", (recv.texts_arrive_exactly,)),
    ("RECV-4", (recv.messages_before_a_loss_are_delivered,)),
)
for _rule, _functions in _ALSO_MOUNTED:
    for _function in _functions:
        _check_mounted(_rule, _function)


# ---- MOUNT-2 --------------------------------------------------------------------------------------------------------


def _clocks() -> list[str]:
    """Return the timers of this library's clocks that an event loop holds, from the garbage collector."""
    now = asyncio.get_running_loop().time()
    found: list[str] = []
    for thing in gc.get_objects():
        if type(thing).__name__ == "TimerHandle" and not thing.cancelled() and thing.when() > now:
            shown = repr(thing)
            if f"{Clock.__name__}." in shown:
                found.append(shown)
    return found


@check("MOUNT-2", needs=["mount", "ping"])
async def only_while_there_are_channels(bench: Bench) -> None:
    """A mount without channels has no timer and no task; with the first the clock starts, with the last it ends."""
    options = bench.options(ping_interval=0.05, ping_timeout=5)
    async with mounted(bench, options) as (served, _):
        await _plain(served, "/plain")  # so that what the framework makes for its first request is there
        tasks = asyncio.all_tasks()
        equal(_clocks(), [], "the timers before the first channel")
        for count in (1, 2):  # the clock starts again with a later one
            async with served.peer(MOUNTED_AT) as first, served.peer(MOUNTED_AT) as second:
                await bench.recorder.wait("open", 2 * count)
                for peer in (first, second):
                    true(isinstance(await peer.receive(), Ping), "no ping came: the clock does not run")
                equal(len(_clocks()), 1, "how many timers two channels have")
                await first.send_close(1000)
                await first.receive_close()
                await bench.recorder.closed(2 * count - 1)
                true(isinstance(await second.receive(), Ping), "the clock ended before the last channel")
            await bench.recorder.closed(2 * count)
            await bench.settle(lambda: not _clocks(), "the end of the clock after the last channel")
            await bench.settle(lambda: asyncio.all_tasks() <= tasks, "the end of every task after the last channel")


@check("MOUNT-2", needs=["mount"])
async def a_refusal_starts_no_clock(bench: Bench) -> None:
    """Handshakes that are refused, and requests for the rest of the application, start no clock."""
    async with mounted(bench) as (served, _):
        requests: list[dict[str, Any]] = [{"replace": {"Sec-WebSocket-Key": "bad"}}, {"method": "POST"}]
        for request in requests:
            true((await ask(served, target=MOUNTED_AT, **request)).status >= 400, "a bad handshake was let in")
        await _plain(served, "/plain")
        equal(_clocks(), [], "the timers")
