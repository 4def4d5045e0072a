"""What an extra of a distribution asks for, by its own metadata, and what of that is installed (REG-3, REG-6).

Only what this project writes there is understood: names, versions of numbers, ``>=``, ``<``, and extras; no packaging
tool is needed at run time for it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, version
from types import MappingProxyType

__all__ = ["Requirement", "normalized", "requirements_of"]

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)\s*\(?(?P<specifier>(?:[<>]=?[\w.]+,?\s*)*)\)?\s*;\s*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]"
)
_BOUND = re.compile(r"(<=|>=|<|>)([\w.]+)")
_COMPARE: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution that an extra asks for.

    Attributes:
        name: Its name, as the metadata writes it.
        specifier: The versions that will do, such as ``>=2.2,<3``, the lower bound first; empty: any.
        installed: The version that is installed, or None.
    """

    name: str
    specifier: str
    installed: str | None

    def __str__(self) -> str:
        return f"{self.name}{self.specifier}"

    @property
    def problem(self) -> str | None:
        """What is wrong with the version that is installed, in one line; None if nothing is, or it is not there."""
        if self.installed is None:
            return None
        release = _release(self.installed)
        for comparison, bound in _BOUND.findall(self.specifier):
            if not _COMPARE[comparison](release, _release(bound)):
                age = "newer" if comparison.startswith("<") else "older"
                return f"{self.name} {self.installed} is {age} than what is supported ({self})"
        return None


def requirements_of(distribution: Distribution, extra: str) -> tuple[Requirement, ...]:
    """Return what ``extra`` asks for beside the distribution itself, in the order of the metadata.

    Other extras that it names stand in the metadata with all that they ask for, as build backends write it.
    """
    lines = map(_LINE.fullmatch, map(str.strip, distribution.requires or ()))
    return tuple(
        Requirement(line["name"], _ordered(line["specifier"]), installed_version(line["name"]))
        for line in lines
        if line is not None and normalized(line["extra"]) == normalized(extra)
    )


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def normalized(name: str) -> str:
    """Return a name as installers compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _ordered(specifier: str) -> str:
    """Return a specifier as people write it; build backends sort its bounds by their characters."""
    return ",".join(sorted(specifier.replace(" ", "").split(","), key=lambda bound: bound.startswith("<")))


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers of a version without zeros at the end; a pre-release counts as its release."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
