"""Which names a connector may define of the classes that it derives from, and which are their own."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import cast

from wsbridge.protocols import CONNECTOR_PAGE

__all__ = ["CHANNEL", "CONNECTOR", "all_names", "check_members", "check_names", "own_names"]

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
        "closed_errors": "set",
        "is_pulled": "set",
        "small": "set",
        "overrides_internals": "set",
        "look_for_end": "fill",
        "half_closed": "fill",
    }
)
"""Of `wsbridge.connector.BaseChannel` and what derives from it.

Those with an underscore that are not here are not to be used at all. Those without one that are not here are to be
called or read.
"""

CONNECTOR: Mapping[str, str] = MappingProxyType(
    {
        "_start": "fill",
        "_stop": "fill",
        "_stop_listening": "fill",
        "_how_taken": "fill",
        "_cut_answered": "fill",
        "_make_clock": "fill",
        "_make_channel": "fill",
        "name": "set",
        "connector_api": "set",
        "features": "set",
        "close_keywords": "set",
        "deviations": "set",
        "native_option_names": "set",
        "compression_settings": "set",
        "mount_harness": "set",
        "has_tls": "set",
        "has_wire": "set",
        "keeps_answered": "set",
        "overrides_internals": "set",
        "check_options": "fill",
        "prepare_process": "fill",
    }
)
"""Of `wsbridge.connector.BaseConnector` and `wsbridge.connector.BaseSource`; see `CHANNEL`."""

_OURS = ("wsbridge._channel.", "wsbridge.connector.")


def own_names(kind: type) -> frozenset[str]:
    """Return the names with an underscore that a class has from wsbridge."""
    return frozenset(name for name in all_names(kind) if name.startswith("_"))


def all_names(kind: type) -> frozenset[str]:
    """Return all names that a class has from wsbridge, with an underscore or without one, but for those of Python."""
    ours = [base for base in kind.__mro__ if _is_ours(base)]
    return frozenset(name for base in ours for name in vars(base) if not _is_of_python(name))


def check_names(kind: type, published: Mapping[str, str]) -> None:
    """Refuse a connector's class that redefines a name of the base's own: it would break the base, or break with it.

    What stands before the base among the classes that it derives from counts as well, such as a class of its server.

    Raises:
        TypeError: Names what it defines, and the page that lists what may be.
    """
    if _is_ours(kind) or getattr(kind, "overrides_internals", False):
        return
    kept = all_names(kind) - {name for name, how in published.items() if how in ("fill", "set")}
    found: dict[str, type] = {}
    for base in kind.__mro__:
        named = kept & vars(base).keys()
        if not _is_ours(base):
            found |= dict.fromkeys(named, base)
        kept -= named
    if found:
        names = (name if base is kind else f"{name} (in {base.__qualname__})" for name, base in sorted(found.items()))
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} defines {', '.join(names)}, which wsbridge keeps for itself; "
            f"choose another name. {CONNECTOR_PAGE} lists the names that a connector may fill"
        )


def check_members(kind: type, attribute: str, known: Iterable[str] | None) -> None:
    """Refuse a connector's class one of whose sets of names is not one, or has a name in it that there is not.

    Args:
        kind: The class.
        attribute: The set's name.
        known: What it may hold; None: anything that is a str.

    Raises:
        TypeError: Names it, what may have been meant, and the page that tells of it.
    """
    given: object = getattr(kind, attribute)
    where = f"{kind.__module__}.{kind.__qualname__}.{attribute}"
    if isinstance(given, str) or not isinstance(given, Collection):
        raise TypeError(f"{where} must be a frozenset of names, not {given!r}; {CONNECTOR_PAGE} tells what it may hold")
    if known is None:
        return
    known = sorted(known)
    for name in sorted(map(str, cast("Collection[object]", given))):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, known))}."
            raise TypeError(f"{where} has {name!r}, which is unknown; {meant} {CONNECTOR_PAGE} tells of each")


def _is_ours(kind: type) -> bool:
    return f"{kind.__module__}.".startswith(_OURS)


def _is_of_python(name: str) -> bool:
    return name.endswith("__") or name.startswith("_abc_")
