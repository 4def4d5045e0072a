"""The known-failing file: what is known to fail, why, and where that is tracked."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Known", "KnownFailing", "load_known_failing", "matching"]


@dataclass(frozen=True, slots=True)
class Known:
    """One entry.

    Attributes:
        id: The id of a check, or of a rule, all of whose failures are then known.
        reason: Why it fails.
        link: Where that is tracked; may be "".
    """

    id: str
    reason: str
    link: str = ""


KnownFailing = Mapping[str, Known]
"""The entries by their ids."""


def load_known_failing(source: str | Path | Mapping[str, Any]) -> dict[str, Known]:
    """Read a known-failing file, or the same as a mapping.

    The file is TOML with one table for each entry, named by a check or a rule::

        ["HS-4/a-repeated-key"]
        reason = "taken for one key; the second is ignored"
        link = "https://example.org/issues/1"

    Raises:
        ValueError: It is not TOML, or an entry lacks its reason or has an unknown key.
        OSError: The file cannot be read.
    """
    if isinstance(source, Mapping):
        data, where = dict(source), "known_failing"
    else:
        where = str(source)
        try:
            data = tomllib.loads(Path(source).read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as exc:
            raise ValueError(f"{where} is no TOML: {exc}") from exc
    return {id: _entry(id, value, where) for id, value in data.items()}


def _entry(id: str, value: Any, where: str) -> Known:
    if isinstance(value, Known):
        return value
    if isinstance(value, str):
        value = {"reason": value}
    fields: dict[str, Any] = {**value} if isinstance(value, Mapping) else {}
    reason, link = fields.pop("reason", ""), fields.pop("link", "")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"{where}: {id} needs a reason")
    if fields:
        raise ValueError(f"{where}: {id} has {next(iter(fields))!r}, but an entry has only reason and link")
    return Known(id, reason, str(link))


def matching(wanted: str, id: str) -> bool:
    """Tell whether ``wanted``, a check, a rule or a group of rules, takes in the check ``id``."""
    rule = id.partition("/")[0]
    return wanted in (id, rule, rule.rpartition("-")[0])


def closest(wanted: str, ids: Iterable[str]) -> str:
    """Return a hint at what may have been meant by an id that there is not."""
    known = {name for id in ids for name in (id, id.partition("/")[0], id.partition("/")[0].rpartition("-")[0])}
    near = difflib.get_close_matches(wanted, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
