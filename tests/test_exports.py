"""The public names, and what importing them loads: no server, and nothing of the suite."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsbridge

PUBLIC = {
    "Application",
    "CallbackAlreadySetError",
    "ChannelClosedError",
    "ChannelNotOpenError",
    "CloseReason",
    "Codec",
    "Compression",
    "Connector",
    "ConnectorConflictError",
    "ConnectorNotFoundError",
    "ConnectorNotInstalledError",
    "ConnectorStateError",
    "ConnectorVersionError",
    "Context",
    "InitializeWebSocket",
    "Interceptor",
    "LoopNotInstalledError",
    "MessageDecodeError",
    "MessageKindError",
    "MessageStream",
    "Request",
    "Response",
    "SendError",
    "SendResult",
    "ServerVersionError",
    "UnsupportedOptionError",
    "UpgradeError",
    "WSBridgeError",
    "WebSocketChannel",
    "WebSocketConnection",
    "WebSocketOptions",
    "connector_names",
    "json_codec",
    "load_connector",
    "msgspec_codec",
    "run",
    "serve",
    "start_ws_connection",
    "stream_handler",
    "upgrade_request_to_websocket",
    "websocket_interceptor",
}
SERVERS = (
    *("aiohttp", "websockets", "tornado", "picows", "aiofastnet", "httptools", "sanic", "uvicorn", "hypercorn"),
    *("granian",),
    *("pytest", "wsproto", "hypothesis", "jinja2", "rich"),
)
CORE = sorted(name for _, name, is_package in pkgutil.iter_modules(wsbridge.__path__, "wsbridge.") if not is_package)


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter."""
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_the_public_names_are_these() -> None:
    assert set(wsbridge.__all__) == PUBLIC
    assert list(wsbridge.__all__) == sorted(wsbridge.__all__)
    assert all(hasattr(wsbridge, name) for name in PUBLIC)
    assert isinstance(wsbridge.__version__, str)


def test_what_a_star_import_brings_is_public() -> None:
    names: dict[str, object] = {}
    exec("from wsbridge import *", names)
    assert set(names) - {"__builtins__"} == PUBLIC


@pytest.mark.parametrize("name", CORE)
def test_each_module_says_what_it_exports(name: str) -> None:
    if name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert module.__doc__


def test_the_version_is_that_of_the_distribution() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{wsbridge.__version__}"' in text


def test_the_package_is_typed() -> None:
    assert (Path(wsbridge.__path__[0]) / "py.typed").exists()


@pytest.mark.rule("REG-1")
def test_importing_wsbridge_loads_no_server() -> None:
    result = run("import wsbridge", "-X", "importtime")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert result.returncode == 0
    assert "wsbridge" in loaded
    assert loaded & set(SERVERS) == set()


@pytest.mark.rule("REG-1")
def test_the_core_works_where_no_server_is_installed() -> None:
    blocked = f"""
import sys
for name in {SERVERS!r}:
    sys.modules[name] = None  # as if it were not installed
for name in {CORE!r}:
    if not name.endswith("__main__"):
        __import__(name)
import wsbridge
app = wsbridge.Application([("/", wsbridge.WebSocketOptions(on_text=print))])
assert wsbridge.connector_names()
"""
    result = run(blocked)
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_wsbridge_starts_nothing() -> None:
    result = run(
        "import signal; before = signal.getsignal(signal.SIGINT); import threading, wsbridge, logging; "
        "print(threading.active_count(), logging.getLogger('wsbridge').handlers, "
        "signal.getsignal(signal.SIGINT) is before)"
    )
    assert result.stdout.split("\n")[0] == "1 [] True"


SOURCE = Path(wsbridge.__path__[0])
LAYERS = {
    "_common": 0,
    "_process": 1,
    "_channel": 2,
    "connector": 3,
    "connectors": 4,
    "testing": 5,
    "cli": 6,
    "conformance": 6,
    "demo": 6,
}
"""The folders, the lowest first; what applications import stands beside them, in 1."""


def _imported(path: Path) -> Iterator[str]:
    """Return the modules of wsbridge that a file imports, or names of them, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("wsbridge."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "wsbridge":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_folder_has_a_layer() -> None:
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(LAYERS)


def test_imports_go_one_way() -> None:
    others = [
        (path.relative_to(SOURCE).as_posix(), name)
        for path in sorted(SOURCE.rglob("*.py"))
        for name in _imported(path)
        if LAYERS.get(name.split(".")[1], 1) > LAYERS.get(path.relative_to(SOURCE).parts[0], 1)
    ]
    assert others == []
