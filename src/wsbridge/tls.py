"""The TLS context of the command line, made of files (STOP-4)."""

from __future__ import annotations

import ssl
from typing import NoReturn

__all__ = ["TLSFileError", "tls_context"]


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
