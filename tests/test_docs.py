"""The pages of ``docs/``: their code runs, their links lead somewhere, and what they say of the API is so."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

import wsbridge
from tests.fakes import FakeConnector, handshake, passes
from wsbridge import Application, Response
from wsbridge.conformance.contract import catalogue
from wsbridge.conformance.run import reference
from wsbridge.testing import Connections

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
OPTIONAL = ("aiohttp", "picows", "tornado", "websockets")


def blocks(page: str) -> list[str]:
    """Return the Python on a page."""
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Run the Python of a page from top to bottom, without what needs a server that is not installed."""
    names: dict[str, Any] = {"__name__": page}
    for number, block in enumerate(blocks(page), 1):
        try:
            exec(compile(block, f"{page}, block {number}", "exec", dont_inherit=True), names)
        except ModuleNotFoundError as exc:
            if exc.name not in OPTIONAL:
                raise
    return names


@pytest.mark.parametrize("page", ["index.md", "guide.md", "styles.md", "security.md", "testing.md"])
def test_the_code_of_a_page_runs(page: str) -> None:
    assert isinstance(run(page)["app"], Application)


async def test_the_application_of_the_guide_does_what_the_guide_says() -> None:
    connector = FakeConnector(run("guide.md")["app"], shutdown_timeout=1)
    plain = await connector.request(handshake("/health", method="POST"))
    assert isinstance(plain, Response)
    assert (plain.status_code, plain.body) == (200, b"fine\n")
    stranger = await connector.request(handshake("/chat"))
    assert isinstance(stranger, Response)
    assert stranger.status_code == 401
    channel = await connector.open("/chat?token=secret")
    channel.comes("text", "abc")
    channel.comes("binary", b"abc")
    await passes()
    channel.comes("close", 1000, "")
    channel.comes("lost")
    await passes()
    assert channel.wire.written[:3] == [("text", "hello ada"), ("text", "ABC"), ("binary", b"cba")]


@pytest.mark.parametrize("style", ["callbacks", "loop"])
async def test_the_chat_is_the_same_in_both_styles(style: str) -> None:
    connector = FakeConnector(run("styles.md")["app"])
    ada, grace = [await connector.open(f"/{style}/lobby?name={name}") for name in ("ada", "grace")]
    await passes()
    ada.comes("text", "hello")
    await passes()  # a close that was read in the same moment would end her sends before it is delivered (SEND-1)
    ada.comes("close", 1000, "")
    ada.comes("lost")
    await passes()
    expected = ["* ada joined", "* grace joined", "ada: hello", "* ada left (normal)"]
    assert [entry[1] for entry in ada.wire.written if entry[0] == "text"] == expected[:3]
    assert [entry[1] for entry in grace.wire.written if entry[0] == "text"] == expected[1:]
    grace.comes("lost")
    await asyncio.gather(*connector.tasks)


async def test_the_shorter_examples_of_the_styles_work() -> None:
    names = run("styles.md")
    connector = FakeConnector(
        Application([*names["mirrors"], *[("/both", wsbridge.stream_handler(names["both_ways"]))]])
    )
    channels = {path: await connector.open(path) for path in ("/callbacks", "/loop", "/both")}
    for path in ("/callbacks", "/loop"):
        channels[path].comes("text", "1,2")
    channels["/both"].comes("text", "stop")
    await passes(40)
    assert channels["/callbacks"].wire.written == channels["/loop"].wire.written == [("text", "2,1")]
    assert channels["/both"].wire.written[-1] == ("close", 1000, "")
    for channel in channels.values():
        channel.comes("lost")
    await asyncio.gather(*connector.tasks)


async def test_the_tests_of_the_page_on_testing_pass() -> None:
    names = run("testing.md")
    tests = {name: test for name, test in names.items() if name.startswith("test_")}
    assert len(tests) == (DOCS / "testing.md").read_text(encoding="utf-8").count("async def test_")
    for name, test in tests.items():
        if name == "test_with_the_fixture":
            async with Connections() as connections:
                await test(connections)
        else:
            await test()
        assert names["room"].members == set(), name


