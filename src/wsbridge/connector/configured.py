"""What a connector is and takes: its attributes, its options, and what it refuses of both."""

from __future__ import annotations

import logging
import socket
import ssl as ssl_module
import sys
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, ClassVar

from wsbridge._channel.published import CONNECTOR, check_members, check_names
from wsbridge._common.proxies import parse_networks
from wsbridge.application import Application
from wsbridge.connector.sockets import check_sockets, is_unix
from wsbridge.connector.unix import parse_owner
from wsbridge.errors import UnsupportedOptionError
from wsbridge.options import Compression, WebSocketOptions, check_seconds
from wsbridge.protocols import CONNECTOR_API, Deviation, Feature

__all__ = ["ALL_FEATURES", "Configured"]

logger = logging.getLogger("wsbridge")

ALL_FEATURES: frozenset[Feature] = frozenset(("size-limit", "ping", "compression", "unix-socket", "fragments", "mount"))
_SETTINGS = tuple(field.name for field in fields(Compression))
_LEAST_HEAD = 1024  # bytes: no handshake of a browser is larger without cookies


class Configured(ABC):
    """The part of a connector that its class attributes and its options make."""

    name: ClassVar[str]
    close_keywords: ClassVar[Mapping[int, str]] = MappingProxyType({})
    features: ClassVar[frozenset[Feature]] = ALL_FEATURES - {"fragments", "mount"}
    deviations: ClassVar[Mapping[str, Deviation]] = MappingProxyType({})
    connector_api: ClassVar[int]
    """The `CONNECTOR_API` that it was written for, as a number of its own: inherited it would say nothing (REG-5)."""
    compression_settings: ClassVar[frozenset[str]] = frozenset()
    """The fields of `Compression` that its server lets be set."""
    native_option_names: ClassVar[frozenset[str]] = frozenset()
    """What ``native_options`` may hold."""
    has_wire: ClassVar[bool] = True
    """Whether it has sockets, and bytes go over them; one that has none is for tests in one process."""
    keeps_answered: ClassVar[bool] = False
    """Whether `answering` gets names of connections, which nobody else keeps."""
    mount_harness: ClassVar[str | None] = None
    """What shows its mount to the suite, an import path, ``module:function``: a `wsbridge.conformance.mounts.Harness`.

    Needed with the feature ``"mount"``; nothing but the suite imports it.
    """
    has_tls: ClassVar[bool] = True
    """Whether its server takes an `ssl.SSLContext`."""
    overrides_internals: ClassVar[bool] = False
    """Whether a class may redefine what is not published: for tests of wsbridge itself."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if getattr(cls, "connector_api", CONNECTOR_API) != CONNECTOR_API:
            return  # the registry refuses it by its version, which says more (REG-5)
        check_names(cls, CONNECTOR)
        check_members(cls, "features", ALL_FEATURES)
        check_members(cls, "compression_settings", _SETTINGS)
        check_members(cls, "native_option_names", None)

    def __init__(
        self,
        app: Application,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | None = None,
        unix_mode: int | None = None,
        unix_owner: str | None = None,
        sockets: Sequence[socket.socket] = (),
        ssl: ssl_module.SSLContext | None = None,
        reuse_port: bool = False,
        max_channels: int | None = None,
        handshake_timeout: float = 10,
        shutdown_timeout: float = 10,
        max_head_size: int = 64 * 1024,
        trusted_proxies: tuple[str, ...] | list[str] = (),
        native_options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not isinstance(app, Application):
            raise TypeError(f"app must be an Application, not {type(app).__name__}")
        _check_type("host", host, str)
        _check_int("port", port, 0, 65535)
        _check_type("unix_path", unix_path, str, optional=True)
        if unix_mode is not None:
            _check_int("unix_mode", unix_mode, 0, 0o777)
        _check_type("unix_owner", unix_owner, str, optional=True)
        _check_type("ssl", ssl, ssl_module.SSLContext, optional=True)
        _check_type("reuse_port", reuse_port, bool)
        _check_int("max_channels", max_channels, 1, None)
        check_seconds("handshake_timeout", handshake_timeout)
        check_seconds("shutdown_timeout", shutdown_timeout)
        _check_int("max_head_size", max_head_size, _LEAST_HEAD, sys.maxsize)
        _check_type("native_options", native_options, Mapping)
        self.app = app
        self.host = host
        self.port = port
        self.unix_path = unix_path
        check_sockets(sockets)
        self.sockets = tuple(sockets)
        self.unix_mode = unix_mode
        self.unix_owner = unix_owner
        self._owner = None if unix_owner is None else parse_owner(unix_owner)
        self.ssl = ssl
        self.reuse_port = reuse_port
        self.max_channels = max_channels
        self.handshake_timeout = float(handshake_timeout)
        self.shutdown_timeout = float(shutdown_timeout)
        self.max_head_size = max_head_size
        self.native_options = dict(native_options)
        self._trusted = parse_networks(trusted_proxies)
        self._set_up()
        if unix_path is not None and "unix-socket" not in self.features:
            raise self.unsupported("unix_path", "its server cannot serve a Unix socket")
        if "unix-socket" not in self.features and any(map(is_unix, self.sockets)):
            raise self.unsupported("sockets", "its server cannot serve a Unix socket, and one of them is one")
        if self.sockets and (unix_path is not None or port or reuse_port or host != "127.0.0.1"):
            raise ValueError("sockets are bound already: leave out host, port, unix_path and reuse_port")
        if unix_path is None:
            for option in (name for name in ("unix_mode", "unix_owner") if getattr(self, name) is not None):
                raise ValueError(f"{option} is for the file of a Unix socket: give a unix_path too")
        if unix_path is not None and not hasattr(socket, "AF_UNIX"):
            raise self.unsupported("unix_path", "Python has no Unix sockets on this system; listen on a port")
        if reuse_port and self.has_wire and not hasattr(socket, "SO_REUSEPORT"):
            raise self.unsupported("reuse_port", "this system has no SO_REUSEPORT; give each process a port")
        if not self.has_wire:
            given: dict[str, object] = {"host": host not in ("", "127.0.0.1"), "port": port, "sockets": self.sockets}
            given |= {"ssl": ssl, "reuse_port": reuse_port}
            for option in (name for name, value in given.items() if value):
                raise self.unsupported(option, "it has no socket")
        if unix_path is not None and self._trusted and not self._trusted.has_unix:
            logger.warning("trusted_proxies has no effect on peers of the Unix socket %r: add 'unix' to it", unix_path)
        if ssl is not None and not self.has_tls:
            raise self.unsupported("ssl", "its server takes no SSLContext; let a proxy in front of it speak TLS")
        if unknown := sorted(set(native_options).difference(self.native_option_names)):
            known = ", ".join(sorted(self.native_option_names)) or "none"
            raise self.unsupported(f"native_options[{unknown[0]!r}]", f"it takes: {known}")
        for options in app.options:
            self.check_options(options)

    def _set_up(self) -> None:  # noqa: B027
        """Set what belongs to a run; the options are there."""

    def unsupported(self, option: str, reason: str) -> UnsupportedOptionError:
        """Return the error for an option that this connector cannot honour."""
        return UnsupportedOptionError(f"the {self.name} connector cannot honour {option}: {reason}")

    def check_options(self, options: WebSocketOptions[Any]) -> None:
        """Refuse channel options that this connector cannot honour.

        Raises:
            UnsupportedOptionError: Names the option, the connector and the reason.
        """
        if options.compression is not False:
            if "compression" not in self.features:
                raise self.unsupported("compression", "its server does not deflate messages; set it to False")
            if isinstance(options.compression, Compression):
                for setting in _SETTINGS:
                    if getattr(options.compression, setting) is not None and setting not in self.compression_settings:
                        raise self.unsupported(f"Compression({setting}=...)", "its server has no such setting")
        if "ping" not in self.features and options.ping_interval is not None:
            raise self.unsupported("ping_interval", "its server cannot ping; set it to None")
        if "size-limit" not in self.features and (
            options.max_text_size is not None or options.max_binary_size is not None
        ):
            raise self.unsupported("max_text_size and max_binary_size", "its server has no limit; set both to None")

    def can(self, feature: Feature) -> bool:
        """Tell whether the server has a feature."""
        return feature in self.features


def _check_type(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    if not (isinstance(value, kind) or (optional and value is None)):
        raise TypeError(f"{name} must be {kind.__name__}{' or None' if optional else ''}, not {value!r}")


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    if value is None and high is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, not {value!r}")
