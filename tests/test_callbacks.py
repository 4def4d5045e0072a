"""What is handed over to be called is checked then: what can be called as it will be is taken, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.fakes import FakeConnector
from wsbridge import Application, Interceptor, WebSocketOptions, stream_handler
from wsbridge._common.callbacks import check_callback, described, is_coroutine_function
from wsbridge.options import OPTION_NAMES

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.rule("OPEN-12")

MAKE: Any = WebSocketOptions
COUNTS = {"on_open": 2, "on_text": 3, "on_binary": 3, "on_close": 3, "on_error": 3, "on_message": 3}


class Methods:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    async def bound(self, channel: Any, process: Any, text: str) -> None: ...

    @classmethod
    async def of_class(cls, channel: Any, process: Any, text: str) -> None: ...

    @staticmethod
    async def static(channel: Any, process: Any, text: str) -> None: ...

    async def more(self, extra: int, channel: Any, process: Any, text: str) -> None: ...

    async def __call__(self, channel: Any, process: Any, text: str) -> None: ...


class Session:
    def __init__(self, channel: Any, process: Any, text: str) -> None: ...


async def plain(channel: Any, process: Any, text: str) -> None: ...


async def defaults(channel: Any, process: Any, text: str, more: int = 1, *, flag: bool = False) -> None: ...


async def keyword(channel: Any, process: Any, text: str, *, extra: int) -> None: ...


async def for_checkers_alone(channel: Any, process: Any, text: Decimal, more: int = 1) -> None: ...


def generic(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    return wrapper


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that takes one more than it is called with."""

    @functools.wraps(function)
    def wrapper(channel: Any, process: Any, text: str) -> Any:
        return function("pool", channel, process, text)

    return wrapper


@injecting
async def injected(pool: str, channel: Any, process: Any, text: str) -> None: ...


def takes(*arguments: str) -> Callable[..., None]:
    """Return a function with parameters of these names."""
    made: Callable[..., None] = eval(f"lambda {', '.join(arguments)}: None")
    return made


TAKEN: dict[str, Any] = {
    "function": plain,
    "with defaults": defaults,
    "with any": lambda *arguments: None,
    "with any more": lambda channel, *rest: None,
    "lambda": lambda channel, process, text: None,
    "bound method": Methods().bound,
    "class method": Methods.of_class,
    "static method": Methods.static,
    "callable object": Methods(),
    "class": Session,
    "partial": functools.partial(keyword, extra=1),
    "partial of a partial": functools.partial(functools.partial(keyword, extra=1), extra=2),
    "partial of a bound method": functools.partial(Methods().more, 1),
    "partial of a callable object": functools.partial(Methods()),
    "decorated": generic(plain),
    "decorated twice": generic(generic(plain)),
    "decorated, to which something is added": injected,
    "decorated wrongly, which cannot be told": generic(takes("one")),
    "mock": mock.Mock(),
    "magic mock": mock.MagicMock(),
    "async mock": mock.AsyncMock(),
    "mock after a function": mock.create_autospec(plain),
    "of C, with a signature": print,
    "of C, without": type,
    "annotated for checkers alone": for_checkers_alone,
}


@pytest.mark.parametrize("callback", TAKEN.values(), ids=TAKEN)
def test_what_can_be_called_is_taken(callback: Any) -> None:
    check_callback("on_text", callback, "channel", "process", "text")
    assert WebSocketOptions(on_text=callback).on_text is callback


def generator(channel: Any, process: Any, text: str) -> Generator[None]:
    yield


async def async_generator(channel: Any, process: Any, text: str) -> AsyncGenerator[None]:
    yield


class Yields:
    def __call__(self, channel: Any, process: Any, text: str) -> Generator[None]:
        yield

    async def method(self, channel: Any, process: Any, text: str) -> AsyncGenerator[None]:
        yield


@pytest.mark.parametrize(
    ("callback", "kind"),
    [
        (generator, "a generator function"),
        (types.coroutine(generator), "a generator function"),
        (functools.partial(generator), "a generator function"),
        (Yields(), "a generator function"),
        (functools.partial(Yields()), "a generator function"),
        (async_generator, "an async generator function"),
        (Yields().method, "an async generator function"),
    ],
)
def test_a_generator_function_never_runs_and_is_refused(callback: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^on_text must be a plain or a coroutine function, not {kind}, whose body"):
        WebSocketOptions(on_text=callback)


@pytest.mark.parametrize(
    "callback",
    [
        takes(),
        takes("channel", "text"),
        takes("channel", "process", "text", "more"),
        takes("channel", "process", "text", "*", "needed"),
        takes("*", "channel", "process", "text"),
        keyword,
        Methods.bound,
        Methods().more,
        functools.partial(plain, 1),
        functools.partial(plain, text="x"),
        functools.partial(Methods(), 1),
        injecting,
        object,
        mock.create_autospec(takes("one")),
    ],
)
def test_what_takes_something_else_is_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match=r"^on_text is called as on_text\(channel, process, text\), which "):
        WebSocketOptions(on_text=callback)


