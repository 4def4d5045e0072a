"""`Interceptor` and `execute`: the order of the stages, and who takes an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from wsbridge import Context, Interceptor, Response
from wsbridge.interceptor import execute

pytestmark = pytest.mark.rule("CTX-2")


class Trace:
    """Makes interceptors that write down which of their stages ran."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def interceptor(self, name: str, *, asynchronous: bool = False, **raises: Exception | None) -> Interceptor:
        """Return one with all three stages; ``enter``, ``leave`` and ``error`` raise what is given for them."""

        def run(stage: str, context: Context) -> Context:
            self.log.append(f"{stage} {name}")
            if (error := raises.get(stage)) is not None:
                raise error
            return context

        async def run_later(stage: str, context: Context) -> Context:
            await asyncio.sleep(0)
            return run(stage, context)

        function: Any = run_later if asynchronous else run
        return Interceptor(
            name=name,
            enter=lambda context: function("enter", context),
            leave=lambda context: function("leave", context),
            error=(lambda context, error: function("error", context)) if "error" in raises else None,
        )


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_enter_runs_in_order_and_leave_in_reverse(trace: Trace, asynchronous: bool) -> None:
    await execute({}, [trace.interceptor(name, asynchronous=asynchronous) for name in "abc"])
    assert trace.log == ["enter a", "enter b", "enter c", "leave c", "leave b", "leave a"]


async def test_stages_that_are_not_there_are_passed_over(trace: Trace) -> None:
    await execute({}, [Interceptor(name="none"), trace.interceptor("a"), Interceptor(name="nothing")])
    assert trace.log == ["enter a", "leave a"]


async def test_a_response_ends_enter_and_those_that_entered_leave(trace: Trace) -> None:
    def answer(context: Context) -> None:
        context["response"] = Response("here")

    context = await execute(
        {"response": None}, [trace.interceptor("a"), Interceptor(name="b", enter=answer), trace.interceptor("c")]
    )
    assert trace.log == ["enter a", "leave a"]
    assert context["response"].body == b"here"


async def test_a_response_that_is_there_already_lets_nobody_enter(trace: Trace) -> None:
    await execute({"response": Response()}, [trace.interceptor("a")])
    assert trace.log == []


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_nearest_error_stage_takes_an_exception_and_leave_goes_on_from_there(
    trace: Trace, asynchronous: bool
) -> None:
    chain = [
        trace.interceptor("a", error=None, asynchronous=asynchronous),
        trace.interceptor("b", error=None, asynchronous=asynchronous),
        trace.interceptor("c", asynchronous=asynchronous),
        trace.interceptor("d", enter=ValueError("no"), asynchronous=asynchronous),
        trace.interceptor("e", asynchronous=asynchronous),
    ]
    await execute({}, chain)
    assert trace.log == ["enter a", "enter b", "enter c", "enter d", "error b", "leave a"]


async def test_the_stage_that_raised_may_take_its_own_exception(trace: Trace) -> None:
    await execute({}, [trace.interceptor("a"), trace.interceptor("b", enter=ValueError("no"), error=None)])
    assert trace.log == ["enter a", "enter b", "error b", "leave a"]


async def test_an_exception_that_nobody_takes_comes_out(trace: Trace) -> None:
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as raised:
        await execute({}, [trace.interceptor("a"), trace.interceptor("b", enter=error)])
    assert raised.value is error
    assert trace.log == ["enter a", "enter b"]


async def test_an_error_stage_that_raises_hands_its_own_exception_on(trace: Trace) -> None:
    seen: list[Exception] = []
    chain = [
        Interceptor(name="a", error=lambda context, error: seen.append(error)),
        trace.interceptor("b", error=KeyError("second")),
        trace.interceptor("c", enter=ValueError("first")),
    ]
    await execute({}, chain)
    assert [repr(error) for error in seen] == ["KeyError('second')"]


async def test_an_exception_of_a_leave_stage_goes_to_the_error_stages_before_it(trace: Trace) -> None:
    chain = [
        trace.interceptor("a"),
        trace.interceptor("b", error=None),
        trace.interceptor("c", leave=ValueError("no"), error=None),
    ]
    await execute({}, chain)
    assert trace.log == ["enter a", "enter b", "enter c", "leave c", "error b", "leave a"]


async def test_an_error_stage_may_answer(trace: Trace) -> None:
    def answer(context: Context, error: Exception) -> None:
        context["response"] = Response(str(error), 409)

    chain = [Interceptor(name="a", error=answer), trace.interceptor("b", enter=ValueError("taken"))]
    context = await execute({"response": None}, chain)
    assert (context["response"].status_code, context["response"].body) == (409, b"taken")


@pytest.mark.rule("CTX-6")
async def test_a_cancellation_runs_every_error_stage_and_none_takes_it(trace: Trace) -> None:
    async def cancelled(context: Context) -> None:
        raise asyncio.CancelledError

    chain = [
        trace.interceptor("a", error=None),
        trace.interceptor("b", error=None, asynchronous=True),
        Interceptor(name="c", enter=cancelled),
        trace.interceptor("d", error=None),
    ]
    with pytest.raises(asyncio.CancelledError):
        await execute({}, chain)
    assert trace.log == ["enter a", "enter b", "error b", "error a"]


