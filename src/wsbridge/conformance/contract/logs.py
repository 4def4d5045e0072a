"""The contract on what stands in the log because of a peer (LOG)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["LOG_RULES"]

LOG_RULES: tuple[Rule, ...] = (
    rule(
        "LOG-1",
        sentence="""Whatever a peer sends or leaves unsaid, at most one record a connection stands in the log of it, and
        none above the level warning.""",
        text="""The levels from info on are counted, on every logger: this library's, its server's, asyncio's. This
        holds for requests and for frames that break every rule, for peers that leave in the middle, and for those that
        only connect. The line of a refused handshake is counted apart: it has a bound of its own (HS-14), since one
        connection may be refused often. What the messages of a peer make the application raise is the application's
        (ERR-1), and so are the access logs that are asked for in `native_options`.""",
    ),
    rule(
        "LOG-2",
        sentence="What a peer wrote stands in the log escaped, on one line, and cut to 100 characters.",
        text="""That holds for paths, and for what a codec says of a message that does not decode (CODEC-2). Tracebacks
        are of the application's exceptions alone.""",
    ),
    rule(
        "LOG-3",
        sentence="A peer that leaves while it is sent to leaves nothing in the log.",
        text="""Nothing is written to a connection that is known to be gone: asyncio warns of such a write, each time
        from the sixth on.""",
        stochastic=True,
    ),
)
