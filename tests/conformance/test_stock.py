"""`asgi_app` on ASGI servers as they are: some checks, each with the outcome that the committed report tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tools import stock
from tools.reports import asgi_reports
from wsbridge import Application, WebSocketOptions
from wsbridge.conformance.client import wire
from wsbridge.conformance.run.bench import Target
from wsbridge.conformance.run.runner import CheckResult, Verdict, run_check
from wsbridge.registry import ENTRY_POINT_GROUP, connector_names

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
RULES = {"HS-1", "HS-3", "RECV-1", "SEND-3", "CLOSE-4", "OPEN-9"}  # which take no long waits


@pytest.mark.parametrize("name", stock.STOCK)
def test_the_report_tells_what_is_so(name: str) -> None:
    for package in stock.STOCK[name].packages:
        pytest.importorskip(package)
    (report,) = (result for result in asgi_reports(ROOT) if result.target.name == name)
    told = {result.check: result.verdict for result in report.results if result.rule in RULES}
    target = Target(name, stock.STOCK[name])
    found = {
        check.id: stock.judged(run_check(check, target)).verdict for check in stock.checks() if check.rule in RULES
    }
    assert found == told
    assert Verdict.PASS in found.values()


def test_descriptors_that_a_server_leaves_are_its_own() -> None:
    def failed(message: str) -> CheckResult:
        return CheckResult("RECV-1/a", "RECV-1", Verdict.FAIL, 0.1, message, cause="left-over")

    assert stock.judged(failed("2 file descriptors left open")).verdict is Verdict.PASS
    for message in ("2 file descriptors left open; a warning: x", "thread x left running"):
        assert stock.judged(failed(message)) == failed(message)


def test_only_what_a_report_lacks_is_run() -> None:
    (former,) = (result for result in asgi_reports(ROOT) if result.target.name == "asgi-hypercorn")
    gone = next(index for index, result in enumerate(former.results) if result.check == "RECV-1/texts-are-str")
    lacking = replace(former, results=former.results[:gone] + former.results[gone + 1 :])
    again = stock.run("asgi-hypercorn", former=lacking)
    assert [result.check for result in again.results] == [result.check for result in former.results]
    assert again.results[gone].seconds > 0
    assert [result for result in again.results if result.seconds] == [again.results[gone]]


def test_they_are_no_connectors() -> None:
    assert not set(stock.STOCK) & set(connector_names()), ENTRY_POINT_GROUP


class WithoutWebSockets(stock.Uvicorn):
    """uvicorn as it is when no implementation of WebSocket is installed."""

    _ws = "none"


async def test_a_server_without_websockets(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("uvicorn")
    async with WithoutWebSockets(Application([("/", WebSocketOptions(ping_interval=None))])) as server:
        raw = await wire.Peer.open(server.addresses[0], timeout=5)
        async with raw:
            await raw.request(wire.HandshakeRequest.build(server.addresses[0], target="/").encode())
            assert (await raw.read_response()).status == 400
    assert "it has no support for WebSockets" in caplog.text
