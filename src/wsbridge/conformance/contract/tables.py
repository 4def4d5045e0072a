"""The tables that belong to rules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wsbridge.close import PORTABLE_NAMES
from wsbridge.conformance.contract.definition import Table
from wsbridge.connectors._deviations import DEVIATIONS

__all__ = ["TABLES"]


def _deviations() -> tuple[tuple[str, ...], ...]:
    """Return the rows of what the connectors declare: by each reason, the rules that it is about."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, deviations in DEVIATIONS.items():
        for scenario, deviation in deviations.items():
            rules = rows.setdefault((name, deviation.tried), [])
            if (rule := scenario.partition("/")[0]) not in rules:
                rules.append(rule)
    return tuple((name, ", ".join(rules), tried) for (name, tried), rules in rows.items())


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "CLOSE-7": Table(
            ("what has happened", "code", "text", "initiator"),
            (
                ("the peer closed, with a code", "that code", "its text", "peer"),
                ("the peer closed, with an empty frame", "1005", '`""`', "peer"),
                ("the connection ended without a close frame, by a half-close too", "1006", '`""`', "network"),
                ("`close(code, text)`, whether answered or not", "that code", "that text", "local"),
                ("a callback raised", "1011", '`""`', "local"),
                ("text that is not UTF-8", "1007", "any", "local"),
                ("a violation of the protocol", "1002", "any", "local"),
                ("a message that is too big", "1009", "any", "local"),
                ("the idle timeout", "1001", '`"idle timeout"`', "local"),
                ("the ping timeout", "1011", '`"ping timeout"`', "local"),
                ("the send timeout", "1008", '`"send timeout"`', "local"),
                ("the connector was stopped", "1001", '`"server shutdown"`', "local"),
            ),
        ),
        "CLOSE-8": Table(("connector", "scenarios of", "why, and what was tried"), _deviations()),
        "CLOSE-9": Table(
            ("code", "portable name"), tuple((str(code), f"`{name}`") for code, name in PORTABLE_NAMES.items())
        ),
        "LIM-5": Table(
            ("option", "of", "default", "rule"),
            (
                ("`on_open`", "the channel", "`None`", "OPEN-1"),
                ("`on_text`", "the channel", "`None`", "RECV-1"),
                ("`on_binary`", "the channel", "`None`", "RECV-2"),
                ("`on_close`", "the channel", "`None`", "CLOSE-3"),
                ("`on_error`", "the channel", "`None`", "ERR-1"),
                ("`on_message`", "the channel", "`None`", "CODEC-1"),
                ("`codec`", "the channel", "`None`", "CODEC-1"),
                ("`subprotocols`", "the channel", "`()`", "HS-3"),
                ("`origins`", "the channel", "`()`", "HS-6"),
                ("`max_text_size`", "the channel", "`1048576` (`None`: no limit)", "LIM-1"),
                ("`max_binary_size`", "the channel", "`1048576` (`None`: no limit)", "LIM-1"),
                ("`compression`", "the channel", "`False` (`True`, or `Compression(...)`)", "SEND-8"),
                ("`idle_timeout`", "the channel", "`None` (never)", "LIM-2"),
                ("`ping_interval`", "the channel", "`20` (`None`: off)", "LIM-3"),
                ("`ping_timeout`", "the channel", "`20` (`None`: off)", "LIM-3"),
                ("`send_timeout`", "the channel", "`60` (`None`: off)", "LIM-4"),
                ("`close_timeout`", "the channel", "`10`", "CLOSE-5"),
                ("`host`", "the connector", "`'127.0.0.1'`", "STOP-1"),
                ("`port`", "the connector", "`0` (a free one)", "STOP-1"),
                ("`unix_path`", "the connector", "`None`", "STOP-4"),
                ("`unix_mode`", "the connector", "`None` (by the umask)", "STOP-7"),
                ("`unix_owner`", "the connector", "`None` (the process's own)", "STOP-7"),
                ("`sockets`", "the connector", "`()`", "STOP-15"),
                ("`ssl`", "the connector", "`None`", "STOP-4"),
                ("`reuse_port`", "the connector", "`False`", "STOP-4"),
                ("`max_channels`", "the connector", "`None` (no limit)", "HS-12"),
                ("`handshake_timeout`", "the connector", "`10`", "HS-10"),
                ("`shutdown_timeout`", "the connector", "`10`", "STOP-2"),
                ("`max_head_size`", "the connector", "`65536`", "HS-17"),
                ("`trusted_proxies`", "the connector", "`()`", "HS-2"),
                ("`native_options`", "the connector", "`{}`", "LIM-5"),
            ),
        ),
    }
)
