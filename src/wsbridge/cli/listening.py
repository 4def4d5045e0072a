"""Where ``wsbridge serve`` listens: sockets that were handed over, and what is said if it cannot."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator

from wsbridge._process.activation import socket_of
from wsbridge.cli.exit_codes import Exit
from wsbridge.cli.failure import Failure
from wsbridge.cli.serve_options import ServeCommand
from wsbridge.connector.sockets import check_sockets

__all__ = ["cannot_listen", "handed_over"]


@contextlib.contextmanager
def handed_over(command: ServeCommand) -> Generator[list[socket.socket]]:
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


def cannot_listen(exc: OSError | UnicodeError, command: ServeCommand) -> Failure:
    """Return the failure to listen where ``command`` says."""
    reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    if not reason.startswith("cannot listen"):
        reason = f"cannot listen on {command.unix_path or f'{command.host} port {command.port}'}: {reason}"
    return Failure(Exit.CANNOT_LISTEN, reason, debug=command.debug)
