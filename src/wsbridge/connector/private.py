"""A server's private names, which a connector uses where nothing public is to be had, looked up when it is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from types import MappingProxyType, ModuleType
from typing import Any

from wsbridge._common.requirements import installed_version

__all__ = ["server_names"]


def server_names(server: str, supported: str, private: Mapping[str, str]) -> Mapping[str, Any]:
    """Make sure that the installed version of a server has the private names that a connector uses of it.

    Each connector has one table of them, ``_PRIVATE``, and calls this where its module is imported, so that a version
    that has changed is refused at once, and not by an `AttributeError` in the middle of a channel's life::

        _PRIVATE = {
            "tornado.websocket:WebSocketProtocol13": "_abort _write_frame",  # a class
            "aiohttp._websocket.writer": "WEBSOCKET_MAX_SYNC_CHUNK_SIZE",  # a module
            "websockets.server:ServerProtocol": "max_message_size|max_size",  # one of the two
        }
        _FOUND = server_names("tornado", "6.4 to 6.6", _PRIVATE)

    What others share with a connector, such as the names of a library under its server, has a table of its own where
    it is used. Public names that nobody documents belong in the table too.

    Args:
        server: The name of its distribution.
        supported: The versions that the connector is for, as the error says them.
        private: By the module or the class that has them, as an import path, its names with blanks between them. A
            class has what its objects get in ``__init__`` too. Of alternatives, ``one|other``, one is enough.

    Returns:
        The values of the names that are a module's own, by name.

    Raises:
        ImportError: Names server, version and what is missing, and says which versions are supported.
    """
    missing: list[str] = []
    found: dict[str, Any] = {}
    for path, names in private.items():
        try:
            owner: Any = resolve_name(path)
        except (ImportError, AttributeError):
            missing.append(path)
            continue
        for alternatives in names.split():
            there = [name for name in alternatives.split("|") if _has(owner, name)]
            if not there:
                missing.append(f"{path}{'.' if ':' in path else ':'}{alternatives}")
            elif isinstance(owner, ModuleType):
                found |= {name: getattr(owner, name) for name in there}
    if missing:
        version = installed_version(server) or "(of an unknown version)"
        raise ImportError(
            f"{server} {version} lacks {', '.join(missing)}, which the connector needs; it is for {supported}"
        )
    return MappingProxyType(found)


def _has(owner: Any, name: str) -> bool:
    return hasattr(owner, name) or (isinstance(owner, type) and name in _set_by_init(owner))


def _set_by_init(kind: type) -> Iterator[str]:
    """Yield the names in the code of a class's ``__init__`` and those of its bases, as far as it is Python's."""
    for base in kind.__mro__:
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if code is not None:
            yield from code.co_names
