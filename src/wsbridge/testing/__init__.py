"""Tests without a socket: `connect` gives the client's end of a channel, in the event loop of the test.

```python
async with wsbridge.testing.connect(app, "/echo") as peer:
    await peer.send("hello")
    assert await peer.receive() == "hello"
```

The application's end is that of the connector ``memory``: closes, back-pressure and timeouts are real. No wait is for
ever, and what the application raises is not lost.
"""

from wsbridge.connectors.memory import Answer
from wsbridge.testing.connecting import App, Connecting, HandshakeRefusedError, connect, request
from wsbridge.testing.connections import Connections, ConnectOptions
from wsbridge.testing.peer import Peer

__all__ = [
    "Answer",
    "App",
    "ConnectOptions",
    "Connecting",
    "Connections",
    "HandshakeRefusedError",
    "Peer",
    "connect",
    "request",
]
