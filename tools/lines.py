"""JSON with one entry a line, so that a diff shows what has changed, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

__all__ = ["as_lines"]

_NOTHING: Mapping[str, int] = MappingProxyType({})


def as_lines(value: Any, depth: int = 1, deeper: Mapping[str, int] = _NOTHING) -> str:
    """Return JSON in which everything ``depth`` levels deep, with all that is in it, is one line.

    Args:
        value: Plain data.
        depth: How deep the lines are: 1 for a line for each entry.
        deeper: How much deeper they are in some entries of an object, by their keys.
    """
    return _laid_out(value, depth, deeper, "\n") + "\n"


def _laid_out(value: Any, depth: int, deeper: Mapping[str, int], newline: str) -> str:
    if depth == 0 or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    inner = f"{newline} "
    if isinstance(value, dict):
        entries: list[str] = []
        for key, entry in cast("Mapping[str, Any]", value).items():
            written = _laid_out(entry, depth - 1 + deeper.get(key, 0), _NOTHING, inner)
            entries.append(f"{json.dumps(key, ensure_ascii=False)}: {written}")
        return f"{{{inner}{f',{inner}'.join(entries)}{newline}}}"
    entries = [_laid_out(entry, depth - 1, _NOTHING, inner) for entry in cast("Sequence[Any]", value)]
    return f"[{inner}{f',{inner}'.join(entries)}{newline}]"
