"""What `asgi_app` loses on each ASGI server, in words for users: `COSTS` groups what the suite finds.

A failure of the suite on one of `tools.stock` belongs to the first cost whose pattern its check and message match. One
that matches none is a failure like any other; that fails the test of the committed reports, and so does a cost that no
failure shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tools.stock import STOCK
from wsbridge.conformance.contract import catalogue
from wsbridge.conformance.contract.definition import markdown_table
from wsbridge.conformance.harness.known import Known
from wsbridge.conformance.harness.suite_result import SuiteResult
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = ["COSTS", "Cost", "cost_of", "explained", "table", "unseen"]

UVICORN, WSPROTO, HYPERCORN, GRANIAN = STOCK
BOTH = (UVICORN, WSPROTO)
ALL = (UVICORN, WSPROTO, HYPERCORN, GRANIAN)


@dataclass(frozen=True, slots=True)
class Cost:
    """What is different on some servers.

    Attributes:
        what: What happens: a row of the table.
        outcome: What comes of it, on these servers.
        servers: The names of their reports.
        pattern: Matches ``CHECK MESSAGE`` from its beginning.
    """

    what: str
    outcome: str
    servers: tuple[str, ...]
    pattern: str

    def takes(self, server: str, result: CheckResult) -> bool:
        """Tell whether a failure belongs here."""
        text = f"{result.check} {result.message}"
        return server in self.servers and re.match(self.pattern, text, re.DOTALL) is not None


_PEERS = (
    r".*got \(1006, ('', )?'network'|.*expected 'peer', got 'network'|.*expected (1000|4001), got 1006"
    r"|STREAM-.*got (1006|\(1006, ''\)|'')$|LIM-1/smallest"
)
_CLOGGED = (
    r"CLOSE-5/a-(peer-that-is-clogged|clogged-peer)|CLOSE-7/the-connection-was-half-closed"
    r"|SEND-6/(a-half-close|the-peer-closes)-while|LIM-4/(stuck|slow)"
)
_BEHIND = (
    r"HS-11/|THR-4/nothing-is-read|OPEN-1/first-and-once|OPEN-2/a-coroutine-of-a-plain|OPEN-4/before-any|OPEN-5/a-close-"
    r"|OPEN-6/(on-close-w|it-raises )|RECV-5/callbacks-never|STREAM-8/cancel-before|HS-12/whatever-a-stop-meets"
)
_UNREAD = r"STREAM-8/(the-end|cancel)-behind-unread|STREAM-6/send-with-messages-unread|SEND-1/messages-before-the-close"
_LIMIT = r"LIM-1/(default-limit|refused|smaller-limit-at|held-at|a-head-that-is-cut)"

COSTS: tuple[Cost, ...] = (
    # ---- the end ----------------------------------------------------------------------------------------------------
    Cost(
        "the peer closes with a code",
        "1014 is taken for a violation",
        (WSPROTO, GRANIAN),
        r"(CLOSE-[479]/|FRAME-19/).*1014",
    ),
    Cost(
        "the peer closes with a code",
        "1007 is taken for the server's own, of text that is not UTF-8",
        BOTH,
        r"CLOSE-9/.*expected \(1007, 'peer'",
    ),
    Cost(
        "the peer closes with a code",
        "1012 is taken for the server's own",
        (GRANIAN,),
        r"CLOSE-9/.*1012",
    ),
    Cost(
        "a violation of the protocol, or text that is not UTF-8",
        "1006 by `network`; the peer gets an empty close frame",
        (GRANIAN,),
        r".*(peer saw 100[27]', observed 'peer saw 1005|\(100[27], 'local')"
        r"|RECV-9/close-text|CLOSE-7/(invalid-utf|a-viol)",
    ),
    Cost(
        "a violation of the protocol, or text that is not UTF-8",
        "1006 by `network`; the peer gets no close frame",
        (HYPERCORN,),
        r"(RECV-[89]|FRAME-\d+|CLOSE-10/a-violation|CLOSE-7/(invalid-utf-8|a-violation)|SEND-6/nothing-after).*"
        r"(100[27]|no close frame|abnormal|has ended)",
    ),
    Cost(
        "a violation of the protocol, or text that is not UTF-8",
        "the peer gets no close frame",
        (WSPROTO,),
        r"(RECV-[89]|FRAME-|CLOSE-10/a-violation|CLOSE-7/|SEND-6/nothing-after-a-close-frame).*no close frame",
    ),
    Cost(
        "a violation of the protocol, or text that is not UTF-8",
        "an error in its log for text",
        (UVICORN,),
        r".*Invalid UTF-8 sequence received",
    ),
    Cost(
        "a close frame inside a fragmented message",
        "is taken for a violation",
        (UVICORN,),
        r"(RECV-9|FRAME-25)/close-in.*peer saw 1002",
    ),
    Cost(
        "a close frame inside a fragmented message",
        "1006 by `network`",
        (HYPERCORN,),
        r"RECV-9/close-in-fragmented-message",
    ),
    Cost(
        "the peer closes with an empty frame",
        "1006 by `network`",
        (HYPERCORN, GRANIAN),
        r"CLOSE-7/the-peer-closed-with-an-empty-frame|OPEN-9/.*expected \(1005|OPEN-11/not-before",
    ),
    Cost(
        "the peer closes with a code",
        "its text is lost",
        (GRANIAN,),
        r"CLOSE-(6|7|10)/.*the text: expected|.*got \(\d+, '', 'peer'\)|STREAM-.*got (\(4001, ''\)|'')|LIM-1/smallest"
        r"|HS-11/a-close-comes",
    ),
    Cost(
        "you close",
        "the connection is cut at once: what the peer sends meanwhile is lost, and it may see a reset",
        (GRANIAN,),
        r".*(on_close came after|was cut off after)|RECV-4/dropped-after|SEND-6/no-pong-behind",
    ),
    Cost(
        "the peer closes while a send waits",
        "False for a message that the peer may have",
        (GRANIAN,),
        r"SEND-6/the-peer-closes-while-sends-wait .*no send returned True",
    ),
    Cost(
        "the peer closes with a code",
        "some codes get no close frame in answer",
        (WSPROTO,),
        r"(CLOSE-4/a-peer-gets-its-code-back|FRAME-19/codes\S*) .*has ended",
    ),
    Cost("the peer closes with a code", "1006 by `network`, its text is lost", (HYPERCORN,), _PEERS),
    Cost(
        "the peer closes with a code", "some codes get no close frame in answer", (HYPERCORN,), r"CLOSE-4/a-peer-gets"
    ),
    Cost(
        "you close",
        "`on_close` does not wait for the peer's frame; uvicorn waits for that, 10 s",
        BOTH,
        r".*(on_close (before|came after)|the peer was cut off after)|CLOSE-7/a-local-close-that-is-not-answered"
        r"|HS-12/however-a-channel-ends .*never answered",
    ),
    Cost(
        "the peer sends something after its close frame, and reads only then",
        "the connection may be reset, and what the peer has not read is lost",
        ALL,
        r"SEND-6/a-pong-behind-the-peers-close",
    ),
    Cost(
        "a pong after the close frame",
        "is sent",
        (UVICORN,),
        r"SEND-6/(no-pong-behind|nothing-after-a-close-frame)",
    ),
    Cost(
        "the end, after messages that are not read",
        "is seen when those before it are taken",
        ALL,
        _UNREAD,
    ),
    # ---- back-pressure ----------------------------------------------------------------------------------------------
    Cost(
        "a peer that does not read, and leaves or is left",
        "the end comes late, the connection stays as long as the server pleases, `send_timeout` counts messages",
        ALL,
        _CLOGGED,
    ),
    # ---- limits -----------------------------------------------------------------------------------------------------
    Cost("a message over `max_text_size` or `max_binary_size`", "1009 when the whole of it is in", ALL, _LIMIT),
    Cost(
        "a message over 16 MiB, which is the server's own limit",
        "1009 by `peer`",
        BOTH,
        r"LIM-1/no-limit",
    ),
    Cost(
        "a message over 16 MiB, which is the server's own limit",
        "the connection is reset",
        (GRANIAN,),
        r"LIM-1/no-limit",
    ),
    Cost(
        "a message over 16 MiB, which is the server's own limit",
        "1009 to the peer, and you are told nothing",
        (HYPERCORN,),
        r"LIM-1/no-limit",
    ),
    Cost("fragments without end", "uses more memory than one message may", (UVICORN,), r"LIM-1/fragments-without-end"),
    Cost("a flood of pings", "what answers them is held in memory", (UVICORN, GRANIAN), r"FLOW-2/a-flood-of-pings"),
    # ---- the handshake ----------------------------------------------------------------------------------------------
    Cost(
        "refusing a handshake",
        "works, with an error in its log",
        (UVICORN,),
        r".*ASGI callable returned without completing handshake",
    ),
    Cost(
        "headers of the 101 that interceptors put there",
        "are lost",
        (GRANIAN,),
        r"HS-8/|CTX-3/on-open-follows",
    ),
    Cost(
        "refusing a handshake",
        "with `Upgrade: websocket` in the answer, and repeated headers in one line",
        (GRANIAN,),
        r"HS-7/|CTX-3/a-leave-stage-that|HS-10/a-second",
    ),
    Cost("what is sent right after the handshake request", "is lost", BOTH, _BEHIND),
    Cost(
        "what is sent right after the handshake request",
        "400",
        (HYPERCORN,),
        rf"{_BEHIND}|.*expected 101, but got 400 : b''(;|$)",
    ),
    Cost("`Upgrade` as a list", "400", (UVICORN, WSPROTO, HYPERCORN), r"HS-1/upgrade-as-a-list"),
    Cost(
        "`X-Forwarded-For` from 127.0.0.1",
        "believed, whatever `trusted_proxies` says: `proxy_headers=False`",
        BOTH,
        r"HS-2/forwarded-headers",
    ),
    Cost("subprotocols over several header lines", "the last line counts", (HYPERCORN,), r"HS-3/offers-over"),
    Cost(
        "subprotocols over several header lines",
        "none is seen in the request",
        (WSPROTO,),
        r"HS-2/offered-subprotocols",
    ),
    Cost(
        "a request that is not a handshake, or a bad one",
        "some are answered by the server, with another status",
        ALL,
        r"HS-4/|HS-6/null-or|CTX-3/a-(refusal-is|leave-stage-that-sets)",
    ),
    Cost(  # tcp_server.py, `protocol_send`: it puts the end into the queue that the application reads after its send
        "a send finds that the peer is gone, with more than ten messages unread",
        "the send never returns, and the channel never ends",
        (HYPERCORN,),
        r"RECV-4/what-is-read-and-held-back.*did not happen",
    ),
    Cost(
        "a request that is never complete, or a peer that has left before the 101",
        "the server's own timeouts",
        ALL,
        r"HS-10/|STOP-5/a-request-half|HS-12/wherever-a-peer-leaves",
    ),
    Cost(
        "a peer behind a trusted proxy",
        "the server reads its headers first (uvicorn's `proxy_headers`, for 127.0.0.1)",
        BOTH,
        r"HS-2/(forms-of|a-hop-that|unix-trusts)|HS-15/",
    ),
    Cost(
        "a handshake that the server refuses by itself",
        "no line of wsbridge's in the log",
        (UVICORN,),
        r"HS-14/",
    ),
    Cost(
        "a message over one of the two limits, where the other is None or very high",
        "the limit that the server has, or none",
        ALL,
        r"LIM-6/held-to",
    ),
    # ---- callbacks and stopping -------------------------------------------------------------------------------------
    Cost(
        "a callback is cancelled, or raises `SystemExit`",
        "an error in its log; the exception goes no further",
        (UVICORN, WSPROTO, GRANIAN),
        r"ERR-3/|.*Exception in ASGI application",
    ),
    Cost(
        "an interceptor that runs on when it is stopped",
        "500",
        BOTH,
        r"STOP-5/an-interceptor-that-will-not",
    ),
    Cost(
        "an interceptor that runs on when it is stopped",
        "101, and then nothing",
        (HYPERCORN, GRANIAN),
        r"STOP-5/an-interceptor-that-will-not",
    ),
    Cost("two handshakes, one after the other", "`on_open` of the second may run first", (GRANIAN,), r"ERR-1/in-"),
    Cost("a handler that stops the server", "the server waits for it", (HYPERCORN,), r"STREAM-8/stop-awaited"),
)


def cost_of(server: str, result: CheckResult) -> Cost | None:
    """Return the cost that a failure on a server belongs to, or None."""
    return next((cost for cost in COSTS if cost.takes(server, result)), None)


def explained(result: SuiteResult) -> SuiteResult:
    """Return the result of a server with each failure that a cost tells of as one that is known."""
    known: dict[str, Known] = {}
    for one in result.results:
        cost = cost_of(result.target.name, one) if one.verdict is Verdict.FAIL else None
        if cost is not None:
            known[one.check] = Known(one.check, f"{cost.what}: {cost.outcome}")
    settled = tuple(
        replace(one, message=_settled(one.message)) if one.check in known else one for one in result.results
    )
    return replace(result, results=settled, known=known)


def _settled(message: str) -> str:
    """Return what failed without what differs from run to run."""
    return re.sub(r"0x[0-9a-f]+|(?<=127\.0\.0\.1[:'])(, )?\d+|\b[0-9a-f]{32}\b|\d+\.\d+ s\b", "…", message)[:300]


def unseen(results: Iterable[SuiteResult]) -> list[tuple[str, Cost]]:
    """Return the costs that nothing shows, with the server's name."""
    seen = {(r.target.name, cost_of(r.target.name, one)) for r in results for one in r.known_failures}
    return [(server, cost) for cost in COSTS for server in cost.servers if (server, cost) not in seen]


