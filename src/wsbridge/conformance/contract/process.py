"""The contract, part four: a process that serves, from its start over signals to the sockets that it is given."""

from __future__ import annotations

from wsbridge.conformance.contract.rule import Rule, rule

__all__ = ["PROCESS_RULES"]

PROCESS_RULES: tuple[Rule, ...] = (
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
        `SystemExit`; if that is caught, the process ends behind the import. One during a `lifespan` that is being
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
        feature. `addresses` tells theirs. When `stop()` has returned, who connects waits for whoever listens there
        next, and `start()` works again. What cannot be listened on, and `host`, `port`, `unix_path` or `reuse_port`
        beside them, raises an error when the connector is made.

        `wsbridge serve --fd N` and systemd's `LISTEN_FDS` hand them in, to `--workers` and `--reload` as well; the
        latter comes before `--host`, `--port` and `--unix-path`. `NOTIFY_SOCKET` is told `READY=1` and `STOPPING=1`,
        and `RELOADING=1` at a reload.""",
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