@pytest.mark.rule("CTX-6")
async def test_one_that_has_left_has_no_error_stage_to_run(trace: Trace) -> None:
    async def cancelled(context: Context) -> None:
        raise asyncio.CancelledError

    chain = [trace.interceptor("a", error=None), Interceptor(name="b", leave=cancelled), trace.interceptor("c")]
    with pytest.raises(asyncio.CancelledError):
        await execute({}, chain)
    assert trace.log == ["enter a", "enter c", "leave c", "error a"]


@pytest.mark.rule("CTX-6")
async def test_what_an_error_stage_raises_for_a_cancellation_is_logged(
    trace: Trace, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = asyncio.Event()

    async def wait(context: Context) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def hang(context: Context, error: Exception) -> None:
        trace.log.append("hangs")
        await asyncio.Event().wait()

    chain = [
        trace.interceptor("a", error=None),
        trace.interceptor("b", error=ValueError("no")),
        Interceptor(name="c", error=hang),
        Interceptor(name="d", enter=wait),
    ]
    task = asyncio.ensure_future(execute({}, chain))
    await waiting.wait()
    task.cancel()
    while "hangs" not in trace.log:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()  # ends one stage, not the others
    with pytest.raises(asyncio.CancelledError):
        await task
    assert trace.log == ["enter a", "enter b", "hangs", "error b", "error a"]
    assert [record.getMessage() for record in caplog.records] == [
        "the error stage of the interceptor 'b' raised for a cancelled handshake"
    ]


async def test_what_ends_the_process_is_nobodys(trace: Trace) -> None:
    def leave(context: Context) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await execute({}, [trace.interceptor("a", error=None), Interceptor(name="b", enter=leave)])
    assert trace.log == ["enter a"]


async def test_a_stage_may_return_another_context() -> None:
    async def leave(context: Context) -> Context:
        return {**context, "left": True}

    first: Context = {"response": None}
    chain = [
        Interceptor(name="a", enter=lambda context: {**context, "one": 1}),
        Interceptor(name="b", enter=lambda context: {**context, "two": context["one"] + 1}, leave=leave),
    ]
    assert await execute(first, chain) == {"response": None, "one": 1, "two": 2, "left": True}
    assert first == {"response": None}


@pytest.mark.parametrize("stage", ["enter", "leave", "error"])
@pytest.mark.parametrize("result", [False, 3, "context", [("a", 1)]])
async def test_a_stage_that_returns_anything_else_is_a_type_error_that_names_it(stage: str, result: Any) -> None:
    def returns(*arguments: Any) -> Any:
        return result

    def fails(context: Context) -> None:
        raise ValueError("first")

    chain = [Interceptor(name="wrong", **{stage: returns})]
    chain += [Interceptor(name="fails", enter=fails)] if stage == "error" else []
    with pytest.raises(TypeError, match=f"'wrong': {stage} must return the context"):
        await execute({}, chain)


async def test_the_route_is_asked_once_and_after_the_first_have_entered(trace: Trace) -> None:
    def route(context: Context) -> Iterable[Interceptor]:
        trace.log.append("route")
        return [trace.interceptor("b"), trace.interceptor("c")]

    await execute({}, [trace.interceptor("a")], route)
    assert trace.log == ["enter a", "route", "enter b", "enter c", "leave c", "leave b", "leave a"]


async def test_the_route_is_not_asked_behind_a_response(trace: Trace) -> None:
    def answer(context: Context) -> None:
        context["response"] = Response()

    def route(context: Context) -> Iterable[Interceptor]:
        raise AssertionError("not reached")

    await execute({}, [Interceptor(name="a", enter=answer)], route)


async def test_a_route_that_raises_is_handled_like_a_stage(trace: Trace) -> None:
    def route(context: Context) -> Iterable[Interceptor]:
        raise ValueError("no")

    await execute({}, [trace.interceptor("a", error=None)], route)
    assert trace.log == ["enter a", "error a"]


@pytest.mark.rule("CTX-1")
async def test_the_context_is_a_plain_dict_that_interceptors_add_to() -> None:
    def enter(context: Context) -> None:
        assert type(context) is dict
        context["my.user"] = "ada"

    context: Context = {"request": None, "response": None, "websocket_channel_source": None, "websocket_channel": None}
    assert await execute(context, [Interceptor(name="a", enter=enter)]) is context
    assert context["my.user"] == "ada"


@pytest.mark.parametrize("name", ["", None, 3])
def test_an_interceptor_needs_a_name(name: Any) -> None:
    with pytest.raises(TypeError, match="name"):
        Interceptor(name=name)


@pytest.mark.parametrize("stage", ["enter", "leave", "error"])
def test_a_stage_is_callable_or_none(stage: str) -> None:
    with pytest.raises(TypeError, match=f"'mine': {stage} must be callable"):
        Interceptor(name="mine", **{stage: "function"})  # type: ignore[arg-type]


def test_an_interceptor_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Interceptor(name="mine").name = "other"  # type: ignore[misc]
