"""TLS for tests that need a real connection."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

__all__ = ["contexts"]


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a certificate for 127.0.0.1, and a client's that trusts it."""
    trustme: Any = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client
