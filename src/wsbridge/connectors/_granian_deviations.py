"""What granian does otherwise than the contract, and what was tried (CLOSE-8)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wsbridge.connector import Deviation
from wsbridge.connectors._versions import is_older

__all__ = ["DEVIATIONS"]

_OUTCOMES: Mapping[str, Mapping[str, str]] = {
    "the text of a peer's close is in no event, neither of ASGI nor of RSGI": {
        "CLOSE-6/a-frozen-record": "the text: expected 'text', got ''",
        "CLOSE-7/the-peer-closed-with-a-code": "the text: expected 'grüße €', got ''",
        "CLOSE-10/a-close-frame-and-the-end-in-one": "the text: expected 'peer', got ''",
        "CLOSE-10/a-loss-behind-the-peers-close": "the text: expected 'peer', got ''",
        "HS-11/a-close-comes-behind-on-open": "the reason: expected (4001, 'early', 'peer'), got (4001, '', 'pe",
        "HS-11/they-are-delivered-after-on-open": "the reason: expected (4002, 'bye', 'peer'), got (4002, '', '",
        "LIM-1/smallest-limit": "the text of the reason: expected 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "RECV-4/messages-before-a-close-are-delivered": "the reason: expected (4001, 'enough', 'peer'), got (40",
        "STREAM-1/handler-gets-stream-and-request": "the reason: expected (4001, 'bye'), got (4001, '')",
        "STREAM-4/waiting-read-ends": "the reason's text: expected 'done', got ''",
    },
    "granian tells of a violation, and of text that is no UTF-8, as of an empty close frame, and sends one; RSGI raises"
    " for it as for a loss, and sends the same": {
        "CLOSE-6/told-in-a-callback-of-a-violation": "code, initiator, name, keyword and str()",
        "CLOSE-7/a-violation": "code, initiator, name, keyword and str()",
        "CLOSE-7/invalid-utf-8": "code, initiator, name, keyword and str()",
        "CLOSE-10/a-violation-in-front-of-a-loss": "code and initiator after",
        "HS-11/a-violation-comes-behind-on-open": "code and initiator: expected (1002, 'local'), got (1005, 'pe",
        "HS-11/violations-behind-the-request": "code and initiator for a reserved opcode: expected (1002, 'loca",
        "RECV-8/invalid-byte": "code and initiator: expected (1007, 'local'), got (1005, 'peer')",
        "RECV-8/invalid-in-fragments": "code and initiator: expected (1007, 'local'), got (1005, 'peer')",
        "RECV-8/invalid-text-without-on-text": "code and initiator: expected (1007, 'local'), got (1005, 'peer'",
        "RECV-8/peer-sees-1007": "peer saw 1005",
        "RECV-8/surrogate": "code and initiator: expected (1007, 'local'), got (1005, 'peer')",
        "RECV-8/truncated-character": "code and initiator: expected (1007, 'local'), got (1005, 'peer')",
        "RECV-9/close-payload-of-one-byte": "code and initiator: expected (1002, 'local'), got (1005, 'peer')",
        "RECV-9/close-text-that-is-no-utf8": "the reason is CloseReason(code=1005, text='', initiator='peer', n",
        "RECV-9/fragmented-control-frame": "code and initiator: expected (1002, 'local'), got (1005, 'peer')",
        "RECV-9/message-in-empty-fragment": "peer saw 1005",
        "RECV-9/message-in-fragmented-message": "code and initiator: expected (1002, 'local'), got (1005, 'peer",
        "RECV-9/oversized-control-frame": "code and initiator: expected (1002, 'local'), got (1005, 'peer')",
        "RECV-9/peer-sees-1002": "peer saw 1005",
        "RECV-9/reserved-bit": "code and initiator: expected (1002, 'local'), got (1005, 'peer')",
        "RECV-9/reserved-opcode": "code and initiator: expected (1002, 'local'), got (1005, 'peer')",
        "RECV-9/stray-continuation": "code and initiator: expected (1002, 'local'), got (1005, 'peer')",
        "RECV-9/unmasked-frame": "peer saw 1005",
    },
    "granian's codec knows no code 1014, and one that may not be sent it reports as 1002 by the peer": {
        "CLOSE-4/a-peer-gets-its-code-back": "the code that comes back: expected 1014, got 1002",
        "CLOSE-9/names-on-the-wire": "code, initiator, name, keyword and str()",
        "FRAME-19/codes-registered-since": "the code that the peer got back: expected 1014, got 1002",
        "RECV-9/illegal-close-code": "code and initiator: expected (1002, 'local'), got (1002, 'peer')",
    },
    "granian ends the connection behind its own close frame; RSGI reads on, but sends no code; no other event closes": {
        "CLOSE-3/at-the-timeout": "on_close came",
        "CLOSE-5/a-peer-that-never-answers": "on_close came",
        "CLOSE-5/a-peer-that-talks-on": "on_close came",
        "RECV-4/dropped-after-a-local-close": "on_close before the peer's close",
        "RECV-4/dropped-after-an-exception": "on_close before the peer's close",
        "SEND-6/a-pong-behind-the-peers-close": "a send returned True for",
        "STOP-2/a-peer-that-does-not-answer": "the peer was cut off",
    },
    "granian ends a connection as soon as its answer is written, and so resets that of a peer whose body still comes;"
    " to read the body before the answer, where granian hands it on, has not been tried": {
        "HS-16/a-body-that-takes-its-time": "Closed: expected to send",
    },
    "granian leaves out the headers of an accept event; RSGI's accept takes none": {
        "CTX-3/on-open-follows-the-101": "status and header: expected (101, ['added']), got (101, [])",
        "HS-8/added-headers-seen-from-outside": "the values of X-Answer: expected ['one', 'two'], got []",
        "HS-8/headers-of-every-stage": "the values of X-App: expected ['in', 'out'], got []",
    },
    "granian puts a refusal into the head that it has made for the 101, and aborts the process for a header that is"
    " repeated: repeated ones are joined": {
        "CTX-3/a-leave-stage-that-sets-a-response": "the headers: expected ['a', 'b'], got ['a, b']",
        "HS-7/a-refusal-seen-from-outside": "the values of X-Refused: expected ['a', 'b'], got ['a, b']",
        "HS-7/a-response-as-it-was-set": "Upgrade of /text: expected [], got ['websocket']",
    },
    "granian upgrades whatever asks for it, refuses a version other than 13 by itself, and has no method in"
    " the scope": {
        "HS-4/a-version-that-is-not-spoken": "the versions that the answer names: ['']",
        "HS-4/another-method": "the status for a request whose method is POST: expected 405, got 101",
        "HS-4/another-version": "the status for a request whose version is missing: expected 426, got 400",
        "HS-4/bad-handshakes-open-no-channel": "the status for a request whose method is POST: 101",
        "HS-4/the-first-that-fails-decides": "the status where all is wrong from the version on: 400",
        "HS-4/then-routing-then-the-routes-interceptors": "a request without a route: expected (404, ['first PO",
    },
    "granian takes no limit for a message: its codec ends at 16 MiB for a frame and 64 MiB for a message; one that is"
    " complete and too big closes with 1009": {
        "LIM-1/a-head-that-is-cut": "still open",
        "LIM-1/default-limit": "the end: expected 'peer saw 1009', got 'still open'",
        "LIM-1/held-at-most-twice": "the end: expected 'peer saw 1009', got 'still open'",
        "LIM-1/no-limit": "Closed: expected",
        "LIM-1/refused-by-the-declared-size": "the end: expected 'peer saw 1009', got 'still open'",
        "LIM-1/refused-by-the-running-total": "the end: expected 'peer saw 1009', got 'still open'",
        "LIM-1/refused-in-mid-upload": "the end: expected 'peer saw 1009', got 'peer saw 1005'",
        "LIM-1/smaller-limit-at-once": "still open",
        "LIM-6/held-to-any-limit": "peer saw 1005 or still open",
    },
    "pongs for a peer that does not read pile up in granian's codec, which answers pings by itself": {
        "FLOW-2/a-flood-of-pings": "memory grew",
    },
    "granian takes a message as a whole and does not tell how much of it has left": {
        "LIM-4/slow-is-not-stuck": "ends: expected [], got [CloseReason(code=1008, text='send timeout', initiat",
    },
    "a send that ends with the peer's close may have been written or not: granian says that it was, for both, and that"
    " is not believed": {
        "SEND-6/the-peer-closes-while-sends-wait": (
            "no send returned True for | what follows the messages: expected Close(code=4002, text=''), got Eof("
        ),
    },
}
"""By why, and what was tried: the outcome of each scenario."""

_UP_TO_2_8_7: Mapping[str, Mapping[str, str]] = {
    "with no descriptor left granian up to 2.8.7 goes on trying to accept without a pause, in threads of its own, which"
    " nothing holds back": {
        "STOP-8/no-descriptor-left": "busy with nothing:",
    },
}


DEVIATIONS: Mapping[str, Deviation] = MappingProxyType(
    {
        scenario: Deviation(outcome, tried)
        for tried, outcomes in (
            *_OUTCOMES.items(),
            *(_UP_TO_2_8_7.items() if is_older("granian", (2, 8, 8)) else ()),
        )
        for scenario, outcome in outcomes.items()
    }
)
"""Those of the connector."""
