"""Conditions: what they are called, which are played together, and how a check is put under them."""

from __future__ import annotations

import asyncio
import random
from itertools import combinations
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from click.testing import CliRunner

from wsbridge.cli import Exit, cli
from wsbridge.conformance import run
from wsbridge.conformance.client import Opcode, Shape, build_frame
from wsbridge.conformance.client.shape import frame_pieces, request_pieces
from wsbridge.conformance.harness.conditions import AXES, PLAIN, Conditions, conflict
from wsbridge.conformance.harness.pairwise import Values, allowed, plan, singles
from wsbridge.conformance.harness.setting import values_for
from wsbridge.conformance.harness.target import resolve
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.protocols import CONNECTOR_API
from wsbridge.registry import load_connector

pytestmark = pytest.mark.suite

Memory: Any = load_connector("memory")

# ---- what they are called -------------------------------------------------------------------------------------------


def test_conditions_are_written_as_they_are_read() -> None:
    conditions = Conditions.parse(["compress=on, cut=head", "tls=on"])
    assert conditions == Conditions(compress="on", cut="head", tls="on")
    assert Conditions.parse([str(conditions)]) == conditions
    assert str(Conditions.parse([])) == str(PLAIN) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compres=on", r"there is no condition 'compres'; did you mean compress\?"),
        ("x=on", r"there is no condition 'x': there are compress, limits,"),
        ("cut=heads", r"cut=heads is no condition; did you mean head\?: cut is one of whole, head, byte, joined"),
        ("compress", r"a condition is written as axis=value, such as compress=on, not 'compress'"),
        ("cut=head,cut=byte", r"cut cannot be head and byte at once"),
        ("served=mounted,tls=on", r"tls=on and served=mounted cannot hold together"),
    ],
)
def test_what_is_no_condition_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conditions.parse([text])
    outcome = CliRunner().invoke(cli, ["conformance", "memory", "--condition", text])
    assert outcome.exit_code == Exit.USAGE


def test_the_command_line_lists_them() -> None:
    outcome = CliRunner().invoke(cli, ["conformance", "--list-conditions"])
    assert outcome.exit_code == 0
    for name, axis in AXES.items():
        for value, meaning in axis.values.items():
            assert f"{name}={value}\n        {meaning}" in outcome.output


# ---- which are played together --------------------------------------------------------------------------------------

SOME: dict[str, Values] = {
    "all": {axis: tuple(AXES[axis].values) for axis in AXES},
    "of the wire": {axis: tuple(AXES[axis].values) for axis in ("compress", "cut", "frames")},
    "of two values": {"limits": ("equal", "none"), "loop": ("asyncio", "uvloop")},
    "none": {},
}


