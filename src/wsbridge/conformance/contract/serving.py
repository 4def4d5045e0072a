"""The contract on serving: start and stop, mounts, threads and processes, the registry (STOP, MOUNT, THR, REG)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["SERVING_RULES"]

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
        text="""Whoever connects meanwhile waits. It is logged, two times a second at most, nothing more after `stop()`,
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
        "STOP-10",
        sentence="""A `stop()` while `start()` runs ends that start: `start()` raises `ConnectorStateError`, and when
        either has returned nothing is left.""",
        text="""What waits for others is cancelled: the look-up of a name, and the entering of the application's
        `lifespan`, which has until `shutdown_timeout` to clean up; one that suppresses its cancellation is logged and
        given up. A server that is being started is started to its end and then stopped. A `start()` that is cancelled
        ends in the same way, and `start()` works again then.""",
    ),
    rule(
        "STOP-11",
        kind="library",
        sentence="""From the first line of `wsbridge serve` on, and all through `run`, SIGINT and SIGTERM end the
        process in order, whatever is under way.""",
        text="""The handlers stand before the connector and the application are imported, since to process 1 of a
        container the kernel delivers no signal without one. A signal during an import is raised there as a
        `SystemExit`; if that is caught, the process ends after the import. One during a `lifespan` that is being
        entered ends the start (STOP-10), the first SIGINT too. The exit code is 0. Where an event loop takes no signal
        handlers, as on Windows, those of the process do the same. `run` outside of the main thread, or where an event
        loop runs, raises `ConnectorStateError`.""",
    ),
    rule(
        "STOP-12",
        kind="library",
        sentence="A SIGHUP cuts nothing off: it is as SIGTERM, or loads the certificate again (STOP-14).",
        text="""It is a reload when `run` was given a `certificate`, or `wsbridge serve` a `--certfile`. One that was
        ignored when the process began, as by `nohup`, stays ignored. `--workers` passes it on to each worker, as the
        SIGTERM that it means or as the reload; a worker that has only just been started does not miss it.""",
    ),
    rule(
        "STOP-13",
        kind="library",
        sentence="""`wsbridge serve --workers N --reuse-port` shares its port with the next generation, which may start
        while the first still serves.""",
        text="""Without `--reuse-port` whoever finds that somebody listens there is told that the port is in use, so
        that no two share it unawares.""",
    ),
    rule(
        "STOP-14",
        kind="library",
        sentence="""A renewed certificate is taken without a restart, at a SIGHUP and when its files change; open
        channels live on.""",
        text="""`wsbridge serve --certfile` and `run(certificate=...)` look at the files every second, each worker for
        itself. New connections get what is renewed. Files that cannot be used are logged once, and what is in use is
        kept; half-written ones are not yet logged. What `--client-ca` trusts is read once.""",
    ),
    rule(
        "STOP-15",
        features=("unix-socket",),
        sentence="A connector listens on the bound sockets that it is given by `sockets`, and leaves them open.",
        text="""They are TCP or Unix stream sockets, listening or not; the Unix socket, and that alone, needs the
        feature. `addresses` tells theirs. When `stop()` has returned, whoever connects waits for the next to listen
        there, and `start()` works again. What cannot be listened on, and `host`, `port`, `unix_path` or `reuse_port`
        beside them, raises an error when the connector is made.

        `wsbridge serve --fd N` and systemd's `LISTEN_FDS` hand them in, to `--workers` and `--reload` as well; the
        latter comes before `--host`, `--port` and `--unix-path`. `NOTIFY_SOCKET` is told `READY=1` and `STOPPING=1`,
        and `RELOADING=1` at a reload.""",
    ),
    rule(
        "MOUNT-1",
        level="feature",
        features=("mount",),
        sentence="""Each connector mounts options, or a whole `Application`, at a path of an application of its
        server's own framework, beside what that serves itself.""",
        text="""There are mounts for an aiohttp application, for a tornado application and for
        `websockets.asyncio.server.serve`. Every rule holds there too, but for STOP-1, STOP-4, STOP-7 to STOP-9, HS-10
        and HS-13. Where the framework has a hook for its shutdown, that stops the mount; `await mount.stop()` does so
        everywhere.""",
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
        request first, those for the mounted path too, and a response that it returns is the answer.""",
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
    rule(
        "REG-6",
        kind="library",
        sentence="""A connector whose server, or another package that it needs, is older or newer than what is supported
        raises `ServerVersionError`.""",
        text="""What is supported stands in the metadata of the extra of wsbridge that bears the connector's name; the
        message tells it, the version that is there, and the `pip install` line. `wsbridge connectors` tells it too.""",
    ),
)
