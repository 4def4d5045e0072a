"""HS-2, HS-6, HS-14, HS-15: who the peer is behind proxies, from which page, and what a refusal leaves in the log."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.upgrade import websocket_interceptor

Lines = Sequence[tuple[str, str]]
Told = tuple[str, tuple[str, int] | None]

PEER = ("203.0.113.9", 0)
TRUSTED = ("127.0.0.1", "10.0.0.0/8")


async def _told(bench: Bench, served: Served, lines: Lines) -> Told:
    """Open a channel by a request with the header ``lines``; return what its ``on_open`` saw of the peer."""
    count = len(bench.recorder.all("open")) + 1
    async with served.peer(headers=lines):
        event = await bench.recorder.wait("open", count)
    request: Request = event.value
    return request.scheme, request.remote_address


async def _hold(bench: Bench, served: Served, cases: Sequence[tuple[Lines, Told]]) -> None:
    for lines, expected in cases:
        equal(await _told(bench, served, lines), expected, f"scheme and remote address, told by {lines}")


def _for(*values: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value) for value in values]


# ---- HS-2 -----------------------------------------------------------------------------------------------------------


@check("HS-2", fixed=["address", "tls"])
async def a_client_cannot_hide_what_a_proxy_appends(bench: Bench) -> None:
    """Commas alone separate: no quote, line or empty element that a client writes hides the address that follows it."""
    cases = [
        _for(f'", {PEER[0]}'),
        _for('"', PEER[0]),
        _for(f'"198.51.100.1, {PEER[0]}'),
        _for('"a\\', PEER[0]),
        _for(f"198.51.100.1, {PEER[0]}"),
        _for(f", ,{PEER[0]},"),
        _for("198.51.100.1", PEER[0], "10.0.0.3"),
    ]
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        await _hold(bench, served, [(lines, ("ws", PEER)) for lines in cases])


@check("HS-2", fixed=["address", "tls"])
async def forms_of_an_address(bench: Bench) -> None:
    """An address comes with a port or without, in brackets or without, or mapped into IPv6."""
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        cases: dict[str, tuple[str, int]] = {
            "203.0.113.9:50123": ("203.0.113.9", 50123),
            "2001:db8::7": ("2001:db8::7", 0),
            "[2001:db8::7]": ("2001:db8::7", 0),
            "[2001:db8::7]:443": ("2001:db8::7", 443),
            "::ffff:203.0.113.9": PEER,
            "fe80::1%eth0": ("fe80::1%eth0", 0),
            "[fe80::1%eth0.7]:65535": ("fe80::1%eth0.7", 65535),
            "203.0.113.9, 10.0.0.3:8080, ::ffff:10.0.0.4": PEER,
        }
        await _hold(bench, served, [(_for(value), ("ws", remote)) for value, remote in cases.items()])


@check("HS-2", fixed=["address", "tls"])
async def a_hop_that_is_no_address(bench: Bench) -> None:
    """Where the last hop is not an address the remote address is None, and not the proxy's."""
    hops = ["unknown", "_hidden", "198.51.100.1, unknown", '""', "203.0.113.9:99999", "localhost", "[203.0.113.9"]
    hops += ["203.0.113.9:65536", "[203.0.113.9]", "fe80::1%", "fe80::1%a/b", f"fe80::1%{'z' * 33}", "fe80::1%a b"]
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        await _hold(bench, served, [(_for(hop), ("ws", None)) for hop in hops])


@check("HS-2", fixed=["address", "tls"])
async def schemes_that_are_told(bench: Bench) -> None:
    """The scheme is the last that a proxy tells, or the one beside the peer's hop."""
    proto = "X-Forwarded-Proto"
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        for value, scheme in (("https", "wss"), ("http", "ws"), ("WSS", "wss"), ("http, https", "wss"), ("x", "ws")):
            equal((await _told(bench, served, [(proto, value)]))[0], scheme, f"the scheme by {proto}: {value}")
        lines = [*_for(f"{PEER[0]}, 10.0.0.3"), (proto, "https, http")]
        equal(await _told(bench, served, lines), ("wss", PEER), f"what {lines} tell")


