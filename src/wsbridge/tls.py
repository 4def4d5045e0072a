"""The TLS context of the command line, made of files (STOP-4), and how it takes what is renewed in them (STOP-14)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncGenerator
from typing import NoReturn

from wsbridge._common.tasks import begin_later

__all__ = ["Certificate", "TLSFileError", "tls_context"]

LOOK = 1.0  # seconds between two looks at whether the files have changed: no system tells of that everywhere
_TRIES = 3  # of two loads of the same files, between which they may change

logger = logging.getLogger("wsbridge")


class TLSFileError(Exception):
    """A certificate or key file cannot be used; the message names it and says why, in one line."""


def tls_context(certfile: str, keyfile: str | None = None, client_ca: str | None = None) -> ssl.SSLContext:
    """Return a server's context: TLS 1.2 or later, with Python's own choice of ciphers.

    Args:
        certfile: The certificate and those between it and the authority, in PEM.
        keyfile: Its private key in PEM, not encrypted; None: it stands in ``certfile``.
        client_ca: Certificates of authorities in PEM; each client must have a certificate of one of them.

    Raises:
        TLSFileError: A file cannot be read or does not fit.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, certfile, keyfile)
    if client_ca is not None:
        _check_readable("client CA", client_ca)
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as exc:
            raise TLSFileError(
                f"the client CA file {client_ca!r} holds no certificate in PEM ({_reason(exc)})"
            ) from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Certificate:
    """A server's certificate in files. Renewed files are used for new connections; open ones go on (STOP-14).

    `wsbridge.run` takes one; with `wsbridge.serve` pass ``ssl=certificate.context``, and serve inside of
    ``async with certificate.renewing()``, or call `renew`.

    Args:
        certfile: See `tls_context` for this and the others.
        keyfile: Read again with ``certfile``.
        client_ca: Read once: what a context trusts cannot be taken from it again.

    Attributes:
        context: What to serve with.

    Raises:
        TLSFileError: A file cannot be read or does not fit.
    """

    def __init__(self, certfile: str, keyfile: str | None = None, client_ca: str | None = None) -> None:
        self.certfile = certfile
        self.keyfile = keyfile
        self._loaded = self._state()
        self._suspect: object = None
        self._refused: object = None
        self.context = tls_context(certfile, keyfile, client_ca)

    def renew(self) -> bool:
        """Load the files again; if they cannot be used, log why, keep what is in use, and return False."""
        state = self._state()
        try:
            self._load()
        except TLSFileError as exc:
            self._refuse(state, exc)
            return False
        self._take(state)
        return True

    @contextlib.asynccontextmanager
    async def renewing(self) -> AsyncGenerator[None]:
        """Look at the files every second while the block runs, and `renew` when they have changed.

        Files that cannot be used are logged once, when they are the same at two looks: they may be half written.
        """
        looking = begin_later(asyncio.get_running_loop(), self._look_on(), name="wsbridge certificate")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait((looking,))

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Load the files again if they have changed; see `renewing`."""
        state = self._state()
        if state in (self._loaded, self._refused):
            return
        try:
            self._load()
        except TLSFileError as exc:
            if state == self._suspect:
                self._refuse(state, exc)
            self._suspect = state
        else:
            self._take(state)

    def _take(self, state: object) -> None:
        self._loaded = state
        self._suspect = self._refused = None
        logger.info("the certificate in %r was loaded again", self.certfile)

    def _refuse(self, state: object, exc: TLSFileError) -> None:
        self._refused = state
        logger.error("the certificate in use is kept: %s", exc)

    def _load(self) -> None:
        """Load the files into a context that nobody uses, which a broken pair spoils, and then into the one in use."""
        tries = _TRIES
        while True:
            tries -= 1
            _load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.certfile, self.keyfile)
            try:
                _load_chain(self.context, self.certfile, self.keyfile)
            except TLSFileError:  # they have changed since, and the context has no key now
                if tries == 0:
                    raise
            else:
                return

    def _state(self) -> object:
        """Return a value that differs when a file has changed, or what its name leads to."""
        return [_identity(path) for path in (self.certfile, self.keyfile) if path is not None]


def _identity(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _load_chain(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    _check_readable("certificate", certfile)
    if keyfile is not None:
        _check_readable("key", keyfile)
    key = keyfile or certfile
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except _EncryptedKeyError:
        raise TLSFileError(f"the key in {key!r} is encrypted; store it without a password") from None
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise TLSFileError(f"the key in {key!r} does not belong to the certificate in {certfile!r}") from exc
        culprit = f"{certfile!r} holds no certificate, or {key!r} no private key, in PEM"
        raise TLSFileError(f"{culprit} ({_reason(exc)})") from exc
    except OSError as exc:  # removed in between
        raise TLSFileError(f"cannot read {certfile!r} or {key!r}: {exc.strerror}") from exc


class _EncryptedKeyError(Exception):
    """OpenSSL asks for a password."""


def _no_password() -> NoReturn:
    raise _EncryptedKeyError


def _check_readable(what: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as exc:
        raise TLSFileError(f"cannot read the {what} file {path!r}: {exc.strerror}") from exc


def _reason(exc: ssl.SSLError) -> str:
    return (exc.reason or str(exc)).lower().replace("_", " ")
