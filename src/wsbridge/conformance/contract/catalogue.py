"""The catalogue of all rules, and the document that is written from it.

``python -m wsbridge.conformance.contract.catalogue --write docs/spec.md`` writes the document, without ``--write`` it
prints it.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from wsbridge.conformance.contract.context import CONTEXT_RULES
from wsbridge.conformance.contract.definition import Rule, Table, markdown_table
from wsbridge.conformance.contract.framing import FRAME_RULES
from wsbridge.conformance.contract.handshake import HANDSHAKE_RULES
from wsbridge.conformance.contract.logs import LOG_RULES
from wsbridge.conformance.contract.messages import MESSAGE_RULES
from wsbridge.conformance.contract.opening import OPENING_RULES
from wsbridge.conformance.contract.serving import SERVING_RULES
from wsbridge.conformance.contract.stream import STREAM_RULES
from wsbridge.conformance.contract.tables import TABLES

__all__ = ["GROUPS", "Rule", "contract_rules", "document", "get", "rules"]

GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "HS": "The handshake",
        "OPEN": "Opening",
        "RECV": "Receiving",
        "SEND": "Sending",
        "CLOSE": "Closing",
        "ERR": "Failures of the application",
        "LIM": "Limits and timeouts",
        "FLOW": "Back-pressure",
        "STOP": "Starting and stopping",
        "CTX": "The context and its interceptors",
        "CONN": "The queue in front of a channel",
        "STREAM": "Messages read in a loop",
        "CODEC": "Typed messages",
        "MOUNT": "Inside another application",
        "LOG": "What stands in the log",
        "THR": "Threads, event loops, processes",
        "REG": "Finding connectors",
        "FRAME": "Frames on the wire",
    }
)
"""The groups of rules, in the order of the document."""

_WIDTH = 120


def contract_rules() -> tuple[Rule, ...]:
    """Return the rules of wsbridge's own contract."""
    found = (
        *(*HANDSHAKE_RULES, *OPENING_RULES, *MESSAGE_RULES, *SERVING_RULES),
        *(*CONTEXT_RULES, *STREAM_RULES, *LOG_RULES),
    )
    order = list(GROUPS)
    return tuple(sorted(found, key=lambda rule: (order.index(rule.group), int(rule.id.rpartition("-")[2]))))


def rules() -> tuple[Rule, ...]:
    """Return every rule, in the order of the document."""
    return (*contract_rules(), *FRAME_RULES)


def get(id: str) -> Rule:
    """Return the rule ``id``.

    Raises:
        LookupError: There is none.
    """
    for rule in rules():
        if rule.id == id:
            return rule
    raise LookupError(f"the contract has no rule {id!r}")


_INTRODUCTION = """
# The contract

What every connector of wsbridge does, in numbered rules. An application may rely on each of them, on whatever server it
runs. The conformance suite checks each by its number, and so do the tests of the core: a rule without a check fails the
build, and so does a check without a rule.

This document is written from the catalogue in `src/wsbridge/conformance/`, by
`python -m wsbridge.conformance.contract.catalogue --write docs/spec.md`. Change it there.

## Words

- *Server*: the library that speaks WebSocket on the wire, such as aiohttp, websockets or tornado. *Connector*: what
  lets an application run on it.
- *Channel*: one WebSocket connection, as the application sees it (`WebSocketChannel`).
- *Process object*: what `on_open` returned for a channel, and every later callback of it gets.
- *Peer*: the other side, the client. *Local*: this side.
- *End*: a close by either side, or the loss of the connection. A channel has one end; its `CloseReason` tells which.
- *Native*: the server's own object for a request or a connection. What is done through it is outside the contract.
- *Feature*: something that a connector may be unable to do: `size-limit`, `ping`, `compression`, `unix-socket`,
  `fragments`, `mount`. A rule that names a feature binds the connectors that have it. A connector that lacks one says
  so, and refuses what needs it with `UnsupportedOptionError`, an option when the connector is made; the suite checks
  that refusal instead. No option is ever ignored, and no check is skipped. The aiohttp, websockets and tornado
  connectors have every feature but `fragments`.
- *Wire*: the sockets of a connector, and the bytes on them. The connector `memory` has none, since it is for tests in
  one process: it refuses the options that are about sockets, and the suite checks that instead of what is about bytes.
- *TLS*: a connector whose server takes no `ssl.SSLContext`, such as granian's, refuses one, which is checked instead.
- *Deviation*: what a connector declares to do differently in one scenario (CLOSE-8).
- Times are seconds, as `float`; sizes are bytes.

## How a rule is marked

Below its number stand what it is about, its level, and where it comes from. A *connector* rule is checked by the suite
against each connector, a *library* rule by the project's tests of the core. The level is *rfc* for what the RFC asks of
every server, *feature* for what binds where the feature is there, and *core* for the rest. *Stochastic* rules are about
concurrency or memory: one pass proves less than several.
"""


def document() -> str:
    """Return the contract as a Markdown document."""
    parts = [_INTRODUCTION.strip()]
    found = rules()
    for group, title in GROUPS.items():
        parts.append(f"## {group}: {title}")
        members = [rule for rule in found if rule.group == group]
        if group == "FRAME":
            parts.append(_frames(members))
            continue
        for rule in members:
            parts += _rule_lines(rule)
    return "\n\n".join(parts) + "\n"


def _frames(members: Sequence[Rule]) -> str:
    introduction = _fill(
        "What the RFCs ask of a server frame by frame, beside RECV-3 and RECV-7 to RECV-9. All of them are *connector*"
        " rules of the level *rfc*; those of RFC 7692 need the feature `compression`."
    )
    rows = [(rule.id, rule.section, rule.sentence) for rule in members]
    return f"{introduction}\n\n{markdown_table(('rule', 'section', 'what is promised'), rows)}"


def _rule_lines(rule: Rule) -> list[str]:
    marks = [rule.kind, rule.level, rule.section]
    marks += [f"needs `{feature}`" for feature in sorted(rule.features)]
    marks += ["stochastic"] if rule.stochastic else []
    parts = [f"### {rule.id}", f"*{'; '.join(marks)}*", _fill(f"**{rule.sentence}**")]
    if rule.text:
        parts += [_fill(paragraph) for paragraph in rule.text.split("\n\n")]
    table: Table | None = TABLES.get(rule.id)
    if table is not None:
        parts.append(markdown_table(table.columns, table.rows))
    return parts


def _fill(paragraph: str) -> str:
    """Wrap a paragraph; the items of a list each for themselves."""
    items = re.split(r"\n(?=- |\d\. )", paragraph)
    return "\n".join(_fill_item(item) for item in items)


def _fill_item(item: str) -> str:
    indent = " " * len(match[0]) if (match := re.match(r"- |\d\. ", item)) else ""
    return textwrap.fill(
        " ".join(item.split()), _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write or print the document."""
    parser = argparse.ArgumentParser(prog="python -m wsbridge.conformance.contract.catalogue", description=main.__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it there instead of printing it")
    path: Path | None = parser.parse_args(arguments).write
    if path is None:
        print(document(), end="")
    else:
        path.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
