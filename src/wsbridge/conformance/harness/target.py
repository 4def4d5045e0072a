"""What can be checked: a connector by name, import path or class, or a running server by its URL."""

from __future__ import annotations

import asyncio
import importlib
import platform
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from wsbridge.conformance.harness.conditions import PLAIN, Conditions
from wsbridge.conformance.harness.preflight import BrokenTargetError, TargetError, server_name
from wsbridge.errors import (
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    ConnectorVersionError,
)
from wsbridge.protocols import Connector, Deviation, Feature
from wsbridge.registry import connector_infos, load_connector

__all__ = ["BrokenTargetError", "SuiteTarget", "TargetError", "TargetInfo", "describe", "is_url", "resolve", "spec_of"]

_NEUTRAL: Mapping[Feature, Mapping[str, Any]] = MappingProxyType(
    {"ping": {"ping_interval": None}, "size-limit": {"max_text_size": None, "max_binary_size": None}}
)
"""What a connector that lacks a feature lets through instead of the default."""


@dataclass(frozen=True, slots=True)
class SuiteTarget:
    """What is checked: a connector's class, or the URL of a running server.

    Attributes:
        name: As it stands in reports.
        connector: The class, or None for a URL.
        url: The URL, or "".
        conditions: What holds for the event loop of each check.
    """

    name: str
    connector: type[Any] | None = None
    url: str = ""
    conditions: Conditions = PLAIN

    @property
    def features(self) -> frozenset[str]:
        """The features that the connector declares; none for a URL, where they cannot be seen."""
        return frozenset() if self.connector is None else frozenset(self.connector.features)

    @property
    def has_wire(self) -> bool:
        """Whether bytes go over sockets; without them a check is one of calls, see `MemoryLink`."""
        return bool(getattr(self.connector, "has_wire", True))

    @property
    def has_tls(self) -> bool:
        """Whether its server takes an `ssl.SSLContext`."""
        return bool(getattr(self.connector, "has_tls", True))

    @property
    def neutral(self) -> dict[str, Any]:
        """The options that must be given, since the connector lacks what their defaults need."""
        if self.connector is None:
            return {}
        lacking = [options for feature, options in _NEUTRAL.items() if feature not in self.features]
        return {name: value for options in lacking for name, value in options.items()}

    @property
    def deviations(self) -> Mapping[str, Deviation]:
        """What the connector declares to do differently."""
        return MappingProxyType({}) if self.connector is None else self.connector.deviations

    @property
    def loses_close_text(self) -> bool:
        """Whether the connector declares that the text of a peer's close is lost, for checks of something else."""
        return "CLOSE-7/the-peer-closed-with-a-code" in self.deviations

    @property
    def hides_violations(self) -> bool:
        """Whether the connector declares that a violation reads as an empty close, for checks of something else."""
        return "CLOSE-7/a-violation" in self.deviations


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What a report says of a target.

    Attributes:
        name: The name, import path or URL, as it was asked for.
        kind: ``connector`` or ``url``.
        location: Where the class is, as ``module:Class``; the ``Server`` header for a URL.
        features: What the connector declares to have.
        deviations: What it declares to do differently, by scenario: the outcome, and why it could not be worked around.
        packages: The distributions that it comes from and rests on, with their versions.
        python: The version of Python.
        platform: The system that the suite ran on.
    """

    name: str
    kind: str
    location: str = ""
    features: list[str] = field(default_factory=list[str])
    deviations: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    packages: dict[str, str] = field(default_factory=dict[str, str])
    python: str = ""
    platform: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def is_url(spec: str) -> bool:
    """Tell whether ``spec`` is a URL rather than the name of a connector."""
    return "://" in spec


def spec_of(connector: type[Any]) -> str:
    """Return the import path of a class, or "" if it cannot be imported by one."""
    path = f"{connector.__module__}:{connector.__qualname__}"
    found: Any = sys.modules.get(connector.__module__)
    for part in connector.__qualname__.split("."):
        found = getattr(found, part, None)
    return path if found is connector and connector.__module__ != "__main__" else ""


def resolve(target: str | type[Connector]) -> SuiteTarget:
    """Return what is to be checked; the connector is imported.

    Raises:
        TargetError: There is no such connector, or the URL cannot be connected to.
        BrokenTargetError: The connector's module cannot be imported.
    """
    if isinstance(target, str) and is_url(target):
        return SuiteTarget(target, url=_checked_url(target))
    name = target if isinstance(target, str) else target.__qualname__
    try:
        if isinstance(target, str) and ":" in target:
            _import_module(target.partition(":")[0])
        return SuiteTarget(name, load_connector(target))
    except (
        ConnectorNotFoundError,
        ConnectorConflictError,
        ConnectorNotInstalledError,
        ConnectorVersionError,
    ) as exc:
        raise TargetError(str(exc)) from exc
    except TypeError as exc:
        if not isinstance(target, str) or ":" in target:  # it was imported before: the class is not a connector
            raise TargetError(str(exc)) from exc
        raise _broken(exc) from exc
    except (Exception, SystemExit, asyncio.CancelledError) as exc:
        raise _broken(exc) from exc


def _import_module(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise  # another module is missing; the absence of this one is told by `load_connector`
    except ValueError:
        pass  # no name of a module: told by `load_connector` too


def _broken(exc: BaseException) -> BrokenTargetError:
    """Return the error for a module that raises; its one line tells the place, since that is all that most will see."""
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    message = " ".join(f"the connector cannot be imported: {type(exc).__name__}: {exc}{where}".split())
    return BrokenTargetError(message, "".join(traceback.format_exception(exc)))


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as exc:
        raise TargetError(f"{url!r} is no URL: {exc}") from exc
    if parts.scheme != "ws" or not parts.hostname:
        raise TargetError(f"{url!r} must be written as ws://host:port")
    if parts.query or parts.fragment or parts.username or port == 0:
        raise TargetError(f"{url!r} must be ws://host:port, with a path at most")
    return url


def describe(target: SuiteTarget, name: str, *, scale: float = 1.0) -> TargetInfo:
    """Return what a report says of ``target``; a running server is asked for the reference application.

    Raises:
        TargetError: Nobody is at the URL, or it serves no reference application.
        BrokenTargetError: The connector's attributes are not those of a connector.
    """
    python, system = platform.python_version(), platform.platform()
    if target.connector is None:
        server = asyncio.run(server_name(target.url, scale))
        return TargetInfo(name, "url", server, packages=_versions("wsbridge"), python=python, platform=system)
    try:
        deviations = {scenario: asdict(deviation) for scenario, deviation in sorted(target.deviations.items())}
        features = sorted(target.features)
    except Exception as exc:
        raise _broken(exc) from exc
    location = f"{target.connector.__module__}:{target.connector.__qualname__}"
    packages = _packages(name, target.connector)
    return TargetInfo(name, "connector", location, features, deviations, packages, python, system)


def _packages(name: str, connector: type[Any]) -> dict[str, str]:
    """Return the versions of wsbridge, of the server, and of the distribution that the connector comes from."""
    wanted = ["wsbridge"]
    plain, _, distribution = name.partition("@")
    infos = [info for info in connector_infos() if info.name == plain and distribution in ("", info.distribution)]
    for info in infos:
        if info.server is None:
            wanted += _with_requirements(info.distribution)
        else:
            wanted += [needed.name for needed in info.requirements] or [info.server]
    if not infos:
        module = connector.__module__.partition(".")[0]
        for found in metadata.packages_distributions().get(module, []):
            wanted += _with_requirements(found)
    return _versions(*wanted)


def _with_requirements(distribution: str) -> list[str]:
    """Return a distribution and those that it requires itself, its extras left out."""
    required = metadata.requires(distribution) or []
    names = [text.replace("(", " ").split(";")[0] for text in required if "extra ==" not in text]
    stripped = [name.split("[")[0].translate(str.maketrans("<>=!~@", "      ")).split() for name in names]
    return [distribution, *(words[0] for words in stripped if words)]


def _versions(*distributions: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in dict.fromkeys(distributions):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
