"""The suite gets at a mount by a function that the connector names by its import path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from tests.fakes import FakeConnector
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.conformance.mounts import HarnessError, load_harness
from wsbridge.connector import ALL_FEATURES
from wsbridge.registry import load_connector

MODULE = "wsbridge_tests_harness"


@contextlib.asynccontextmanager
async def serve(connector: type[Any], *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
    raise RuntimeError(f"the harness of {connector.name} was asked")
    yield


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(MODULE)
    vars(module).update(serve=serve, nothing=None)
    monkeypatch.setitem(sys.modules, MODULE, module)
    return module


def mountable(path: Any) -> type[FakeConnector]:
    class Mountable(FakeConnector):
        features = ALL_FEATURES
        mount_harness = path

    return Mountable


def test_it_is_imported_when_it_is_asked_for() -> None:
    found: object = load_harness(mountable(f"{MODULE}:serve"))
    assert found is serve


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, r"the fake connector declares the feature 'mount' and names no mount_harness.*section 10 of docs/"),
        ("harness", r"mount_harness of the fake connector must be 'module:function', not 'harness'"),
        (serve, r"mount_harness of the fake connector must be 'module:function', not <function serve"),
        ("no_such_package:serve", r"fake connector, 'no_such_package:serve', cannot be imported: No module named"),
        (f"{MODULE}:gone", rf"fake connector, '{MODULE}:gone', cannot be imported: .*'gone'"),
        (f"{MODULE}:nothing", rf"fake connector, '{MODULE}:nothing', is not callable: None"),
    ],
)
def test_one_that_is_not_to_be_had_is_named(path: object, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        load_harness(mountable(path))


CHECK = next(check for check in all_checks() if check.id == "MOUNT-1/mount-stop")


@pytest.mark.rule("MOUNT-1")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{MODULE}:serve", "the harness of fake was asked"),
        (f"{MODULE}:gone", f"'{MODULE}:gone', cannot be imported"),
        (None, "names no mount_harness"),
    ],
)
def test_a_check_of_mounts_says_what_is_wrong_with_it(path: object, message: str) -> None:
    result = run_check(CHECK, SuiteTarget("fake", mountable(path)), again=False)
    assert (result.verdict, result.cause) == (Verdict.FAIL, "error")
    assert message in result.message


@pytest.mark.rule("MOUNT-1")
@pytest.mark.parametrize(
    ("path", "verdict", "message"),
    [
        (None, Verdict.UNSUPPORTED, "mount: refused"),
        (f"{MODULE}:serve", Verdict.FAIL, f"there is a mount, '{MODULE}:serve', although the feature 'mount' is not"),
    ],
)
def test_a_connector_without_a_mount_has_none_for_the_suite(path: object, verdict: Verdict, message: str) -> None:
    class Unmountable(FakeConnector):
        mount_harness = path  # type: ignore[assignment]

    result = run_check(CHECK, SuiteTarget("fake", Unmountable), again=False)
    assert result.verdict is verdict
    assert message in result.message


@pytest.mark.parametrize("name", ["aiohttp", "tornado", "websockets"])
def test_the_connectors_that_come_with_it_have_theirs_here(name: str) -> None:
    pytest.importorskip(name)
    found: Any = load_harness(load_connector(name))
    assert found.__module__ == f"wsbridge.conformance.mounts.{name}"
