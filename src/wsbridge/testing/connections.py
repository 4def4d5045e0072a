"""Connections that end with a test: what the fixture ``wsbridge_connect`` of the pytest plugin gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, TypedDict, Unpack

from wsbridge.testing.connecting import App, Connecting, connect
from wsbridge.testing.handshake import HeaderItems

__all__ = ["ConnectOptions", "Connections"]


class ConnectOptions(TypedDict, total=False):
    """The options of `connect`, where they are explained."""

    headers: HeaderItems
    subprotocols: Sequence[str]
    scheme: str
    client: tuple[str, int] | None
    timeout: float
    window: int
    auto_pong: bool
    auto_close: bool
    raise_errors: bool


class Connections:
    """`connect` for a whole test, as the pytest fixture ``wsbridge_connect``: what it opened is ended with the test.

    ``peer = await wsbridge_connect(app, "/echo")`` in a test, or a fixture of one, that is a coroutine function.
    """

    def __init__(self) -> None:
        self._made: list[Connecting] = []

    def __call__(self, app: App, path: str = "/", **options: Unpack[ConnectOptions]) -> Connecting:
        """See `connect`."""
        made = connect(app, path, **options)
        self._made.append(made)
        return made

    @property
    def open(self) -> int:
        """How many connections have not been ended."""
        return sum(made.is_open for made in self._made)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End all, the last first, and raise what the first of them raises."""
        raised: list[Exception] = []
        while self._made:
            try:
                await self._made.pop().aclose(is_failing=error is not None)
            except Exception as exc:
                raised.append(exc)
        if raised:
            raise raised[0]
