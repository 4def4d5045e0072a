"""The command line of the suite: ``wsbridge conformance``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Column, Table

from wsbridge._process.loops import LOOPS, LoopName
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check
from wsbridge.conformance.contract.catalogue import rules as catalogue_rules
from wsbridge.conformance.doors.showing import MOST, show_by_rule, show_failure
from wsbridge.conformance.harness import report as reports
from wsbridge.conformance.harness.conditions import AXES, PLAIN, Conditions
from wsbridge.conformance.harness.known import Known, load_known_failing, matching
from wsbridge.conformance.harness.pairwise import COMBINE, Combine
from wsbridge.conformance.harness.selection import MODEL_CHECK, SEQUENCES, check_known, current_rules, select, why_none
from wsbridge.conformance.harness.session import Progress, run
from wsbridge.conformance.harness.suite_result import SuiteResult, compare, dump_results, load_results
from wsbridge.conformance.harness.target import TargetError, is_url
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.errors import LoopNotInstalledError

__all__ = ["conformance"]

_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "known": "yellow",
    "deviation": "cyan",
    "unsupported": "blue",
    "not-applicable": "dim",
    "again": "yellow",
}
_COLUMNS = {
    "pass": "passed",
    "fail": "failed",
    "known": "known",
    "deviation": "deviate",
    "unsupported": "unsupported",
    "not-applicable": "n/a",
}
_NAME = 30  # characters of a target's name beside the progress bar
_MESSAGE = 400  # characters of a failure's message that are shown; the reports have all

_EPILOG = """
\b
Examples:
  wsbridge conformance aiohttp
  wsbridge conformance mypackage.connector:Connector --report report.html
  wsbridge conformance aiohttp --rule CLOSE-7 --rule RECV-9/unmasked-frame
  wsbridge conformance ws://127.0.0.1:8000 --known-failing known.toml
  wsbridge conformance aiohttp tornado former.json --report matrix.html
  wsbridge conformance aiohttp --json now.json --baseline former.json
  wsbridge conformance aiohttp --loop uvloop --debug --eager-tasks
  wsbridge conformance aiohttp --rule RECV --condition compress=on,cut=head
  wsbridge conformance aiohttp --conditions all --seed 7
  wsbridge conformance --list --rule RECV

\b
Exit codes:
  0  everything that was checked is conformant
  1  something is not
  2  wrong arguments, or nothing to check: no such connector, one that cannot be
     imported or cannot start, nobody at the URL, no reference application there,
     or a server that has died
