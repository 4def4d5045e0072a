"""The TLS context that is made of files (STOP-4); tests/test_certificate.py has how they are renewed."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import files
from wsbridge import tls
from wsbridge.tls import Certificate, TLSFileError, tls_context

pytestmark = pytest.mark.rule("STOP-4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files(tmp_path_factory.mktemp("certificates"))


def agreed(context: ssl.SSLContext, folder: Path, own: str | None = None) -> ssl.SSLObject:
    """Agree on TLS with a client, over no network, and return the server's side of it."""
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.set_alpn_protocols(["h2", "http/1.1"])
    if own is not None:
        client.load_cert_chain(folder / own)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (other, server) * 2:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return server


@pytest.mark.parametrize("names", [("server.pem",), ("server.crt", "server.key")], ids=["one-file", "two-files"])
def test_a_context_is_a_servers(folder: Path, names: tuple[str, ...]) -> None:
    context = tls_context(*(str(folder / name) for name in names))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    server = agreed(context, folder)
    assert (server.version(), server.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    assert server.getpeercert() is None


def test_clients_may_have_to_show_a_certificate(folder: Path) -> None:
    context = tls_context(str(folder / "server.pem"), client_ca=str(folder / "ca.pem"))
    shown: Any = agreed(context, folder, "client.pem").getpeercert()
    assert shown["subjectAltName"] == (("email", "somebody@example.org"),)
    for own in (None, "stranger.pem"):
        with pytest.raises(ssl.SSLError):
            agreed(context, folder, own)


@pytest.mark.parametrize(
    ("certfile", "keyfile", "client_ca", "why"),
    [
        ("none.pem", None, None, "cannot read the certificate file '{0}/none.pem': No such file or directory"),
        ("server.crt", "none.key", None, "cannot read the key file '{0}/none.key': No such file or directory"),
        ("server.crt", "other.key", None, "the key in '{0}/other.key' does not belong to .* in '{0}/server.crt'"),
        ("server.crt", None, None, r"'{0}/server.crt' holds no certificate, or '{0}/server.crt' no .* \(.*\)"),
        ("text.pem", "server.key", None, r"'{0}/text.pem' holds no certificate, or '{0}/server.key' no .* \(.*\)"),
        ("server.crt", "encrypted.key", None, "the key in '{0}/encrypted.key' is encrypted; store it without a .*"),
        ("server.pem", None, "none.pem", "cannot read the client CA file '{0}/none.pem': No such file or directory"),
        ("server.pem", None, "text.pem", r"the client CA file '{0}/text.pem' holds no certificate in PEM \(.*\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, certfile: str, keyfile: str | None, client_ca: str | None, why: str
) -> None:
    paths = [None if name is None else str(folder / name) for name in (certfile, keyfile, client_ca)]
    with pytest.raises(TLSFileError, match=f"^{why.format(folder)}$"):
        tls_context(*paths)  # type: ignore[arg-type]
    with pytest.raises(TLSFileError, match=f"^{why.format(folder)}$"):
        Certificate(*paths)  # type: ignore[arg-type]


def test_a_file_that_is_removed_while_it_is_read_is_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server.pem"
    path.write_bytes((folder / "server.pem").read_bytes())
    check_readable = tls._check_readable

    def check_and_remove(what: str, name: str) -> None:
        check_readable(what, name)
        os.unlink(name)

    monkeypatch.setattr(tls, "_check_readable", check_and_remove)
    with pytest.raises(TLSFileError, match=rf"^cannot read '{path}' or '{path}': No such file or directory$"):
        tls_context(str(path))
