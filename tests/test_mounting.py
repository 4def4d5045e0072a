"""The place of a mount: what is served there, and what its requests are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from wsbridge import Application, Request, WebSocketOptions
from wsbridge.connector import MountPoint

OPTIONS = WebSocketOptions[Any]()


@pytest.mark.rule("MOUNT-1")
@pytest.mark.parametrize(("path", "root_path"), [("/", ""), ("/chat", "/chat"), ("/chat/", "/chat"), ("/a/b", "/a/b")])
def test_an_application_is_served_below_its_place_by_its_own_routes(path: str, root_path: str) -> None:
    app = Application([("/rooms/{name}", OPTIONS)])
    point = MountPoint(app, path)
    assert (point.app, point.has_routes, point.root_path) == (app, True, root_path)
    assert point.path_params({"tail": "/rooms/a"}) == {}


@pytest.mark.rule("MOUNT-1")
def test_options_are_served_wherever_the_framework_routes_to_them() -> None:
    point = MountPoint(OPTIONS, "/rooms/(?P<name>.*)")
    assert (point.has_routes, point.root_path) == (False, "")
    assert list(point.app.options) == [OPTIONS]
    assert point.path_params({"name": "a", 1: 5, "rest": None}) == {"name": "a", "1": "5"}


def test_options_may_have_a_route_that_is_looked_up() -> None:
    assert MountPoint(OPTIONS, "/a", route="/a").app.options is not None
    with pytest.raises(ValueError, match="must begin with '/'"):
        MountPoint(OPTIONS, "a", route="a")


def test_anything_else_is_refused() -> None:
    handler: Any = object()
    with pytest.raises(TypeError, match="expected WebSocketOptions"):
        MountPoint(handler)


@pytest.mark.rule("MOUNT-1")
async def test_an_application_at_the_root_of_aiohttps_has_its_own_parameters_alone() -> None:
    web = pytest.importorskip("aiohttp.web")
    test_utils = pytest.importorskip("aiohttp.test_utils")
    from wsbridge.connectors.aiohttp import mount

    seen: list[Any] = []

    def on_open(channel: Any, request: Request) -> None:
        seen.append((request.root_path, request.path_params))

    app = web.Application()
    mount(app, "/", Application([("/rooms/{name}", WebSocketOptions(on_open=on_open))]))
    async with test_utils.TestClient(test_utils.TestServer(app)) as client, client.ws_connect("/rooms/a") as peer:
        await peer.close()
    assert seen == [("", {"name": "a"})]