def test_the_error_tells_which_where_and_what_it_must_take() -> None:
    async def two(channel: Any, text: str = "x") -> None: ...

    line = two.__code__.co_firstlineno
    with pytest.raises(TypeError) as raised:
        WebSocketOptions(on_text=two)  # type: ignore[arg-type]
    assert str(raised.value) == (
        "on_text is called as on_text(channel, process, text), which "
        "test_the_error_tells_which_where_and_what_it_must_take.<locals>.two "
        f"({__file__}, line {line}) does not take: its parameters are (channel, text='x') "
        "(too many positional arguments)"
    )


@pytest.mark.parametrize("name", COUNTS)
def test_every_callback_of_the_options_is_checked(name: str) -> None:
    names = [f"argument_{number}" for number in range(COUNTS[name] + 1)]
    extra: dict[str, Any] = {"codec": mock.Mock()} if name == "on_message" else {}
    MAKE(**{name: takes(*names[:-1])}, **extra)
    for wrong in (names, names[:-2]):
        with pytest.raises(TypeError, match=rf"^{name} is called as {name}\("):
            MAKE(**{name: takes(*wrong)}, **extra)


def test_there_is_no_other_callback_among_the_options() -> None:
    assert {name for name in OPTION_NAMES if name.startswith("on_")} == set(COUNTS)


async def test_a_callback_that_is_set_later_is_checked_and_sets_nothing() -> None:
    channel = await FakeConnector(Application([("/", WebSocketOptions())])).open()
    for register, name in ((channel.on_text, "on_text"), (channel.on_binary, "on_binary")):
        for wrong in (takes("one"), generator, None):
            with pytest.raises(TypeError, match=f"^{name} "):
                register(wrong)  # type: ignore[arg-type]
        register(lambda channel, process, message: None)
    channel.comes("lost")


@pytest.mark.rule("STREAM-10")
def test_a_handler_is_checked() -> None:
    async def good(stream: Any, request: Any) -> None: ...
    async def takes_three(extra: int, stream: Any, request: Any) -> None: ...
    async def wrong(stream: Any) -> None: ...
    async def yields(stream: Any, request: Any) -> AsyncGenerator[None]:
        yield

    anything: Any = stream_handler
    for handler in (good, functools.partial(good), mock.AsyncMock(), functools.partial(takes_three, 1)):
        assert anything(handler).on_open is not None
    with pytest.raises(TypeError, match=r"^handler is called as handler\(stream, request\), which .*wrong"):
        anything(wrong)
    with pytest.raises(TypeError, match=r"^handler must be a coroutine function, not .*yields \(.*, line \d+\)$"):
        anything(yields)
    with pytest.raises(TypeError, match=r"^on_error is called as on_error\(channel, stream, exception\), which"):
        anything(good, on_error=takes("error"))


@pytest.mark.rule("CTX-2")
def test_the_stages_of_an_interceptor_are_checked() -> None:
    Interceptor(name="fine", enter=takes("context"), leave=takes("context"), error=takes("context", "exception"))
    for stage, wrong in (("enter", takes()), ("leave", takes("a", "b")), ("error", takes("context"))):
        with pytest.raises(TypeError, match=rf"^interceptor 'name': {stage} is called as "):
            Interceptor(name="name", **{stage: wrong})


@pytest.mark.rule("STOP-6")
def test_a_lifespan_is_checked() -> None:
    @contextlib.asynccontextmanager
    async def fine(application: Application) -> AsyncGenerator[None]:
        yield

    async def undecorated(application: Application) -> AsyncGenerator[None]:
        yield

    async def coroutine(application: Application) -> None: ...

    anything: Any = Application
    anything([], lifespan=fine)
    anything([], lifespan=mock.MagicMock())
    with pytest.raises(TypeError, match=r"it needs @asynccontextmanager: .*undecorated \("):
        anything([], lifespan=undecorated)
    with pytest.raises(TypeError, match=r"must return an async context manager, not a coroutine: .*coroutine \("):
        anything([], lifespan=coroutine)
    with pytest.raises(TypeError, match=r"^lifespan is called as lifespan\(application\), which"):
        anything([], lifespan=takes())


def test_where_a_callback_stands() -> None:
    line = inspect.unwrap(generic(plain)).__code__.co_firstlineno
    assert described(generic(plain)) == described(plain) == f"plain ({__file__}, line {line})"
    assert described(functools.partial(plain)) == described(plain)
    assert described(Methods()).startswith(f"Methods.__call__ ({__file__}, line ")
    assert described(Methods().bound).startswith(f"Methods.bound ({__file__}, line ")
    assert described(Session).startswith(f"Session ({__file__}, line ")
    assert described(print) == "print"


@pytest.mark.parametrize(
    ("callback", "is_one"),
    [
        (plain, True),
        (Methods().bound, True),
        (Methods(), True),
        (functools.partial(plain), True),
        (functools.partial(Methods()), True),
        (mock.AsyncMock(), True),
        (async_generator, False),
        (Session, False),
        (takes("a"), False),
        (mock.Mock(), False),
        (None, False),
    ],
)
def test_a_coroutine_function(callback: Any, is_one: bool) -> None:
    assert is_coroutine_function(callback) is is_one
