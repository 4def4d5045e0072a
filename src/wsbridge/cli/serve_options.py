"""The options of ``wsbridge serve``: what the command line takes, what `run` is given, and what a child is asked for.

An option stands in three places here: `serve_options`, the fields of `ServeCommand`, and its two methods.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from wsbridge._process.activation import inherited_descriptors
from wsbridge._process.loops import LOOPS, LoopName
from wsbridge.cli.exit_codes import Exit
from wsbridge.cli.failure import Failure
from wsbridge.cli.option_checks import networks, owner, permissions, seconds
from wsbridge.tls import Certificate, TLSFileError

__all__ = ["ServeCommand", "check_together", "serve_options"]

_Option = Callable[[Any], Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_CONNECTOR: tuple[_Option, ...] = (
    click.option(
        "-c",
        "--connector",
        envvar="WSBRIDGE_CONNECTOR",
        show_envvar=True,
        metavar="NAME",
        help="The server to run on: a name that `wsbridge connectors` lists, NAME@DISTRIBUTION or MODULE:CLASS. "
        "By default the only one that is installed.",
    ),
)
_ADDRESS: tuple[_Option, ...] = (
    click.option("--host", default="127.0.0.1", show_default=True, help="The name or address to listen at."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 takes a free one."
    ),
    click.option(
        "--reuse-port",
        is_flag=True,
        help="Let other processes of this user listen there too (SO_REUSEPORT), such as the next generation of "
        "--workers.",
    ),
    click.option("--unix-path", metavar="PATH", help="Listen on this Unix socket instead."),
    click.option(
        "--unix-mode",
        callback=permissions,
        metavar="OCTAL",
        help="Permissions of the socket's file, such as 660: who may write to it may connect.",
    ),
    click.option(
        "--unix-owner",
        callback=owner,
        metavar="USER[:GROUP]",
        help="Whom the socket's file is given to, by name or number, which takes root; :GROUP alone, a group of one's "
        "own.",
    ),
    click.option(
        "--fd",
        "descriptors",
        type=click.IntRange(0),
        multiple=True,
        metavar="N",
        help="Listen on this descriptor instead, a socket that is bound; may be repeated. Sockets that systemd hands "
        "over (LISTEN_FDS) need no option, and come before --host, --port and --unix-path.",
    ),
)
_PROCESSES: tuple[_Option, ...] = (
    click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Serve by N processes that share the port. One that dies is replaced, after a delay that grows while they "
        "die young.",
    ),
    click.option(
        "--app-dir",
        type=click.Path(exists=True, file_okay=False),
        default=".",
        help="Where MODULE is looked for first. By default the current directory.",
    ),
)
_LIMITS: tuple[_Option, ...] = (
    click.option(
        "--shutdown-timeout",
        type=float,
        callback=seconds,
        metavar="SECONDS",
        default=10.0,
        show_default=True,
        help="How long peers and callbacks have to end at a stop.",
    ),
    click.option(
        "--handshake-timeout",
        type=float,
        callback=seconds,
        metavar="SECONDS",
        default=10.0,
        show_default=True,
        help="How long a peer has to send its request.",
    ),
    click.option(
        "--max-channels",
        type=click.IntRange(1),
        metavar="N",
        help="Answer more channels than that, in each process, with 503. By default there is no limit.",
    ),
    click.option(
        "--max-head-size",
        type=click.IntRange(1024),
        metavar="BYTES",
        default=64 * 1024,
        show_default=True,
        help="Answer a request whose line and headers are larger with 431.",
    ),
)
_TRUST: tuple[_Option, ...] = (
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        multiple=True,
        callback=networks,
        metavar="ADDRESS",
        help="Believe X-Forwarded-* and Forwarded of this address or network, or of peers of the Unix socket "
        "(unix); may be repeated.",
    ),
    click.option(
        "--certfile",
        metavar="FILE",
        help="Serve TLS with this certificate (PEM, with its chain). When the file changes, and at a SIGHUP, it is "
        "loaded again, for new connections.",
    ),
    click.option(
        "--keyfile", metavar="FILE", help="The certificate's private key. By default it stands in --certfile."
    ),
    click.option("--client-ca", metavar="FILE", help="Let in only clients with a certificate of an authority in FILE."),
)
_STOPPING: tuple[_Option, ...] = (
    click.option(
        "--health",
        metavar="PATH",
        help="Answer this path in plain HTTP: 200, and 503 as soon as a signal to stop comes.",
    ),
    click.option(
        "--grace",
        type=float,
        callback=seconds,
        metavar="SECONDS",
        help="Serve on for so long after SIGTERM, so that a load balancer sees the 503 of --health and looks "
        "elsewhere.",
    ),
)
_RUNNING: tuple[_Option, ...] = (
    click.option(
        "--loop", type=click.Choice(LOOPS), default="asyncio", show_default=True, help="The event loop to serve on."
    ),
    click.option(
        "--server-pings",
        is_flag=True,
        help="Serve although wsbridge cannot ping on this server (granian): leave pings to it, if it has any.",
    ),
    click.option("--reload", is_flag=True, help="Start again when a Python file below --app-dir changes."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error, and log everything."),
)


def serve_options(function: _Function) -> _Function:
    """Give a command the options of ``wsbridge serve``, in the order of its help page."""
    for option in reversed((*_CONNECTOR, *_ADDRESS, *_PROCESSES, *_LIMITS, *_TRUST, *_STOPPING, *_RUNNING)):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """What ``wsbridge serve`` was asked for."""

    target: str
    connector: str | None
    host: str
    port: int
    reuse_port: bool
    unix_path: str | None
    unix_mode: int | None
    unix_owner: str | None
    descriptors: tuple[int, ...]
    app_dir: str
    shutdown_timeout: float
    handshake_timeout: float
    max_channels: int | None
    max_head_size: int
    trusted_proxies: tuple[str, ...]
    certfile: str | None
    keyfile: str | None
    client_ca: str | None
    health: str | None
    grace: float | None
    loop: LoopName
    server_pings: bool
    debug: bool

    def arguments(self) -> list[str]:
        """Return the command line that asks for the same."""
        options: dict[str, object] = {
            "app-dir": self.app_dir,
            "connector": self.connector,
            "unix-path": self.unix_path,
            "unix-mode": None if self.unix_mode is None else f"{self.unix_mode:o}",
            "unix-owner": self.unix_owner,
            "shutdown-timeout": self.shutdown_timeout,
            "handshake-timeout": self.handshake_timeout,
            "max-channels": self.max_channels,
            "max-head-size": self.max_head_size,
            "certfile": self.certfile,
            "keyfile": self.keyfile,
            "client-ca": self.client_ca,
            "health": self.health,
            "grace": self.grace,
            "loop": self.loop,
        }
        if self.unix_path is None and not self.descriptors:
            options |= {"host": self.host, "port": self.port}
        arguments = ["serve", *(f"--{name}={value}" for name, value in options.items() if value is not None)]
        arguments += [f"--fd={descriptor}" for descriptor in self.descriptors]
        arguments += [f"--trusted-proxy={proxy}" for proxy in self.trusted_proxies]
        arguments += [
            f"--{name}"
            for name, is_set in (
                ("debug", self.debug),
                ("reuse-port", self.reuse_port),
                ("server-pings", self.server_pings),
            )
            if is_set
        ]
        return [*arguments, "--", self.target]

    @property
    def patience(self) -> float:
        """Seconds that a process may take to end."""
        return (self.grace or 0) + self.shutdown_timeout

    def certificate(self) -> Certificate | None:
        """Return what TLS is served with, if it is.

        Raises:
            Failure: A certificate or key file cannot be used.
        """
        try:
            return None if self.certfile is None else Certificate(self.certfile, self.keyfile, self.client_ca)
        except TLSFileError as exc:
            raise Failure(Exit.BAD_CERTIFICATE, str(exc), debug=self.debug) from exc

    def options(self) -> dict[str, Any]:
        """Return the options of `run`, but for sockets that were handed over.

        Raises:
            Failure: A certificate or key file cannot be used.
        """
        where: dict[str, Any] = {}
        if self.unix_path is not None:
            where = {"unix_path": self.unix_path, "unix_mode": self.unix_mode, "unix_owner": self.unix_owner}
        elif not self.descriptors:
            where = {"host": self.host, "port": self.port, "reuse_port": self.reuse_port}
        return {
            **where,
            "certificate": self.certificate(),
            "max_channels": self.max_channels,
            "max_head_size": self.max_head_size,
            "handshake_timeout": self.handshake_timeout,
            "shutdown_timeout": self.shutdown_timeout,
            "trusted_proxies": self.trusted_proxies,
            "health": self.health,
            "grace": self.grace,
            "loop": self.loop,
            **({"server_pings": True} if self.server_pings else {}),
        }

    def activated(self) -> ServeCommand:
        """Return what was asked for, on the sockets that systemd has handed over, if it has.

        Raises:
            Failure: What it says of them makes no sense.
        """
        if self.descriptors:
            return self
        try:
            descriptors = inherited_descriptors()
        except ValueError as exc:
            raise Failure(Exit.CANNOT_LISTEN, str(exc), debug=self.debug) from exc
        return replace(self, descriptors=descriptors, unix_path=None, reuse_port=False) if descriptors else self


def check_together(ctx: click.Context, command: ServeCommand, *, reload: bool, workers: int | None) -> None:
    """Refuse options that contradict each other."""
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    if command.unix_path is not None and (explicit := sorted(given & {"host", "port", "reuse_port"})):
        raise click.UsageError(f"--unix-path stands alone: leave out --{explicit[0].replace('_', '-')}")
    if command.descriptors and (explicit := sorted(given & {"host", "port", "reuse_port", "unix_path"})):
        raise click.UsageError(f"--fd stands alone: leave out --{explicit[0].replace('_', '-')}")
    if command.unix_path is None and (without := sorted(given & {"unix_mode", "unix_owner"})):
        raise click.UsageError(f"--{without[0].replace('_', '-')} needs --unix-path")
    if workers is not None and command.unix_path is not None:
        raise click.UsageError("--workers share a port, which a Unix socket does not have: leave out one of the two")
    if workers is not None and reload:
        raise click.UsageError("--reload serves by one process: leave out --workers")
    if (workers is not None or reload) and not hasattr(signal, "SIGCHLD"):
        needing = "--reload" if reload else "--workers"
        raise click.UsageError(f"{needing} needs a Unix system, such as Linux or macOS; here serve by one process")
    if workers is not None and not hasattr(socket, "SO_REUSEPORT"):
        raise click.UsageError("--workers share a port by SO_REUSEPORT, which this system does not have")
    if command.certfile is None and (without := sorted(given & {"keyfile", "client_ca"})):
        raise click.UsageError(f"--{without[0].replace('_', '-')} needs --certfile")
    if command.health is not None and not command.health.startswith("/"):
        raise click.UsageError(f"--health {command.health!r} must begin with '/'")
