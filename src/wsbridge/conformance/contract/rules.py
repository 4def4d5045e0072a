"""The contract, part one: how a channel comes about, and where it lives. Part two is `rules_channel`.

`wsbridge.conformance.contract.catalogue` joins both; ``docs/spec.md`` is written from them.
"""

from __future__ import annotations

from wsbridge.conformance.contract.rule import Rule, rule

__all__ = ["CONTEXT_RULES", "HANDSHAKE_RULES", "OPENING_RULES", "SERVING_RULES"]

HANDSHAKE_RULES: tuple[Rule, ...] = (
    rule(
        "HS-1",
        level="rfc",
        section="RFC 6455, 4.2.2",
        sentence="""A valid request for a WebSocket is answered with 101 and the `Sec-WebSocket-Accept` that its key
        asks for.""",
        text="""The tokens of `Upgrade` and `Connection` are found in any case and anywhere in a list, so that
        `Connection: keep-alive, Upgrade` is as good as `Connection: Upgrade`. So it is over HTTP/1.1, which is all that
        the connectors speak (HS-18); over HTTP/2 and 3 HS-19 holds.""",
    ),
    rule(
        "HS-2",
        sentence="`on_open` gets a `Request` that tells all that came with the handshake.",
        text="""That is: the method; the path, decoded, and the raw path; the parameters that the route matched; the
        query, raw and parsed; the headers, found in any case, with every value of a repeated one, decoded as latin-1;
        the cookies; the scheme, `ws` or `wss`; the host; the remote address as a pair of a `str` and an `int`, or None;
        the subprotocols that the peer offers, in its order; and the server's own request object.

        `path`, which routes are matched against, is decoded as UTF-8: a sequence that is none becomes U+FFFD, and
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

        Bytes that are no HTTP may be refused by the server itself, with any 4xx or with 501 or by closing the
        connection. They never reach a callback. For requests with a body see HS-16, for large ones HS-17. An answer
        after which the connection ends says so: `Connection: close`, or `Upgrade, close` (RFC 9112, 9.6).""",
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
        parsed, and a repeated header get 403. It is so on every connector, whatever its server checks by itself. An
        entry that no browser's origin can match raises a `ValueError` when the options are made, which says what would
        be right.""",
    ),
    rule(
        "HS-7",
        sentence="An interceptor that sets a `Response` has answered the request.",
        text="""The chain goes no further, no callback runs, and the peer gets that status, those headers, each line of
        a repeated one, and that body.""",
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
        sentence="""What a peer sends right behind its request, without waiting for the 101, is handled after the 101
        and in order.""",
        text="""Messages are delivered once `on_open` has returned. A ping, a close or a violation among them gets what
        it would get at any later time.""",
    ),
    rule(
        "HS-12",
        sentence="""With `max_channels` open, the next handshake is answered with 503 and a `Retry-After`, and the open
        channels go on undisturbed.""",
        text="""A channel counts from the moment that its request has passed the checks until its `on_close` has
        returned, so that handshakes side by side cannot exceed the limit together.""",
        stochastic=True,
    ),
    rule(
        "HS-13",
        sentence="""A peer that does not take its answer in plain HTTP within `handshake_timeout` is cut off, and
        nothing of it is left.""",
        text="""So is one that goes on asking and takes nothing, within one and a half times that. What it has not taken
        is held in bounded memory meanwhile. A refused handshake is such an answer; a channel has LIM-4.""",
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
        The remote address is None then, the scheme that of the connection, and the host none but `Host`.""",
    ),
    rule(
        "HS-16",
        sentence="""A request with a body passes the interceptors like any other, and its body is not read: the
        connection ends after the answer, which says `Connection: close`.""",
        text="""Without an answer of theirs it gets what HS-4 orders: 404 without a route, 405 for a POST, and, as the
        last check before the origin's, 400 for a GET that would be a handshake but for the body, which would be taken
        for frames. A `Content-Length: 0` is no body. What the peer still sends is read and dropped until it has the
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

OPENING_RULES: tuple[Rule, ...] = (
    rule(
        "OPEN-1",
        sentence="""`on_open(channel, request)` runs once, before every other callback, and what it returns is handed
        to each of them.""",
        text="""It is the same object every time: the process object. Without an `on_open` it is None.""",
    ),
    rule(
        "OPEN-2",
        sentence="A callback is a coroutine function, or a plain function, which runs on the event loop.",
        text="""If a plain function returns a *coroutine*, that is awaited; anything else, a Task or a Future as well,
        is a value like any other and is not awaited. Of a callback for messages, whose value nobody needs, another
        object with `__await__` is awaited too, as compiled functions return it. The process object is what `on_open`
        returns, or what its coroutine does.""",
    ),
    rule(
        "OPEN-3",
        sentence="""Messages that come in while `on_open` runs wait in bounded memory, and are delivered in order after
        it.""",
    ),
    rule(
        "OPEN-4",
        sentence="What `on_open` sends reaches the peer, and before any answer to the peer's messages.",
    ),
    rule(
        "OPEN-5",
        sentence="""`on_open` may close the channel; then no message is delivered, and `on_close` runs after `on_open`
        has returned.""",
    ),
    rule(
        "OPEN-6",
        sentence="If `on_open` raises, that is logged and the channel is closed with 1011.",
        text="`on_close` runs if, and only if, `on_open` has returned, or there is none.",
    ),
    rule(
        "OPEN-7",
        sentence="""`channel.id` is 128 random bits as text, so that no two channels share one, in whatever worker or
        on whatever machine.""",
    ),
    rule(
        "OPEN-8",
        sentence="""A channel takes one callback for text and one for binary messages, from the options or by
        `channel.on_text` and `channel.on_binary`.""",
        text="""The call may come at any time before the end, and the callback serves the messages that are delivered
        after it. A second one raises `CallbackAlreadySetError`, and the first stays in force.""",
    ),
    rule(
        "OPEN-9",
        sentence="""An `on_open` that runs for long, such as a loop that only sends, does not hide the end of the
        channel.""",
        text="""When no message came in before it, a close or a loss is noticed within 1 s: sends return False and
        `wait_closed()` resolves. `on_open` is cancelled by `stop()` and by nothing else.""",
    ),
    rule(
        "OPEN-10",
        sentence="""A callback that is a coroutine runs inside an `asyncio.Task`, so that `asyncio.timeout`,
        `asyncio.TaskGroup` and `asyncio.current_task` work in it.""",
    ),
    rule(
        "OPEN-11",
        sentence="""Before `on_open` starts, a send and `close` raise `ChannelNotOpenError`; callbacks can be
        registered.""",
    ),
    rule(
        "OPEN-12",
        kind="library",
        sentence="What is handed over to be called is checked then: that it can be called as it will be, and will run.",
        text="""A callback, a handler, an interceptor's stage or a `lifespan` that does not take as many arguments, has
        further ones that are required, or is a generator or async generator function raises a `TypeError` with its
        name, file and line, and with what it must take. Methods, partials, classes, objects with `__call__` and
        decorated functions are callables like any other. What cannot be told is taken: a callable without a signature,
        or a decorator that takes any arguments.""",
    ),
)

SERVING_RULES: tuple[Rule, ...] = (
    rule(
        "STOP-1",
        sentence="`start()` returns once the sockets listen, and `connector.addresses` and `connector.url` tell where.",
        text="""Port 0 gives a free port, and the same one for every address that the host has. A second `start()`
        raises `ConnectorStateError`. A port that is taken raises `OSError`, and nothing is left behind; that is told
        before the lifespan is entered, unless another process takes it meanwhile. The sockets are bound by the base of
        all connectors, which hands them to the server. They listen only when the lifespan is entered: until then others
        that share the port by `SO_REUSEPORT` get every connection. 1,024 connections may wait to be accepted on every
        connector, if the system lets so many.""",
    ),
    rule(
        "STOP-2",
        sentence="`stop()` takes no more connections, and sends each channel a close frame with 1001 at once.",
        text="""At half of `shutdown_timeout`, a peer that has not answered is cut off, the callbacks that still run are
        cancelled, and every `on_close` is begun. At `shutdown_timeout`, with 0.25 s of grace, whatever still runs is
        cancelled, logged and given up. A peer that reads, and answers within the first half, gets every message for
        which a send returned True, and the 1001 after them.""",
    ),
    rule(
        "STOP-3",
        sentence="When `stop()` has returned, nothing of the connector's is left: no task, socket, thread or warning.",
        text="""`start()` works again then. A second `stop()`, or one before `start()`, does nothing. Two at the same
        time wait for one and the same stop. A `stop()` that is cancelled cuts everything off at once. One that is
        awaited from a callback does not deadlock. Connections on which TLS is not agreed yet end too.""",
    ),
    rule(
        "STOP-4",
        features=("unix-socket",),
        sentence="""A connector serves TLS when it is given an `ssl.SSLContext`, on a Unix socket when it is given a
        path, and shares its port by `SO_REUSEPORT` when it is asked to.""",
        text="The Unix socket, and that alone, needs the feature.",
    ),
    rule(
        "STOP-5",
        sentence="""A handshake that is under way when `stop()` is called is refused, or its channel closed; it never
        hangs.""",
    ),
    rule(
        "STOP-6",
        sentence="""The application's `lifespan` is entered before the first connection is served, and left, in the
        same task, when every `on_close` has ended.""",
        text="""What it raises as it is entered, `start()` raises, and nothing is left. What it raises as it is left,
        `stop()` raises, when all else has been stopped. One that is not left at `shutdown_timeout` is cancelled, and
        that is logged. Each `start()` enters it anew. An application with a lifespan is not mounted
        (`UnsupportedOptionError`): the framework's own is the place for it.""",
    ),
    rule(
        "STOP-7",
        features=("unix-socket",),
        sentence="""The file of a Unix socket has the `unix_mode` and `unix_owner` that are asked for, and is removed
        when listening ends, if it is the one that was bound.""",
        text="""At no moment is it more open than asked for. A file on which nobody listens is replaced; one on which
        somebody does, however busy, raises `OSError`. Of two that start at once one serves, and the other raises
        `OSError`. The file is removed at the beginning of `stop()`, so that a successor can start while channels end;
        a file that another process has put there stays.""",
    ),
    rule(
        "STOP-8",
        sentence="""A connector that has no descriptor or memory left for a connection goes on serving the others, and
        accepts again by itself.""",
        text="""Who connects meanwhile waits. It is logged, two times a second at most, nothing more after `stop()`,
        and costs little CPU.""",
    ),
    rule(
        "STOP-9",
        sentence="""Whoever the system has connected when `stop()` is called is accepted, and nobody is reset: a request
        that has come gets 503, and the connection ends.""",
        text="""So does a request that comes within 0.25 s, or a quarter of `shutdown_timeout`, which `stop()` waits for
        it; later ones are cut off. With `SO_REUSEPORT` and a successor that listens no connection is lost. A server
        that accepts by itself, such as granian, may do so until its channels have ended.""",
    ),
    rule(
        "MOUNT-1",
        level="feature",
        features=("mount",),
        sentence="""Each connector mounts options, or a whole `Application`, at a path of an application of its
        server's own framework, beside what that serves itself.""",
        text="""There are mounts for an aiohttp application, for a tornado application and for
        `websockets.asyncio.server.serve`. Every rule holds there too, but for STOP-1, STOP-4, STOP-7 to STOP-9, HS-10,
        HS-12 and HS-13. Where the framework has a hook for its shutdown, that stops the mount; `await mount.stop()`
        does so everywhere.""",
    ),
    rule(
        "MOUNT-2",
        level="feature",
        features=("mount",),
        sentence="The clock of a mount starts with its first channel and ends with its last.",
    ),
    rule(
        "MOUNT-3",
        kind="library",
        sentence="""The framework's own hooks guard a mount: the `process_request` of a mount in websockets sees every
        request first, those for the mounted path too, and a response of its is the answer.""",
        text="""No interceptor runs then. In aiohttp and in ASGI frameworks the middlewares of the application are such
        hooks; tornado has none.""",
    ),
    rule(
        "THR-1",
        sentence="Nothing is thread-safe, and asyncio's debug mode says so.",
        text="""With it on, a call from another thread, or another event loop, raises a `RuntimeError` that names
        `loop.call_soon_threadsafe`.""",
    ),
    rule(
        "THR-2",
        kind="library",
        sentence="A connector belongs to the event loop that ran its `start()`.",
        text="Worker processes are fresh interpreters; a process whose loop runs is never forked.",
    ),
    rule(
        "THR-3",
        sentence="A connector keeps an open channel alive, and holds nothing of it once `on_close` has returned.",
        stochastic=True,
    ),
    rule(
        "THR-4",
        sentence="The contract holds on asyncio's event loop and on uvloop, in debug mode, and under a task factory of "
        "the application's own, one that starts tasks at once too.",
        text="""What the application makes by `loop.set_task_factory(asyncio.eager_task_factory)` starts inside the call
        that makes it; what the library makes begins in a later turn, as ever. The suite runs under each of these
        conditions: `wsbridge conformance NAME --loop uvloop --debug --eager-tasks`.""",
    ),
    rule(
        "REG-1",
        kind="library",
        sentence="Connectors are found by the entry-point group `wsbridge.connectors`.",
        text="To list them imports no server; to load one imports that one's server and no other.",
    ),
    rule(
        "REG-2",
        kind="library",
        sentence="An unknown name raises `ConnectorNotFoundError`.",
        text="The message tells the closest name, which connectors are installed, and which could be.",
    ),
    rule(
        "REG-3",
        kind="library",
        sentence="A server package that is missing raises `ConnectorNotInstalledError`, chained to the failed import.",
        text="""The message names all that is missing of what the extra of wsbridge asks for, and has the exact
        `pip install` line to run. A connector that is there and fails to import for another reason raises its own error
        and not this one.""",
    ),
    rule(
        "REG-4",
        kind="library",
        sentence="A name that two distributions register is refused with an error that names both.",
        text="""`name@distribution` says which is meant. `module:Class` is taken as an import path, and a class can be
        passed as it is.""",
    ),
    rule(
        "REG-5",
        kind="library",
        sentence="""A connector that was written for another version of the connector interface is refused, and both
        versions are named.""",
    ),
)

