"""Which versions there are of a server, and which of them are tried."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from wsbridge._common.requirements import Requirement, normalized

__all__ = ["CONNECTORS", "Version", "chosen", "ends", "order", "range_of", "released", "requirements", "version"]

CONNECTORS: Mapping[str, str] = MappingProxyType(
    {
        "aiohttp": "aiohttp",
        "websockets": "websockets",
        "tornado": "tornado",
        "picows": "picows",
        "uvicorn": "uvicorn",
        "uvicorn-wsproto": "uvicorn",
        "hypercorn": "hypercorn",
        "granian": "granian",
    }
)
"""The distribution whose versions are tried for each connector."""

Version = tuple[int, ...]

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def version(text: str) -> Version | None:
    """Return the numbers of a release; None for a pre-release and whatever else is no plain version."""
    match = re.fullmatch(r"(\d+(?:\.\d+)*)(?:\.post\d+)?", text)
    return None if match is None else tuple(map(int, match[1].split(".")))


def requirements(root: Path, extra: str) -> dict[str, str]:
    """Return what an extra of ``pyproject.toml`` asks for: which versions will do, by the name of a distribution."""
    lines: Sequence[str] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ][extra]
    found: dict[str, str] = {}
    for line in lines:
        name = _NAME.match(line)
        assert name is not None
        found[normalized(name[0])] = line[name.end() :]
    return found


def range_of(root: Path, connector: str) -> str:
    """Return the versions that the extra of a connector takes of its server."""
    return requirements(root, connector)[CONNECTORS[connector]]


def released(distribution: str) -> list[str]:
    """Return the releases that the index has, the oldest first, as pip finds them for this Python.

    Raises:
        RuntimeError: pip could not ask.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", distribution, "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"`pip index versions {distribution}` found nothing: {done.stderr.strip()[-500:]}")
    return sorted((text.strip() for text in found[1].split(",") if version(text.strip())), key=order)


def order(text: str) -> Version:
    """Return what releases are sorted by."""
    numbers = version(text)
    assert numbers is not None
    return numbers


def chosen(releases: Iterable[str], specifier: str) -> list[str]:
    """Return of the releases that ``specifier`` takes the first and the last patch of each minor release."""
    within = [text for text in releases if Requirement("", specifier, text).problem is None]
    found: list[str] = []
    for _, group in groupby(sorted(within, key=order), lambda text: (*order(text), 0)[:2]):
        patches = list(group)
        found += patches[:1] if len(patches) == 1 else [patches[0], patches[-1]]
    return found


def ends(versions: Sequence[str]) -> list[str]:
    """Return the oldest and the newest."""
    return list(dict.fromkeys((*versions[:1], *versions[-1:])))
