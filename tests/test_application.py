"""`Application`: which route a path finds, and which routes it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from wsbridge import Application, Context, Interceptor, Request, WebSocketOptions, websocket_interceptor
from wsbridge.application import Route
from wsbridge.upgrade import Upgrade

OPTIONS: WebSocketOptions[None] = WebSocketOptions()


def route(
    app: Application, target: str, *, path_params: dict[str, str] | None = None
) -> tuple[str | None, dict[str, str]]:
    """Return the name of the last interceptor that ``target`` is routed to, or None, and the path parameters."""
    context: Context = {"request": Request("GET", target, headers=[], path_params=path_params), "response": None}
    chain = app.route(context)
    if not chain:
        assert context["response"].status_code == 404
        return None, {}
    assert context["response"] is None
    return chain[-1].name, context["request"].path_params


@pytest.mark.rule("HS-2", "HS-5")
@pytest.mark.parametrize(
    ("target", "name", "parameters"),
    [
        ("/", "/", {}),
        ("/?q=1", "/", {}),
        ("/echo", "/echo", {}),
        ("/ech%6f", "/echo", {}),
        ("/echo/", None, {}),
        ("/Echo", None, {}),
        ("//echo", None, {}),
        ("/echo//", None, {}),
        ("/dir/", "/dir/", {}),
        ("/dir", None, {}),
        ("/room/7", "/room/{id}", {"id": "7"}),
        ("/room/gr%C3%BC%C3%9Fe", "/room/{id}", {"id": "gr\u00fc\u00dfe"}),
        ("/room/%ff", "/room/{id}", {"id": "\ufffd"}),
        ("/room/a%20b;c", "/room/{id}", {"id": "a b;c"}),
        ("/room/<b>|c", "/room/{id}", {"id": "<b>|c"}),
        ("/room/lobby", "/room/lobby", {}),
        ("/room/", None, {}),
        ("/room", None, {}),
        ("/room/7/8", None, {}),
        ("/room/7/seat/9", "/room/{id}/seat/{seat}", {"id": "7", "seat": "9"}),
        ("/files/a", "/files/{rest:path}", {"rest": "a"}),
        ("/files/a/b.txt", "/files/{rest:path}", {"rest": "a/b.txt"}),
        ("/files/a%2Fb", "/files/{rest:path}", {"rest": "a/b"}),
        ("/files/a/", "/files/{rest:path}", {"rest": "a/"}),
        ("/files/", None, {}),
        ("/v1.{x}", None, {}),
        ("/v1.a-b", "/v{major}.{minor}-b", {"major": "1", "minor": "a"}),
        ("/nowhere", None, {}),
        ("*", None, {}),
        ("/a.b", None, {}),
        ("/a+b", "/a+b", {}),
    ],
)
def test_a_path_finds_its_route_or_404(target: str, name: str | None, parameters: dict[str, str]) -> None:
    paths = (
        "/",
        "/echo",
        "/dir/",
        "/room/{id}",
        "/room/lobby",
        "/room/{id}/seat/{seat}",
        "/files/{rest:path}",
        "/v{major}.{minor}-b",
        "/a+b",
    )
    app = Application([(path, OPTIONS) for path in paths])
    assert route(app, target) == (name, parameters)


@pytest.mark.rule("HS-2", "HS-5")
def test_a_path_alone_matches_every_path() -> None:
    app = Application([("/{all:path}", OPTIONS), ("/echo", OPTIONS), ("/files/{rest:path}", OPTIONS)])
    rests = {"/": "", "/a": "a", "/a/b/": "a/b/", "/files/": "files/", "/a%0Ab%0A": "a\nb\n", "//a": "/a", "//": "/"}
    for target, rest in rests.items():
        assert route(app, target) == ("/{all:path}", {"all": rest})
    assert route(Application([("/{one}/{rest:path}", OPTIONS)]), "//a") == (None, {})
    assert route(app, "/echo") == ("/echo", {})
    assert route(app, "/files/a%0A/b") == ("/files/{rest:path}", {"rest": "a\n/b"})
    assert route(Application([("/{all:path}", OPTIONS), ("/", OPTIONS)]), "/") == ("/", {})
    assert route(Application([("/{all}", OPTIONS)]), "/") == (None, {})


@pytest.mark.rule("HS-2")
def test_path_parameters_are_added_to_those_of_a_framework() -> None:
    app = Application([("/room/{id}", OPTIONS)])
    assert route(app, "/room/7", path_params={"tenant": "x"}) == ("/room/{id}", {"tenant": "x", "id": "7"})


@pytest.mark.rule("HS-5")
def test_an_application_without_routes_has_none() -> None:
    assert route(Application([]), "/") == (None, {})


def test_options_are_served_by_one_interceptor_and_interceptors_as_they_are() -> None:
    chain = [Interceptor(name="first"), websocket_interceptor("last", OPTIONS)]
    routes: list[Route] = [("/a", OPTIONS), ("/b", chain)]
    app = Application(iter(routes), interceptors=iter([Interceptor(name="before")]))
    context: Context = {"request": Request("GET", "/a", headers=[]), "response": None}
    (only,) = app.route(context)
    assert isinstance(only.enter, Upgrade)
    assert only.enter.options is OPTIONS
    assert route(app, "/b")[0] == "last"
    assert [interceptor.name for interceptor in app.interceptors] == ["before"]


def test_the_options_of_all_interceptors_can_be_seen() -> None:
    first, second, third = (WebSocketOptions[None](idle_timeout=seconds) for seconds in (1, 2, 3))
    app = Application(
        [
            ("/a", first),
            ("/b", [Interceptor(name="x", enter=lambda context: context), websocket_interceptor("b", second)]),
        ],
        interceptors=[websocket_interceptor("all", third)],
    )
    assert list(app.options) == [third, first, second]


@pytest.mark.parametrize(
    ("routes", "error", "message"),
    [
        ([("/a",)], TypeError, "pair"),
        ([("/a", OPTIONS, 3)], TypeError, "pair"),
        ([["/a", OPTIONS]], TypeError, "pair"),
        (["/a"], TypeError, "pair"),
        ([(3, OPTIONS)], TypeError, "path must be a str"),
        ([("a", OPTIONS)], ValueError, "begin with '/'"),
        ([("", OPTIONS)], ValueError, "begin with '/'"),
        ([("/a", None)], TypeError, "'/a'"),
        ([("/a", print)], TypeError, "'/a'"),
        ([("/a", "handler")], TypeError, "'/a'"),
        ([("/a", {})], TypeError, "'/a'"),
        ([("/a", [print])], TypeError, "'/a'.*no Interceptor"),
        ([("/a", [])], ValueError, "'/a'.*at least one"),
        ([("/a", OPTIONS), ("/a", OPTIONS)], ValueError, "'/a'.*same paths"),
        ([("/{a}", OPTIONS), ("/{b}", OPTIONS)], ValueError, "'/{b}'.*'/{a}'"),
        ([("/{a:path}", OPTIONS), ("/{b:path}", OPTIONS)], ValueError, "same paths"),
        ([("/{a}/{a}", OPTIONS)], ValueError, "names a parameter twice"),
        ([("/{}", OPTIONS)], ValueError, "'{'"),
        ([("/{a", OPTIONS)], ValueError, "'{'"),
        ([("/a}", OPTIONS)], ValueError, "'}'"),
        ([("/{1}", OPTIONS)], ValueError, "'{'"),
        ([("/{a:int}", OPTIONS)], ValueError, "'{'"),
        ([("/<a>", OPTIONS)], ValueError, "'<'"),
        ([("/a?b", OPTIONS)], ValueError, "'?'"),
        ([("/a#b", OPTIONS)], ValueError, "'#'"),
    ],
)
def test_a_wrong_route_is_refused_with_its_path(routes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Application(routes)


def test_routes_that_differ_in_a_parameters_kind_may_stand_together() -> None:
    app = Application([("/f/{one}", OPTIONS), ("/f/{rest:path}", OPTIONS)])
    assert route(app, "/f/a") == ("/f/{one}", {"one": "a"})
    assert route(app, "/f/a/b") == ("/f/{rest:path}", {"rest": "a/b"})


@pytest.mark.parametrize("interceptors", ["name", {}, 3, [print], [None]])
def test_wrong_interceptors_are_a_type_error(interceptors: Any) -> None:
    with pytest.raises(TypeError, match="interceptors"):
        Application([], interceptors)
