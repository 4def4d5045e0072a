"""The answer to an HTTP/1 request after which the connection ends, for servers whose own HTTP has none."""

from __future__ import annotations

import email.utils
from http.client import responses

from wsbridge import Response
from wsbridge.connector import closing, content_of

__all__ = ["final_response"]


def final_response(response: Response, method: str) -> bytes:
    """Return ``response`` to a request by ``method`` as it stands on the wire; the connection ends after it.

    Raises:
        UnicodeEncodeError: A header is not latin-1.
    """
    lines = [f"HTTP/1.1 {response.status_code} {responses.get(response.status_code, '')}"]
    names: set[str] = set()
    for name, value in closing(response).headers:
        lower = name.lower()
        if lower not in ("content-length", "transfer-encoding"):
            names.add(lower)
            lines.append(f"{name}: {value}")
    if "date" not in names:
        lines.append(f"Date: {email.utils.formatdate(usegmt=True)}")
    length, content = content_of(response, method)
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + content
