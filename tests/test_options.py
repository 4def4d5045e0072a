"""`WebSocketOptions` and `Compression`: what they are by default, and what they refuse."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from typing import Any

import pytest

from wsbridge import Application, Compression, WebSocketOptions
from wsbridge.conformance.contract.tables import TABLES
from wsbridge.connector import BaseConnector
from wsbridge.options import OPTION_NAMES

pytestmark = pytest.mark.rule("LIM-5")


def option_table(of: str) -> dict[str, object]:
    """Return the options of the contract's table with their defaults."""
    return {
        name.strip("`"): ast.literal_eval(default.partition(" ")[0].strip("`"))
        for name, owner, default, _ in TABLES["LIM-5"].rows
        if owner == f"the {of}"
    }


def test_the_channel_options_are_those_of_the_contract() -> None:
    options: WebSocketOptions[None] = WebSocketOptions()
    defaults = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    assert defaults == option_table("channel")
    assert set(defaults) == OPTION_NAMES


def test_the_connector_options_are_those_of_the_contract() -> None:
    parameters = dict(inspect.signature(BaseConnector.__init__).parameters)
    del parameters["self"], parameters["app"]
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert {**defaults, "native_options": dict(defaults["native_options"])} == option_table("connector")
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_options_cannot_be_changed() -> None:
    options: WebSocketOptions[None] = WebSocketOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.close_timeout = 1  # type: ignore[misc]


def test_the_process_object_may_be_named() -> None:
    options = WebSocketOptions[int](on_open=lambda channel, request: 7)
    assert options.on_open is not None
    assert options == WebSocketOptions(on_open=options.on_open)


def test_an_unknown_option_is_a_type_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="on_ping"):
        WebSocketOptions(on_ping=print)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        WebSocketOptions(print)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="level"):
        Compression(level=3)  # type: ignore[call-arg]


def test_sequences_become_tuples() -> None:
    subprotocols, origins = ["b", "a"], ["https://a.example"]
    options: WebSocketOptions[None] = WebSocketOptions(subprotocols=subprotocols, origins=origins)
    subprotocols.clear()
    assert (options.subprotocols, options.origins) == (("b", "a"), ("https://a.example",))
    assert WebSocketOptions(subprotocols=(name for name in "ba")).subprotocols == ("b", "a")  # type: ignore[call-overload]


VALID: list[dict[str, Any]] = [
    {"on_open": print, "on_text": print, "on_binary": print, "on_close": print, "on_error": print},
    {"subprotocols": ("wamp.2.json", "a!#$%&'*+-.^_`|~9")},
    {"origins": ("*", "https://a.example", "http://a.example:8080", "app://local:1", "https://[::1]:8443")},
    {"max_text_size": None, "max_binary_size": None},
    {"max_text_size": 1, "max_binary_size": 2**40},
    {"compression": True},
    {"compression": Compression()},
    {"compression": Compression(window_bits=9, memory_level=1, context_takeover=False)},
    {"compression": Compression(window_bits=15, memory_level=9, context_takeover=True)},
    {"idle_timeout": 0.001, "ping_interval": 1, "ping_timeout": 1.5, "send_timeout": 10**9, "close_timeout": 0.5},
    {"idle_timeout": None, "ping_interval": None, "ping_timeout": None, "send_timeout": None},
]


@pytest.mark.parametrize("options", VALID, ids=lambda options: ",".join(options))
def test_valid_values_are_kept(options: dict[str, Any]) -> None:
    made: WebSocketOptions[Any] = WebSocketOptions(**options)
    assert {name: getattr(made, name) for name in options} == options


_NO_STRINGS: list[object] = ["chat", b"chat", 3, None, [3], ["a", None]]
WRONG: list[tuple[str, object, type[Exception]]] = [
    *[(name, "on", TypeError) for name in ("on_open", "on_text", "on_binary", "on_close", "on_error")],
    *[(name, value, TypeError) for name in ("subprotocols", "origins") for value in _NO_STRINGS],
    *[("subprotocols", [token], ValueError) for token in ("", "a b", "a,b", "a/b", "\u00e4", "a\n")],
    ("subprotocols", ("a", "b", "a"), ValueError),
    *[
        ("origins", [value], ValueError)
        for value in (
            "",
            "null",
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?",
            "https://a.example#",
            "https://a.example?q",
            "https://a.example#f",
            "https://user@a.example",
            "https://@a.example",
            "https://a.example:",
            "https://a.example:port",
            "https://a.example:70000",
            "https://a example",
            "https://[::1",
            " https://a.example",
        )
    ],
    *[
        (name, value, error)
        for name in ("max_text_size", "max_binary_size")
        for value, error in ((0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError))
    ],
    *[("compression", setting, TypeError) for setting in (None, 1, 15, "deflate", ["deflate"])],
    *[
        (name, value, error)
        for name in ("idle_timeout", "ping_interval", "ping_timeout", "send_timeout", "close_timeout")
        for value, error in (
            (0, ValueError),
            (-1, ValueError),
            (math.inf, ValueError),
            (math.nan, ValueError),
            (True, TypeError),
            ("1", TypeError),
        )
    ],
    ("close_timeout", None, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_value_raises_an_error_that_names_the_option(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=name) as raised:
        WebSocketOptions(**{name: value})  # type: ignore[call-overload]
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("window_bits", 8, ValueError),
        ("window_bits", 16, ValueError),
        ("window_bits", 9.0, TypeError),
        ("memory_level", 0, ValueError),
        ("memory_level", 10, ValueError),
        ("memory_level", True, TypeError),
        ("context_takeover", 1, TypeError),
        ("context_takeover", "no", TypeError),
    ],
)
def test_a_wrong_compression_setting_is_named(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        Compression(**{name: value})  # type: ignore[arg-type]


def test_an_application_shows_the_options_of_its_routes() -> None:
    options: WebSocketOptions[None] = WebSocketOptions()
    assert list(Application([("/", options)]).options) == [options]
