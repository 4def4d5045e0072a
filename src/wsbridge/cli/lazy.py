"""Commands that are imported when they run."""

from __future__ import annotations

import importlib
from typing import Any

import click

from wsbridge.cli.exit_codes import Exit
from wsbridge.cli.failure import Failure

__all__ = ["LazyCommand"]


class LazyCommand(click.Command):
    """A command that is imported when it is run; its line in the list of commands is known before.

    Args:
        name: The command's name.
        path: Where it stands, as ``module:attribute``.
        short_help: Its line in the list of commands.
        extra: The extra of wsbridge whose packages it needs, if it needs more than wsbridge itself does.
    """

    def __init__(self, name: str, path: str, short_help: str, *, extra: str | None = None) -> None:
        super().__init__(name, short_help=short_help, add_help_option=False)
        self.path = path
        self.extra = extra

    def load(self) -> click.Command:
        """Import the command.

        Raises:
            Failure: A package of its extra is missing.
        """
        module, _, attribute = self.path.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            if self.extra is None:
                raise
            line = f'{self.name} needs {exc.name}, which is not installed. Run: pip install ".[{self.extra}]"'
            raise Failure(Exit.NO_EXTRA, line) from exc
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to the real command."""
        return self.load().make_context(info_name, args, parent, **extra)