@check("HS-2", needs=["unix-socket"])
async def a_trusted_unix_socket(bench: Bench) -> None:
    """`"unix"` among the trusted proxies believes whoever connects by a Unix socket; addresses alone do not."""
    lines = [*_for(PEER[0]), ("X-Forwarded-Proto", "https")]
    cases: list[tuple[Sequence[str], Told]] = [
        (["unix"], ("wss", PEER)),
        (["0.0.0.0/0", "::/0"], ("wss", PEER)),
        (["127.0.0.1", "0.0.0.0/0"], ("ws", None)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for trusted, expected in cases:
            async with bench.serve(unix_path=str(Path(folder, "hs")), trusted_proxies=trusted) as served:
                equal(await _told(bench, served, lines), expected, f"what a proxy tells that {trusted} trust")


@check("HS-2", fixed=["address", "tls"])
async def unix_trusts_no_address(bench: Bench) -> None:
    """`"unix"` among the trusted proxies believes nobody who has an address."""
    async with bench.serve(trusted_proxies=["unix"]) as served:
        scheme, remote = await _told(bench, served, [*_for(PEER[0]), ("X-Forwarded-Proto", "https")])
        equal((scheme, (remote or ("",))[0]), ("ws", "127.0.0.1"), "scheme and remote host")


# ---- HS-15 ----------------------------------------------------------------------------------------------------------


@check("HS-15", fixed=["address", "tls"])
async def forwarded_by_rfc_7239(bench: Bench) -> None:
    """`for` and `proto` of the Forwarded header are believed, of a trusted proxy only."""
    cases: list[tuple[Lines, Told]] = [
        ([("Forwarded", f"for={PEER[0]};proto=https;by=10.0.0.1")], ("wss", PEER)),
        ([("Forwarded", f'for="{PEER[0]}:47011"')], ("ws", (PEER[0], 47011))),
        ([("Forwarded", 'For="[2001:db8::7]:4711";Proto="https"')], ("wss", ("2001:db8::7", 4711))),
        ([("Forwarded", 'for="198.51.100.1'), ("Forwarded", f"for={PEER[0]}, for=10.0.0.3")], ("ws", PEER)),
        ([("Forwarded", "for=unknown")], ("ws", None)),
        ([("Forwarded", 'for="_hidden";proto=https')], ("wss", None)),
        ([("Forwarded", "nonsense")], ("ws", None)),
    ]
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        await _hold(bench, served, cases)
    async with bench.serve(trusted_proxies=("192.0.2.1",)) as served:
        scheme, remote = await _told(bench, served, [("Forwarded", f"for={PEER[0]};proto=https")])
        equal((scheme, (remote or ("",))[0]), ("ws", "127.0.0.1"), "scheme and remote host of one that is not trusted")


@check("HS-15", fixed=["address", "tls"])
async def the_two_families_are_not_mixed(bench: Bench) -> None:
    """What X-Forwarded-* and Forwarded tell alike is believed; where they contradict each other neither is."""
    x_headers = [*_for(PEER[0]), ("X-Forwarded-Proto", "https")]
    cases: list[tuple[Lines, Told]] = [
        ([*x_headers, ("Forwarded", f"for={PEER[0]};proto=https")], ("wss", PEER)),
        ([*x_headers, ("Forwarded", "for=198.51.100.1;proto=https")], ("wss", None)),
        ([*x_headers, ("Forwarded", f"for={PEER[0]};proto=http")], ("ws", PEER)),
    ]
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        await _hold(bench, served, cases)


# ---- HS-6 -----------------------------------------------------------------------------------------------------------


async def _statuses(served: Served, origins: Sequence[str], *lines: tuple[str, str]) -> list[int]:
    return [(await ask(served, headers=[("Origin", origin), *lines])).status for origin in origins]


@check("HS-6")
async def origins_of_any_scheme(bench: Bench) -> None:
    """An origin of an app or of a browser's extension can be listed, and no other is let in for that."""
    listed = ["tauri://localhost", "Chrome-Extension://abcdef", "app://notes.example:7"]
    async with bench.serve(bench.options(origins=listed)) as served:
        equal(
            await _statuses(served, [origin.lower() for origin in listed]), [101] * 3, "the statuses for those listed"
        )
        others = ["tauri://other", "http://tauri.localhost", "chrome-extension://abcdeg", "app://notes.example", "null"]
        equal(await _statuses(served, others), [403] * len(others), f"the statuses for {others}")
        await bench.recorder.closed(3)
        equal(await _statuses(served, [f"app://{served.host}"]), [403], "the status for its own host, not of the web")


@check("HS-6")
async def all_subdomains(bench: Bench) -> None:
    """`https://*.example.com` has each subdomain, at any depth, and neither the domain itself nor any other."""
    async with bench.serve(bench.options(origins=["https://*.Example.com", "http://*.localhost:3000"])) as served:
        accepted = ["https://a.example.com", "https://a.b.EXAMPLE.com:443", "http://app.localhost:3000"]
        equal(await _statuses(served, accepted), [101] * 3, f"the statuses for {accepted}")
        await bench.recorder.closed(3)
        refused = [
            "https://example.com",
            "https://aexample.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://a.example.com.evil.example",
            "http://app.localhost",
        ]
        equal(await _statuses(served, refused), [403] * len(refused), f"the statuses for {refused}")


@check("HS-6")
async def letters_beyond_ascii(bench: Bench) -> None:
    """A host in other letters is listed as it is read, and let in as browsers encode it."""
    async with bench.serve(bench.options(origins=["https://b\xfccher.example", "https://stra\xdfe.example"])) as served:
        accepted = ["https://xn--bcher-kva.example", "https://xn--strae-oqa.example"]
        equal(await _statuses(served, accepted), [101, 101], f"the statuses for {accepted}")
        await bench.recorder.closed(2)
        equal(await _statuses(served, ["https://strasse.example"]), [403], "the status for another spelling")


@check("HS-6", fixed=["address", "tls"])
async def the_host_that_a_proxy_tells(bench: Bench) -> None:
    """X-Forwarded-Host, or `host` of Forwarded, counts as the request's own host, of a trusted proxy only."""
    told = [("X-Forwarded-Host", "app.example:8443"), ("Forwarded", 'host="app.example:8443"')]
    page = ["https://app.example:8443"]
    async with bench.serve(trusted_proxies=TRUSTED) as served:
        for number, line in enumerate(told, 1):
            equal(await _statuses(served, page, line), [101], f"the status for {page}, with {line}")
            await bench.recorder.closed(number)
            equal(await _statuses(served, ["https://app.example"], line), [403], f"for another port, with {line}")
        equal(await _statuses(served, page, told[0], ("Forwarded", "host=other")), [403], "where both contradict")
    async with bench.serve() as served:
        equal(await _statuses(served, page, told[0]), [403], "the status where the proxy is not trusted")


# ---- HS-14 ----------------------------------------------------------------------------------------------------------


def _lines(bench: Bench) -> list[str]:
    """Return what was logged at INFO, and forget it."""
    lines = [record.getMessage() for record in bench.logs if record.levelname == "INFO"]
    bench.logs.clear()
    return lines


def _one_line(bench: Bench, *parts: str) -> str:
    lines = _lines(bench)
    equal(len(lines), 1, f"lines at INFO, for a handshake that was refused: {lines}")
    missing = [part for part in parts if part not in lines[0]]
    equal(missing, [], f"what is missing in {lines[0]!r}")
    return lines[0]


@check("HS-14", fixed=["tls"])
async def one_line_says_why(bench: Bench) -> None:
    """A refused handshake leaves one line at INFO with its status, its path and why."""
    async with bench.serve(max_channels=1) as served:
        bench.logs.clear()
        await ask(served, headers=[("Origin", "https://app.example:3000")])
        _one_line(bench, "403", "'/", "'https://app.example:3000'", f"'http://{served.host}'", "origins")
        await ask(served, replace={"Upgrade": None})
        _one_line(bench, "426", "Upgrade")
        await ask(served, replace={"Sec-WebSocket-Key": "short"})
        _one_line(bench, "400", "Sec-WebSocket-Key")
        await ask(served, target="/nowhere")
        _one_line(bench, "404", "nowhere'", "route")
        async with served.peer():
            await bench.recorder.wait("open-end")
            equal(_lines(bench), [], "the lines for a handshake that was accepted")
            await ask(served)
            _one_line(bench, "503", "max_channels")
        await bench.recorder.closed()


@check("HS-14")
async def a_peer_writes_no_lines(bench: Bench) -> None:
    """What a peer has written is escaped and cut, and many refusals leave few lines."""
    async with bench.serve() as served:
        bench.logs.clear()
        await ask(served, target="/%1b%5b31m%0aforged%ff", headers=[("Origin", b"http://caf\xe9'" + b"x" * 3000)])
        line = _one_line(bench, "403" if served.path else "404")
        await ask(served, headers=[("Origin", b"http://caf\xe9'" + b"x" * 3000)])
        lines = [line, _one_line(bench, "403")]
        for line in lines:
            true(line.isascii() and line.isprintable(), f"a line is not escaped: {line[:300]!r}")
            true(len(line) < 1000, f"a line has {len(line)} characters")
        for _ in range(60):
            await ask(served, replace={"Sec-WebSocket-Key": "short"})
        seen = len(_lines(bench))
        true(1 <= seen <= 40, f"60 refusals in a row left {seen} lines")


@check("HS-14")
async def an_answer_of_the_applications(bench: Bench) -> None:
    """An answer that the application gives, and plain HTTP that finds nothing, leave no line."""

    def refuse(context: Context) -> None:
        if context["request"].path.endswith("/mine"):
            context["response"] = Response("no", 403)

    route = websocket_interceptor("echo", bench.options())
    app = Application([("/mine", [route]), ("/", [route])], [Interceptor(name="mine", enter=refuse)])
    plain = dict.fromkeys(("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"))
    async with bench.serve(app) as served:
        bench.logs.clear()
        equal((await ask(served, target="/mine")).status, 403, "the status by an interceptor")
        equal((await ask(served, target="/favicon.ico", replace=plain)).status, 404, "the status of a missing page")
        equal(_lines(bench), [], "the lines")
