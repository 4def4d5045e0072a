"""What the random model draws, tells in words, and keeps of the sequences that fail."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

import pytest

pytest.importorskip("hypothesis")  # the extra conformance
pytest.importorskip("wsproto")

from wsbridge import Compression
from wsbridge.conformance import run
from wsbridge.conformance.contract import CheckFailed
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.model import run_model
from wsbridge.conformance.harness.model.drawn import LIMIT, OVER, Message, Opening, Setup, Shipment
from wsbridge.conformance.harness.model.judgement import agreement_is_right
from wsbridge.conformance.harness.model.outbox import Outbox
from wsbridge.conformance.harness.model.story import Stories
from wsbridge.conformance.harness.target import SuiteTarget, resolve
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.connectors.memory import Connector

LIMITS = (10, None)
KINDS: tuple[Literal["text", "binary"], ...] = ("text", "binary")


def size(content: str | bytes) -> int:
    return len(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("fill", ["x", "\xe9", "noise"])
def test_a_message_has_the_size_that_is_drawn(fill: Any) -> None:
    assert size(Message("text", LIMIT, fill).content(LIMITS, 1)) == 10
    assert size(Message("text", OVER, fill).content(LIMITS, 1)) == 11
    for number in (0, 1, 2, 3, 126, 70_000):
        for kind in KINDS:
            content = Message(kind, number, fill).content(LIMITS, 7)
            assert (size(content), isinstance(content, str)) == (number, kind == "text")


def test_messages_differ_by_their_number() -> None:
    assert Message("text", 9).content(LIMITS, 1) != Message("text", 9).content(LIMITS, 2)


def test_what_is_drawn_is_told_in_words() -> None:
    assert str(Message("binary", OVER)) == "binary one byte larger than the limit"
    shipment = Shipment(3, True, False, (1, 2))
    assert str(shipment) == ", not deflated, in 3 fragments with pings between, each frame cut after 1 and 2 bytes"
    assert str(Setup(True, (None, 5), 2, idle=True)) == (
        "a server with compression True, texts up to any size, binary ones up to 5 bytes, 2 channels at most, "
        "an idle timeout"
    )
    assert str(Opening("a stream by recv", "%C3%A9", held=True)) == (
        "/stream/%C3%A9, read by a stream by recv, with callbacks held up from the beginning"
    )
    assert Opening("a stream by recv", "%C3%A9").decoded == "/stream/\xe9"


@pytest.mark.parametrize(
    ("compression", "offer", "told"),
    [
        (False, "permessage-deflate", []),
        (True, "", []),
        (True, "permessage-deflate", ["permessage-deflate; server_max_window_bits=12"]),
        (Compression(window_bits=9), "permessage-deflate", ["permessage-deflate; server_max_window_bits=9"]),
        (True, "permessage-deflate; server_max_window_bits=10", ["permessage-deflate; server_max_window_bits=9"]),
    ],
)
def test_what_is_agreed_on_may_be_this(compression: bool | Compression, offer: str, told: list[str]) -> None:
    agreement_is_right(compression, offer, told, "peer 1")


@pytest.mark.parametrize(
    ("compression", "offer", "told"),
    [
        (False, "permessage-deflate", ["permessage-deflate"]),
        (True, "permessage-deflate", []),
        (Compression(window_bits=9), "permessage-deflate", ["permessage-deflate"]),
        (Compression(context_takeover=False), "permessage-deflate", ["permessage-deflate; server_no_context_takeover"]),
        (True, "permessage-deflate; server_no_context_takeover", ["permessage-deflate"]),
        (
            Compression(window_bits=9),
            "permessage-deflate; client_max_window_bits",
            ["permessage-deflate; server_max_window_bits=9"],
        ),
    ],
)
def test_what_is_agreed_on_may_not_be_that(compression: bool | Compression, offer: str, told: list[str]) -> None:
    with pytest.raises(CheckFailed, match="peer 1"):
        agreement_is_right(compression, offer, told, "peer 1")


async def test_an_outbox_does_one_after_another_whatever_fails() -> None:
    outbox, done = Outbox(), list[int]()

    async def work(number: int) -> None:
        await asyncio.sleep(0.001 if number == 1 else 0)
        done.append(number)
        if number == 2:
            raise OSError("gone")

    tasks = [outbox.put(partial(work, number)) for number in (1, 2, 3)]
    assert not outbox.is_done
    await asyncio.wait(tasks)
    assert (done, [str(error) for error in outbox.errors], outbox.is_done) == ([1, 2, 3], ["gone"], True)


def test_the_shortest_story_is_kept_as_long_as_there_is_time() -> None:
    bench = Bench(resolve("memory"))
    stories = Stories(seconds=60)
    assert stories.goes_on()
    for steps in (["a", "b", "c"], ["a"], ["a", "b"]):
        stories.begun()
        stories.failed(steps, CheckFailed(f"of {len(steps)}"), bench)
    assert stories.shortest is not None
    assert str(stories.shortest) == "  1. a\n     of 1"
    assert (stories.count, stories.played, stories.goes_on()) == (1, 3, True)
    stories = Stories(seconds=0)
    stories.failed(["a"], ValueError("x"), bench)
    assert stories.shortest is not None
    assert (stories.shortest.message, stories.goes_on()) == ("ValueError: x", False)


class NeverOpens(Connector):
    overrides_internals = True

    async def start(self) -> None:
        raise ValueError("not today")


def test_a_failure_is_told_with_its_steps_and_how_to_play_it_again() -> None:
    result = run_model(SuiteTarget("never", NeverOpens), sequences=5, seed=7)
    assert (result.verdict, result.check) == (Verdict.FAIL, "RECV-4/random-sequences")
    assert result.message == (
        "ValueError: not today (after 1 steps, see the details; to play it again: --model-seed 7 --model-sequences 5)"
    )
    steps = result.details.partition("\n\nTraceback")[0].splitlines()
    assert steps[2].startswith("  1. a server with compression False, texts up to ")
    assert steps[3] == "     ValueError: not today"


def test_the_model_is_played_as_long_as_is_asked_for() -> None:
    result = run("memory", rules=["HS-1/accept-key"], isolate=False, model=True, model_sequences=2, model_seed=1)
    assert [(one.check, one.verdict) for one in result.results] == [
        ("HS-1/accept-key", Verdict.PASS),
        ("RECV-4/random-sequences", Verdict.PASS),
    ]
    with pytest.raises(ValueError, match="model_sequences must be at least 1, not 0"):
        run("memory", model=True, model_sequences=0)
