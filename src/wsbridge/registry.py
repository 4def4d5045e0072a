"""Finding connectors by their entry points, without importing more than the one that is asked for (REG)."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from types import MappingProxyType
from typing import Any

from wsbridge._common.requirements import Requirement, installed_version, normalized, requirements_of
from wsbridge.errors import (
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    ConnectorVersionError,
    ServerVersionError,
)
from wsbridge.protocols import CONNECTOR_API, CONNECTOR_PAGE, Connector

__all__ = [
    "ENTRY_POINT_GROUP",
    "ConnectorInfo",
    "check_range",
    "connector_infos",
    "connector_names",
    "load_connector",
]

ENTRY_POINT_GROUP = "wsbridge.connectors"

OWN_DISTRIBUTION = "wsbridge"

SERVERS: Mapping[str, str] = MappingProxyType(
    {
        "aiohttp": "aiohttp",
        "websockets": "websockets",
        "tornado": "tornado",
        "picows": "picows",
        "uvicorn": "uvicorn",
        "hypercorn": "hypercorn",
        "granian": "granian",
        "uvicorn-wsproto": "uvicorn",
    }
)
"""The connectors that come with wsbridge, and the distribution of the server that each needs."""

_FOR_TESTS = frozenset(("memory",))


@dataclass(frozen=True, slots=True)
class ConnectorInfo:
    """A connector as its installation describes it; nothing is imported for it.

    Attributes:
        name: The name of the entry point.
        distribution: What registers it.
        version: The version of that distribution.
        value: Where it is, as ``module:Class``.
        server: The distribution of the server that it needs, where that is known.
        server_version: The installed version of that; None if it is not installed or not known.
        requirements: All that it needs, by the metadata of wsbridge; empty for a connector of another distribution.
    """

    name: str
    distribution: str
    version: str
    value: str
    server: str | None
    server_version: str | None
    requirements: tuple[Requirement, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether its server and what else it needs are there, as far as that can be told without importing it."""
        return (self.server is None or self.server_version is not None) and not self.missing

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """What it needs and is not installed."""
        return tuple(requirement for requirement in self.requirements if requirement.installed is None)

    @property
    def problem(self) -> str | None:
        """What is older or newer than what is supported, in one line; None if nothing is (REG-6)."""
        problems = [requirement.problem for requirement in self.requirements]
        return next((problem for problem in problems if problem is not None), None)

    @property
    def serves(self) -> bool:
        """Whether it serves a network, as all do but this distribution's own for tests."""
        return not (self.name in _FOR_TESTS and _same(self.distribution, OWN_DISTRIBUTION))


def connector_infos() -> tuple[ConnectorInfo, ...]:
    """Return what is registered under `ENTRY_POINT_GROUP`, by name; imports none of it (REG-1)."""
    infos = [_info(entry_point) for entry_point in entry_points(group=ENTRY_POINT_GROUP)]
    return tuple(sorted(dict.fromkeys(infos), key=lambda info: (info.name, info.distribution)))


def connector_names(*, installed: bool = False, serving: bool = False) -> tuple[str, ...]:
    """Return the names of the registered connectors; imports none of them (REG-1).

    Args:
        installed: Only those whose server is there.
        serving: Only those that serve a network; ``memory`` does not.
    """
    infos = [
        info for info in connector_infos() if (info.is_installed or not installed) and (info.serves or not serving)
    ]
    return tuple(dict.fromkeys(info.name for info in infos))


def load_connector(connector: str | type[Connector]) -> type[Any]:
    """Return a connector's class.

    Args:
        connector: A name, a name and its distribution as ``name@distribution``, an import path ``module:Class``, or a
            class, which is checked and returned.

    Raises:
        ConnectorNotFoundError: There is none of that name.
        ConnectorConflictError: Two distributions have one of that name.
        ConnectorNotInstalledError: Its server is not installed; the message has the command that installs it.
        ConnectorVersionError: It was written for another version of the connector interface.
        ServerVersionError: A package that it needs is installed in a version that is not supported.
        TypeError: It is not a connector.
        Exception: What its module raised on import.

    REG-1 to REG-6.
    """
    if isinstance(connector, type):
        return _checked(connector, connector.__qualname__)
    if not isinstance(connector, str):
        raise TypeError(f"a connector is a name, 'module:Class' or a class, not {connector!r}")
    if ":" in connector:
        return _checked(_import_path(connector), connector)
    name, _, distribution = connector.partition("@")
    infos = [info for info in connector_infos() if info.name == name]
    if distribution:
        infos = [info for info in infos if _same(info.distribution, distribution)]
    if not infos:
        raise ConnectorNotFoundError(_not_found(connector, name))
    if len(infos) > 1:
        choices = " or ".join(repr(f"{info.name}@{info.distribution}") for info in infos)
        raise ConnectorConflictError(f"more than one distribution has a connector {name!r}; say {choices}")
    return _checked(_load(infos[0]), connector)


