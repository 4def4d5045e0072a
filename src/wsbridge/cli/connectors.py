"""``wsbridge connectors``: what is installed, what could be, and whether it works."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click

from wsbridge import registry
from wsbridge.cli.exit_codes import Exit, exit_codes
from wsbridge.cli.trial import Trial, try_connector

__all__ = ["connectors_command"]


@click.command(
    "connectors",
    epilog="\b\nExamples:\n  wsbridge connectors\n  wsbridge connectors --json --check\n\n"
    + exit_codes(Exit.OK, Exit.CONNECTOR_FAILED),
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object for each connector.")
@click.option("--check", is_flag=True, help="Import each installed one; start it, try a handshake and stop it.")
@click.pass_context
def connectors_command(ctx: click.Context, /, *, as_json: bool, check: bool) -> None:
    """List the connectors that are installed and those that could be.

    Without --check no connector and no server is imported.
    """
    infos = registry.connector_infos()
    trials = {info: try_connector(info) for info in infos if check and info.is_installed}
    missing = sorted(set(registry.SERVERS) - {info.name for info in infos})
    if as_json:
        rows = [_json_row(info, trials.get(info), check=check) for info in infos]
        rows += [_unregistered_row(name, check=check) for name in missing]
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_connectors(infos, missing, trials)
    if any(trial.error is not None for trial in trials.values()):
        ctx.exit(Exit.CONNECTOR_FAILED)


def _json_row(info: registry.ConnectorInfo, trial: Trial | None, *, check: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "connector": info.value,
        "server": info.server,
        "server_version": info.server_version,
        "installed": info.is_installed,
        "problem": info.problem,
        "install": None if info.is_installed else registry.install_command(info.name, info.server or info.name),
    }
    if check:
        row |= {
            "works": None if trial is None else trial.error is None,
            "error": None if trial is None else trial.error,
            "connector_api": None if trial is None else trial.connector_api,
            "features": None if trial is None else list(trial.features),
            "deviations": None
            if trial is None
            else {
                scenario: {"outcome": deviation.outcome, "tried": deviation.tried}
                for scenario, deviation in sorted(trial.deviations.items())
            },
        }
    return row


def _unregistered_row(name: str, *, check: bool) -> dict[str, object]:
    """The row of a connector of wsbridge that nothing registers, as in a source tree that is not installed."""
    info = registry.ConnectorInfo(name, registry.OWN_DISTRIBUTION, "unknown", "", registry.SERVERS[name], None)
    return _json_row(info, None, check=check) | {"connector": None}


def _print_connectors(
    infos: Sequence[registry.ConnectorInfo],
    missing: Sequence[str],
    trials: Mapping[registry.ConnectorInfo, Trial],
) -> None:
    names = [info.name for info in infos]
    rows: list[tuple[str, ...]] = [("NAME", "FROM", "SERVER", "STATUS")]
    for info in infos:
        server = "-" if info.server is None else f"{info.server} {info.server_version or ''}".rstrip()
        rows.append((info.name, f"{info.distribution} {info.version}", server, _status(info, trials.get(info), names)))
    for name in missing:
        server = registry.SERVERS[name]
        rows.append((name, "-", server, f"not installed: {registry.install_command(name, server)}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        line = "  ".join(cells).rstrip()
        # click takes the colours away where the output is not a terminal
        click.echo(click.style(line, bold=True) if number == 0 else _coloured(line, row[3]))
    for info, trial in trials.items():
        if trial.error is None:
            click.echo()
            _print_trial(info, trial)


def _print_trial(info: registry.ConnectorInfo, trial: Trial) -> None:
    click.echo(click.style(info.name, bold=True) + f": {', '.join(trial.features) or 'no optional features'}")
    for scenario, deviation in sorted(trial.deviations.items()):
        click.echo(f"  deviates in {scenario}: {deviation.outcome} ({deviation.tried})")
    if not trial.deviations:
        click.echo("  deviates in nothing")


def _status(info: registry.ConnectorInfo, trial: Trial | None, names: Sequence[str]) -> str:
    if not info.is_installed:
        return f"not installed: {registry.install_command(info.name, info.server or info.name)}"
    shared = f"; say {info.name}@{info.distribution}" if names.count(info.name) > 1 else ""
    if trial is None and info.problem is not None:
        return f"not supported: {info.problem}"
    if trial is None:
        return ("installed" if info.server is not None else "registered") + shared
    return ("works" if trial.error is None else f"fails: {trial.error}") + shared


def _coloured(line: str, status: str) -> str:
    colour = {"fails": "red", "not": "yellow"}.get(status.split()[0].rstrip(":"), "green")
    head = line.removesuffix(status)
    return head + click.style(status, fg=colour)
