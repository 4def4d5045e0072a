"""permessage-deflate (RFC 7692): what a server may choose, and what is sent deflated. wsproto does the work."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, RsvBits

from wsbridge.conformance.client.errors import WireViolation
from wsbridge.conformance.client.http import listed

__all__ = ["PerMessageDeflate", "chosen", "deflated"]

_PARAMETER = re.compile(r"(client|server)_no_context_takeover|(client|server)_max_window_bits=(8|9|1[0-5])")
_CLIENT = FrameProtocol(client=True, extensions=[])
_NO_RSV = RsvBits(False, False, False)


def chosen(offered: Sequence[str], accepted: Sequence[str]) -> PerMessageDeflate | None:
    """Check the server's choice against the offer (section 7.1), and return it.

    Args:
        offered: The values of the request's ``Sec-WebSocket-Extensions``.
        accepted: Those of the response's.

    Raises:
        WireViolation: The choice does not answer the offer.
    """
    choices = listed(accepted)
    if not choices:
        return None
    offers = [listed([offer], ";") for offer in listed(offered)]
    deflates = [offer[1:] for offer in offers if offer[0] == "permessage-deflate"]
    name, *parameters = listed(choices[:1], ";")
    names = [parameter.partition("=")[0] for parameter in parameters]
    may_bits = any(p.startswith("client_max_window_bits") for offer in deflates for p in offer)
    good = (
        (len(choices), name) == (1, "permessage-deflate")
        and bool(deflates)
        and len(names) == len(set(names))
        and all(_PARAMETER.fullmatch(parameter) for parameter in parameters)
        and (may_bits or "client_max_window_bits" not in names)
    )
    if not good:
        raise WireViolation(f"in the 101, the extensions {choices} do not answer the offer {offers}")
    extension = PerMessageDeflate()
    extension.finalize(choices[0])
    return extension


def deflated(extension: PerMessageDeflate, opcode: int, payload: bytes, *, fin: bool) -> tuple[int, bytes]:
    """Return a frame's reserved bits, 0 to 7, and its payload, as the extension has them."""
    rsv, data = extension.frame_outbound(_CLIENT, Opcode(opcode), _NO_RSV, payload, fin)
    return 4 * rsv.rsv1, data
