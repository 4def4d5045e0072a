"""The command line: ``wsbridge serve``, ``connectors``, ``connect``, ``demo`` and ``conformance``.

A failure is one line on stderr and an exit code of `Exit`; nothing of a server is imported before it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import enum
import importlib
import json
import logging
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import click

from wsbridge import __version__, registry
from wsbridge._common.proxies import parse_networks
from wsbridge._process.activation import inherited_descriptors, notify, socket_of
from wsbridge._process.loops import LOOPS, LoopName
from wsbridge._process.signals import SIGHUP, Stopped, end_at_signals
from wsbridge.application import Application
from wsbridge.cli.workers import Child, Supervisor, watch_supervisor
from wsbridge.connector.sockets import check_sockets, reserve
from wsbridge.connector.unix import parse_owner
from wsbridge.errors import (
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    LoopNotInstalledError,
    ServerVersionError,
    UnsupportedOptionError,
)
from wsbridge.options import WebSocketOptions, check_seconds
from wsbridge.protocols import Connector, Deviation
from wsbridge.serving import listening_urls, run
from wsbridge.serving import serve as serve_in_loop
from wsbridge.tls import Certificate, TLSFileError

__all__ = ["Exit", "cli", "main"]

CHECK_TIMEOUT = 10.0  # seconds for a connector to start, answer one handshake and stop
RELOAD_POLL_MS = 200  # how often the watcher looks after its child
HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Exit(enum.IntEnum):
    """The exit codes of every command; `meaning` says what each stands for."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Exit:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "done, stopped by SIGINT or SIGTERM, or (connect) closed normally"
    FAILURE = 1, "an error that wsbridge did not expect; the traceback is shown"
    USAGE = 2, "wrong arguments"
    NO_MODULE = 3, "there is no such module"
    MODULE_FAILED = 4, "the module raised an exception when it was imported"
    NO_ATTRIBUTE = 5, "the module has no such attribute"
    NO_APPLICATION = 6, "the attribute is no wsbridge.Application"
    NO_CONNECTOR = 7, "no connector of that name, or none chosen of several"
    NOT_INSTALLED = 8, "the server of the connector is not installed"
    CONNECTOR_FAILED = 9, "the connector, or its server, failed to import, is of another version or does not work"
    UNSUPPORTED = 10, "the connector cannot honour an option"
    CANNOT_LISTEN = 11, "the port is in use, or the address or Unix path cannot be bound"
    NO_EXTRA = 12, "the command or an option needs a package that is not installed"
    NO_CONNECTION = 13, "connect: nobody there, or the handshake was refused"
    CLOSED = 14, "connect: closed with a code other than 1000, or the connection was lost"
    BAD_CERTIFICATE = 15, "a certificate or key file is missing, malformed or does not fit"


_OF_SERVE = (*list(Exit)[: Exit.NO_EXTRA + 1], Exit.BAD_CERTIFICATE)


def exit_codes(*only: Exit) -> str:
    """Return the table of exit codes for the end of a help page."""
    rows = [f"{code.value:>3}  {code.meaning}" for code in only or Exit]
    return "\b\nExit codes:\n" + "\n".join(rows)


class Failure(click.ClickException):
    """Ends a command: one line on stderr, and an exit code."""

    def __init__(self, code: Exit, message: str, *, debug: bool = False) -> None:
        super().__init__(" ".join(message.split()))
        vars(self)["exit_code"] = code.value  # read from the instance, though click declares it on the class
        self.debug = debug

    def show(self, file: Any = None) -> None:
        """Print the line, behind the traceback of its cause if that was asked for."""
        if self.debug and self.__cause__ is not None:
            traceback.print_exception(self.__cause__, file=file or sys.stderr)
        super().show(file)


class LazyCommand(click.Command):
    """A command that is imported when it is run; its line in the list of commands is known before."""

    def __init__(self, name: str, path: str, extra: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help, add_help_option=False)
        self.path = path
        self.extra = extra

    def load(self) -> click.Command:
        """Import the command.

        Raises:
            Failure: A package that it needs is missing.
        """
        module, _, attribute = self.path.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            line = f'{self.name} needs {exc.name}, which is not installed. Run: pip install ".[{self.extra}]"'
            raise Failure(Exit.NO_EXTRA, line) from exc
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to the real command."""
        return self.load().make_context(info_name, args, parent, **extra)


def permissions(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Return permissions that are given in octal."""
    if value is None:
        return None
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value!r} must be permissions in octal, such as 660", ctx, parameter)
    return mode


