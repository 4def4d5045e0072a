"""The suite as pytest tests: ``pytest --pyargs wsbridge.conformance --connector NAME``, or a class in a test file.

A connector's own project has the whole suite by four lines::

    from wsbridge.conformance import ConnectorSuite

    class TestConformance(ConnectorSuite):
        connector = "mypackage.connector:Connector"

Each check is a test with the id ``NAME-RULE/scenario``. A deviation that is declared and a feature that is refused
pass, and say so; nothing is skipped.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from wsbridge._process.loops import LoopName
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.conditions import Conditions
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.known import KnownFailing, load_known_failing
from wsbridge.conformance.harness.selection import MODEL_CHECK, SEQUENCES, check_known, select
from wsbridge.conformance.harness.session import Session
from wsbridge.conformance.harness.target import TargetError, is_url
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict
from wsbridge.errors import LoopNotInstalledError
from wsbridge.protocols import Connector

__all__ = ["Case", "ConnectorSuite", "option", "parametrize"]

T = TypeVar("T")

TargetSpec = str | type[Connector]

_PROPERTY = "wsbridge"
"""The property of a test report that holds the verdict."""

_PLAIN_VALUES = (str, int, float, list, tuple, dict, set, Path)
"""What an option can be; fixtures and tests of a class are none of these."""

_AGAIN = "wsbridge-again"
"""The property that holds why a check was run again."""


def option(config: pytest.Config, name: str, default: T) -> T:
    """Return an option of the command line; the default too where the plugin is switched off."""
    value: T | None = config.getoption(f"wsbridge_{name}", default)
    return default if value is None else value


@dataclass(slots=True)
class _Run:
    """One target in this run of pytest; its session starts with its first test."""

    target: TargetSpec
    name: str
    config: pytest.Config
    known: KnownFailing
    conditions: Conditions
    starts_alone: bool = False
    """Whether this run of pytest is of the suite alone, which a dead target ends; a project has other tests."""
    results: dict[str, CheckResult] = field(default_factory=dict[str, CheckResult])
    _session: Session | None = None

    def session(self) -> Session:
        if self._session is None:
            self._session = Session(
                self.target, scale=option(self.config, "timeout_scale", 1.0), conditions=self.conditions
            )
            self.config.add_cleanup(self._session.close)
        return self._session


@dataclass(frozen=True, slots=True)
class Case:
    """One test: a check, the random model (no check), or a rule that is listed as known to fail (its id).

    A listed rule comes after its checks, and fails if all of them passed.
    """

    run: _Run
    check: Check | None
    listed: str = ""

    @property
    def id(self) -> str:
        """The id of the test."""
        what = f"known-failing/{self.listed}" if self.listed else MODEL_CHECK if self.check is None else self.check.id
        return f"{self.run.name}-{what}"

    def verify(self, request: pytest.FixtureRequest) -> None:
        """Run it, and pass, fail or xfail the test."""
        if self.listed:
            self._verify_listed()
            return
        try:
            session = self.run.session()
        except (TargetError, LoopNotInstalledError) as exc:
            pytest.fail(str(exc), pytrace=False)
        if self.check is None:
            config = request.config
            sequences, seed = option(config, "model_sequences", SEQUENCES), option(config, "model_seed", None)
            result = session.run_model(sequences=sequences, seed=seed)
        else:
            result = session.run(self.check, repeat=option(request.config, "repeat", 1))
        self.run.results[result.check] = result
        request.node.user_properties.append((_PROPERTY, f"{result.verdict}: {result.message}".rstrip(": ")))
        if session.broken is not None and self.run.starts_alone:
            request.session.shouldstop = str(session.broken)
        if result.remark:
            request.node.user_properties.append((_AGAIN, result.remark))
        entry = self.run.known.get(result.check)
        if result.verdict is not Verdict.FAIL:
            if entry is not None and result.verdict is not Verdict.NOT_APPLICABLE:
                pytest.fail(f"{entry.id} is listed as known to fail, but passes: take it off the list", pytrace=False)
            return
        if entry := entry or self.run.known.get(result.rule):
            pytest.xfail(f"{entry.reason} {entry.link}".rstrip())
        title = "" if self.check is None else self.check.title
        pytest.fail(failure_text(result, title), pytrace=False)

    def _verify_listed(self) -> None:
        checks = [check.id for check in self.run.session().checks() if check.rule == self.listed]
        results = [self.run.results.get(check) for check in checks]
        applied = [result for result in results if result is None or result.verdict is not Verdict.NOT_APPLICABLE]
        if applied and all(result is not None and result.verdict is not Verdict.FAIL for result in applied):
            pytest.fail(f"{self.listed} is listed as known to fail, but passes: take it off the list", pytrace=False)


class ConnectorSuite:
    """The whole suite as a test class: subclass it under a name that begins with ``Test``.

    Attributes:
        connector: What is checked: a name, ``module:Class``, a class, or the ``ws://`` URL of a running server.
        rules: Ids of rules, checks or groups of rules, if not all.
        known_failing: What is known to fail: a file, or its entries, as `load_known_failing` takes it.
        loop: The event loop of each check, ``"asyncio"`` or ``"uvloop"``; None: as the command line says, ``--loop``.
        debug: Whether asyncio's debug mode is on in it; None: as the command line says, ``--loop-debug``.
        eager_tasks: Whether its tasks start at once; None: as the command line says, ``--eager-tasks``.
        conditions: What each check is run under, such as ``"compress=on,cut=head"``; None: as the command line says,
            ``--condition``.
    """

    connector: ClassVar[TargetSpec]
    rules: ClassVar[Sequence[str] | None] = None
    known_failing: ClassVar[Mapping[str, Any] | str | Path | None] = None
    loop: ClassVar[LoopName | None] = None
    debug: ClassVar[bool | None] = None
    eager_tasks: ClassVar[bool | None] = None
    conditions: ClassVar[str | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each check."""
        if "conformance_case" not in metafunc.fixturenames:
            return
        if (target := getattr(self, "connector", None)) is None:
            raise pytest.Collector.CollectError(f"{type(self).__name__} needs: connector = 'module:Class'")
        if unknown := _unknown_options(type(self)):
            raise pytest.Collector.CollectError(unknown)
        parametrize(
            metafunc,
            [target],
            rules=self.rules,
            known_failing=self.known_failing,
            loop=self.loop,
            debug=self.debug,
            eager_tasks=self.eager_tasks,
            conditions=self.conditions,
        )

    def test_rule(self, conformance_case: Case, request: pytest.FixtureRequest) -> None:
        """One check."""
        conformance_case.verify(request)


