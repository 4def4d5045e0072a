"""TLS for tests: contexts for a real connection, and files, good and bad."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

__all__ = ["contexts", "files"]


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a certificate for 127.0.0.1, and a client's that trusts it."""
    trustme: Any = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def files(folder: Path) -> Path:
    """Fill a folder with certificates and keys, good and bad, and return it.

    ``ca.pem`` is the authority of ``server`` and ``other``, each with ``.crt``, ``.key`` and both in ``.pem``, and of
    ``client.pem``; that of ``stranger.pem`` is another. ``text.pem``, ``empty.pem`` and ``encrypted.key`` are no use.
    """
    trustme: Any = pytest.importorskip("trustme")
    authority, stranger = trustme.CA(), trustme.CA()
    server, other = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, made in (("server", server), ("other", other)):
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        made.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
        made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.crt"))
    for name, issuer in (("client", authority), ("stranger", stranger)):
        issuer.issue_cert("somebody@example.org").private_key_and_cert_chain_pem.write_to_path(
            str(folder / f"{name}.pem")
        )
    (folder / "text.pem").write_text("no certificate")
    (folder / "empty.pem").write_text("")
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    (folder / "encrypted.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return folder