def owner(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check a user and group."""
    if value is not None:
        try:
            parse_owner(value)
        except ValueError as exc:
            raise click.BadParameter(str(exc).removeprefix("unix_owner: "), ctx, parameter) from exc
    return value


def seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Hold an option to be a positive, finite number of seconds."""
    try:
        check_seconds("it", value, optional=True)
    except ValueError as exc:
        raise click.BadParameter(str(exc), ctx, param) from exc
    return value


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  wsbridge serve echo:app --connector tornado --port 8000",
)
@click.version_option(__version__, prog_name="wsbridge")
def cli() -> None:
    """One WebSocket application, unchanged, on any Python server."""


# ---- serve --------------------------------------------------------------------------------------------------------


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


def networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Hold an option to be addresses, networks or ``unix``."""
    try:
        parse_networks(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc).removeprefix("trusted_proxies: "), ctx, param) from exc
    return value


@cli.command(
    "serve",
    epilog="\b\nExamples:\n  wsbridge serve echo:app --connector tornado --port 8000\n"
    "  wsbridge serve chat:app --app-dir examples --reload\n"
    "  wsbridge serve chat:app --host 0.0.0.0 --workers 4 --health /healthz --grace 5\n\n" + exit_codes(*_OF_SERVE),
)
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "-c",
    "--connector",
    envvar="WSBRIDGE_CONNECTOR",
    show_envvar=True,
    metavar="NAME",
    help="The server to run on: a name that `wsbridge connectors` lists, NAME@DISTRIBUTION or MODULE:CLASS. "
    "By default the only one that is installed.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The name or address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 takes a free one."
)
@click.option(
    "--reuse-port",
    is_flag=True,
    help="Let other processes of this user listen there too (SO_REUSEPORT), such as the next generation of --workers.",
)
@click.option("--unix-path", metavar="PATH", help="Listen on this Unix socket instead.")
@click.option(
    "--unix-mode",
    callback=permissions,
    metavar="OCTAL",
    help="Permissions of the socket's file, such as 660: who may write to it may connect.",
)
@click.option(
    "--unix-owner",
    callback=owner,
    metavar="USER[:GROUP]",
    help="Whom the socket's file is given to, by name or number, which takes root; :GROUP alone, a group of one's own.",
)
@click.option(
    "--fd",
    "descriptors",
    type=click.IntRange(0),
    multiple=True,
    metavar="N",
    help="Listen on this descriptor instead, a socket that is bound; may be repeated. Sockets that systemd hands over "
    "(LISTEN_FDS) need no option, and come before --host, --port and --unix-path.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Serve by N processes that share the port. One that dies is replaced, after a delay that grows while they die "
    "young.",
)
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    help="Where MODULE is looked for first. By default the current directory.",
)
@click.option(
    "--shutdown-timeout",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="How long peers and callbacks have to end at a stop.",
)
@click.option(
    "--handshake-timeout",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="How long a peer has to send its request.",
)
@click.option(
    "--max-channels",
    type=click.IntRange(1),
    metavar="N",
    help="Answer more channels than that, in each process, with 503. By default there is no limit.",
)
@click.option(
    "--max-head-size",
    type=click.IntRange(1024),
    metavar="BYTES",
    default=64 * 1024,
    show_default=True,
    help="Answer a request whose line and headers are larger with 431.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    callback=networks,
    metavar="ADDRESS",
    help="Believe X-Forwarded-* and Forwarded of this address or network, or of who connects by the Unix socket"
    " (unix); may be repeated.",
)
@click.option(
    "--certfile",
    metavar="FILE",
    help="Serve TLS with this certificate (PEM, with its chain). When the file changes, and at a SIGHUP, it is loaded "
    "again, for new connections.",
)
@click.option("--keyfile", metavar="FILE", help="The certificate's private key. By default it stands in --certfile.")
@click.option("--client-ca", metavar="FILE", help="Let in only clients with a certificate of an authority in FILE.")
@click.option(
    "--health", metavar="PATH", help="Answer this path in plain HTTP: 200, and 503 as soon as a signal to stop comes."
)
@click.option(
    "--grace",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="Serve on for so long after SIGTERM, so that a load balancer sees the 503 of --health and looks elsewhere.",
)
@click.option(
    "--loop", type=click.Choice(LOOPS), default="asyncio", show_default=True, help="The event loop to serve on."
)
@click.option(
    "--server-pings",
    is_flag=True,
    help="Serve although wsbridge cannot ping on this server (granian): leave pings to it, if it has any.",
)
@click.option("--reload", is_flag=True, help="Start again when a Python file below --app-dir changes.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and log everything.")
@click.pass_context
def serve_command(ctx: click.Context, /, *, reload: bool, workers: int | None, **options: Any) -> None:
    """Serve an application until SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    APP is a wsbridge.Application in MODULE. Each URL that it listens on is logged on stderr. A second SIGINT cuts off
    what has not ended yet. With --certfile a SIGHUP does not stop it.
    """
    command = ServeCommand(**options)
    with end_at_signals(hangup=command.certfile is None) as check_signals:
        _check_together(ctx, command, reload=reload, workers=workers)
        module, _, attribute = command.target.partition(":")
        if not module or not attribute:
            example = f"{Path(command.target.rstrip(':')).name.removesuffix('.py') or 'echo'}:app"
            raise Failure(Exit.USAGE, f"{command.target!r} must be written as MODULE:APP, such as {example!r}")
        command = command.activated()
        if reload:
            ctx.exit(_reload(command))
        if workers is not None:
            ctx.exit(_supervise(command, workers))
        report = watch_supervisor()
        sys.path.insert(0, str(Path(command.app_dir).resolve()))
        connector = _connector_class(command.connector, debug=command.debug)
        application = _application(module, attribute, command)
        check_signals()
        is_one_of_several = report is not None and bool(command.reuse_port or command.descriptors)
        _log_to_stderr(debug=command.debug, with_pid=is_one_of_several)
        _serve(application, connector, command, report)


def _check_together(ctx: click.Context, command: ServeCommand, *, reload: bool, workers: int | None) -> None:
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


def _serve(
    application: Application, connector: type[Any], command: ServeCommand, report: Callable[[], object] | None
) -> None:
    is_listening = False

    def listening(_: Connector) -> None:
        nonlocal is_listening
        is_listening = True
        if report is not None:
            report()

    options = command.options()
    try:
        with _handed_over(command) as sockets:
            if sockets:
                options["sockets"] = sockets
            run(application, connector, on_listening=listening, **options)
    except UnsupportedOptionError as exc:
        raise Failure(Exit.UNSUPPORTED, str(exc), debug=command.debug) from exc
    except LoopNotInstalledError as exc:
        raise Failure(Exit.NO_EXTRA, str(exc), debug=command.debug) from exc
    except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that IDNA cannot encode
        if is_listening:
            raise
        raise _cannot_listen(exc, command) from exc


@contextlib.contextmanager
def _handed_over(command: ServeCommand) -> Generator[list[socket.socket]]:
    """Yield the sockets of ``--fd`` and of systemd.

    Raises:
        OSError: One is not open, or not a socket.
        Failure: One cannot be listened on.
    """
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket_of(descriptor)) for descriptor in command.descriptors]
        try:
            check_sockets(sockets)
        except ValueError as exc:
            raise Failure(Exit.CANNOT_LISTEN, str(exc), debug=command.debug) from exc
        yield sockets


def _cannot_listen(exc: OSError | UnicodeError, command: ServeCommand) -> Failure:
    reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    if not reason.startswith("cannot listen"):
        reason = f"cannot listen on {command.unix_path or f'{command.host} port {command.port}'}: {reason}"
    return Failure(Exit.CANNOT_LISTEN, reason, debug=command.debug)


def _connector_class(name: str | None, *, debug: bool) -> type[Any]:
    """Return the class of the connector ``name``, or of the only one there is.

    Raises:
        Failure: It cannot be had.
    """
    if name is None:
        name = _only_connector()
    try:
        return registry.load_connector(name)
    except ConnectorNotInstalledError as exc:
        raise Failure(Exit.NOT_INSTALLED, str(exc), debug=debug) from exc
    except (ConnectorNotFoundError, ConnectorConflictError) as exc:
        raise Failure(Exit.NO_CONNECTOR, str(exc), debug=debug) from exc
    except ServerVersionError as exc:
        raise Failure(Exit.CONNECTOR_FAILED, str(exc), debug=debug) from exc
    except Exception as exc:
        line = f"the connector {name!r} cannot be used: {_described(exc)}"
        raise Failure(Exit.CONNECTOR_FAILED, line, debug=debug) from exc


def _only_connector() -> str:
    installed = registry.connector_names(installed=True, serving=True)
    if not installed:
        commands = "; ".join(registry.install_command(name, server) for name, server in registry.SERVERS.items())
        raise Failure(Exit.NOT_INSTALLED, f"no connector is installed. Run one of: {commands}")
    only, *others = installed
    if others:
        line = f"say which connector by --connector or WSBRIDGE_CONNECTOR; installed are {', '.join(installed)}"
        raise Failure(Exit.NO_CONNECTOR, line)
    return only


def _application(module_name: str, attribute: str, command: ServeCommand) -> Application:
    """Import the application.

    Raises:
        Failure: It is not there, raises, or is none.
    """
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise _import_failure(module_name, exc, command) from exc
        near = difflib.get_close_matches(module_name, [path.stem for path in Path(command.app_dir).glob("*.py")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        where = f"in {str(Path(command.app_dir).resolve())!r} or on sys.path"
        line = f"there is no module {exc.name!r} {where}{hint}"
        raise Failure(Exit.NO_MODULE, line, debug=command.debug) from exc
    except Stopped:
        raise
    except (Exception, SystemExit) as exc:
        raise _import_failure(module_name, exc, command) from exc
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            names = [repr(name) for name, value in vars(module).items() if isinstance(value, Application)]
            hint = f"; it has {', '.join(names)}" if names else ""
            line = f"module {module_name!r} has no attribute {attribute!r}{hint}"
            raise Failure(Exit.NO_ATTRIBUTE, line, debug=command.debug) from exc
    if not isinstance(found, Application):
        line = f"{command.target} must be a wsbridge.Application; it is of type {type(found).__qualname__!r}"
        raise Failure(Exit.NO_APPLICATION, line)
    return found


def _import_failure(module_name: str, exc: BaseException, command: ServeCommand) -> Failure:
    line = f"module {module_name!r} failed to import: {_described(exc)}"
    return Failure(Exit.MODULE_FAILED, line, debug=command.debug)


def _described(exc: BaseException) -> str:
    """Return type, message and place of an exception, in one line."""
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if isinstance(exc, SyntaxError):  # its message names the place
        return text
    own = str(Path(__file__).parent.parent)
    frames = [frame for frame in _frames(exc.__traceback__) if not frame[0].startswith(("<", own))]
    frames = [frame for frame in frames if frame[0] != importlib.__file__]
    return f"{text} ({frames[-1][0]}, line {frames[-1][1]})" if frames else text


def _frames(trace: TracebackType | None) -> list[tuple[str, int]]:
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(trace)]


class _Formatter(logging.Formatter):
    """Escapes what cannot be printed, and indents every line of a record but the first.

    An exception's text may hold what a peer has sent, and it shall neither reach a terminal nor look like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        shown = (char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
        return "".join(shown).replace("\n", "\n    ")


