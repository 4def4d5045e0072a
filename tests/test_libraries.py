"""Libraries that ship a WebSocket endpoint, on top: the examples with the real packages, on every connector."""

# mypy: disable-error-code="import-untyped, misc, untyped-decorator"
from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ocpp")

from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, AuthorizationStatus, RegistrationStatus, RemoteStartStopStatus
from pycrdt import Channel, Doc, Provider, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.node import installed
from tests.processes import TIMEOUT, WSBRIDGE, each_connector, running
from tests.test_examples import EXAMPLES, serving

pytestmark = pytest.mark.slow


def test_the_examples_are_short() -> None:
    for name in ("ocpp_central_system", "crdt_sync", "graphql_ws"):
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


# ---- OCPP -----------------------------------------------------------------------------------------------------------


class Charger(ChargePoint):
    """A charge point of the same package, on a client that is not of ours."""

    started: asyncio.Queue[int | None]

    @on(Action.get_configuration)
    def on_get_configuration(self, key: list[str]) -> object:
        return call_result.GetConfiguration([{"key": key[0], "readonly": True, "value": "2"}])

    @on(Action.remote_start_transaction)
    def on_remote_start(self, id_tag: str, connector_id: int | None = None) -> object:
        assert id_tag == "ada-card"
        self.started.put_nowait(connector_id)
        return call_result.RemoteStartTransaction(RemoteStartStopStatus.accepted)


@contextlib.asynccontextmanager
async def charger(url: str) -> AsyncGenerator[Charger]:
    async with connect(f"{url}/ocpp/CP_1", subprotocols=["ocpp1.6"], proxy=None) as connection:  # type: ignore[list-item]
        assert connection.subprotocol == "ocpp1.6"
        one = Charger("CP_1", connection, response_timeout=int(TIMEOUT))
        one.started = asyncio.Queue()
        reading = asyncio.ensure_future(one.start())
        yield one
        await connection.close()
        with pytest.raises(ConnectionClosed):
            await reading


@each_connector
async def test_ocpp(connector: str) -> None:
    async with serving("ocpp_central_system", connector) as url, asyncio.timeout(TIMEOUT):
        async with charger(url) as one, charger(url) as other:
            for each in (one, other):
                booted = await each.call(call.BootNotification("Model", "Vendor"))
                assert (booted.status, booted.interval) == (RegistrationStatus.accepted, 300)
            assert [await each.started.get() for each in (one, one, other, other)] == [1, 2, 1, 2]
            for _ in range(3):
                assert (await one.call(call.Heartbeat())).current_time.startswith("20")
            for card, status in (("ada-card", AuthorizationStatus.accepted), ("other", AuthorizationStatus.invalid)):
                assert (await other.call(call.Authorize(card))).id_tag_info["status"] == status
        async with connect(f"{url}/ocpp/CP_1", proxy=None) as connection:
            with pytest.raises(ConnectionClosed, match="1002"):
                await connection.recv()


# ---- CRDT -----------------------------------------------------------------------------------------------------------


class DocumentClient(Channel):
    def __init__(self, connection: ClientConnection, path: str) -> None:
        self.connection = connection
        self._path = path

    @property
    def path(self) -> str:
        return self._path

    async def send(self, message: bytes) -> None:
        await self.connection.send(message)

    async def recv(self) -> bytes:
        message = await self.connection.recv()
        assert isinstance(message, bytes)
        return message

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None


@contextlib.asynccontextmanager
async def document(url: str, path: str) -> AsyncGenerator[Text]:
    """Open a document that is kept in step with those of the same path."""
    text = Text()
    content: Any = {"text": text}
    async with (
        connect(url + path, proxy=None) as connection,
        Provider(Doc(content), DocumentClient(connection, path)) as provider,
    ):
        await provider.synced.wait()
        yield text


async def becomes(text: Text, value: str) -> None:
    await until(text, lambda found: found == value)


async def until(text: Text, holds: Callable[[str], bool]) -> None:
    changed = asyncio.Event()
    subscription = text.observe(lambda event: changed.set())
    while not holds(str(text)):
        await changed.wait()
        changed.clear()
    text.unobserve(subscription)


@each_connector
async def test_crdt(connector: str) -> None:
    async with (
        asyncio.timeout(TIMEOUT),
        serving("crdt_sync", connector) as url,
        document(url, "/documents/a") as ada,
        document(url, "/documents/b") as alone,
    ):
        ada += "Hello"
        async with document(url, "/documents/a") as grace:
            await becomes(grace, "Hello")
            grace += ", world"
            await becomes(ada, "Hello, world")
            ada += "!"
            await becomes(grace, "Hello, world!")
        ada += " Again"
        async with document(url, "/documents/a") as later:
            await becomes(later, "Hello, world! Again")
        assert str(alone) == ""


@each_connector
async def test_crdt_of_a_document_that_several_open_at_once(connector: str) -> None:
    all_are_in = asyncio.Barrier(5)

    async def edit(url: str, letter: str) -> None:
        async with document(url, "/documents/new") as text:
            await all_are_in.wait()
            text += letter
            await until(text, lambda found: sorted(found) == list("abcde"))
            await all_are_in.wait()  # or who is done first would leave before the others have read it

    command = ("serve", "crdt_sync:app", f"--app-dir={EXAMPLES}", f"--connector={connector}", "--port=0")
    async with asyncio.timeout(TIMEOUT), running(*WSBRIDGE, *command) as server, asyncio.TaskGroup() as group:
        url = await server.url()
        server.process.send_signal(signal.SIGSTOP)  # it finds all five in one turn when it goes on
        for letter in "abcde":
            group.create_task(edit(url, letter))
        for _ in range(100):  # turns in which the requests are written
            await asyncio.sleep(0)
        server.process.send_signal(signal.SIGCONT)


# ---- GraphQL --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return installed(EXAMPLES / "graphql-client", tmp_path_factory.mktemp("node"))


@pytest.mark.rule("STREAM-1", "CODEC-2", "CLOSE-4")
@each_connector
async def test_graphql(connector: str, client: tuple[str, Path]) -> None:
    node, folder = client
    async with serving("graphql_ws", connector) as url, asyncio.timeout(TIMEOUT):
        command = (node, "client.js", f"{url}/graphql")
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE)
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0
    result = json.loads(said)
    violations = result.pop("violations")
    errors = [result["asked"].pop()[0] for _ in range(2)]
    assert [re.match(r"error: [^.,:]+", error)[0] for error in errors] == [  # type: ignore[index]
        "error: Syntax Error",
        "error: Cannot query field 'nothing' on type 'Query'",
    ]
    assert result == {
        "asked": [[{"hello": "Hello, Ada!"}], [{"count": 3}, {"count": 2}, {"count": 1}], [{"count": 2}, {"count": 1}]],
        "first": {"count": 1_000_000},
        "later": [{"hello": "Hello, Grace!"}],
        "pinged": "pong",
    }
    assert violations == [
        [4400, ""],
        [4400, "Invalid message"],
        [4400, ""],
        [4401, "Unauthorized"],
        [4408, "Connection initialisation timeout"],
        [4409, "Subscriber for 1 already exists"],
        [4429, "Too many initialisation requests"],
    ]
