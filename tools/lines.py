"""JSON of which each line is one entry, so that a difference shows what has changed, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["as_lines"]


def as_lines(value: Any, depth: int = 1) -> str:
    """Return JSON in which what lies ``depth`` levels deep, and all that is in it, is one line."""
    return _laid_out(value, depth, "\n") + "\n"


def _laid_out(value: Any, depth: int, newline: str) -> str:
    if depth == 0 or not value or not isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    inner = f"{newline} "
    if isinstance(value, Mapping):
        entries = [
            f"{json.dumps(key, ensure_ascii=False)}: {_laid_out(entry, depth - 1, inner)}"
            for key, entry in cast("Mapping[str, Any]", value).items()
        ]
        return f"{{{inner}{f',{inner}'.join(entries)}{newline}}}"
    entries = [_laid_out(entry, depth - 1, inner) for entry in cast("list[Any]", value)]
    return f"[{inner}{f',{inner}'.join(entries)}{newline}]"
