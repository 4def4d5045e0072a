"""``wsbridge demo``: one chat room, served by every installed connector at once."""

from __future__ import annotations

from collections.abc import Iterable

import click

from wsbridge import demo
from wsbridge.cli.exit_codes import Exit, exit_codes
from wsbridge.cli.failure import Failure
from wsbridge.cli.logs import log_to_stderr

__all__ = ["demo_command"]


@click.command(
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
    log_to_stderr(debug=False)
    try:
        demo.run_demo(port, tell=_tell)
    except demo.NothingToShowError as exc:
        raise Failure(Exit.NOT_INSTALLED, str(exc)) from exc
    except demo.CannotListenError as exc:
        raise Failure(Exit.CANNOT_LISTEN, str(exc)) from exc


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