"""


class _NothingChecked(click.ClickException):
    """There is nothing to check, or a file that cannot be read or written: one line, and exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class _Output(click.Path):
    """A file to write, whose folder must be there before a minute has been spent on what goes into it."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check file and folder."""
        path = Path(str(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"there is no folder {str(path.parent)!r}", param, ctx)
        return path


@dataclass(frozen=True, slots=True)
class _Settings:
    rules: tuple[str, ...] | None
    repeat: int
    scale: float
    model: dict[str, Any]
    isolate: bool
    exit_first: bool
    known: dict[str, Known]
    conditions: Conditions
    combine: Combine | None
    seed: int | None

    def combine_for(self, target: str) -> Combine:
        """Return which combinations are played: the pairs where the whole of the suite is run as it stands."""
        if self.combine is not None:
            return self.combine
        return "plain" if self.rules or self.conditions != PLAIN or is_url(target) else "pairs"


@click.command("conformance", epilog=_EPILOG)
@click.argument("targets", nargs=-1, metavar="TARGET...")
@click.option("--rule", "rules", multiple=True, metavar="ID", help="Only this rule, check or group; may be repeated.")
@click.option("--report", type=_Output(), metavar="FILE", help="Write a self-contained HTML page.")
@click.option("--json", "json_file", type=_Output(), metavar="FILE", help="Write the results as JSON.")
@click.option("--junit", type=_Output(), metavar="FILE", help="Write a JUnit XML report.")
@click.option("--markdown", type=_Output(), metavar="FILE", help="Write a Markdown report.")
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Show what changed since this JSON report.",
)
@click.option(
    "--known-failing",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML with what is known to fail and why; what passes and stands in it is an error.",
)
@click.option("--repeat", type=click.IntRange(min=1), default=1, metavar="N", help="Run stochastic checks N times.")
@click.option(
    "--timeout-scale",
    "scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    metavar="X",
    help="Stretch every time limit by this factor.",
)
@click.option("--model", is_flag=True, help="Play the random model too.")
@click.option(
    "--model-sequences", type=click.IntRange(min=1), metavar="N", help=f"Play N of its sequences, not {SEQUENCES}."
)
@click.option("--model-seed", type=click.IntRange(min=0), metavar="N", help="Play those of a former run again.")
@click.option(
    "--loop", type=click.Choice(LOOPS), default="asyncio", show_default=True, help="The event loop of each check."
)
@click.option("--debug", is_flag=True, help="Turn asyncio's debug mode on in it.")
@click.option("--eager-tasks", is_flag=True, help="Let its tasks start at once (asyncio.eager_task_factory).")
@click.option(
    "--condition",
    "condition",
    multiple=True,
    metavar="AXIS=VALUE",
    help="Run each check under it, such as compress=on; may be repeated. --list-conditions shows what there is.",
)
@click.option(
    "--conditions",
    "combine",
    type=click.Choice(COMBINE),
    help="Run checks under combinations too: pairs, each pair of conditions once in a family of rules; all, for a long "
    "night; plain, none.  [default: pairs; plain with --rule or --condition, or for a URL]",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Choose the combinations as a former run has.")
@click.option("--summary", is_flag=True, help="Show how many checks of each rule passed; else of those that failed.")
@click.option("-x", "--exitfirst", "exit_first", is_flag=True, help="Stop at the first failure that is not known.")
@click.option("--no-isolate", is_flag=True, help="Run the checks in this process, for a debugger.")
@click.option("--list-conditions", is_flag=True, help="List what --condition takes, and do nothing.")
@click.option("--list", "list_only", is_flag=True, help="List rules and checks, and do nothing.")
@click.pass_context
def conformance(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    rules: tuple[str, ...],
    report: Path | None,
    json_file: Path | None,
    junit: Path | None,
    markdown: Path | None,
    baseline: Path | None,
    known_failing: Path | None,
    repeat: int,
    scale: float,
    model: bool,
    model_sequences: int | None,
    model_seed: int | None,
    loop: LoopName,
    debug: bool,
    eager_tasks: bool,
    condition: tuple[str, ...],
    combine: Combine | None,
    seed: int | None,
    summary: bool,
    exit_first: bool,
    no_isolate: bool,
    list_conditions: bool,
    list_only: bool,
) -> None:
    """Check connectors, or running servers in any language, against the contract.

    A TARGET is the name of a connector, an import path module:Class, the ws:// URL of a server that serves the
    reference application, or a JSON report of a former run (FILE.json), which is joined into the reports.
    """
    if list_only:
        _list(rules)
        return
    if list_conditions:
        _list_conditions()
        return
    if not targets:
        raise click.UsageError("say what to check: a connector's name, module:Class, ws://host:port or a FILE.json")
    sys.path.insert(0, str(Path.cwd()))  # for module:Class, as for wsbridge serve
    console = Console(highlight=False)
    try:
        known = {} if known_failing is None else load_known_failing(known_failing)
        check_known(known)
        former = [] if baseline is None else load_results(baseline)
        conditions = Conditions.of_the_loop(loop, debug=debug, eager_tasks=eager_tasks)
        conditions = Conditions.parse(condition).over(conditions)
        model = model or model_sequences is not None or model_seed is not None
        played = {"model": model, "model_sequences": model_sequences or SEQUENCES, "model_seed": model_seed}
        settings = _Settings(
            rules or None, repeat, scale, played, not no_isolate, exit_first, known, conditions, combine, seed
        )
        select(all_checks(), settings.rules)
        found, wrong = _all_results(targets, settings, console)
    except (TargetError, LoopNotInstalledError, ValueError, OSError) as exc:
        raise _NothingChecked(str(exc)) from exc
    _show(found, console, is_whole=not rules)
    show_by_rule(found, console, everything=summary)
    for result in found:
        _show_changes(result, former, console)
    for path, write in (
        (report, reports.html),
        (json_file, dump_results),
        (junit, reports.junit),
        (markdown, reports.markdown),
    ):
        if path is not None:
            _write(path, write, found, console)
    for message in wrong:
        click.echo(f"Error: {message}", err=True)
    if wrong or any(result.dead for result in found):
        ctx.exit(2)
    ctx.exit(0 if all(result.conformant for result in found) else 1)


def _all_results(targets: Sequence[str], settings: _Settings, console: Console) -> tuple[list[SuiteResult], list[str]]:
    """Return the results of the targets, and why there is none of some: the others are checked all the same.

    Raises:
        TargetError: There is none of any.
    """
    found: list[SuiteResult] = []
    wrong: list[TargetError] = []
    for target in targets:
        try:
            found += _results(target, settings, console)
        except TargetError as exc:
            wrong.append(exc)
    if wrong and not found:
        raise TargetError("; ".join(map(str, wrong)))
    return found, [" ".join(str(exc).split()) for exc in wrong]


def _results(target: str, settings: _Settings, console: Console) -> list[SuiteResult]:
    if target.endswith(".json"):
        return load_results(target)
    with _progress(target, console) as tell:
        result = run(
            target,
            rules=settings.rules,
            repeat=settings.repeat,
            scale=settings.scale,
            isolate=settings.isolate,
            progress=tell,
            known_failing=settings.known,
            **settings.model,
            exit_first=settings.exit_first,
            conditions=settings.conditions,
            combine=settings.combine_for(target),
            seed=settings.seed,
        )
    return [result]


def _write(
    path: Path, write: Callable[[Sequence[SuiteResult]], str], found: Sequence[SuiteResult], console: Console
) -> None:
    try:
        path.write_text(write(found), encoding="utf-8")
    except OSError as exc:
        raise _NothingChecked(f"{path} cannot be written: {exc.strerror}") from exc
    console.print(f"wrote {path}", markup=False, soft_wrap=True)


# ---- while it runs --------------------------------------------------------------------------------------------------


def _progress(target: str, console: Console) -> AbstractContextManager[Callable[[Progress], None]]:
    if console.is_terminal:
        return _Bar(target, console)
    return nullcontext(lambda progress: _line(target, progress, console))


def _line(target: str, progress: Progress, console: Console) -> None:
    """Print a line for each check that has run."""
    if (result := progress.result) is not None:
        mark = f"{target}  {result.verdict:<11}  {result.label}  {result.seconds:.2f} s"
        failed = f"  {_short(result.message)}" if result.verdict is Verdict.FAIL else ""
        remark = f"  ({result.remark})" if result.remark else ""
        console.print(mark + remark + failed, markup=False, soft_wrap=True)


class _Bar:
    """A progress bar; failures are printed above it as they come."""

    def __init__(self, target: str, console: Console) -> None:
        self._console = console
        self._bar = rich_progress.Progress(
            rich_progress.SpinnerColumn(),
            rich_progress.TextColumn("{task.fields[target]}", style="bold", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            transient=True,
            expand=True,
        )
        shown = target if len(target) <= _NAME else f"...{target[3 - _NAME :]}"
        self._task = self._bar.add_task("", total=None, target=shown)

    def __enter__(self) -> Callable[[Progress], None]:
        self._bar.start()
        return self._tell

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def _tell(self, progress: Progress) -> None:
        if progress.result is None:
            under = f" under {progress.under}" if progress.under else ""
            self._bar.update(self._task, description=progress.check + under, total=progress.total)
            return
        self._bar.update(self._task, completed=progress.number)
        if progress.result.verdict is Verdict.FAIL:
            self._console.print("fail", style=_STYLES["fail"], end="  ")
            self._console.print(progress.result.label, _short(progress.result.message), sep="  ", markup=False)


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MESSAGE else line[:_MESSAGE] + "..."


# ---- at the end -----------------------------------------------------------------------------------------------------


def _show(found: Sequence[SuiteResult], console: Console, *, is_whole: bool) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("checked", overflow="fold")
    states = ["pass", "fail", "known", "deviation", "unsupported"]
    if any(result.counts["not-applicable"] for result in found):  # a column that most runs have no use for
        states.append("not-applicable")
    for state in states:
        table.add_column(_COLUMNS[state], justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("conformant", no_wrap=True)
    for result in found:
        counts = result.counts | {"fail": len(result.failures)}
        table.add_row(
            result.target.name,
            *(_styled(counts[state], state) for state in states),
            f"{result.seconds:.1f}",
            _styled("yes", "pass") if result.conformant else _styled("no", "fail"),
        )
    console.print()
    for result in found:
        _show_details(result, console, is_whole=is_whole)
    console.print(table)


def _styled(value: object, state: str) -> str:
    return f"[{_STYLES[state]}]{value}[/]" if value else f"{value}"


def _show_details(result: SuiteResult, console: Console, *, is_whole: bool) -> None:
    lines: list[tuple[str, str, str]] = []
    for problem in result.problems:
        lines.append(("fail", problem, ""))
    for failed in result.known_failures:
        known = result.known_as(failed.check)
        lines.append(("known", failed.label, "" if known is None else f"{known.reason} {known.link}".rstrip()))
    for other in result.results:
        if other.verdict in (Verdict.DEVIATION, Verdict.UNSUPPORTED, Verdict.NOT_APPLICABLE):
            lines.append((other.verdict.value, other.label, other.message))
    lines += [("again", again.check, again.remark) for again in result.results if again.remark]
    console.print(result.target.name, reports.packages_line(result), sep="  ", style="bold", markup=False)
    for number, failed in enumerate(result.failures):
        _show_line("fail", failed.label, failed.message, console)
        if failed.check == MODEL_CHECK:
            console.print(_sequence(result), markup=False, soft_wrap=True)
        if number < MOST:
            show_failure(failed, result, console)
    if len(result.failures) > MOST:
        console.print(f"  only the first {MOST} are explained here; --report and --json explain all", markup=False)
    for state, what, message in lines:
        _show_line(state, what, message, console)
    if result.seed is not None:
        count = sum(bool(other.conditions) for other in result.results)
        console.print(
            f"  {count} of the checks were run under combined conditions; --seed {result.seed} chooses the same"
        )
    if is_whole and result.target.kind == "url" and result.not_checked:
        ids = ", ".join(rule.id for rule in result.not_checked)
        console.print(f"  not checked from outside: {ids}", markup=False)
    if is_whole and result.library_rules:
        count = len(result.library_rules)
        console.print(f"  {count} rules are about wsbridge itself, which its own tests hold it to", markup=False)
    console.print()


def _show_line(state: str, what: str, message: str, console: Console) -> None:
    console.print(f"  {state:<11}", style=_STYLES[state], end="  ")
    console.print(what, _short(message), sep="  ", markup=False, soft_wrap=not console.is_terminal)


def _sequence(result: SuiteResult) -> str:
    """Return the steps by which the random model failed, a line each."""
    details = next((one.details for one in result.failures if one.check == MODEL_CHECK), "")
    return details.partition("\n\nTraceback ")[0]


def _show_changes(result: SuiteResult, former: Sequence[SuiteResult], console: Console) -> None:
    """Show what changed since the report of the same target; of the only one, if it has another name."""
    if not former:
        return
    same = [other for other in former if other.target.name == result.target.name]
    if not same and len(former) > 1:
        console.print(f"the baseline has no report of {result.target.name}", markup=False)
        return
    changes = compare((same or former)[0], result)
    if not changes:
        console.print(f"{result.target.name}: nothing has changed since the baseline", markup=False)
        return
    console.print(f"{result.target.name}: changed since the baseline", markup=False)
    for word, checks, state in (
        ("newly failing", changes.failing, "fail"),
        ("newly passing", changes.passing, "pass"),
        ("changed", [f"{check}: {before}, now {now}" for check, before, now in changes.changed], "deviation"),
        ("new", changes.new, "unsupported"),
        ("gone", changes.gone, "known"),
    ):
        for check in checks:
            console.print(f"  {word:<13}", style=_STYLES[state], end="  ")
            console.print(check, markup=False)


# ---- the list -------------------------------------------------------------------------------------------------------


def _list(wanted: Sequence[str]) -> None:
    checks = all_checks()
    rules = [rule for rule in current_rules() if not wanted or any(_takes_in(id, rule.id) for id in wanted)]
    needs = {rule.id: rule.features for rule in catalogue_rules()}
    if not rules:
        raise _NothingChecked(why_none(wanted[0]))
    for rule in rules:
        marks = [rule.kind, rule.level, rule.section]
        marks += [f"needs {feature}" for feature in sorted(needs[rule.id])]
        marks += ["stochastic"] if rule.stochastic else []
        click.echo(click.style(rule.id, bold=True) + f"  ({'; '.join(marks)})  {rule.sentence}")
        for check in checks:
            if check.rule == rule.id and (not wanted or any(matching(id, check.id) for id in wanted)):
                click.echo(f"    {check.id}{_marks(check)}\n        {check.title}")


def _list_conditions() -> None:
    for name, axis in AXES.items():
        click.echo(click.style(name, bold=True) + f"  {axis.text}")
        for number, (value, meaning) in enumerate(axis.values.items()):
            click.echo(f"    {name}={value}\n        {meaning}{'' if number else ' (as checks stand)'}")


def _takes_in(wanted: str, rule: str) -> bool:
    return matching(wanted.partition("/")[0], rule)


def _marks(check: Check) -> str:
    marks: list[str] = [f"needs {feature}" for feature in sorted(check.needs)]
    marks += ["from outside too"] if check.black_box else []
    marks += ["stochastic"] if check.stochastic else []
    return f"  ({'; '.join(marks)})" if marks else ""