def _log_to_stderr(*, debug: bool, with_pid: bool = False) -> None:
    """Log wsbridge's own lines, and warnings of others; an application that has set up logging is left alone."""
    handler = logging.StreamHandler(sys.stderr)
    process = "[%(process)d] " if with_pid else ""
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s {process}%(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if debug else logging.WARNING)
    logger = logging.getLogger("wsbridge")
    if logger.level == logging.NOTSET and not debug:
        logger.setLevel(logging.INFO)


# ---- serve --reload -----------------------------------------------------------------------------------------------

_WAITED_FOR = frozenset((Exit.MODULE_FAILED, Exit.NO_ATTRIBUTE, Exit.NO_APPLICATION))
"""Exit codes of a child that an edit of the application may mend."""


def _reload(command: ServeCommand) -> int:
    """Serve in a fresh process, and in another after each change; return the exit code."""
    try:
        import watchfiles
    except ModuleNotFoundError as exc:
        line = '--reload needs watchfiles, which is not installed. Run: pip install ".[reload]"'
        raise Failure(Exit.NO_EXTRA, line, debug=command.debug) from exc
    _log_to_stderr(debug=command.debug)
    logger = logging.getLogger("wsbridge.reload")
    stop = threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        stop.set()

    def hangup(signum: int, frame: object) -> None:
        if child is not None:
            child.signal(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
    if SIGHUP is not None and signal.getsignal(SIGHUP) != signal.SIG_IGN:
        signal.signal(SIGHUP, interrupt if command.certfile is None else hangup)
    child: Child | None = None
    waited_for = _WAITED_FOR
    is_waiting = False
    try:
        # the watch begins before the first child, so that no change between the two is missed
        for changes in watchfiles.watch(
            Path(command.app_dir).resolve(),
            watch_filter=watchfiles.PythonFilter(),
            stop_event=stop,
            rust_timeout=RELOAD_POLL_MS,
            yield_on_timeout=True,
        ):
            if child is not None and changes:
                names = ", ".join(sorted(Path(path).name for _, path in changes))
                logger.info("%s changed; starting again", names)
                child.end()
                child = None
                waited_for = _WAITED_FOR | {Exit.NO_MODULE}  # an editor may be about to put the file back
            if child is None:
                child = Child(command.arguments(), command.patience, descriptors=command.descriptors)
                is_waiting = False
            if child.has_reported():
                notify("READY=1")
            code = child.exit_code()
            if code is not None and code not in waited_for:
                return code if code >= 0 else 128 - code
            if code is not None and not is_waiting:
                is_waiting = True
                logger.info("waiting for a change")
    finally:
        notify("STOPPING=1")
        if child is not None:
            child.end()
    return Exit.OK


# ---- serve --workers ----------------------------------------------------------------------------------------------

_HOPELESS = frozenset(_OF_SERVE) - {Exit.OK, Exit.FAILURE}
"""Exit codes of a worker whose successor would fare no better."""


def _supervise(command: ServeCommand, count: int) -> int:
    """Serve in ``count`` fresh processes until a signal; return the exit code."""
    _log_to_stderr(debug=command.debug)
    command.certificate()  # what is wrong with it is said once
    if not command.descriptors:
        return asyncio.run(_supervise_reserved(command, count))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_handed_over(command))
        except OSError as exc:
            raise _cannot_listen(exc, command) from exc
        return asyncio.run(_supervise_workers(command, count))


