"""Checks of options' values, as click calls them: each raises `click.BadParameter`, which names the option."""

from __future__ import annotations

import click

from wsbridge._common.proxies import parse_networks
from wsbridge.connector.unix import parse_owner
from wsbridge.options import check_seconds

__all__ = ["networks", "owner", "permissions", "seconds"]


def seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Check that an option is a positive, finite number of seconds."""
    try:
        check_seconds("it", value, optional=True)
    except ValueError as exc:
        raise click.BadParameter(str(exc), ctx, param) from exc
    return value


def permissions(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return permissions that are given in octal."""
    if value is None:
        return None
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value!r} must be permissions in octal, such as 660", ctx, param)
    return mode


def owner(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check that an option is a user, a group or both, which this system knows."""
    if value is not None:
        try:
            parse_owner(value)
        except ValueError as exc:
            raise click.BadParameter(str(exc).removeprefix("unix_owner: "), ctx, param) from exc
    return value


def networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that an option is addresses, networks or ``unix``."""
    try:
        parse_networks(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc).removeprefix("trusted_proxies: "), ctx, param) from exc
    return value
