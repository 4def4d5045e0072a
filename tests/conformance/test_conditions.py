"""Connectors held to the whole suite under other event loops, in debug mode, and with tasks that start at once (THR-4).

Under each condition there are one whose server pulls its messages and one whose server pushes them, on asyncio's
transports and on others.
"""

from __future__ import annotations

import sys

import pytest

from wsbridge.conformance import ConnectorSuite

if sys.version_info < (3, 12):
    pytest.skip("asyncio.eager_task_factory is new in Python 3.12", allow_module_level=True)

pytestmark = pytest.mark.conditions


class TestAiohttpWithEagerTasks(ConnectorSuite):
    connector = "aiohttp"
    eager_tasks = True


class TestUvicornWithEagerTasks(ConnectorSuite):
    connector = "uvicorn"
    eager_tasks = True


class TestAiohttpOnUvloop(ConnectorSuite):
    connector = "aiohttp"
    loop = "uvloop"


class TestPicowsOnUvloop(ConnectorSuite):
    connector = "picows"
    loop = "uvloop"


class TestPicowsInDebugMode(ConnectorSuite):
    connector = "picows"
    debug = True
