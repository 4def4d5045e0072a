"""What connectors do otherwise than the contract, and what was tried (CLOSE-8): the document is written from this.

It imports no server, so that it can be read without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wsbridge.connector import Deviation
from wsbridge.connectors._granian_deviations import DEVIATIONS as GRANIAN
from wsbridge.connectors._versions import is_older

__all__ = ["AIOHTTP", "DEVIATIONS"]

_AIOHTTP_READER: Mapping[str, Deviation] = MappingProxyType(
    {
        "RECV-9/unmasked-frame": Deviation(
            "delivered", "the compiled reader checks no masks, and no hook sees a frame before it is unmasked"
        ),
        "RECV-9/message-in-empty-fragment": Deviation(
            "delivered", "the compiled reader takes an empty first fragment for none, and no hook sees fragments"
        ),
    }
)
"""Not before 3.14.4, whose limits do not hold, so that heads are looked at before its reader."""

_AIOHTTP_INFLATER: Mapping[str, Deviation] = MappingProxyType(
    {
        "FRAME-42/messages-behind-bfinal": Deviation(
            "the echo: expected 'deflate",
            "before 3.14 the compiled reader does not make its inflater anew after a block with BFINAL, and what comes"
            " after it is empty; to inflate in front of it has not been tried",
        ),
    }
)

AIOHTTP: Mapping[str, Deviation] = MappingProxyType(
    {
        **({} if is_older("aiohttp", (3, 14, 4)) else _AIOHTTP_READER),
        **(_AIOHTTP_INFLATER if is_older("aiohttp", (3, 14)) else {}),
        "SEND-9/inflated-outside-the-event-loop": Deviation(
            "in the event loop",
            "the compiled reader inflates a message at once, for 4 ms a MiB, by an inflater that it makes itself; to"
            " inflate the large ones in front of it the small ones would have to be, too, in Python, since they share"
            " a window",
        ),
    }
)

DEVIATIONS: Mapping[str, Mapping[str, Deviation]] = MappingProxyType({"aiohttp": AIOHTTP, "granian": GRANIAN})
"""By the connector's name, those of each that declares any."""
