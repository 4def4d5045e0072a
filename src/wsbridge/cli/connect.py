"""``wsbridge connect``: a conversation with any WebSocket server, in the terminal or a pipe."""

from __future__ import annotations

import asyncio

import click

from wsbridge.cli import client as clients
from wsbridge.cli.exit_codes import Exit, exit_codes
from wsbridge.cli.failure import Failure
from wsbridge.cli.option_checks import seconds

__all__ = ["connect_command"]


@click.command(
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
    type=click.Choice(tuple(clients.CLIENTS)),
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