def pairs(values: dict[str, str]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    return {(one, other) for one, other in combinations(((axis, values[axis]) for axis in AXES if axis in values), 2)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chosen", [("all",), ("of the wire", "of two values"), tuple(SOME), ("none",)])
def test_each_pair_that_a_check_can_be_put_under_is_played(chosen: tuple[str, ...], seed: int) -> None:
    checks = {name: SOME[name] for name in chosen}
    wanted = {
        ((one, value), (other, other_value))
        for values in checks.values()
        for one, other in combinations([axis for axis in AXES if axis in values], 2)
        for value in values[one]
        for other_value in values[other]
        if not conflict(one, value, other, other_value) and (value, other_value) != (AXES[one].plain, AXES[other].plain)
    }
    places = plan(checks, random.Random(seed))
    played = set()
    for check, conditions in places:
        assert conditions.chosen.keys() <= checks[check].keys()
        assert all(value in checks[check][axis] for axis, value in conditions.chosen.items())
        played |= pairs({axis: getattr(conditions, axis) for axis in checks[check]})
    assert wanted <= played
    product = 1
    for values in SOME["all"].values():
        product *= len(values)
    assert len(places) < 60 < product
    assert plan(checks, random.Random(seed)) == places


def test_another_seed_chooses_otherwise() -> None:
    assert plan(SOME, random.Random(1)) != plan(SOME, random.Random(2))


def test_every_single_condition_is_played_for_each_check() -> None:
    places = singles(SOME)
    assert len(places) == sum(len(values) - 1 for check in SOME.values() for values in check.values())
    assert all(len(conditions.chosen) == 1 for _, conditions in places)


def test_a_target_has_what_it_can_have() -> None:
    values = values_for(resolve("memory"))
    assert values["tls"] == ("off",)
    assert values["cut"] == ("whole",)
    assert values["limits"] == tuple(AXES["limits"].values)
    assert allowed({"tls": ("on",), "limits": ("none",)}, values) == {"limits": ("equal", "none")}


# ---- how a check is put under them ----------------------------------------------------------------------------------

FRAMES = build_frame(Opcode.TEXT, b"x" * 300) + build_frame(Opcode.PING, b"y") + b"\x81"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("data", [FRAMES, REQUEST, b"\xff", b""])
@pytest.mark.parametrize("cut", ["whole", "head", "byte"])
def test_what_is_cut_is_the_same_bytes(data: bytes, cut: Any) -> None:
    for pieces in (frame_pieces(data, cut), request_pieces(data, cut)):
        assert b"".join(pieces) == data
        assert all(pieces) or not data


def test_where_it_is_cut() -> None:
    head = 2 + 2 + 4
    assert [len(piece) for piece in frame_pieces(FRAMES, "head")] == [*[1] * head, 300, *[1] * 6, 1, 1]
    assert [len(piece) for piece in frame_pieces(b"z" * 100, "byte")] == [*[1] * 40, 56, *[1] * 4]
    assert request_pieces(REQUEST, "head") == [
        b"G", b"ET / HTTP/1.1\r", b"\n", b"Host: x\r", b"\n", b"\r", b"\n",
    ]  # fmt: skip


def test_a_message_in_fragments() -> None:
    assert Shape(fragments=True).parts([b"abc"]) == (b"ab", b"", b"c")
    assert Shape(fragments=True).parts([b"a"]) == [b"a"]
    assert Shape(fragments=True).parts([b"a", b"b"]) == [b"a", b"b"]
    assert Shape().parts([b"abc"]) == [b"abc"]


@pytest.mark.parametrize(
    ("target", "rule", "conditions", "why"),
    [
        ("memory", "RECV-1/texts-arrive-exactly", "tls=on", "tls=on: the memory connector has no wire"),
        ("websockets", "SEND-8/plain-when-off", "compress=on", "compress=on: the check says nothing under this"),
        ("websockets", "STOP-4/tls", "tls=on", "tls=on: the check sets this itself"),
        ("websockets", "STOP-4/tls", "served=mounted", "served=mounted: the check is about the connector itself"),
        ("websockets", "HS-5/almost-a-route", "path=parameters", "path=parameters: the check sets this itself"),
    ],
)
def test_a_check_that_cannot_be_put_under_a_condition_says_why(
    target: str, rule: str, conditions: str, why: str
) -> None:
    if target != "memory":
        pytest.importorskip(target)
    (result,) = run(target, rules=[rule], conditions=conditions).results
    assert (result.verdict, result.conditions) == (Verdict.NOT_APPLICABLE, conditions)
    assert result.message.startswith(why)


class NeedsLimits(Memory):  # type: ignore[misc]
    """Is broken where two conditions meet: no limit, and asyncio's debug mode."""

    overrides_internals = True
    connector_api = CONNECTOR_API

    def admit(self, channel: Any) -> None:
        if asyncio.get_running_loop().get_debug() and channel.options.max_text_size is None:
            raise AssertionError("no limit, in debug mode")
        super().admit(channel)


def test_what_is_broken_where_two_conditions_meet_is_found() -> None:
    assert run(NeedsLimits, rules=["RECV"], isolate=False).conformant
    for one in ("limits=none", "debug=on"):
        assert run(NeedsLimits, rules=["RECV-1"], isolate=False, conditions=one).conformant
    result = run(NeedsLimits, rules=["RECV"], isolate=False, combine="pairs", seed=3)
    assert result.seed == 3
    assert not result.conformant
    for failed in result.failures:
        assert {("limits", "none"), ("debug", "on")} <= Conditions.parse([failed.conditions]).chosen.items()
    failed = result.failures[0]
    assert failed.arguments == f"--rule {failed.check} --condition {failed.conditions}"
    again = run(NeedsLimits, rules=[failed.check], isolate=False, conditions=failed.conditions)
    assert [other.label for other in again.failures] == [failed.label]


def test_the_same_seed_plays_the_same() -> None:
    first, second = (run("memory", rules=["RECV-1", "RECV-4"], combine="pairs", seed=11) for _ in range(2))
    assert [result.label for result in first.results] == [result.label for result in second.results]
    assert any(result.conditions for result in first.results)
    assert first.conformant, first.failures
    assert type(first).from_json(first.to_json()).seed == 11
