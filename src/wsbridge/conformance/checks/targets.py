"""HS-2, MOUNT-1: what of a request's target the application gets, to the letter, in a mount and outside of one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask
from wsbridge.conformance.contract import check, equal, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.mounted import mounted
from wsbridge.http import Request

__all__: list[str] = []

_TARGETS: Mapping[str, str] = {
    "/": "/",
    "/x": "/x",
    "/x/": "/x/",
    "/x//": "/x//",
    "//x": "//x",
    "/x//y": "/x//y",
    "/caf%C3%A9": "/caf\u00e9",
    "/caf%c3%a9/%E2%82%AC": "/caf\u00e9/\u20ac",
    "/%F0%9F%98%80": "/\U0001f600",
    "/bad%FF": "/bad\ufffd",
    "/a%2Fb%2fc": "/a/b/c",
    "/what%3Fq%23f": "/what?q#f",
    "/100%25": "/100%",
    "/100%2525": "/100%25",
    "/a%20b+c": "/a b+c",
    "/semi;v=1;w/x;y": "/semi;v=1;w/x;y",
    "/semi%3Bv": "/semi;v",
    "/a.b/~c/-_": "/a.b/~c/-_",
    "/:@!$&'()*,=": "/:@!$&'()*,=",
    "/a/../b/./c": "/a/../b/./c",
    "/%2e%2e/x": "/../x",
    "/%41%7E": "/A~",
}
"""Paths as they are sent, and decoded."""

_QUERIES: tuple[str | None, ...] = (
    None,
    "",
    "a=1",
    "a=%2F&b=/&c=?&d=caf%C3%A9&a=2",
    "a=1;b=2",
    "%",
    "=&&=",
    "a=+%20%2B",
    "%FF=%00",
)
"""What stands after the question mark; None where there is none."""


async def _request(bench: Bench, served: Served, target: str) -> Request:
    """Open a channel and return the request that its ``on_open`` got."""
    count = len(bench.recorder.all("open"))
    async with served.peer(target):
        await bench.recorder.wait("open", count + 1)
    request: Request = bench.recorder.values("open")[count]
    return request


async def _to_the_letter(bench: Bench, served: Served, root: str = "") -> None:
    """Check paths and queries below ``root``, as that is sent."""
    with variants() as variant:
        for sent, path in _TARGETS.items():
            with variant(sent):
                request = await _request(bench, served, f"{sent}?q={sent}")
                told = (request.raw_path, request.path, request.root_path, request.query_string)
                equal(told, (served.path + sent, path, root, f"q={sent}".encode()), "raw path, path, root and query")
        for query in _QUERIES:
            with variant(f"the query {query!r}"):
                request = await _request(bench, served, "/x" if query is None else f"/x?{query}")
                got = (request.raw_path, request.query_string)
                equal(got, (f"{served.path}/x", (query or "").encode()), "raw path and query")


_PARAMETERS: Mapping[str, tuple[str, dict[str, str]] | None] = {
    "/seg/caf%C3%A9/end": ("seg", {"name": "caf\u00e9"}),
    "/seg/a%20b;c=d/end": ("seg", {"name": "a b;c=d"}),
    "/seg/a+b%2B/end": ("seg", {"name": "a+b+"}),
    "/seg/100%2525/end": ("seg", {"name": "100%25"}),
    "/seg/a%2Fb/end": None,
    "/seg//end": None,
    "/seg/x/end/": None,
    "/rest/a%2Fb/c": ("rest", {"rest": "a/b/c"}),
    "/rest/a//b/": ("rest", {"rest": "a//b/"}),
    "/rest/%3Fq=%26?q=1": ("rest", {"rest": "?q=&"}),
    "/both/x/y%2Fz": ("both", {"name": "x", "rest": "y/z"}),
}
"""Targets, and the route that they reach with its parameters; None where they reach none."""


def _routes(bench: Bench) -> Application:
    routes = {"seg": "/seg/{name}/end", "rest": "/rest/{rest:path}", "both": "/both/{name}/{rest:path}"}

    def options(name: str) -> Any:
        return bench.options(on_open=lambda channel, request: bench.recorder.log("route", value=name))

    return Application([(path, options(name)) for name, path in routes.items()])


async def _parameters(bench: Bench, served: Served) -> None:
    with variants() as variant:
        for target, expected in _PARAMETERS.items():
            with variant(target):
                if expected is None:
                    equal((await ask(served, target=target)).status, 404, "the status")
                    continue
                request = await _request(bench, served, target)
                told = (bench.recorder.values("route")[-1], dict(request.path_params))
                equal(told, expected, "route and parameters")


@check("HS-2", fixed=["path", "served"])
async def targets_to_the_letter(bench: Bench) -> None:
    """Path, raw path and query are those that were sent, whatever is encoded, doubled, empty or looks like a parent."""
    async with bench.serve(Application([("/{rest:path}", bench.options())])) as served:
        await _to_the_letter(bench, served)


@check("HS-2")
async def parameters_of_any_path(bench: Bench) -> None:
    """The parameters of a path are decoded once, after which a slash counts as one, and a doubled one stays."""
    async with bench.serve(_routes(bench)) as served:
        await _parameters(bench, served)


@contextlib.asynccontextmanager
async def _mounted_at(bench: Bench, app: Application, path: str) -> AsyncGenerator[Served]:
    async with mounted(bench, app, path=path) as (served, _):
        served.path = quote(path)
        yield served


@check("MOUNT-1", needs=["mount"])
async def hs_2_targets_to_the_letter(bench: Bench) -> None:
    """In a mount too path, raw path and query are those that were sent, below the place of the mount."""
    async with _mounted_at(bench, Application([("/{rest:path}", bench.options())]), "/mounted") as served:
        await _to_the_letter(bench, served, "/mounted")


@check("MOUNT-1", needs=["mount"])
async def hs_2_parameters_of_any_path(bench: Bench) -> None:
    """In a mount too the parameters of a path are decoded once, and a doubled slash stays."""
    async with _mounted_at(bench, _routes(bench), "/mounted") as served:
        await _parameters(bench, served)


@check("MOUNT-1", needs=["mount"])
async def at_a_deep_path(bench: Bench) -> None:
    """A mount below several segments is as one below a single one."""
    async with _mounted_at(bench, Application([("/{rest:path}", bench.options())]), "/api/v1.0/ws") as served:
        await _to_the_letter(bench, served, "/api/v1.0/ws")