def install_command(name: str, server: str) -> str:
    """Return what installs all that the connector ``name`` needs, whose server is ``server`` (REG-3)."""
    if name not in SERVERS:
        return f"pip install {server}"
    packages = [f'"{requirement}"' for requirement in _own_requirements(name)] or [server]
    return f'pip install ".[{name}]" (in a checkout of wsbridge) or pip install {" ".join(packages)}'


def _own_requirements(name: str) -> tuple[Requirement, ...]:
    try:
        return requirements_of(distribution(OWN_DISTRIBUTION), name)
    except PackageNotFoundError:
        return ()  # a source tree that is not installed


def _info(entry_point: EntryPoint) -> ConnectorInfo:
    found = entry_point.dist
    name = "unknown" if found is None else found.metadata["Name"]
    server = SERVERS.get(entry_point.name) if _same(name, OWN_DISTRIBUTION) else None
    return ConnectorInfo(
        name=entry_point.name,
        distribution=name,
        version="unknown" if found is None else found.version,
        value=entry_point.value,
        server=server,
        server_version=None if server is None else installed_version(server),
        requirements=() if server is None or found is None else requirements_of(found, entry_point.name),
    )


def _same(one: str, other: str) -> bool:
    """Compare names of distributions as installers do."""
    return normalized(one) == normalized(other)


def check_range(name: str) -> None:
    """Refuse a server of another version than the extra of a connector of this distribution takes (REG-6).

    Each of these connectors calls it in front of the imports from its server, which would fail for a name by itself.

    Raises:
        ServerVersionError: With the version found, the range, and the command that installs another.
    """
    problems = (requirement.problem for requirement in _own_requirements(name))
    _check_problem(name, SERVERS[name], next((problem for problem in problems if problem is not None), None))


def _check_problem(name: str, server: str, problem: str | None) -> None:
    if problem is not None:
        command = install_command(name, server)
        raise ServerVersionError(f"the connector {name!r} cannot be used: {problem}. Run: {command}")


def _load(info: ConnectorInfo) -> object:
    server = info.server or info.name
    _check_problem(info.name, server, info.problem)
    try:
        return _import_path(info.value)
    except ModuleNotFoundError as exc:
        # only the absence of what it needs is "not installed"; another missing module, the server's own submodules too,
        # is an error of the connector or of the server's version. What needs what is missing fails with other names
        if not info.missing and exc.name != server.replace("-", "_"):
            raise
        names = [needed.name for needed in info.missing] or [exc.name or ""]
        are = "are" if len(names) > 1 else "is"
        raise ConnectorNotInstalledError(
            f"the connector {info.name!r} needs {' and '.join(names)}, which {are} not installed. "
            f"Run: {install_command(info.name, server)}"
        ) from exc


def _import_path(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConnectorNotFoundError(f"{path!r} is no import path; write it as 'module:Class'")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name + ".").startswith(exc.name + "."):
            raise ConnectorNotFoundError(f"there is no module {exc.name!r} to import {path!r} from") from exc
        raise
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise ConnectorNotFoundError(f"module {module_name!r} has no {attribute!r}") from exc
    return found


def _checked(found: object, asked: str) -> type[Any]:
    if not inspect.isclass(found) or not all(hasattr(found, name) for name in ("start", "stop", "connector_api")):
        raise TypeError(
            f"{asked!r} is no connector: it must be a class with start, stop and the like, and with "
            f"connector_api, the version of the connector interface that it was written for (now {CONNECTOR_API})"
        )
    written_for: object = getattr(found, "connector_api")  # noqa: B009  (its type is not known)
    if written_for != CONNECTOR_API:
        raise ConnectorVersionError(
            f"the connector {asked!r} was written for version {written_for} of the connector interface; "
            f"this wsbridge has version {CONNECTOR_API}. {CONNECTOR_PAGE} tells what has changed"
        )
    if missing := ", ".join(sorted(getattr(found, "__abstractmethods__", ()))):
        raise TypeError(f"the connector {asked!r} lacks {missing}; {CONNECTOR_PAGE} tells what is to be filled")
    return found


def _not_found(asked: str, name: str) -> str:
    infos = connector_infos()
    known = sorted({info.name for info in infos} | set(SERVERS))
    closest = difflib.get_close_matches(name, known, n=1)
    installed = ", ".join(sorted({info.name for info in infos if info.is_installed})) or "none"
    could_be = ", ".join(sorted(set(known) - {info.name for info in infos if info.is_installed})) or "none"
    hint = f" Did you mean {closest[0]!r}?" if closest and closest[0] != name else ""
    return f"there is no connector {asked!r}.{hint} Installed: {installed}. Could be installed: {could_be}."
