"""The pytest plugin's front, and the fixture ``wsbridge_connect``: it costs nothing where it is not used.

pytest imports it in every run of every project that has wsbridge installed. It therefore stands outside the package:
importing the package takes time, and nothing of it may be loaded before coverage is measured. It adds its options only
after everyone else's, so that a project with a ``--model`` of its own keeps it. The plugin itself is
`wsbridge.conformance.doors.plugin`.
"""

from __future__ import annotations

import argparse
import functools
import inspect
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wsbridge.testing import Connections

_OPTIONS: dict[str, dict[str, Any]] = {
    "connector": {
        "action": "append",
        "default": [],
        "metavar": "NAME|module:Class|ws://host:port",
        "help": "what `pytest --pyargs wsbridge.conformance` checks; may be given more than once",
    },
    "timeout-scale": {
        "type": float,
        "default": 1.0,
        "metavar": "X",
        "help": "stretch every time limit of the conformance suite by this factor",
    },
    "repeat": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "run the stochastic checks of the conformance suite this often",
    },
    "model": {
        "action": "store_true",
        "default": False,
        "help": "play the conformance suite's random model too",
    },
    "model-sequences": {
        "type": int,
        "default": 100,
        "metavar": "N",
        "help": "how many sequences the random model plays",
    },
    "model-seed": {
        "type": int,
        "default": None,
        "metavar": "N",
        "help": "what a failure of the random model has told, to have the same sequences again",
    },
    "loop": {
        "choices": ("asyncio", "uvloop"),
        "default": "asyncio",
        "help": "the event loop of each check of the conformance suite",
    },
    "loop-debug": {
        "action": "store_true",
        "default": False,
        "help": "turn asyncio's debug mode on in the checks of the conformance suite",
    },
    "eager-tasks": {
        "action": "store_true",
        "default": False,
        "help": "let tasks start at once in the checks of the conformance suite (asyncio.eager_task_factory)",
    },
    "condition": {
        "action": "append",
        "default": [],
        "metavar": "AXIS=VALUE",
        "help": "run each check of the conformance suite under it, such as compress=on; may be given more than once",
    },
}


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, Any, Any]:
    """Add the options when all plugins and the first conftest files have added theirs."""
    result = yield
    group = parser.getgroup("wsbridge", "conformance suite of wsbridge")
    for name, settings in _OPTIONS.items():
        dest = "wsbridge_" + name.replace("-", "_")
        try:
            group.addoption(f"--{name}", dest=dest, **settings)
        except (ValueError, argparse.ArgumentError):  # somebody else's stays, and ours gets a longer name
            group.addoption(f"--wsbridge-{name}", dest=dest, **settings)
    return result


@pytest.fixture
def wsbridge_connect() -> Generator[Connections, None, None]:
    """`wsbridge.testing.connect`, whose connections end with the test: ``peer = await wsbridge_connect(app, "/")``."""
    from wsbridge.testing import Connections  # here, so that only a test that asks for it imports it

    connections = Connections()
    yield connections
    if connections.open:
        raise RuntimeError("wsbridge_connect: a connection is left open; only a test that is a coroutine can end it")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """End what ``wsbridge_connect`` opened in the event loop of the test, whichever plugin runs that."""
    connections: Connections | None = getattr(item, "funcargs", {}).get("wsbridge_connect")
    if connections is None or not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return (yield)
    function: Any = item.obj

    @functools.wraps(function)
    async def ending(*arguments: Any, **options: Any) -> Any:
        async with connections:
            return await function(*arguments, **options)

    item.obj = ending
    try:
        return (yield)
    finally:
        item.obj = function
