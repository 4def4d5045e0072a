"""How a command fails: one line on stderr, and an exit code."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from wsbridge.cli.exit_codes import Exit

__all__ = ["Failure", "described"]

_PACKAGE = str(Path(__file__).parent.parent)


class Failure(click.ClickException):
    """Ends a command: one line on stderr, and an exit code.

    Args:
        code: The exit code.
        message: The line; its line breaks become spaces.
        debug: Whether the traceback of the cause is printed before it.
    """

    def __init__(self, code: Exit, message: str, *, debug: bool = False) -> None:
        super().__init__(" ".join(message.split()))
        vars(self)["exit_code"] = code.value  # read from the instance, though click declares it on the class
        self.debug = debug

    def show(self, file: Any = None) -> None:
        """Print the line, after the traceback of its cause if that was asked for."""
        if self.debug and self.__cause__ is not None:
            traceback.print_exception(self.__cause__, file=file or sys.stderr)
        super().show(file)


def described(exc: BaseException) -> str:
    """Return type, message and place of an exception, the last that is neither Python's nor wsbridge's own."""
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if isinstance(exc, SyntaxError):  # its message names the place
        return text
    frames = [frame for frame in _frames(exc.__traceback__) if not frame[0].startswith(("<", _PACKAGE))]
    frames = [frame for frame in frames if frame[0] != importlib.__file__]
    return f"{text} ({frames[-1][0]}, line {frames[-1][1]})" if frames else text


def _frames(trace: TracebackType | None) -> list[tuple[str, int]]:
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(trace)]