CONTEXT_RULES: tuple[Rule, ...] = (
    rule(
        "CTX-1",
        kind="library",
        sentence="The context is a plain `dict` with four documented keys, to which interceptors may add their own.",
        text="""The keys are `request`, `response`, `websocket_channel_source` and `websocket_channel`.""",
    ),
    rule(
        "CTX-2",
        kind="library",
        sentence="""An `Interceptor` has a name and up to three stages, `enter`, `leave` and `error`, each a plain or a
        coroutine function.""",
        text="""The enter stages run in order, the leave stages in reverse. After an exception the error stages run in
        reverse until one takes it. A `response` in the context ends the enter stages. When a handshake is cancelled,
        since its peer leaves or the connector stops, the error stages of all that have entered run with the
        `asyncio.CancelledError`, so that each lets go of what it holds; none can take it.""",
    ),
    rule(
        "CTX-3",
        sentence="""`upgrade_request_to_websocket(context, options)` is a plain function that turns a request into a
        channel.""",
        text="""It checks the request (HS-4), calls `initialize_websocket`, a plain method, of the source that the
        connector put into the context, and returns the context: with `websocket_channel` set, or with `response` if the
        request is refused. The 101 is sent when the leave stages have run, and `on_open` runs after that. A leave or
        error stage that sets a `response`, or raises, ends the channel before it began: no callback runs, and the peer
        gets that response.""",
    ),
    rule(
        "CTX-4",
        kind="library",
        sentence="Where the context holds no WebSocket source, `upgrade_request_to_websocket` raises `UpgradeError`.",
    ),
    rule(
        "CTX-5",
        kind="library",
        sentence="`websocket_interceptor(name, options)` is that call as the enter stage of an interceptor.",
    ),
    rule(
        "CTX-6",
        sentence="""When a handshake is cancelled, the error stages of the interceptors that have entered run, in
        reverse, with the `asyncio.CancelledError`.""",
        text="""None can take it: the cancellation goes on when all have run, and at a stop the request gets 503. What
        one raises is logged. `stop()` waits for them as it does for `on_close`. A `CancelledError` that a stage raises
        though nobody cancelled the handshake is a failure like any other, for the error stages and for HS-9.""",
    ),
    rule(
        "CONN-1",
        kind="library",
        sentence="""`start_ws_connection` returns a `WebSocketConnection`, a queue that sends its messages one after
        another.""",
        text="It holds at most `send_buffer` messages, by default 10.",
    ),
    rule(
        "CONN-2",
        kind="library",
        sentence="""A message is queued by `put`, which waits for room, by `put_nowait`, which raises
        `asyncio.QueueFull` when there is none, or by `send`, which waits for the result too.""",
        text="""`await send(message)` returns `SendResult.SUCCESS` or `SendResult.CLOSED` for its own message, or raises
        the exception that sending it raised. An exception that nobody waits for is logged, once.""",
    ),
    rule(
        "CONN-3",
        kind="library",
        sentence="An exception does not stop the queue; the end of the channel does.",
        text="""From then on, every put or send that waits, and every one that follows, gets `CLOSED`; a put returns it.
        The channel itself is not closed by any of this.""",
    ),
    rule(
        "CONN-4",
        kind="library",
        sentence="""`await close(code, text)` sends what is queued and then closes the channel; leaving the connection's
        `async with` block does the same.""",
        text="The code is 1000 and the text empty if they are left out; those that cannot be sent are refused at once.",
    ),
    rule(
        "CONN-5",
        kind="library",
        sentence="""A connection that is dropped without a close leaves no task behind: a sender runs only while
        something is queued.""",
    ),
    rule(
        "CONN-6",
        kind="library",
        sentence="""A message is encoded by the channel's codec when it is put, and what is wrong with it is raised
        there.""",
        text="""That is what the codec raises; and, without one too, `TypeError` for what is no message and
        `UnicodeEncodeError` for a text that UTF-8 cannot encode. Nothing is queued then.""",
    ),
    rule(
        "CONN-7",
        kind="library",
        sentence="A put or a send that is cancelled while its message waits has sent nothing, and never will.",
        text="""It may wait for a place, in the queue, or for a peer that reads too slowly. A message that is being
        written is sent in whole or not at all (SEND-5). No other message is disturbed by it.""",
    ),
)
