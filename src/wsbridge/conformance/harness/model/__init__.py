"""The random model: Hypothesis plays sequences of what peers and an application do, at two channels of one server.

What the application saw is held to the grammar ``open (text | binary)* error* close``, the messages to what was sent,
on both sides, the reason to what happened first, the answer to each handshake to how many channels there are, and more
(RECV-4, RECV-5, RECV-7, SEND-1, SEND-6, SEND-8, CLOSE-3, CLOSE-4, CLOSE-7, CLOSE-10, ERR-1, LIM-1, LIM-2, HS-11, HS-12,
CTX-2, CTX-6, STREAM-2 to STREAM-4). A failing sequence is shrunk to a short one, and told in words.

`drawn` is what is drawn, `machine` the steps, `play` the server and its application, `line` one channel, `judgement`
what is held against it, `story` what is told of a failure.
"""

from wsbridge.conformance.harness.model.run import run_model

__all__ = ["run_model"]
