"""HS-1 to HS-3: a good handshake, and what it tells."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.client import HandshakeRequest, HttpResponse
from wsbridge.conformance.contract import CheckFailed, check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Request

__all__ = ["ask", "handshake"]


def handshake(served: Served, target: str = "/", **request: Any) -> HandshakeRequest:
    """Return a request for a path of what is served; see `HandshakeRequest.build`."""
    return HandshakeRequest.build(served.address, target=served.target(target), **request)


async def ask(served: Served, *, target: str = "/", head: bool = False, **request: Any) -> HttpResponse:
    """Send one request, a handshake but for what `HandshakeRequest.build` is told, and return the answer."""
    async with served.raw() as peer:
        await peer.request(handshake(served, target, **request).encode())
        return await peer.read_response(head=head)


# ---- HS-1 -----------------------------------------------------------------------------------------------------------


@check("HS-1", black_box=True)
async def accept_key(bench: Bench) -> None:
    """A valid request gets 101 and the accept key of its own key: that of the RFC's example, and any other."""
    async with bench.reference() as served:
        answer = await ask(served, target="/echo", replace={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        equal(answer.status, 101, "the status")
        equal(answer.headers_all("Sec-WebSocket-Accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], "the accept key")
        for number in range(5):  # the peer itself checks the rest of the answer, each time with a new key
            async with served.peer("/echo") as peer:
                await peer.send_text(str(number))
                equal(await peer.receive_text(), str(number), "the echo")


@check("HS-1", black_box=True)
async def tokens_in_any_case(bench: Bench) -> None:
    """The tokens of Upgrade and Connection are found whatever their case."""
    async with bench.reference() as served:
        with variants() as variant:
            for upgrade, connection in (("WebSocket", "upgrade"), ("WEBSOCKET", "UPGRADE"), ("websocket", "uPGRADE")):
                with variant():
                    answer = await ask(served, target="/echo", replace={"Upgrade": upgrade, "Connection": connection})
                    equal(answer.status, 101, f"the status for Upgrade: {upgrade}, Connection: {connection}")


@check("HS-1", black_box=True)
async def connection_as_a_list(bench: Bench) -> None:
    """Upgrade is found in a list, at any place of it, and in a second line."""
    lines: list[str | list[str]] = [
        "keep-alive, Upgrade",
        "Upgrade, keep-alive",
        "keep-alive,upgrade,TE",
        ["keep-alive", "Upgrade"],
    ]
    async with bench.reference() as served:
        with variants() as variant:
            for connection in lines:
                with variant():
                    answer = await ask(served, target="/echo", replace={"Connection": connection})
                    equal(answer.status, 101, f"the status for Connection: {connection}")


@check("HS-1")
async def upgrade_as_a_list(bench: Bench) -> None:
    """The token websocket is found in a list of protocols, and the channel works."""
    async with bench.serve() as served:
        for upgrade in ("foo/2, websocket", "WebSocket,foo", ["foo", "websocket"]):
            async with served.peer(replace={"Upgrade": upgrade}) as peer:
                count = len(bench.recorder.all("text")) + 1
                await peer.send_text("through")
                await bench.recorder.wait("text", count)


@check("HS-1", black_box=True)
async def header_names_in_any_case(bench: Bench) -> None:
    """The names of the handshake's headers are found whatever their case."""
    async with bench.reference() as served:
        for change in (str.lower, str.upper, str.swapcase):
            request = handshake(served, "/echo")
            lines = tuple((change(name.decode()).encode(), value) for name, value in request.headers)
            changed = HandshakeRequest(request.method, request.target, request.version, lines)
            async with served.raw() as peer:
                await peer.upgrade(changed)
                await peer.send_text(change.__name__)
                equal(await peer.receive_text(), change.__name__, "the echo")


@check("HS-1", black_box=True)
async def nothing_unasked_in_the_101(bench: Bench) -> None:
    """A 101 to a peer that offers neither names no subprotocol and no extension."""
    async with bench.reference() as served:
        answer = await ask(served, target="/echo")
        equal(answer.headers_all("Sec-WebSocket-Protocol"), [], "the subprotocols")
        equal(answer.headers_all("Sec-WebSocket-Extensions"), [], "the extensions")
        equal(answer.headers_all("Content-Length"), [], "Content-Length, which a 101 has none of")


# ---- HS-2 -----------------------------------------------------------------------------------------------------------


async def _request(bench: Bench, served: Served, target: str = "/", **request: Any) -> Request:
    """Open a channel and return the request that its ``on_open`` got."""
    count = len(bench.recorder.all("open")) + 1
    async with served.peer(target, **request):
        event = await bench.recorder.wait("open", count)
    got: Request = event.value
    if not isinstance(event.value, Request):
        raise CheckFailed(f"on_open got {event.value!r}, which is no Request")
    return got


def _anywhere(bench: Bench) -> Application:
    return Application([("/{rest:path}", bench.options())])


@check("HS-2")
async def the_path_is_decoded(bench: Bench) -> None:
    """The path is decoded as UTF-8, each bad sequence as U+FFFD, %2F and %3F too, and nothing else is changed."""
    cases = {
        "/plain": "/plain",
        "/caf%C3%A9/%e2%82%ac/%F0%9F%98%80": "/caf\u00e9/\u20ac/\U0001f600",
        "/a%2Fb%2fc": "/a/b/c",
        "/a%20b+c": "/a b+c",
        "/what%3Fq=1%23x": "/what?q=1#x",
        "/bad%FF%C3x": "/bad\ufffd\ufffdx",
        "/100%25%32%35": "/100%25",
        "/odd%zz%4": "/odd%zz%4",
        "/a/../b/./c": "/a/../b/./c",
        "/a//b/": "/a//b/",
        "/~user;v=1,2/@:!$&'()*=": "/~user;v=1,2/@:!$&'()*=",
    }
    async with bench.serve(_anywhere(bench)) as served:
        with variants() as variant:
            for sent, decoded in cases.items():
                with variant():
                    request = await _request(bench, served, sent)
                    equal(request.path, decoded, f"the path of {sent}")


@check("HS-2", fixed=["served", "path"])
async def the_raw_path_is_as_sent(bench: Bench) -> None:
    """The raw path is to the letter what was sent, without the query."""
    paths = ["/x", "/caf%C3%a9", "/a%2Fb/%FF", "/odd%zz%4", "/a/../b/./c", "/a//b/", "/%7Euser", "/what%3Fq"]
    async with bench.serve(_anywhere(bench)) as served:
        with variants() as variant:
            for path in paths:
                with variant():
                    request = await _request(bench, served, f"{path}?query=%2F?more")
                    equal(request.raw_path, path, "the raw path")


@check("HS-2")
async def the_query(bench: Bench) -> None:
    """The query is there raw, as bytes, and parsed: repeated and blank values kept, decoded as UTF-8."""
    query = "a=1&b=&a=%202+x&c=caf%C3%A9&d=%FF&e=x/y?z"
    async with bench.serve() as served:
        request = await _request(bench, served, f"/?{query}")
        equal(request.query_string, query.encode(), "the raw query")
        parsed = {name: request.args.getlist(name) for name in request.args}
        expected = {"a": ["1", " 2 x"], "b": [""], "c": ["caf\u00e9"], "d": ["\ufffd"], "e": ["x/y?z"]}
        equal(parsed, expected, "the parsed query")
        request = await _request(bench, served, "/")
        equal((request.query_string, len(request.args)), (b"", 0), "raw and parsed query where there is none")


@check("HS-2")
async def path_parameters(bench: Bench) -> None:
    """Path parameters are those of the route, decoded; a segment's parameter takes no slash, a path's takes all."""
    app = Application(
        [
            ("/room/{name}", bench.options()),
            ("/files/{owner}/{rest:path}", bench.options()),
            ("/room/fixed one", bench.options()),
        ]
    )
    cases: dict[str, dict[str, str]] = {
        "/room/caf%C3%A9%20x": {"name": "caf\u00e9 x"},
        "/files/me/a%2Fb/c": {"owner": "me", "rest": "a/b/c"},
        "/room/fixed%20one": {},
    }
    async with bench.serve(app) as served:
        with variants() as variant:
            for target, parameters in cases.items():
                with variant():
                    request = await _request(bench, served, target)
                    equal(request.path_params, parameters, f"the path parameters of {target}")
        answer = await ask(served, target="/room/a%2Fb")
        equal(answer.status, 404, "the status where a decoded slash is in the place of one segment")


@check("HS-2")
async def headers(bench: Bench) -> None:
    """Headers are found in any case, every value of a repeated one in order, decoded as latin-1."""
    lines = [("X-Multi", "one"), ("X-Latin", b"caf\xe9 \xff"), ("x-multi", "two, three"), ("X-MULTI", "four")]
    async with bench.serve() as served:
        request = await _request(bench, served, headers=lines)
        for name in ("X-Multi", "x-multi", "X-MULTI"):
            equal(request.headers.getlist(name), ["one", "two, three", "four"], f"the values of {name}")
        equal(request.headers.get("x-latin"), "caf\u00e9 \u00ff", "the value of X-Latin")
        equal(request.headers.get("upgrade"), "websocket", "the value of Upgrade")
        equal(request.headers.get("X-Missing"), None, "a header that was not sent")


@check("HS-2", black_box=True)
async def headers_seen_from_outside(bench: Bench) -> None:
    """The application sees every value of a repeated header, in order."""
    async with (
        bench.reference() as served,
        served.peer("/headers", headers=[("X-Probe", "one"), ("X-Probe", "two")]) as peer,
    ):
        told = await peer.receive_text()
        equal(_compact(told), '{"x-probe":["one","two"],"x-other":[]}', "the headers that the application saw")


def _compact(text: str) -> str:
    return "".join(text.split())


@check("HS-2")
async def cookies(bench: Bench) -> None:
    """Cookies are there by name."""
    async with bench.serve() as served:
        request = await _request(bench, served, headers=[("Cookie", 'session=abc123; theme="dark"; empty=')])
        equal(dict(request.cookies), {"session": "abc123", "theme": "dark", "empty": ""}, "the cookies")
        request = await _request(bench, served)
        equal(dict(request.cookies), {}, "the cookies where there are none")


@check("HS-2")
async def method_scheme_and_host(bench: Bench) -> None:
    """Method, scheme and host tell how the channel was asked for; the native request is there too."""
    async with bench.serve() as served:
        request = await _request(bench, served)
        equal(
            (request.method, request.scheme, request.host),
            ("GET", served.scheme, served.host),
            "method, scheme and host",
        )
        true(request.native is not None, "the native request is missing")
        request = await _request(bench, served, replace={"Host": "chat.example:8080"})
        equal(request.host, "chat.example:8080", "the host")


@check("HS-2")
async def remote_address(bench: Bench) -> None:
    """The remote address is host and port of the peer's end of the connection."""
    async with bench.serve() as served, served.peer() as peer:
        event = await bench.recorder.wait("open")
        equal(event.value.remote_address, peer.local_address, "the remote address")
        host, port = event.value.remote_address
        true(isinstance(host, str) and isinstance(port, int), f"host and port are {host!r} and {port!r}")


@check("HS-2", wire=True)
async def remote_address_over_ipv6(bench: Bench) -> None:
    """The remote address of an IPv6 peer is a pair as well."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return  # a machine without IPv6 has no such peer
    async with bench.serve(host="::1") as served, served.peer() as peer:
        event = await bench.recorder.wait("open")
        equal(event.value.remote_address, peer.local_address, "the remote address")


@check("HS-2", needs=["unix-socket"])
async def no_remote_address_on_a_unix_socket(bench: Bench) -> None:
    """A peer on a Unix socket has no remote address: None."""
    with tempfile.TemporaryDirectory() as folder:
        async with bench.serve(unix_path=str(Path(folder, "hs"))) as served:
            request = await _request(bench, served)
            equal(request.remote_address, None, "the remote address")


@check("HS-2", fixed=["address", "tls"])
async def forwarded_headers_are_not_believed(bench: Bench) -> None:
    """What a peer says of itself in X-Forwarded-For and -Proto counts only if `trusted_proxies` has its address."""
    lines = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    async with bench.serve(trusted_proxies=("192.0.2.0/24",)) as served:
        request = await _request(bench, served, headers=lines)
        true(request.remote_address is not None, "the remote address is missing")
        equal((request.remote_address or ("",))[0], "127.0.0.1", "the remote host of a peer that is not trusted")
        equal(request.scheme, "ws", "the scheme of a peer that is not trusted")
    async with bench.serve(trusted_proxies=("127.0.0.1",)) as served:
        request = await _request(bench, served, headers=lines)
        equal(request.remote_address, ("203.0.113.7", 0), "the remote address that a trusted proxy tells")
        equal(request.scheme, "wss", "the scheme that a trusted proxy tells")


@check("HS-2")
async def offered_subprotocols(bench: Bench) -> None:
    """The request tells the subprotocols that the peer offers, in its order, over all its header lines."""
    async with bench.serve() as served:
        request = await _request(
            bench, served, subprotocols=["x"], replace={"Sec-WebSocket-Protocol": ["zeta, alpha", "mid ,omega"]}
        )
        equal(list(request.subprotocols), ["zeta", "alpha", "mid", "omega"], "the subprotocols offered")
        request = await _request(bench, served)
        equal(list(request.subprotocols), [], "the subprotocols where none is offered")


# ---- HS-3 -----------------------------------------------------------------------------------------------------------


@check("HS-3", black_box=True)
async def the_options_order_decides(bench: Bench) -> None:
    """Of the subprotocols that both speak, the first of the options is taken, whatever the peer's order."""
    async with bench.reference() as served:
        with variants() as variant:
            for offered in (["wsbridge.v1", "wsbridge.v2"], ["wsbridge.v2", "wsbridge.v1"], ["other", "wsbridge.v2"]):
                with variant():
                    await _expect_subprotocol(served, "wsbridge.v2", subprotocols=offered)
        await _expect_subprotocol(served, "wsbridge.v1", subprotocols=["other", "wsbridge.v1", "more"])


@check("HS-3", black_box=True)
async def offers_over_several_lines(bench: Bench) -> None:
    """What the peer offers is taken from all its header lines together, with or without blanks."""
    lines: Sequence[tuple[list[str], str]] = (
        (["wsbridge.v1", "wsbridge.v2"], "wsbridge.v2"),
        (["other", "wsbridge.v1"], "wsbridge.v1"),
        (["other,wsbridge.v1", "more , even.more"], "wsbridge.v1"),
    )
    async with bench.reference() as served:
        with variants() as variant:
            for values, expected in lines:
                with variant():
                    await _expect_subprotocol(
                        served, expected, subprotocols=["x"], replace={"Sec-WebSocket-Protocol": values}
                    )


@check("HS-3", black_box=True)
async def no_match_is_accepted(bench: Bench) -> None:
    """Where none matches, or none is offered, the channel opens without a subprotocol."""
    async with bench.reference() as served:
        await _expect_subprotocol(served, None, subprotocols=["other", "wsbridge.v3"])
        await _expect_subprotocol(served, None)
        async with served.peer("/echo", subprotocols=["wsbridge.v1"]) as peer:  # this route speaks none
            equal(peer.subprotocol, None, "the subprotocol on a route without any")
            await peer.send_text("on")
            equal(await peer.receive_text(), "on", "the echo")


@check("HS-3")
async def the_channel_tells(bench: Bench) -> None:
    """`channel.subprotocol` is the one that was agreed on, or None."""
    async with bench.serve(bench.options(subprotocols=["b", "a"])) as served:
        offers: list[list[str]] = [["a", "b"], ["a"], ["c"], []]
        with variants() as variant:
            for offered in offers:
                with variant():
                    count = len(bench.recorder.channels) + 1
                    async with served.peer(subprotocols=offered) as peer:
                        channel = await bench.recorder.opened(count)
                        expected = next((one for one in ("b", "a") if one in offered), None)
                        equal((channel.subprotocol, peer.subprotocol), (expected, expected), f"agreed on, of {offered}")


async def _expect_subprotocol(served: Served, expected: str | None, **request: Any) -> None:
    async with served.peer("/subprotocols", **request) as peer:
        equal(peer.subprotocol, expected, f"the subprotocol in the 101, for {request}")
        equal(await peer.receive_text(), expected or "", f"the subprotocol that the application has, for {request}")
