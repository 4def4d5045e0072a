"""HS-4 to HS-6: which handshakes are refused, in which order and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.client import Closed, HandshakeRequest
from wsbridge.conformance.contract import CheckFailed, check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.upgrade import websocket_interceptor

Changes = dict[str, Any]

BAD_KEYS: dict[str, str | list[str] | None] = {
    "missing": None,
    "empty": "",
    "repeated": ["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
    "of 15 bytes": "dGhlIHNhbXBsZSBub25j",
    "of 17 bytes": "dGhlIHNhbXBsZSBub25jZQAA",
    "not base64": "this is not base64 at all",
    "without padding": "dGhlIHNhbXBsZSBub25jZQ",
    "of a foreign alphabet": "_-hlIHNhbXBsZSBub25jZQ==",
    "of two in one line": "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
}
BAD_VERSIONS: dict[str, str | list[str] | None] = {
    "missing": None,
    "8": "8",
    "12": "12",
    "14": "14",
    "0": "0",
    "thirteen": "thirteen",
    "13, 8": "13, 8",
    "repeated": ["13", "8"],
}


async def _refused(bench: Bench, served: Served, what: str, status: int, **request: Any) -> dict[str, str]:
    """Hold the answer to one request to ``status``; return its headers by their names in lower case."""
    before = bench.recorder.kinds()
    answer = await ask(served, **request)
    equal(answer.status, status, f"the status for a request whose {what}")
    equal(bench.recorder.kinds(), before, f"the callbacks after a request whose {what}")
    return {name.lower(): value for name, value in answer.headers}


async def _still_serves(bench: Bench, served: Served, **request: Any) -> None:
    """Open a channel, so that anything that an earlier request had left behind would show."""
    async with served.peer(**request) as peer:
        await peer.send_text("well")
        await bench.recorder.wait("text")
    equal(len(bench.recorder.all("open")), 1, "how often on_open ran, for the one good request")


# ---- HS-4 -----------------------------------------------------------------------------------------------------------


@check("HS-4")
async def another_method(bench: Bench) -> None:
    """A method other than GET gets 405, and no callback runs."""
    async with bench.serve() as served:
        with variants() as variant:
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
                with variant():
                    await _refused(bench, served, f"method is {method}", 405, method=method)
        await _refused(bench, served, "method is HEAD", 405, method="HEAD", head=True)
        await _still_serves(bench, served)


@check("HS-4")
async def http_1_0(bench: Bench) -> None:
    """HTTP/1.0 gets 400, 426 or 505."""
    async with bench.serve() as served:
        answer = await ask(served, version="HTTP/1.0")
        true(answer.status in (400, 426, 505), f"the status for HTTP/1.0: {answer.status}")
        equal(bench.recorder.kinds(), [], "the callbacks after it")
        await _still_serves(bench, served)


@check("HS-4")
async def no_upgrade(bench: Bench) -> None:
    """A request that asks for no upgrade to a WebSocket gets 426, and is told which upgrade is needed."""
    requests: dict[str, Changes] = {
        "headers ask for nothing": {"Upgrade": None, "Connection": None, "Sec-WebSocket-Key": None},
        "Upgrade is missing": {"Upgrade": None},
        "Connection is missing": {"Connection": None},
        "Connection is keep-alive": {"Connection": "keep-alive"},
        "Upgrade is h2c": {"Upgrade": "h2c"},
        "Upgrade is websockets": {"Upgrade": "websockets, x-websocket"},
        "Connection is upgraded": {"Connection": "upgraded"},
    }
    async with bench.serve() as served:
        with variants() as variant:
            for what, replace in requests.items():
                with variant():
                    headers = await _refused(bench, served, what, 426, replace=replace)
                    equal(headers.get("upgrade", "").lower(), "websocket", f"Upgrade in the answer to one whose {what}")
                    tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
                    true("upgrade" in tokens, f"Connection in the answer to a request whose {what}: {tokens}")
        await _still_serves(bench, served)


@check("HS-4")
async def another_version(bench: Bench) -> None:
    """A version other than 13 gets 426, and is told that it is 13."""
    async with bench.serve() as served:
        with variants() as variant:
            for what, version in BAD_VERSIONS.items():
                with variant():
                    headers = await _refused(
                        bench, served, f"version is {what}", 426, replace={"Sec-WebSocket-Version": version}
                    )
                    equal(
                        headers.get("sec-websocket-version"), "13", f"the version in the answer to one that is {what}"
                    )
        await _still_serves(bench, served)


@check("HS-4")
async def a_bad_key(bench: Bench) -> None:
    """A key that is missing, repeated or not the base64 of 16 bytes gets 400."""
    async with bench.serve() as served:
        with variants() as variant:
            for what, key in BAD_KEYS.items():
                with variant():
                    await _refused(bench, served, f"key is {what}", 400, replace={"Sec-WebSocket-Key": key})
        await _still_serves(bench, served)


@check("HS-4")
async def a_bad_host(bench: Bench) -> None:
    """A Host that is missing or repeated gets 400."""
    async with bench.serve() as served:
        await _refused(bench, served, "Host is missing", 400, replace={"Host": None})
        await _refused(bench, served, "Host is repeated", 400, replace={"Host": [served.host, served.host]})
        await _refused(bench, served, "Host is repeated, another", 400, replace={"Host": [served.host, "other"]})
        await _still_serves(bench, served)


@check("HS-4")
async def the_first_that_fails_decides(bench: Bench) -> None:
    """Of several faults the first in the order of the rule decides the answer."""
    faults: Sequence[tuple[str, Sequence[int], Changes]] = (
        ("method", (405,), {"method": "POST"}),
        ("HTTP version", (400, 426, 505), {"version": "HTTP/1.0"}),
        ("upgrade", (426,), {"replace": {"Upgrade": "h2c"}}),
        ("version", (426,), {"replace": {"Sec-WebSocket-Version": "8"}}),
        ("key", (400,), {"replace": {"Sec-WebSocket-Key": "bad"}}),
        ("origin", (403,), {"headers": [("Origin", "http://evil.example")]}),
    )
    async with bench.serve() as served:
        with variants() as variant:
            for first, (what, statuses, _) in enumerate(faults):
                with variant():
                    request: Changes = {"replace": {}}
                    for _, _, changes in faults[first:]:
                        request |= {**changes, "replace": {**request["replace"], **changes.get("replace", {})}}
                    answer = await ask(served, **request)
                    true(
                        answer.status in statuses, f"the status where all is wrong from the {what} on: {answer.status}"
                    )
                    if what == "version":
                        equal(answer.header("Sec-WebSocket-Version"), "13", "the version that the answer names")
        # two hosts are not HTTP (RFC 9112, 3.2), so that the server may refuse them before all else
        answer = await ask(served, replace={"Host": ["one", "two"]}, headers=[("Origin", "http://evil.example")])
        equal(answer.status, 400, "the status where Host and origin are wrong")
        equal(bench.recorder.kinds(), [], "the callbacks")
        await _still_serves(bench, served)


@check("HS-4", black_box=True)
async def bad_handshakes_open_no_channel(bench: Bench) -> None:
    """A request that is not a handshake by RFC 6455, 4.2.1, is refused with an error status."""
    requests: list[tuple[str, Changes]] = [
        ("method is POST", {"method": "POST"}),
        ("protocol is HTTP/1.0", {"version": "HTTP/1.0"}),
        ("Upgrade is missing", {"replace": {"Upgrade": None}}),
        ("Connection is missing", {"replace": {"Connection": None}}),
        ("version is missing", {"replace": {"Sec-WebSocket-Version": None}}),
        ("version is 14", {"replace": {"Sec-WebSocket-Version": "14"}}),
        ("key is missing", {"replace": {"Sec-WebSocket-Key": None}}),
        ("key is of 15 bytes", {"replace": {"Sec-WebSocket-Key": BAD_KEYS["of 15 bytes"]}}),
        ("Host is missing", {"replace": {"Host": None}}),
    ]
    async with bench.reference() as served:
        with variants() as variant:
            for what, request in requests:
                with variant():
                    answer = await ask(served, target="/echo", **request)
                    true(400 <= answer.status <= 599, f"the status for a request whose {what}: {answer.status}")
        async with served.peer("/echo") as peer:
            await peer.send_text("well")
            equal(await peer.receive_text(), "well", "the echo on a channel after them")


@check("HS-4", black_box=True)
async def a_version_that_is_not_spoken(bench: Bench) -> None:
    """A request of another version is told that it is 13 (RFC 6455, 4.4)."""
    async with bench.reference() as served:
        answer = await ask(served, target="/echo", replace={"Sec-WebSocket-Version": "14"})
        true(400 <= answer.status <= 499, f"the status: {answer.status}")
        versions = ",".join(answer.headers_all("Sec-WebSocket-Version")).replace(" ", "").split(",")
        true("13" in versions, f"the versions that the answer names: {versions}")


@check("HS-4", wire=True)
async def a_body(bench: Bench) -> None:
    """A handshake with a body is refused, with a 4xx or 501 or by closing, and never reaches a callback."""
    bodies = {
        "a length": ([("Content-Length", "5")], b"hello"),
        "chunks": ([("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n0\r\n\r\n"),
    }
    async with bench.serve() as served:
        with variants() as variant:
            for method in ("GET", "POST"):
                for what, (headers, body) in bodies.items():
                    request = handshake(served, method=method, headers=headers)
                    with variant():
                        await _turned_away(served, f"{method} with a body of {what}", request.encode() + body)
        equal(bench.recorder.kinds(), [], "the callbacks")
        await _still_serves(bench, served)


@check("HS-4", wire=True)
async def no_http(bench: Bench) -> None:
    """Bytes that are not HTTP are refused, with a 4xx, 501 or 505 or by closing, and never reach a callback."""
    valid = HandshakeRequest.build(("127.0.0.1", 1), target="/").encode()
    start, rest = valid.split(b"\r\n", 1)
    garbage = {
        "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
        "a line of words": b"HELLO, anybody there?\r\n\r\n",
        "zeros": bytes(64) + b"\r\n\r\n",
        "no version": b"GET /\r\n" + rest,
        "another protocol": b"GET / CHAT/1.1\r\n" + rest,
        "another version": b"GET / HTTP/2.0\r\n" + rest,
        "a header without a colon": start + b"\r\nNonsense\r\n" + rest,
        "a blank in a header's name": start + b"\r\nBad Name: x\r\n" + rest,
        "a header's name that is empty": start + b"\r\n: x\r\n" + rest,
        "a zero in a header": start + b"\r\nX-Zero: a\0b\r\n" + rest,
    }
    versions = ("no version", "another protocol", "another version")  # may be told so (RFC 9110, 15.6.6)
    async with bench.serve(handshake_timeout=0.5 * bench.scale) as served:
        with variants() as variant:
            for what, raw in garbage.items():
                with variant():
                    await _turned_away(served, what, raw, *((505,) if what in versions else ()))
        equal(bench.recorder.kinds(), [], "the callbacks")
        await _still_serves(bench, served)


async def _turned_away(served: Served, what: str, raw: bytes, *statuses: int) -> None:
    async with served.raw() as peer:
        await peer.request(raw)
        try:
            answer = await peer.read_response()
        except Closed:
            return
        if not (400 <= answer.status <= 499 or answer.status in (501, *statuses)):
            others = " or ".join(map(str, (501, *statuses)))
            raise CheckFailed(f"the status for {what}: expected 4xx or {others}, got {answer.status}")


@check("HS-4")
async def interceptors_come_first(bench: Bench) -> None:
    """The application's interceptors run before routing and before any check, so that they can answer plain HTTP."""

    def answer(context: Context) -> None:
        request = context["request"]
        if request.path.startswith("/health"):
            context["response"] = Response(f"{request.method} is fine", 200)

    app = Application([("/", bench.options())], [Interceptor(name="health", enter=answer)])
    plain = {"Upgrade": None, "Connection": None, "Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None}
    async with bench.serve(app) as served:
        for method in ("GET", "POST", "DELETE"):
            answered = await ask(served, target="/health", method=method, replace=plain)
            expected = (200, f"{method} is fine".encode())
            equal((answered.status, answered.body), expected, f"the answer to a plain {method}")
        handshake = await ask(served, target="/health/of/all")
        equal(handshake.status, 200, "the status for a handshake that an interceptor answers")
        await _refused(bench, served, "path is unknown and which no interceptor answers", 404, target="/nowhere")
        await _still_serves(bench, served)


@check("HS-4")
async def then_routing_then_the_routes_interceptors(bench: Bench) -> None:
    """Routing follows, and then the route's interceptors, with the path parameters; the checks come last."""
    seen: list[str] = []

    def note(name: str) -> Interceptor:
        def enter(context: Context) -> None:
            request = context["request"]
            seen.append(f"{name} {request.method} {request.path_params.get('room')}")
            if name == "route" and request.method == "PUT":
                context["response"] = Response("put", 201)

        return Interceptor(name=name, enter=enter)

    options = bench.options(on_open=lambda channel, request: seen.append("on_open"))
    route = ("/rooms/{room}", (note("route"), websocket_interceptor("rooms", options)))
    async with bench.serve(Application([route], [note("first"), note("second")])) as served:
        before = ["first {0} None", "second {0} None"]
        answer = await ask(served, target="/nowhere", method="POST", replace={"Sec-WebSocket-Key": "bad"})
        equal((answer.status, seen), (404, [line.format("POST") for line in before]), "a request without a route")
        seen.clear()
        answer = await ask(served, target="/rooms/red", method="PUT", replace={"Sec-WebSocket-Key": "bad"})
        expected = [*(line.format("PUT") for line in before), "route PUT red"]
        equal((answer.status, seen), (201, expected), "a request that the route's interceptor answers")
        seen.clear()
        answer = await ask(served, target="/rooms/red", replace={"Sec-WebSocket-Key": "bad"})
        expected = [*(line.format("GET") for line in before), "route GET red"]
        equal((answer.status, seen), (400, expected), "a handshake with a bad key")
        seen.clear()
        async with served.peer("/rooms/red"):
            await bench.recorder.wait("open-end")
        equal(seen, [*expected, "on_open"], "a good handshake")


# ---- HS-5 -----------------------------------------------------------------------------------------------------------


@check("HS-5", black_box=True)
async def an_unknown_path(bench: Bench) -> None:
    """A handshake for a path with no route gets 404."""
    async with bench.reference() as served:
        with variants() as variant:
            for path in ("/nowhere", "/echo/more", "/no/where?at=/echo"):
                with variant():
                    equal((await ask(served, target=path)).status, 404, f"the status for {path}")


@check("HS-5")
async def almost_a_route(bench: Bench) -> None:
    """A path matches to the letter: one that differs by a slash, its case or a blank gets 404, not a redirect."""
    app = Application([("/echo", bench.options()), ("/folder/", bench.options()), ("/a/{name}/b", bench.options())])
    paths = ["/echo/", "//echo", "/ECHO", "/echo%20", "/ech", "/echo/.", "/folder", "/", "/a//b", "/a/x/y/b", "/a/b"]
    async with bench.serve(app) as served:
        with variants() as variant:
            for path in paths:
                with variant():
                    await _refused(bench, served, f"path is {path}", 404, target=path)
        await _still_serves(bench, served, target="/echo")


# ---- HS-6 -----------------------------------------------------------------------------------------------------------


async def _origins(
    bench: Bench, served: Served, *, accepted: Sequence[str] = (), refused: Sequence[str] = (), host: str = ""
) -> None:
    """Hold a connector to accept some origins and to refuse others, with no callback."""
    replace = {"Host": host} if host else {}
    opened = len(bench.recorder.all("open"))
    with variants() as variant:
        for origin in refused:
            with variant():
                answer = await ask(served, headers=[("Origin", origin)], replace=replace)
                equal(answer.status, 403, f"the status for Origin: {origin} at {host or served.host}")
    for origin in accepted:
        answer = await ask(served, headers=[("Origin", origin)], replace=replace)
        equal(answer.status, 101, f"the status for Origin: {origin} at {host or served.host}")
    if accepted:
        await bench.recorder.closed(opened + len(accepted))
    equal(len(bench.recorder.all("open")), opened + len(accepted), "how often on_open ran")


@check("HS-6", black_box=True)
async def no_origin_or_ones_own(bench: Bench) -> None:
    """No origin at all is accepted, and so is the request's own host and port."""
    async with bench.reference() as served:
        equal((await ask(served, target="/echo")).status, 101, "the status without an origin")
        with variants() as variant:
            for scheme in ("http", "https"):
                with variant():
                    answer = await ask(served, target="/echo", headers=[("Origin", f"{scheme}://{served.host}")])
                    equal(answer.status, 101, f"the status for its own origin, {scheme}")


@check("HS-6", black_box=True)
async def a_foreign_origin(bench: Bench) -> None:
    """An origin that is neither its own nor listed gets 403, and so does null."""
    async with bench.reference() as served:
        with variants() as variant:
            for origin in (
                "http://evil.example",
                "https://evil.example:8443",
                f"http://{served.host}.evil.example",
                "null",
            ):
                with variant():
                    answer = await ask(served, target="/echo", headers=[("Origin", origin)])
                    equal(answer.status, 403, f"the status for Origin: {origin}")


@check("HS-6")
async def ones_own_host_and_port(bench: Bench) -> None:
    """What counts as its own is host and port together, compared without case, default ports filled in."""
    async with bench.serve() as served:
        await _origins(
            bench,
            served,
            host="chat.example:8080",
            accepted=["http://chat.example:8080", "HTTP://Chat.EXAMPLE:8080", "https://chat.example:8080"],
            refused=[
                "http://chat.example",
                "http://chat.example:8081",
                "http://example:8080",
                "http://www.chat.example:8080",
                "http://chat.example.evil.example:8080",
                "http://chat.example:8080.evil.example",
            ],
        )
        await _origins(
            bench,
            served,
            host="Chat.example",
            accepted=["http://chat.example", "http://chat.example:80"],
            refused=["http://chat.example:8080", "http://chat.example:81", "http://chat"],
        )
        await _origins(bench, served, host="chat.example:80", accepted=["http://chat.example"])


@check("HS-6")
async def listed_origins(bench: Bench) -> None:
    """A listed origin is accepted, by scheme, host and port, without case, default ports filled in; no other is."""
    origins = ["https://App.example", "http://other.example:8080"]
    async with bench.serve(bench.options(origins=origins)) as served:
        await _origins(
            bench,
            served,
            accepted=["https://app.example", "HTTPS://APP.EXAMPLE:443", "http://other.example:8080"],
            refused=[
                "http://app.example",
                "https://app.example:8443",
                "http://other.example",
                "https://other.example:8080",
                "https://sub.app.example",
                "https://app.example.evil.example",
                "https://evil.example",
            ],
        )
        await _origins(bench, served, accepted=[f"http://{served.host}"])


@check("HS-6")
async def any_origin(bench: Bench) -> None:
    """With `"*"` listed any origin is accepted, null too, but not one that is unparsable."""
    async with bench.serve(bench.options(origins=["*"])) as served:
        await _origins(
            bench,
            served,
            accepted=["http://evil.example", "https://a.b.c.example:1", f"http://{served.host}", "app://local", "null"],
            refused=["evil.example", "http://"],
        )


@check("HS-6")
async def null_or_unparsable(bench: Bench) -> None:
    """Null, an origin that cannot be parsed, and a repeated header get 403, whatever else they name."""
    async with bench.serve() as served:
        own = served.host
        refused = ["null", "not an origin", "http://", f"//{own}", own, f"http://{own}/path", f"http://{own}/?a=b"]
        await _origins(
            bench, served, refused=[*refused, f"http://user@{own}", "http://h:port", f"http://{own} http://x"]
        )
        for other in (f"http://{own}", "http://evil.example"):
            lines = [("Origin", f"http://{own}"), ("Origin", other)]
            await _refused(bench, served, f"origins are its own and {other}", 403, headers=lines)
        await _still_serves(bench, served)
