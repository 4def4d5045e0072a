"""The exit codes of the command line."""

from __future__ import annotations

import enum

__all__ = ["OF_SERVE", "Exit", "exit_codes"]


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
    NO_APPLICATION = 6, "the attribute is not a wsbridge.Application"
    NO_CONNECTOR = 7, "no connector of that name, or none chosen of several"
    NOT_INSTALLED = 8, "the server of the connector is not installed"
    CONNECTOR_FAILED = 9, "the connector, or its server, failed to import, is of another version or does not work"
    UNSUPPORTED = 10, "the connector cannot honour an option"
    CANNOT_LISTEN = 11, "the port is in use, or the address or Unix path cannot be bound"
    NO_EXTRA = 12, "the command or an option needs a package that is not installed"
    NO_CONNECTION = 13, "connect: nobody there, or the handshake was refused"
    CLOSED = 14, "connect: closed with a code other than 1000, or the connection was lost"
    BAD_CERTIFICATE = 15, "a certificate or key file is missing, malformed or does not fit"


OF_SERVE = (*list(Exit)[: Exit.NO_EXTRA + 1], Exit.BAD_CERTIFICATE)
"""Those of ``wsbridge serve``."""


def exit_codes(*only: Exit) -> str:
    """Return the table of exit codes for the end of a help page."""
    rows = [f"{code.value:>3}  {code.meaning}" for code in only or Exit]
    return "\b\nExit codes:\n" + "\n".join(rows)
