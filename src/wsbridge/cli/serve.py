"""``wsbridge serve``: an application on one server, in this process or in children."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wsbridge._process.signals import end_at_signals
from wsbridge.application import Application
from wsbridge.cli.exit_codes import OF_SERVE, Exit, exit_codes
from wsbridge.cli.failure import Failure
from wsbridge.cli.listening import cannot_listen, handed_over
from wsbridge.cli.loading import application, connector_class
from wsbridge.cli.logs import log_to_stderr
from wsbridge.cli.serve_options import ServeCommand, check_together, serve_options
from wsbridge.cli.workers import watch_supervisor
from wsbridge.errors import LoopNotInstalledError, UnsupportedOptionError
from wsbridge.protocols import Connector
from wsbridge.serving import run

__all__ = ["serve_command"]


@click.command(
    "serve",
    epilog="\b\nExamples:\n  wsbridge serve echo:app --connector tornado --port 8000\n"
    "  wsbridge serve chat:app --app-dir examples --reload\n"
    "  wsbridge serve chat:app --host 0.0.0.0 --workers 4 --health /healthz --grace 5\n\n" + exit_codes(*OF_SERVE),
)
@click.argument("target", metavar="MODULE:APP")
@serve_options
@click.pass_context
def serve_command(ctx: click.Context, /, *, reload: bool, workers: int | None, **options: Any) -> None:
    """Serve an application until SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    APP is a wsbridge.Application in MODULE. Each URL that it listens on is logged on stderr. A second SIGINT cuts off
    what has not ended yet. With --certfile a SIGHUP does not stop it.
    """
    command = ServeCommand(**options)
    with end_at_signals(hangup=command.certfile is None) as check_signals:
        check_together(ctx, command, reload=reload, workers=workers)
        module, attribute = _split(command.target)
        command = command.activated()
        if reload:
            from wsbridge.cli.reload import serve_reloading

            ctx.exit(serve_reloading(command))
        if workers is not None:
            from wsbridge.cli.supervise import serve_by_workers

            ctx.exit(serve_by_workers(command, workers))
        report = watch_supervisor()
        sys.path.insert(0, str(Path(command.app_dir).resolve()))
        connector = connector_class(command.connector, debug=command.debug)
        app = application(module, attribute, command)
        check_signals()
        is_one_of_several = report is not None and bool(command.reuse_port or command.descriptors)
        log_to_stderr(debug=command.debug, with_pid=is_one_of_several)
        _serve(app, connector, command, report)


def _split(target: str) -> tuple[str, str]:
    """Return module and attribute."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        example = f"{Path(target.rstrip(':')).name.removesuffix('.py') or 'echo'}:app"
        raise Failure(Exit.USAGE, f"{target!r} must be written as MODULE:APP, such as {example!r}")
    return module, attribute


def _serve(app: Application, connector: type[Any], command: ServeCommand, report: Callable[[], object] | None) -> None:
    is_listening = False

    def listening(_: Connector) -> None:
        nonlocal is_listening
        is_listening = True
        if report is not None:
            report()

    options = command.options()
    try:
        with handed_over(command) as sockets:
            if sockets:
                options["sockets"] = sockets
            run(app, connector, on_listening=listening, **options)
    except UnsupportedOptionError as exc:
        raise Failure(Exit.UNSUPPORTED, str(exc), debug=command.debug) from exc
    except LoopNotInstalledError as exc:
        raise Failure(Exit.NO_EXTRA, str(exc), debug=command.debug) from exc
    except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that IDNA cannot encode
        if is_listening:
            raise
        raise cannot_listen(exc, command) from exc
