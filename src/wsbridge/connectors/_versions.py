"""Which version of a server is installed, for what an old one does otherwise."""

from __future__ import annotations

import re
from importlib import metadata

__all__ = ["version_of"]


def version_of(distribution: str) -> tuple[int, ...]:
    """Return the numbers of a version, as ``(6, 4, 2)``; those of one that is newer than any if none is installed."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:  # who reads what is declared needs no server
        return (1_000_000,)
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