def table(results: Sequence[SuiteResult]) -> str:
    """Return what each server costs as a table: a row for what happens, a column for each server."""
    rows: dict[str, dict[str, dict[str, None]]] = {}
    rules: dict[str, dict[str, None]] = {}
    for cost in COSTS:  # the order of the table
        for result in results:
            for one in result.known_failures:
                if cost_of(result.target.name, one) is cost:
                    rows.setdefault(cost.what, {}).setdefault(result.target.name, {})[cost.outcome] = None
                    rules.setdefault(cost.what, {})[one.rule] = None
    names = [result.target.name for result in results]
    body = [
        (what, _named(rules[what]), *("; ".join(row.get(name, {"-": None})) for name in names))
        for what, row in rows.items()
    ]
    counts = [f"{_holding(result)} of {len(result.results)}" for result in results]
    return markdown_table(
        ("what happens", "rules", *(STOCK[name].title for name in names)),
        [("checks that hold", "", *counts), *body],
    )


def introduction(results: Sequence[SuiteResult]) -> str:
    """Return what the table is made of."""
    found = {name: version for r in results for name, version in r.target.packages.items() if name != "wsbridge"}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    total = max(len(result.results) for result in results)
    return (
        f"The {total} checks that bind `asgi_app`, on each server as it is and is set by default ({versions}).\n"
        "A dash: as the contract says."
    )


def _holding(result: SuiteResult) -> int:
    return sum(one.verdict is Verdict.PASS for one in result.results)


def _named(rules: Iterable[str]) -> str:
    """Return rules in the catalogue's order, each once; those of frames are many."""
    order = {rule.id: number for number, rule in enumerate(catalogue.rules())}
    found = sorted(rules, key=lambda rule: order[rule])
    return ", ".join(dict.fromkeys("FRAME" if rule.startswith("FRAME-") else rule for rule in found))