async def _supervise_reserved(command: ServeCommand, count: int) -> int:
    try:
        reserved = await reserve(command.host, command.port, shared=command.reuse_port)
    except (OSError, UnicodeError) as exc:
        raise _cannot_listen(exc, command) from exc
    try:
        # held until the end, so that nobody takes the port while no worker listens
        return await _supervise_workers(replace(command, port=reserved[0].getsockname()[1], reuse_port=True), count)
    finally:
        for sock in reserved:
            sock.close()


async def _supervise_workers(command: ServeCommand, count: int) -> int:
    def start() -> Child:
        return Child(command.arguments(), command.patience, apart=True, descriptors=command.descriptors)

    return await Supervisor(
        start,
        count,
        patience=command.patience,
        hopeless=_HOPELESS,
        reloads=command.certfile is not None,
        on_served=lambda: notify("READY=1"),
    ).run()


# ---- connectors ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a connector said and did when it was tried."""

    error: str | None
    features: Sequence[str] = ()
    deviations: Mapping[str, Deviation] = field(default_factory=dict[str, Deviation])
    connector_api: int | None = None


@cli.command(
    "connectors",
    epilog="\b\nExamples:\n  wsbridge connectors\n  wsbridge connectors --json --check\n\n"
    + exit_codes(Exit.OK, Exit.CONNECTOR_FAILED),
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object for each connector.")
@click.option("--check", is_flag=True, help="Import each installed one; start it, try a handshake and stop it.")
@click.pass_context
def connectors_command(ctx: click.Context, /, *, as_json: bool, check: bool) -> None:
    """List the connectors that are installed and those that could be.

    Without --check no connector and no server is imported.
    """
    infos = registry.connector_infos()
    results = {info: _check(info) for info in infos if check and info.is_installed}
    missing = sorted(set(registry.SERVERS) - {info.name for info in infos})
    if as_json:
        rows = [_json_row(info, results.get(info), check=check) for info in infos]
        rows += [_unregistered_row(name, check=check) for name in missing]
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_connectors(infos, missing, results)
    if any(result.error is not None for result in results.values()):
        ctx.exit(Exit.CONNECTOR_FAILED)


def _json_row(info: registry.ConnectorInfo, result: CheckResult | None, *, check: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "connector": info.value,
        "server": info.server,
        "server_version": info.server_version,
        "installed": info.is_installed,
        "problem": info.problem,
        "install": None if info.is_installed else registry.install_command(info.name, info.server or info.name),
    }
    if check:
        row |= {
            "works": None if result is None else result.error is None,
            "error": None if result is None else result.error,
            "connector_api": None if result is None else result.connector_api,
            "features": None if result is None else list(result.features),
            "deviations": None
            if result is None
            else {
                scenario: {"outcome": deviation.outcome, "tried": deviation.tried}
                for scenario, deviation in sorted(result.deviations.items())
            },
        }
    return row


def _unregistered_row(name: str, *, check: bool) -> dict[str, object]:
    """The row of a connector of wsbridge that nothing registers, as in a source tree that is not installed."""
    info = registry.ConnectorInfo(name, registry.OWN_DISTRIBUTION, "unknown", "", registry.SERVERS[name], None)
    return _json_row(info, None, check=check) | {"connector": None}


def _print_connectors(
    infos: Sequence[registry.ConnectorInfo],
    missing: Sequence[str],
    results: Mapping[registry.ConnectorInfo, CheckResult],
) -> None:
    names = [info.name for info in infos]
    rows: list[tuple[str, ...]] = [("NAME", "FROM", "SERVER", "STATUS")]
    for info in infos:
        server = "-" if info.server is None else f"{info.server} {info.server_version or ''}".rstrip()
        rows.append((info.name, f"{info.distribution} {info.version}", server, _status(info, results.get(info), names)))
    for name in missing:
        server = registry.SERVERS[name]
        rows.append((name, "-", server, f"not installed: {registry.install_command(name, server)}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        line = "  ".join(cells).rstrip()
        # click takes the colours away where the output is no terminal
        click.echo(click.style(line, bold=True) if number == 0 else _coloured(line, row[3]))
    for info, result in results.items():
        if result.error is None:
            click.echo()
            click.echo(click.style(info.name, bold=True) + f": {', '.join(result.features) or 'no optional features'}")
            for scenario, deviation in sorted(result.deviations.items()):
                click.echo(f"  deviates in {scenario}: {deviation.outcome} ({deviation.tried})")
            if not result.deviations:
                click.echo("  deviates in nothing")


def _status(info: registry.ConnectorInfo, result: CheckResult | None, names: Sequence[str]) -> str:
    if not info.is_installed:
        return f"not installed: {registry.install_command(info.name, info.server or info.name)}"
    shared = f"; say {info.name}@{info.distribution}" if names.count(info.name) > 1 else ""
    if result is None and info.problem is not None:
        return f"not supported: {info.problem}"
    if result is None:
        return ("installed" if info.server is not None else "registered") + shared
    return ("works" if result.error is None else f"fails: {result.error}") + shared


def _coloured(line: str, status: str) -> str:
    colour = {"fails": "red", "not": "yellow"}.get(status.split()[0].rstrip(":"), "green")
    head = line.removesuffix(status)
    return head + click.style(status, fg=colour)


def _check(info: registry.ConnectorInfo) -> CheckResult:
    """Load a connector, start it, on a free loopback port if it has a wire, try a handshake, and stop it."""
    try:
        connector = registry.load_connector(f"{info.name}@{info.distribution}")
    except Exception as exc:
        return CheckResult(" ".join(_described(exc).split()))
    result = CheckResult(None, sorted(connector.features), dict(connector.deviations), connector.connector_api)
    try:
        asyncio.run(_try(connector))
    except Exception as exc:
        return replace(result, error=" ".join(_described(exc).split()))
    return result


async def _try(connector: type[Any]) -> None:
    sizes: dict[str, Any] = {} if "size-limit" in connector.features else dict.fromkeys(_SIZES)
    pings: dict[str, Any] = {} if "ping" in connector.features else {"ping_interval": None}
    application = Application([("/", WebSocketOptions(**sizes, **pings))])
    async with asyncio.timeout(CHECK_TIMEOUT), serve_in_loop(application, connector, shutdown_timeout=1) as server:
        if not getattr(connector, "has_wire", True):
            from wsbridge.connectors.memory import Connector as Memory
            from wsbridge.testing import connect

            assert isinstance(server, Memory)
            async with connect(server):
                return
        host, port = listening_urls(server)[0].removeprefix("ws://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(HANDSHAKE.format(host=f"{host}:{port}").encode())
            status = (await reader.readline()).decode("latin-1").strip()
            if status.split(" ")[1:2] != ["101"]:
                raise RuntimeError(f"it answered a handshake with {status!r}")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


_SIZES = ("max_text_size", "max_binary_size")


# ---- connect ------------------------------------------------------------------------------------------------------


@cli.command(
    "connect",
    epilog="\b\nExamples:\n  wsbridge connect ws://127.0.0.1:8000/echo\n"
    "  printf 'one\\ntwo\\n' | wsbridge connect ws://127.0.0.1:8000/echo --wait 0.5\n\n"
    + exit_codes(Exit.OK, Exit.USAGE, Exit.NO_EXTRA, Exit.NO_CONNECTION, Exit.CLOSED),
)
@click.argument("url")
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Offer it; may be repeated.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Send it; may be repeated.")
@click.option("--origin", metavar="ORIGIN", help="Send this Origin header, as a browser would.")
@click.option(
    "--wait",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="How long to wait for messages after the end of piped input.",
)
@click.option(
    "--client",
    type=click.Choice(("websockets", "aiohttp", "tornado")),
    help="The package to connect with; by default the first of these that is installed.",
)
def connect_command(
    *,
    url: str,
    subprotocols: tuple[str, ...],
    headers: tuple[str, ...],
    origin: str | None,
    wait: float,
    client: str | None,
) -> None:
    """Talk to the WebSocket server at URL, ws:// or wss://.

    Each line of the input is sent as a text message. What is received is printed; the close code, its name and its text
    are shown on stderr at the end. Ctrl-D or Ctrl-C closes. Input may be piped in.
    """
    from wsbridge.cli import client as clients

    if not url.startswith(("ws://", "wss://")):
        raise click.UsageError(f"{url!r} must begin with ws:// or wss://")
    try:
        chosen = clients.choose_client(client)
        target = clients.Target(url, subprotocols, tuple(map(_header, headers)), origin)
        reason = asyncio.run(clients.talk(chosen, target, wait=wait))
    except clients.NoClientError as exc:
        raise Failure(Exit.NO_EXTRA, str(exc)) from exc
    except clients.ConnectError as exc:
        raise Failure(Exit.NO_CONNECTION, str(exc)) from exc
    click.echo(f"closed: {reason.describe()}", err=True)
    if not reason.is_normal:
        raise SystemExit(Exit.CLOSED)


def _header(line: str) -> tuple[str, str]:
    name, separator, value = line.partition(":")
    if not separator or not name.strip() or "\n" in line or "\r" in line:
        raise click.UsageError(f"--header {line!r} must be written as 'NAME: VALUE'")
    return name.strip(), value.strip()


# ---- demo ---------------------------------------------------------------------------------------------------------


@cli.command(
    "demo",
    epilog="\b\nExamples:\n  wsbridge demo\n  wsbridge demo --port 9000\n\n"
    + exit_codes(Exit.OK, Exit.USAGE, Exit.NOT_INSTALLED, Exit.CANNOT_LISTEN),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The page's port; the other connectors take the next ones. Those in use are passed over.",
)
def demo_command(*, port: int) -> None:
    """Chat in one room across every installed connector.

    Serves one application on all of them at once, on this machine's loopback address, and a page that connects to each,
    side by side.
    """
    from wsbridge import demo

    _log_to_stderr(debug=False)
    try:
        demo.run_demo(port, tell=_tell)
    except demo.NothingToShowError as exc:
        raise Failure(Exit.NOT_INSTALLED, str(exc)) from exc
    except demo.CannotListenError as exc:
        raise Failure(Exit.CANNOT_LISTEN, str(exc)) from exc


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


cli.add_command(
    LazyCommand(
        "conformance",
        "wsbridge.conformance.doors.cli:conformance",
        extra="conformance",
        short_help="Check connectors against the contract.",
    )
)


def main() -> NoReturn:
    """Run the command line; the console script ``wsbridge``."""
    cli(prog_name="wsbridge")
    raise SystemExit(Exit.FAILURE)  # not reached: click exits