def _unknown_options(suite: type[ConnectorSuite]) -> str:
    """Return what is wrong with the plain values of a class that stand for no option of the suite; "" if nothing is.

    A value of its own begins with an underscore, or comes from a class beside `ConnectorSuite`.
    """
    known = [name for name in ConnectorSuite.__annotations__ if not name.startswith("_")]
    for owner in suite.__mro__:
        if owner is ConnectorSuite or not issubclass(owner, ConnectorSuite):
            continue
        for name, value in vars(owner).items():
            is_plain = value is None or isinstance(value, _PLAIN_VALUES)
            if is_plain and not name.startswith(("_", "pytest")) and name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                return f"{owner.__name__}.{name} is no option of ConnectorSuite; {meant}"
    return ""


def parametrize(
    metafunc: pytest.Metafunc,
    targets: Sequence[TargetSpec],
    *,
    rules: Sequence[str] | None = None,
    known_failing: Mapping[str, Any] | str | Path | None = None,
    start: bool = False,
    loop: LoopName | None = None,
    debug: bool | None = None,
    eager_tasks: bool | None = None,
    conditions: str | None = None,
) -> None:
    """Make tests of the checks of ``targets``.

    Args:
        metafunc: Of a test that takes ``conformance_case``.
        targets: What is checked.
        rules: See `ConnectorSuite`.
        known_failing: See `ConnectorSuite`.
        start: Whether to look for the targets now, so that one that is not there ends the run.
        loop: See `ConnectorSuite` for this and the three others.

    Raises:
        pytest.Collector.CollectError: There is no such target, rule or file, or no such conditions here.
    """
    config = metafunc.config
    if not config.pluginmanager.has_plugin("wsbridge-verdicts"):
        config.pluginmanager.register(_Verdicts(), "wsbridge-verdicts")
    cases: list[Case] = []
    try:
        given = option(config, "condition", list[str]()) if conditions is None else [conditions]
        under = Conditions.parse(given).over(
            Conditions.of_the_loop(
                option(config, "loop", "asyncio") if loop is None else loop,
                debug=option(config, "loop_debug", False) if debug is None else debug,
                eager_tasks=option(config, "eager_tasks", False) if eager_tasks is None else eager_tasks,
            )
        )
        under.check()
        known = {} if known_failing is None else load_known_failing(known_failing)
        check_known(known)
        for target in targets:
            name = target if isinstance(target, str) else target.__qualname__
            run = _Run(target, name, config, known, under, start)
            if start and not config.option.collectonly:
                run.session()
            outside = isinstance(target, str) and is_url(target)
            checks = select(Session.applicable(is_url=outside), rules)
            cases += [Case(run, check) for check in checks]
            if option(config, "model", False) and not outside:
                cases.append(Case(run, None))
            cases += [Case(run, None, id) for id in known if any(check.rule == id for check in checks)]
    except (LoopNotInstalledError, ValueError, OSError) as exc:
        raise pytest.Collector.CollectError(str(exc)) from exc
    metafunc.parametrize("conformance_case", cases, ids=[case.id for case in cases])


class _Verdicts:
    """Shows the verdicts that are neither a plain pass nor a failure."""

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Say in a verbose run how a check passed."""
        if (verdict := _verdict(report)) and report.when == "call" and report.passed and ":" in verdict:
            return "passed", ".", f"PASSED ({verdict.partition(':')[0]})"
        return None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List the deviations, what is unsupported, and what was run again."""
        passed: list[pytest.TestReport] = terminalreporter.getreports("passed")
        failed: list[pytest.TestReport] = terminalreporter.getreports("failed")
        told = [report for report in passed if report.when == "call" and ":" in _verdict(report)]
        _section(terminalreporter, "declared", told, _PROPERTY)
        again = [report for report in (*passed, *failed) if report.when == "call" and _property(report, _AGAIN)]
        _section(terminalreporter, "run again", again, _AGAIN)


def _section(terminalreporter: Any, title: str, reports: Sequence[pytest.TestReport], name: str) -> None:
    if reports:
        terminalreporter.section(f"conformance: {title}")
    for report in reports:
        terminalreporter.write_line(f"{report.nodeid.partition('[')[2].rstrip(']')}  {_property(report, name)}")


def _verdict(report: pytest.TestReport) -> str:
    return _property(report, _PROPERTY)


def _property(report: pytest.TestReport, name: str) -> str:
    return next((str(value) for key, value in getattr(report, "user_properties", ()) if key == name), "")
