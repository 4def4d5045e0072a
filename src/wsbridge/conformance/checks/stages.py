"""CTX-7: each interceptor that has entered leaves once, by one stage, whichever way a handshake ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.client import Closed, Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.upgrade import websocket_interceptor

__all__ = ["each_leaves_once", "each_leaves_once_when_a_peer_leaves"]

_NAMES = ("first", "second", "third")


class _Stages:
    """Three interceptors that note their stages, and do in them what the request's ``do`` says."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.log: list[tuple[str, str]] = []
        self.released = asyncio.Event()
        upgrade = websocket_interceptor("upgrade", bench.bare_options())
        first, second, third = map(self._interceptor, _NAMES)
        self.app = Application([("/", (second, upgrade, third))], [first])

    def _interceptor(self, name: str) -> Interceptor:
        async def enter(context: Context) -> None:
            await self._do("enter", name, context)

        async def leave(context: Context) -> None:
            await self._do("leave", name, context)

        async def error(context: Context, exception: Exception) -> None:
            await self._do("error", name, context)
            if f"error-{name}-takes" not in context["request"].args.getlist("do"):
                raise exception

        return Interceptor(name=name, enter=enter, leave=leave, error=error)

    async def _do(self, stage: str, name: str, context: Context) -> None:
        self.log.append((name, stage))
        for do in context["request"].args.getlist("do"):
            where, _, what = do.rpartition("-")
            if where != f"{stage}-{name}":
                continue
            if what == "raises":
                raise RuntimeError(f"{where} raises")
            if what == "answers":
                context["response"] = Response(where, 418)
            elif what == "cancelled":
                raise asyncio.CancelledError
            elif what == "header":
                context["websocket_channel_source"].response_headers.add("X-Price", "\u20ac")
            elif what == "waits":
                self.bench.recorder.log("waits")
                await self.released.wait()

    async def all_left(self) -> None:
        """Check that each of those that entered has left once, in reverse, and clear the log."""

        def entered() -> list[str]:
            return [name for name, stage in self.log if stage == "enter"]

        await self.bench.settle(lambda: len(self.log) >= 2 * len(entered()), f"the end of all stages ({self.log})")
        await asyncio.sleep(0.005)  # for a second one, of which nothing would tell
        log, names = list(self.log), entered()
        self.log.clear()
        equal(names, list(_NAMES[: len(names)]), f"those that entered, of {log}")
        equal([name for name, stage in log if stage != "enter"], names[::-1], f"those that left, of {log}")


_ENDS: Mapping[str, dict[str, Any]] = {
    "": {},
    **{f"enter-{name}-{what}": {} for name in _NAMES for what in ("raises", "answers", "cancelled")},
    **{f"leave-{name}-{what}": {} for name in _NAMES for what in ("raises", "answers", "cancelled")},
    "leave-first-header": {},
    "enter-third-raises&do=error-third-takes": {},
    "enter-third-raises&do=error-second-takes": {},
    "enter-third-raises&do=error-first-takes": {},
    "enter-third-raises&do=error-second-raises": {},
    "leave-third-raises&do=error-second-takes": {},
    "leave-third-raises&do=error-second-takes&do=leave-first-raises": {},
    "a key that is bad": {"replace": {"Sec-WebSocket-Key": "bad"}},
    "another origin": {"headers": [("Origin", "http://evil.example")]},
    "another method": {"method": "POST"},
    "no upgrade": {"replace": {"Upgrade": None}},
}
"""What is done in which stage, or what is wrong with the request."""


@check("CTX-7")
async def each_leaves_once(bench: Bench) -> None:
    """Whatever stage raises, answers or takes an exception, each that has entered leaves once, in reverse."""
    stages = _Stages(bench)
    async with bench.serve(stages.app) as served:
        with variants() as variant:
            for do, request in _ENDS.items():
                with variant(do):
                    await ask(served, target=f"/?do={do}" if not request else "/", **request)
                    await stages.all_left()
            with variant("a path without a route"):
                equal((await ask(served, target="/nowhere")).status, 404, "the status")
                await stages.all_left()


@check("CTX-7")
async def each_leaves_once_where_all_is_full(bench: Bench) -> None:
    """So they do where there is no place for the channel (HS-12)."""
    stages = _Stages(bench)
    async with bench.serve(stages.app, max_channels=1) as served, served.peer():
        await stages.all_left()
        equal((await ask(served)).status, 503, "the status")
        await stages.all_left()


async def _close(peer: WirePeer) -> None:
    peer.close()


async def _drop(peer: WirePeer) -> None:
    peer.drop()


async def _talk_and_drop(peer: WirePeer) -> None:
    await peer.send_raw(build_frame(Opcode.TEXT, b"early"))
    peer.drop()


_LEAVING: Mapping[str, Callable[[WirePeer], Awaitable[object]]] = {
    "by a close": _close,
    "by a reset": _drop,
    "by a half-close": lambda peer: peer.half_close(),
    "by a message and a reset": _talk_and_drop,
}


async def _waiting(bench: Bench, served: Served, peer: WirePeer, where: str) -> None:
    """Send a request one of whose stages waits, and wait for that."""
    count = len(bench.recorder.all("waits"))
    await peer.request(handshake(served, f"/?do={where}-waits").encode())
    await bench.recorder.wait("waits", count + 1)


_WAITING = ("enter-first", "enter-second", "enter-third", "leave-third", "leave-second", "leave-first")


@check("CTX-7")
async def each_leaves_once_when_a_peer_leaves(bench: Bench) -> None:
    """So they do for a peer that leaves while any of their stages runs, whether that cancels the handshake or not."""
    stages = _Stages(bench)
    async with bench.serve(stages.app) as served:
        with variants() as variant:
            for how, leave in _LEAVING.items():
                for where in _WAITING:
                    with variant(f"{where} {how}"):
                        stages.released.clear()
                        async with served.raw() as peer:
                            await _waiting(bench, served, peer, where)
                            await leave(peer)
                            await asyncio.sleep(0.003)  # for the server to see it; no event on this side tells of it
                            stages.released.set()
                            await stages.all_left()


@check("CTX-7")
async def each_leaves_once_at_a_stop(bench: Bench) -> None:
    """So they do at a stop while any of their stages runs."""
    stages = _Stages(bench)
    connector = bench.connector(stages.app, shutdown_timeout=bench.scale)
    with variants() as variant:
        for where in _WAITING:
            with variant(where):
                stages.released.clear()
                await bench.within(connector.start(), "start()")
                try:
                    served = bench.served(connector)
                    async with served.raw() as peer:
                        await _waiting(bench, served, peer, where)
                        await bench.within(connector.stop(), "stop()")
                        with contextlib.suppress(Closed):
                            true((await peer.read_response()).status >= 400, "the handshake opened a channel")
                finally:
                    await bench.within(connector.stop(), "the last stop()")
                await stages.all_left()
