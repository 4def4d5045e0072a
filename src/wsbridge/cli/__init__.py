"""The command line: ``wsbridge serve``, ``connectors``, ``connect``, ``demo`` and ``conformance``.

Each command stands in a module of its own, which is imported when the command runs. A failure is one line on stderr and
an exit code of `Exit`.
"""

from __future__ import annotations

from typing import NoReturn

import click

from wsbridge import __version__
from wsbridge.cli.exit_codes import Exit
from wsbridge.cli.lazy import LazyCommand

__all__ = ["Exit", "cli", "main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  wsbridge serve echo:app --connector tornado --port 8000",
)
@click.version_option(__version__, prog_name="wsbridge")
def cli() -> None:
    """One WebSocket application, unchanged, on any Python server."""


for _command in (
    LazyCommand(
        "serve",
        "wsbridge.cli.serve:serve_command",
        "Serve an application until SIGINT (Ctrl-C), SIGTERM or SIGHUP.",
    ),
    LazyCommand(
        "connectors",
        "wsbridge.cli.connectors:connectors_command",
        "List the connectors that are installed and those that could be.",
    ),
    LazyCommand(
        "connect",
        "wsbridge.cli.connect:connect_command",
        "Talk to the WebSocket server at URL, ws:// or wss://.",
    ),
    LazyCommand(
        "demo",
        "wsbridge.cli.demo:demo_command",
        "Chat in one room across every installed connector.",
    ),
    LazyCommand(
        "conformance",
        "wsbridge.conformance.doors.cli:conformance",
        "Check connectors against the contract.",
        extra="conformance",
    ),
):
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command line; the console script ``wsbridge``."""
    cli(prog_name="wsbridge")
    raise SystemExit(Exit.FAILURE)  # not reached: click exits
