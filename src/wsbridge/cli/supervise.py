"""``wsbridge serve --workers``: fresh processes that share a port, which is held for them until the end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from wsbridge._process.activation import notify
from wsbridge.cli.exit_codes import OF_SERVE, Exit
from wsbridge.cli.listening import cannot_listen, handed_over
from wsbridge.cli.logs import log_to_stderr
from wsbridge.cli.serve_options import ServeCommand
from wsbridge.cli.workers import Child, Supervisor
from wsbridge.connector.sockets import reserve

__all__ = ["serve_by_workers"]

_HOPELESS = frozenset(OF_SERVE) - {Exit.OK, Exit.FAILURE}
"""Exit codes of a worker whose successor would fare no better."""


def serve_by_workers(command: ServeCommand, count: int) -> int:
    """Serve in ``count`` fresh processes until a signal; return the exit code.

    Raises:
        Failure: It cannot listen there, or a certificate or key file cannot be used.
    """
    log_to_stderr(debug=command.debug)
    command.certificate()  # what is wrong with it is said once
    if not command.descriptors:
        return asyncio.run(_supervise_reserved(command, count))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(handed_over(command))
        except OSError as exc:
            raise cannot_listen(exc, command) from exc
        return asyncio.run(_supervise(command, count))


async def _supervise_reserved(command: ServeCommand, count: int) -> int:
    try:
        reserved = await reserve(command.host, command.port, shared=command.reuse_port)
    except (OSError, UnicodeError) as exc:
        raise cannot_listen(exc, command) from exc
    try:
        # held until the end, so that nobody takes the port while no worker listens
        return await _supervise(replace(command, port=reserved[0].getsockname()[1], reuse_port=True), count)
    finally:
        for sock in reserved:
            sock.close()


async def _supervise(command: ServeCommand, count: int) -> int:
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
