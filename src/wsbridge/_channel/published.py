"""Which names with an underscore a connector may use of the classes that it derives from, and which are their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CHANNEL", "CONNECTOR", "PAGE", "check_names", "own_names"]

PAGE = "docs/writing-a-connector.md"

CHANNEL: Mapping[str, str] = MappingProxyType(
    {
        "_send_text": "fill",
        "_send_binary": "fill",
        "_close": "fill",
        "_ping": "fill",
        "_pong": "fill",
        "_disconnect": "fill",
        "_aborter": "fill",
        "_unsent_bytes": "fill",
        "_is_full": "fill",
        "_drainable": "fill",
        "_receive": "fill",
        "_read_ahead": "fill",
        "_held_since": "fill",
        "_looked_at": "fill",
        "_let_go": "fill",
        "_nothing_more": "fill",
        "_hold_reading": "fill",
        "_resume_reading": "fill",
        "_flush": "fill",
        "_track": "call",
        "_send_large": "call",
        "_deflated": "call",
        "_written": "call",
        "_arm": "call",
        "_glance": "call",
        "_transport": "set",
        "_phase": "read",
        "_reason": "read",
        "_options": "read",
        "_connector": "read",
        "_write_paused": "read",
        "_timer": "read",
    }
)
"""Of `wsbridge.connector.BaseChannel` and what derives from it."""

CONNECTOR: Mapping[str, str] = MappingProxyType(
    {
        "_start": "fill",
        "_stop": "fill",
        "_stop_listening": "fill",
        "_how_taken": "fill",
        "_cut_answered": "fill",
        "_make_clock": "fill",
        "_make_channel": "fill",
    }
)
"""Of `wsbridge.connector.BaseConnector` and `wsbridge.connector.BaseSource`."""

_OURS = ("wsbridge._channel.", "wsbridge.connector.")


def own_names(kind: type) -> frozenset[str]:
    """Return the names with an underscore that a class has from wsbridge."""
    ours = [base for base in kind.__mro__ if f"{base.__module__}.".startswith(_OURS)]
    return frozenset(name for base in ours for name in vars(base) if name.startswith("_") and not name.endswith("__"))


def check_names(kind: type, published: Mapping[str, str]) -> None:
    """Refuse a connector's class that defines a name of the base's own: it would break the base, or break with it.

    Raises:
        TypeError: Names what it defines, and the page that lists what may be.
    """
    if f"{kind.__module__}.".startswith(_OURS) or getattr(kind, "overrides_internals", False):
        return
    may_define = {name for name, how in published.items() if how in ("fill", "set")}
    if found := sorted((own_names(kind) & vars(kind).keys()) - may_define):
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} defines {', '.join(found)}, which wsbridge keeps for itself; "
            f"choose another name. {PAGE} lists the names that a connector may fill"
        )
