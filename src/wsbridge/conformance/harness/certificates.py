"""Certificates that are made for a run, so that none in the package grows old."""

from __future__ import annotations

import importlib
import ssl
from functools import lru_cache
from typing import Any

from wsbridge.conformance.contract import CheckFailed

__all__ = ["Certificates", "shared_certificates"]


class Certificates:
    """A server's certificate for localhost, and that of the authority that clients trust."""

    def __init__(self) -> None:
        try:
            trustme: Any = importlib.import_module("trustme")
        except ModuleNotFoundError:
            raise CheckFailed(
                "this check makes certificates with trustme: pip install 'wsbridge[conformance]'"
            ) from None
        self.authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)

    def client(self, *, certificate: bool = False, name: str = "client@example.org") -> ssl.SSLContext:
        """Return a client's context, with a certificate of its own, for a mail address, if asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        if certificate:
            self.authority.issue_cert(name).configure_cert(context)
        return context


@lru_cache(maxsize=1)
def shared_certificates() -> Certificates:
    """Return one pair for all checks of a process that only want TLS below them."""
    return Certificates()
