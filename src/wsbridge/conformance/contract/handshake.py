"""The contract on the handshake (HS)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["HANDSHAKE_RULES"]

HANDSHAKE_RULES: tuple[Rule, ...] = (
    rule(
        "HS-1",
        level="rfc",
        section="RFC 6455, 4.2.2",
        sentence="""A valid request for a WebSocket is answered with 101 and the `Sec-WebSocket-Accept` that its key
        asks for.""",
        text="""The tokens of `Upgrade` and `Connection` are found in any case and anywhere in a list, so that
        `Connection: keep-alive, Upgrade` is as good as `Connection: Upgrade`. This holds over HTTP/1.1, which is all
        that the connectors speak (HS-18); over HTTP/2 and 3 HS-19 holds.""",
    ),
    rule(
        "HS-2",
        sentence="`on_open` gets a `Request` that tells all that came with the handshake.",
        text="""That is: the method; the path, decoded, and the raw path; the parameters that the route matched; the
        query, raw and parsed; the headers, found in any case, with every value of a repeated one, decoded as latin-1;
        the cookies; the scheme, `ws` or `wss`; the host; the remote address as a pair of a `str` and an `int`, or None;
        the subprotocols that the peer offers, in its order; and the server's own request object.

        `path`, which routes are matched against, is decoded as UTF-8: a sequence that is not UTF-8 becomes U+FFFD, and
        `%2F` becomes `/`. `raw_path` is the path to the letter as sent, the query cut off.

        From a proxy that `trusted_proxies` lists, `X-Forwarded-For` and `X-Forwarded-Proto` are believed for the remote
        address and the scheme; from anyone else they are headers like any other. `"unix"` lists whoever connects by a
        Unix socket. The header's lines are one list, separated by commas and nothing else, and empty elements do not
        count. From its end the trusted proxies are passed over, also as IPv4 addresses mapped into IPv6; the hop before
        them is the peer, and the first where all are trusted. A hop is `address`, `address:port`, `[address]` or
        `[address]:port`, and the port 0 where none is told. A hop that is none of these, such as `unknown`, leaves the
        remote address None: it is never that of the proxy. The scheme is the last that is told, or, where there is one
        for each hop, the one beside the peer's.""",
    ),
    rule(
        "HS-3",
        level="rfc",
        section="RFC 6455, 4.2.2",
        sentence="Of `options.subprotocols` the first that the peer offers is agreed on.",
        text="""The order of the options decides, not the peer's; what the peer offers is taken from all of its header
        lines together. If none matches, or the peer offers none, it is accepted without a subprotocol.
        `channel.subprotocol` tells which it is.""",
    ),
    rule(
        "HS-4",
        section="RFC 6455, 4.2.1",
        sentence="""A request passes the application's interceptors, then the routing, then the interceptors of its
        route, and then the checks of the handshake, in one order on every connector.""",
        text="""The application's interceptors see every request, one that asks for no WebSocket too, so that they can
        answer plain HTTP. A path that no route matches ends there (HS-5). The checks are made by
        `upgrade_request_to_websocket`, and none is left to the server. The first that fails decides, and no callback
        runs:

        1. a method other than GET: 405;
        2. HTTP/1.0: 400, 426 or 505;
        3. no upgrade to a WebSocket asked for: 426 with `Upgrade: websocket` and `Connection: Upgrade`;
        4. a version other than 13: 426 with `Sec-WebSocket-Version: 13`;
        5. a key that is missing, repeated or ill-formed: 400;
        6. a `Host` that is missing or repeated: 400;
        7. an origin that is not let in (HS-6): 403.

        Over HTTP/2 and 3, where there is no upgrade, 1 is a method other than CONNECT, 3 and 5 are left out, and 4 is
        answered with 400 (HS-19).

        Bytes that are not HTTP may be refused by the server itself, with any 4xx or with 501, or with 505 where it is
        the version that is wrong, or by closing the connection. They never reach a callback. For requests with a body
        see HS-16, for large ones HS-17. An answer after which the connection ends says so: `Connection: close`, or
        `Upgrade, close` (RFC 9112, 9.6).""",
    ),
    rule(
        "HS-5",
        sentence="A path that no route matches is answered with 404.",
    ),
    rule(
        "HS-6",
        section="RFC 6455, 10.2",
        sentence="A request from another origin is let in only if the options list that origin.",
        text="""No `Origin` at all is let in. One is let in if its host and port are those that the request itself is
        addressed to, by `Host` or by the `X-Forwarded-Host` of a trusted proxy, or if `options.origins` has it as
        `scheme://host[:port]`, whatever the scheme; case plays no part, a default port is the same as none, and letters
        beyond ASCII are encoded as browsers do it. `scheme://*.host[:port]` stands for all subdomains of a host,
        without itself. `"*"` lets any in, `null` too, which any page can have. Otherwise `null`, one that cannot be
        parsed, and a repeated header get 403. This is the same on every connector, whatever its server checks by
        itself. An entry that no browser's origin can match raises a `ValueError` when the options are made, which says
        what would be right.""",
    ),
    rule(
        "HS-7",
        sentence="An interceptor that sets a `Response` has answered the request.",
        text="""The chain goes no further, no callback runs, and the peer gets that status, those headers, each line of
        a repeated one, and that body. A handshake that is not let in gets one answer, and nothing after it.""",
    ),
    rule(
        "HS-8",
        sentence="Headers that an interceptor adds to the handshake's response stand in the 101, repeated ones too.",
    ),
    rule(
        "HS-9",
        sentence="An exception that no error stage of the chain takes is answered with 500, and logged.",
        text="The body says nothing of it.",
    ),
    rule(
        "HS-10",
        sentence="""A peer that goes away in the middle of its handshake, or does not complete its request within
        `handshake_timeout`, leaves nothing behind.""",
        text="""No callback has run, and no task and no socket is left. A byte every now and then buys it no more
        time. TLS has to be agreed on within the same time before.""",
    ),
    rule(
        "HS-11",
        sentence="""What a peer sends right after its request, without waiting for the 101, is handled after the 101 and
        in order.""",
        text="""Messages are delivered once `on_open` has returned. A ping, a close or a violation among them gets what
        it would get at any later time. No byte is lost, doubled or moved, wherever the packet of the request ends:
        within the head of a frame, or after many.""",
    ),
    rule(
        "HS-12",
        sentence="""With `max_channels` open, the next handshake is answered with 503 and a `Retry-After`, and the open
        channels go on undisturbed.""",
        text="""A channel counts from the moment that its request has passed the checks until its `on_close` has
        returned, so that handshakes side by side cannot exceed the limit together. Whichever way a handshake or
        a channel ends, its place is free again within a moment, and counts once: also after a stop and a new start.""",
        stochastic=True,
    ),
    rule(
        "HS-13",
        sentence="""A peer that does not take its answer in plain HTTP within `handshake_timeout` is cut off, and
        nothing of it is left.""",
        text="""A peer that goes on asking and takes nothing is cut off too, within one and a half times that. What it
        has not taken is held in bounded memory meanwhile. A refused handshake is such an answer; a channel has
        LIM-4.""",
    ),
    rule(
        "HS-14",
        sentence="A handshake that wsbridge refuses leaves one line in the log, at INFO: status, path and why.",
        text="""For an origin that is not let in it has both origins, the request's own too. What the peer has written
        stands there as a Python literal in ASCII, cut to 100 characters. There are 20 lines at once and 5 a second at
        most, and the next one tells how many were left out. An answer of the application's leaves none.""",
    ),
    rule(
        "HS-15",
        section="RFC 7239, 4 and 6",
        sentence="`Forwarded` of a trusted proxy tells what `X-Forwarded-For`, `-Proto` and `-Host` tell.",
        text="""Its `for`, `proto` and `host` are read, quoted or not; an element that is ill-formed is a hop that
        nobody knows. A proxy writes one of the two families, and passes on what a peer has written into the other. So
        they are not mixed: where both tell the same, that is believed, and where they contradict each other neither is.
        The remote address is None then, the scheme is that of the connection, and the host is that of `Host` alone.""",
    ),
    rule(
        "HS-16",
        sentence="""A request with a body passes the interceptors like any other, and its body is not read: the
        connection ends after the answer, which says `Connection: close`.""",
        text="""Without an answer of theirs it gets what HS-4 orders: 404 without a route, 405 for a POST, and, as the
        last check before the origin's, 400 for a GET that would be a handshake but for the body, which would be taken
        for frames. A `Content-Length: 0` is not a body. What the peer still sends is read and dropped until it has the
        answer. In a mount the framework may read the body first, and has limits of its own.""",
    ),
    rule(
        "HS-17",
        sentence="""A request whose line and headers have more than `max_head_size` bytes is answered with 431; one up
        to that passes, in however few lines it is.""",
        text="""By default that is 64 KiB. More than 128 headers get 431 too, and granian's server takes 99. In a mount
        and in `asgi_app` the server of the framework may have a lower limit.""",
    ),
    rule(
        "HS-18",
        section="RFC 9113, 7",
        sentence="""A client that selects HTTP/2 by ALPN, since the connector was given an `SSLContext` that offers it,
        is told to use HTTP/1.1, and the log says so.""",
        text="""It gets the empty SETTINGS and a GOAWAY with HTTP_1_1_REQUIRED, for which a browser may come again with
        HTTP/1.1; what it sends is dropped, and the connection ends. There is one WARNING for each connector, which says
        what would be right: no `h2` among the protocols of the context, or `asgi_app` on a server that speaks HTTP/2.
        A mount is served by the server of somebody else, and leaves this to it.""",
    ),
    rule(
        "HS-19",
        kind="library",
        level="rfc",
        section="RFC 8441, 5",
        sentence="""Over HTTP/2 and HTTP/3, on a server that has WebSockets there, `asgi_app` takes a WebSocket as it
        does over HTTP/1.1.""",
        text="""It is a stream of the connection, opened by a CONNECT with `:protocol` websocket, and 200 is the answer.
        It has no `Upgrade`, no `Connection` and no `Sec-WebSocket-Key`, and none is asked for. `request.method` is
        `CONNECT`, `request.http_version` is `2` or `3`, and `Host` is the `:authority`.

        An ordinary request for the path of a WebSocket gets 405 with `Allow: CONNECT`, a version other than 13 gets 400
        with `Sec-WebSocket-Version: 13`, and a CONNECT that the server hands on as an ordinary request gets 501: that
        server has no WebSockets there. A `Response` of 2xx, which would be taken for an open WebSocket, goes out as 400
        (HS-7); so an interceptor that answers a path for everybody answers a page's request only. Headers that belong
        to a connection (RFC 9113, 8.2.2) are left out of an answer. All else is as over HTTP/1.1.""",
    ),
)
