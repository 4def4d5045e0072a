"""Which version of a server is installed, where one does otherwise than the others: asked when a module is imported."""

from __future__ import annotations

import re
from importlib import metadata

from wsbridge.registry import check_range

__all__ = ["check_range", "is_older"]


def is_older(server: str, release: tuple[int, ...]) -> bool:
    """Tell whether the distribution ``server`` is installed in a version before ``release``; False if it is not."""
    try:
        version = metadata.version(server)
    except metadata.PackageNotFoundError:  # who reads what is declared needs no server
        return False
    return tuple(int(number) for number in re.findall(r"\d+", version)[: len(release)]) < release
