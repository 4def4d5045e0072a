"""Tasks begin in a later turn, whatever task factory the application has set (THR-4)."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest

import wsbridge
from wsbridge._common.tasks import begin_later, later_turn, settle

SOURCE = Path(wsbridge.__file__).parent

OF_THE_USER = ("cli/client.py", "conformance", "demo")
"""What runs in an event loop of its own, which no application has a hand in."""

MAY_BEGIN_AT_ONCE = {
    "connector/stopping.py": ["self._hurry.wait()"],  # it waits for an event, in whatever turn
    "_channel/sending.py": ["coroutine"],  # a send: its caller waits for it
    "serving.py": ["awaitable", "stop.wait()"],  # whichever ends first
    "_common/tasks.py": ["_one_turn_later(coroutine)", "coroutine"],
}
"""What is made into a task in another way than by `begin_later`."""

name: ContextVar[str] = ContextVar("name", default="outside")


def own_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **options)


FACTORIES: dict[str, Callable[..., Any] | None] = {"none": None, "own": own_task}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory

each_factory = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


@pytest.mark.rule("THR-4")
@each_factory
async def test_a_task_begins_in_a_later_turn(factory: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    steps: list[str] = []

    async def run() -> str:
        steps.append(name.get())
        return "result"

    context = copy_context()
    context.run(name.set, "inside")
    task = begin_later(loop, run(), name="mine", context=context)
    steps.append("made")
    assert await task == "result"
    assert steps == ["made", "inside"]
    assert task.get_name() == "mine"


@pytest.mark.rule("THR-4")
@each_factory
async def test_a_task_that_is_cancelled_before_it_begins_leaves_no_warning(factory: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    begun: list[bool] = []

    async def run() -> None:
        begun.append(True)

    task = begin_later(loop, run())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert begun == []


@pytest.mark.rule("THR-4")
@each_factory
async def test_what_a_task_raises_comes_through(factory: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)

    async def run() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await begin_later(loop, run())


@pytest.mark.rule("THR-4")
@each_factory
async def test_a_servers_task_waits_for_a_later_turn(factory: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    steps: list[str] = []

    async def run() -> None:
        await later_turn(loop)
        steps.append("run")

    task = loop.create_task(run())
    steps.append("made")
    await task
    assert steps == ["made", "run"]


@pytest.mark.rule("STOP-2")
async def test_what_is_left_is_waited_for_but_not_for_long() -> None:
    loop = asyncio.get_running_loop()
    await settle([])
    ended, left = loop.create_task(asyncio.sleep(0)), loop.create_task(asyncio.sleep(3600))
    await settle({ended})
    assert ended.done()
    began = loop.time()
    await settle({ended, left}, timeout=0.01)
    assert 0.01 <= loop.time() - began < 10
    assert not left.done()
    left.cancel()
    await settle({left})
    assert left.cancelled()


@pytest.mark.rule("THR-4")
def test_no_other_task_of_the_library_begins_at_once() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        inside = path.relative_to(SOURCE)
        if inside.as_posix().startswith(OF_THE_USER):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("create_task", "ensure_future")):
                found.setdefault(inside.as_posix(), []).append(ast.unparse(node.args[0]))
    assert {path: sorted(tasks) for path, tasks in found.items()} == MAY_BEGIN_AT_ONCE