async def test_the_shorter_examples_of_the_guide_work() -> None:
    names = run("guide.md")
    feed, on_word, send_or_drop, upload = (names[name] for name in ("feed", "on_word", "send_or_drop", "upload"))

    async def prices() -> Any:
        for price in range(3):
            yield price

    app = Application(
        [
            ("/feed", wsbridge.WebSocketOptions(on_open=lambda channel, request: feed(channel, prices()))),
            ("/word", wsbridge.WebSocketOptions(on_text=on_word)),
            ("/drop", wsbridge.WebSocketOptions(on_text=lambda channel, process, text: send_or_drop(channel, text))),
            ("/upload", upload),
        ]
    )
    connector = FakeConnector(app)
    channels = {path: await connector.open(path) for path in ("/feed", "/word", "/drop", "/upload")}
    channels["/word"].comes("text", "bye")
    channels["/drop"].comes("text", "sent")
    channels["/upload"].comes("binary", b"first\nsecond\n")
    await passes(40)
    assert channels["/feed"].wire.written == [("text", "0"), ("text", "1"), ("text", "2"), ("close", 1000, "")]
    assert channels["/word"].wire.written == [("close", 1000, "see you")]
    assert channels["/drop"].wire.written == [("text", "sent")]
    assert channels["/upload"].reason is None
    for channel in channels.values():
        channel.comes("lost")
    await asyncio.gather(*connector.tasks)


async def test_the_guides_way_to_many_channels_waits_for_nobody() -> None:
    names = run("guide.md")
    connector = FakeConnector(Application([("/", names["subscribers"])]))
    stuck, reader = await connector.open(), await connector.open()
    await passes()
    stuck.pause_writing()
    for number in range(40):
        names["publish"](str(number))
        await passes()
    assert reader.wire.written == [("text", str(number)) for number in range(40)]
    assert stuck.reason is not None
    assert (stuck.reason.code, stuck.reason.text) == (1008, "too slow")
    for channel in (stuck, reader):
        channel.comes("lost")
    await asyncio.gather(*connector.tasks)
    assert names["queues"] == {}


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert target.startswith(("http://", "https://")) or (DOCS / target).exists(), target


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_the_rules_that_a_page_names_exist(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    ids = {rule.id for rule in catalogue.rules()}
    assert set(re.findall(r"\b(?:" + "|".join(catalogue.GROUPS) + r")-\d+\b", text)) <= ids


def test_the_page_for_pedestal_has_every_member() -> None:
    text = (DOCS / "coming-from-pedestal.md").read_text(encoding="utf-8")
    members = (
        "WebSocketChannel",
        "on-text",
        "on-binary",
        "send-text!",
        "send-binary!",
        "close!",
        "InitializeWebSocket",
        "initialize-websocket",
        "upgrade-request-to-websocket",
        "websocket-interceptor",
        "start-ws-connection",
        ":on-open",
        ":on-close",
        ":on-text",
        ":on-binary",
        ":send-buffer-or-n",
        ":bytes",
        ":byte-buffer",
        ":input-stream",
        ":websocket-channel-source",
        ":websocket-channel",
    )
    assert [member for member in members if member not in text] == []


def test_the_page_of_the_reference_application_has_its_routes_and_numbers() -> None:
    text = (DOCS / "reference-app.md").read_text(encoding="utf-8")
    routes = {rule.rule for rule in reference.reference_application()._map.iter_rules()}
    described = {
        re.sub(r"\{(\w+)\}", r"<string:\1>", path) for path in re.findall(r"^\| `(/[^`]*)` \|", text, re.MULTILINE)
    }
    assert described == routes
    for number in (reference.MAX_SIZE, reference.FLOOD_SIZE):
        assert f"{number:,} " in text
    for name in reference.SUBPROTOCOLS:
        assert f"`{name}`" in text
