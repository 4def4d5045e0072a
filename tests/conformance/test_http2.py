"""`asgi_app` on hypercorn over HTTP/2, held to the checks that it passes over HTTP/1.1 and that mean the same there.

What else differs stands in docs/asgi.md; requests and ends are looked at in tests/test_http2.py.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tools import stock
from tools.reports import asgi_reports
from wsbridge.conformance.contract.check import Check
from wsbridge.conformance.run.bench import Target
from wsbridge.conformance.run.runner import Verdict, run_check

pytest.importorskip("hypercorn")

from tests.http2 import Gateway

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parents[2]
RULES = {"HS-1", "HS-3", "HS-5", "HS-6", "HS-8", "HS-9", "RECV-1", "RECV-2", "RECV-3", "SEND-2", "SEND-3", "ERR-1"}
RULES |= {"OPEN-1", "OPEN-3", "OPEN-4", "OPEN-8", "CODEC-1", "CODEC-2", "STREAM-2", "STREAM-3"}


class OverHttp2(stock.Hypercorn):
    """hypercorn, behind what makes a stream of HTTP/2 of each handshake."""

    name = "asgi-hypercorn-http2"
    _gateway: Gateway

    async def _start(self, sockets: list[socket.socket]) -> None:
        await super()._start(sockets)
        ((host, port, *_),) = (sock.getsockname() for sock in sockets)
        self._gateway = Gateway(host, port)
        await self._gateway.__aenter__()
        self._addresses = (self._gateway.address,)

    async def _stop(self) -> None:
        await super()._stop()
        await self._gateway.__aexit__()


def checks() -> list[Check]:
    (report,) = (result for result in asgi_reports(ROOT) if result.target.name == "asgi-hypercorn")
    passed = {result.check for result in report.results if result.verdict is Verdict.PASS}
    return [check for check in stock.checks() if check.rule in RULES and check.id in passed]


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.id)
def test_check(check: Check) -> None:
    result = run_check(check, Target(OverHttp2.name, OverHttp2))
    assert result.verdict is Verdict.PASS, result.message


def test_every_rule_has_one() -> None:
    assert {check.rule for check in checks()} == RULES
