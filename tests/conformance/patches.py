"""The core, broken on purpose: for each library rule a patch that the tests of that rule must catch.

As a pytest plugin, with the rule in ``WSBRIDGE_PATCH``, it patches the core and keeps only the tests of that rule.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from wsbridge.http import Response

# without their types: what is put into them is wrong on purpose
wsbridge: Any = importlib.import_module("wsbridge")
application: Any = importlib.import_module("wsbridge.application")
base: Any = importlib.import_module("wsbridge.connector.base")
handling: Any = importlib.import_module("wsbridge.connector.handling")
channel: Any = importlib.import_module("wsbridge._channel.channel")
codec: Any = importlib.import_module("wsbridge.codec")
connection: Any = importlib.import_module("wsbridge.connection")
interceptor: Any = importlib.import_module("wsbridge.interceptor")
options: Any = importlib.import_module("wsbridge.options")
registry: Any = importlib.import_module("wsbridge.registry")
requirements: Any = importlib.import_module("wsbridge._common.requirements")
serve: Any = importlib.import_module("wsbridge.cli.serve")
signals: Any = importlib.import_module("wsbridge._process.signals")
stream: Any = importlib.import_module("wsbridge.stream")
supervise: Any = importlib.import_module("wsbridge.cli.supervise")
tls: Any = importlib.import_module("wsbridge.tls")
upgrade: Any = importlib.import_module("wsbridge.upgrade")

PATCHES: dict[str, Callable[[], None]] = {}


def patch(rule: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function that breaks ``rule`` in the core."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        PATCHES[rule] = function
        return function

    return register


def pytest_configure(config: pytest.Config) -> None:
    PATCHES[os.environ["WSBRIDGE_PATCH"]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rule = os.environ["WSBRIDGE_PATCH"]
    items[:] = [item for item in items if any(rule in mark.args for mark in item.iter_markers("rule"))]


@patch("LIM-5")
def take_any_option() -> None:
    options.WebSocketOptions.__post_init__ = lambda self: None


@patch("CTX-1")
def hand_over_a_frozen_context() -> None:
    execute = interceptor.execute

    async def frozen(context: Any, *arguments: Any) -> Any:
        return await execute({key: context[key] for key in ("request", "response")}, *arguments)

    handling.execute = frozen


@patch("CTX-2")
def enter_backwards() -> None:
    execute = interceptor.execute

    def backwards(context: Any, interceptors: Any, *arguments: Any) -> Any:
        return execute(context, [*interceptors][::-1], *arguments)

    handling.execute = interceptor.execute = backwards


@patch("CTX-4")
def refuse_quietly() -> None:
    def refused(context: Any, options: Any) -> Any:
        if context.get("websocket_channel_source") is None:
            context["response"] = Response("", 400)
            return context
        return original(context, options)

    original = upgrade.upgrade_request_to_websocket
    upgrade.upgrade_request_to_websocket = refused
    wsbridge.upgrade_request_to_websocket = refused


@patch("CTX-5")
def upgrade_in_the_leave_stage() -> None:
    def late(name: str, options: Any) -> Any:
        return interceptor.Interceptor(name=name, leave=upgrade.Upgrade(options))

    upgrade.websocket_interceptor = late
    application.websocket_interceptor = late
    wsbridge.websocket_interceptor = late


@patch("CONN-1")
def send_the_last_first() -> None:
    class Stack(deque[Any]):
        def popleft(self) -> Any:
            return self.pop()

    connection.deque = Stack


@patch("CONN-2")
def queue_without_end() -> None:
    init = connection.WebSocketConnection.__init__

    def endless(self: Any, channel: Any, send_buffer: int) -> None:
        init(self, channel, 10**9)

    connection.WebSocketConnection.__init__ = endless


@patch("CONN-3")
def stop_at_an_exception() -> None:
    original = connection.WebSocketConnection._send_one

    async def send_one(self: Any, *arguments: Any) -> None:
        failed: list[Exception] = []
        send = self._channel.send_text

        class Channel:
            def __getattr__(self, name: str) -> Any:
                return getattr(channel, name)

            async def send_text(self, text: str) -> Any:
                try:
                    return await send(text)
                except Exception as exc:
                    failed.append(exc)
                    raise

        channel, self._channel = self._channel, Channel()
        try:
            await original(self, *arguments)
        finally:
            self._channel = channel
        if failed:
            self._queue.clear()
            self._ended = True

    connection.WebSocketConnection._send_one = send_one


@patch("CONN-4")
def close_at_once() -> None:
    async def close(self: Any, code: int = 1000, text: str = "") -> None:
        self._queue.clear()
        self._channel.close(code, text)

    connection.WebSocketConnection.close = close


@patch("CONN-5")
def keep_a_sender() -> None:
    original = connection.WebSocketConnection._send_queued

    async def send_queued(self: Any) -> None:
        await original(self)
        await asyncio.sleep(3600)

    connection.WebSocketConnection._send_queued = send_queued


@patch("CONN-6")
def put_anything() -> None:
    connection.WebSocketConnection._encoded = lambda self, message: message


@patch("CONN-7")
def remember_what_was_cancelled() -> None:
    connection.WebSocketConnection._forget = lambda self, entry: None


@patch("CODEC-3")
def encode_by_what_is_installed() -> None:
    msgspec: Any = importlib.import_module("msgspec")
    codec._dumps = lambda message: msgspec.json.encode(message).decode()
    codec._loads = msgspec.json.decode


@patch("THR-2")
def belong_to_no_loop() -> None:
    def set_loop(self: Any) -> None:
        self._loop = self._loop or asyncio.get_running_loop()

    base.BaseConnector.check_loop = lambda self: None
    base.BaseConnector._set_loop = set_loop


@patch("REG-1")
def import_while_listing() -> None:
    original = registry.connector_infos

    def infos() -> Any:
        found = original()
        for info in found:
            try:
                registry._import_path(info.value)
            except Exception:
                continue
        return tuple(info for info in found if info.server is None)

    registry.connector_infos = infos


@patch("REG-2")
def not_found_without_a_word() -> None:
    registry._not_found = lambda asked, name: "not found"


@patch("REG-3")
def take_any_import_error_for_a_missing_server() -> None:
    def load(info: Any) -> Any:
        try:
            return registry._import_path(info.value)
        except ImportError as exc:
            raise registry.ConnectorNotInstalledError("not installed") from exc

    registry._load = load


@patch("REG-4")
def take_the_first_of_two() -> None:
    original = registry.connector_infos

    def infos() -> Any:
        return tuple({info.name: info for info in original()}.values())

    registry.connector_infos = infos


@patch("REG-5")
def take_any_version() -> None:
    registry._checked = lambda found, asked: found


@patch("REG-6")
def support_every_version() -> None:
    requirements.Requirement.problem = None


@patch("STOP-11")
def forget_what_comes_before_the_loop() -> None:
    @contextlib.contextmanager
    def deaf(*, hangup: bool) -> Any:
        before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in signals.STOPPING}
        try:
            yield lambda: None
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    signals.end_at_signals = serve.end_at_signals = deaf


@patch("STOP-12")
def take_a_hangup_for_nothing() -> None:
    original = signals.stop_signals
    signals.stop_signals = lambda on_hangup=None: original(on_hangup or (lambda: None))


@patch("STOP-13")
def let_no_next_generation_in() -> None:
    sockets: Any = importlib.import_module("wsbridge.connector.sockets")
    original = sockets.reserve
    sockets.reserve = supervise.reserve = lambda host, port, shared=False: original(host, port)


@patch("STOP-14")
def keep_the_first_certificate() -> None:
    tls.Certificate._load = lambda self: None


@patch("STREAM-10")
def take_any_handler() -> None:
    stream.is_coroutine_function = lambda handler: True


@patch("OPEN-12")
def take_any_callback() -> None:
    for module in (options, stream, interceptor, application, channel):
        module.check_callback = lambda name, callback, *takes: None


@patch("HS-19")
def know_http_1_1_alone() -> None:
    upgrade.STREAM_VERSIONS = frozenset()


@patch("MOUNT-3")
def pass_over_the_users_own_hook() -> None:
    websockets: Any = importlib.import_module("wsbridge.connectors.websockets")
    native = websockets.mount

    def mount(handler: Any, *, process_request: Any = None, **options: Any) -> Any:
        return native(handler, **options)

    websockets.mount = mount
