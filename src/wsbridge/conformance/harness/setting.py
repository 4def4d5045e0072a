"""Puts a check under its conditions: each where a check leaves to the bench what it does not set itself.

While a check runs as it stands, a `Setting` notes where a condition could have been put; see `Setting.open_to`. Under
conditions it puts them there, and knows which of them it has.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

from wsbridge.application import Application
from wsbridge.conformance.client import Cut, Shape
from wsbridge.conformance.harness.certificates import shared_certificates
from wsbridge.conformance.harness.conditions import AXES, OF_THE_LOOP, Conditions
from wsbridge.conformance.harness.framework import MOUNTED_AT
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.errors import LoopNotInstalledError, UnsupportedOptionError
from wsbridge.options import MIB, Compression, WebSocketOptions

__all__ = ["NotApplicable", "Setting", "values_for"]

_COMPRESSION: Mapping[str, bool | Compression] = MappingProxyType(
    {
        "on": True,
        "no-takeover": Compression(context_takeover=False),
        "window-9": Compression(window_bits=9),
        "memory-1": Compression(memory_level=1),
    }
)
_LIMITS: Mapping[str, tuple[int | None, int | None]] = MappingProxyType(
    {"uneven": (MIB, 3 * MIB + 1), "none": (None, None), "large": (2**40, 2**40)}
)
_OF_MOUNTS = frozenset(("max_channels", "max_head_size", "shutdown_timeout", "trusted_proxies"))
_WHERE = frozenset(("host", "port", "unix_path", "unix_mode", "unix_owner", "sockets", "reuse_port"))
_PARAMETER = "/with/a%20part"


class NotApplicable(Exception):
    """A check cannot be put under a condition; the message says why."""


def values_for(target: SuiteTarget) -> dict[str, tuple[str, ...]]:
    """Return which values of each axis the target can have here, the plain one first."""
    return {
        name: tuple(value for value in axis.values if value == axis.plain or not _lacks(target, name, value))
        for name, axis in AXES.items()
    }


def _lacks(target: SuiteTarget, axis: str, value: str) -> str:
    """Return why a target cannot be put under a condition at all here; "" if it can."""
    if axis in OF_THE_LOOP and target.connector is not None:
        try:
            Conditions(**{axis: value}).check()
        except (LoopNotInstalledError, ValueError) as exc:
            return str(exc)
        return ""
    if target.connector is None and axis not in ("cut", "frames"):
        return "the server of a URL is what it is"
    if not target.has_wire and axis in ("compress", "tls", "cut", "frames", "address"):
        return f"the {target.name} connector has no wire"
    if axis == "tls" and not target.has_tls:
        return f"the {target.name} connector takes no SSLContext"
    if axis == "compress" and value != "offered" and "compression" not in target.features:
        return f"the {target.name} connector has no compression"
    if axis == "compress" and value in _COMPRESSION and (why := _refused(target, compression=_COMPRESSION[value])):
        return why
    if axis == "limits" and "size-limit" not in target.features:
        return f"the {target.name} connector has no limits of its own"
    if axis == "served" and value in ("mounted", "below") and "mount" not in target.features:
        return f"the {target.name} connector has no mount"
    if axis == "address" and value == "ipv6" and not _has_ipv6():
        return "this machine has no IPv6 on its loopback interface"
    if axis == "address" and value == "unix" and not hasattr(socket, "AF_UNIX"):
        return "this system has no Unix sockets"
    if axis == "address" and value == "unix" and "unix-socket" not in target.features:
        return f"the {target.name} connector listens on no Unix socket"
    return ""


def _refused(target: SuiteTarget, **options: Any) -> str:
    """Return why a connector refuses options of channels; "" if it takes them."""
    assert target.connector is not None
    try:
        target.connector(Application([("/", WebSocketOptions(**{**target.neutral, **options}))]))
    except UnsupportedOptionError as exc:
        return str(exc)
    return ""


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Setting:
    """What one check is put under.

    Attributes:
        conditions: What is asked for.
        applied: The axes of `conditions` that it has been put under.
    """

    def __init__(self, target: SuiteTarget) -> None:
        self.target = target
        self.conditions: Conditions = target.conditions
        self.applied: set[str] = set(OF_THE_LOOP)
        self._open: dict[str, set[str]] = {axis: set(AXES[axis].values) for axis in OF_THE_LOOP}
        self._closed: set[str] = set()
        self._may_deflate = False  # what is served would agree to it
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Setting:
        for name, value in self.conditions.chosen.items():
            if why := _lacks(self.target, name, value):
                raise NotApplicable(f"{name}={value}: {why}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def open_to(self, fixed: Iterable[str]) -> dict[str, list[str]]:
        """Return what the check can be put under, as far as it has run: values of each axis, the plain one left out.

        Args:
            fixed: What it cannot, by its own word: axes, or one value as ``axis=value``.
        """
        fixed = frozenset(fixed)
        found: dict[str, list[str]] = {}
        for axis in AXES:
            values = [value for value in AXES[axis].values if value in self._open.get(axis, ())]
            values = [value for value in values if value != AXES[axis].plain and f"{axis}={value}" not in fixed]
            if values and axis not in fixed and axis not in self._closed:
                found[axis] = values
        return found

    def close(self, axis: str, why: str) -> None:
        """Note that the check cannot be put under an axis, whatever was noted before.

        Raises:
            NotApplicable: It was to be.
        """
        self._closed.add(axis)
        if axis in self.conditions.chosen:
            raise NotApplicable(f"{axis}={self.conditions.chosen[axis]}: {why}")

    def missing(self) -> str:
        """Return what is asked for and could not be put under the check, in words; "" if it all was."""
        left = [f"{name}={value}" for name, value in self.conditions.chosen.items() if name not in self.applied]
        return f"{', '.join(left)}: the check sets this itself, or has nothing to do with it" if left else ""

    def _opens(self, axis: str, values: Iterable[str] | None = None) -> bool:
        """Note that an axis is open here, for some values or all; return whether one of them is asked for."""
        values = tuple(AXES[axis].values if values is None else values)
        self._open.setdefault(axis, set()).update(values)
        if self.conditions.chosen.get(axis) not in values:
            return False
        self.applied.add(axis)
        return True

    # ---- of a channel -----------------------------------------------------------------------------------------------

    def channel_options(self, given: Mapping[str, Any], *, limits: bool = True) -> dict[str, Any]:
        """Return what is added to the options of a channel, of which a check has given some.

        Args:
            given: The options of the check.
            limits: Whether its limits may be others.
        """
        added: dict[str, Any] = {}
        if "compression" not in given:
            self._may_deflate = True
            value = _COMPRESSION.get(self.conditions.compress)
            if value is not None:
                added["compression"] = value
        if limits and "max_text_size" not in given and "max_binary_size" not in given and self._opens("limits"):
            added["max_text_size"], added["max_binary_size"] = _LIMITS[self.conditions.limits]
        return added

    def callbacks(self, given: Iterable[Callable[..., Any] | None]) -> str:
        """Return how the suite's own callbacks are to be made around those of a check: a value of the axis."""
        own = [callback for callback in given if callback is not None]
        possible = [] if any(inspect.iscoroutinefunction(callback) for callback in own) else ["functions"]
        possible += [] if own else ["stream"]
        return self.conditions.callbacks if self._opens("callbacks", possible) else AXES["callbacks"].plain

    # ---- of a peer --------------------------------------------------------------------------------------------------

    def shape(self) -> Shape:
        """Return how a peer puts on the wire what it sends."""
        cut = self.conditions.cut if self._opens("cut") else AXES["cut"].plain
        return Shape(cast(Cut, cut), fragments=self._opens("frames"))

    def peer_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is added to the options of a peer that opens a channel."""
        added = self.connection_options(given)
        names = {_name(name) for name, _ in given.get("headers", ())}
        names |= {_name(name) for name in given.get("replace") or ()}
        is_open = self._may_deflate and "deflate" not in given and "sec-websocket-extensions" not in names
        if is_open and self._opens("compress"):
            added["deflate"] = True
        return added

    def connection_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is added to the options of a peer's connection."""
        added: dict[str, Any] = {"shape": self.shape()}
        if self.conditions.tls == "on" and "tls" in self.applied and "ssl" not in given:
            added["ssl"] = shared_certificates().client()
            added["server_hostname"] = "localhost"
        return added

    # ---- of a server ------------------------------------------------------------------------------------------------

    def connector_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is added to the options of a connector."""
        added: dict[str, Any] = {}
        if "ssl" not in given and self._opens("tls"):
            added["ssl"] = shared_certificates().server
        if not _WHERE & given.keys() and self._opens("address"):
            if self.conditions.address == "ipv6":
                added["host"] = "::1"
            else:
                folder = self._stack.enter_context(tempfile.TemporaryDirectory())
                added["unix_path"] = os.path.join(folder, "s")
        return added

    def place(self, handler: WebSocketOptions[Any] | Application) -> tuple[WebSocketOptions[Any] | Application, str]:
        """Return what is to be served, and the path that stands for ``/`` then; "" if none does."""
        if isinstance(handler, Application) or not self._opens("path"):
            return handler, ""
        return Application([("/with/{part}", handler)]), _PARAMETER

    def asks(self, target: str, *, is_fixed: bool) -> None:
        """Note what the check asks for; see `Served.target`.

        Raises:
            NotApplicable: That is not where one thing is served at a path of its own.
        """
        if target != "/" and not target.startswith("/?"):
            self._closed.add("path")
            self._open.get("served", set()).discard("mounted")
            if is_fixed:
                raise NotApplicable(f"what is served has a path of its own: the check asks for {target!r} too")

    def is_mounted(self, options: Mapping[str, Any]) -> bool:
        """Tell whether a mount is asked for, where a connector is to be made with ``options``."""
        return not options.keys() - _OF_MOUNTS and self._opens("served")

    def place_mounted(
        self, handler: WebSocketOptions[Any] | Application
    ) -> tuple[WebSocketOptions[Any] | Application, str, bool]:
        """Return what is to be mounted, the path below which a check finds it, and whether that stands for ``/``."""
        part = ""
        if self.conditions.served == "below" and not isinstance(handler, Application):
            handler, part = self.place(handler)
            handler = handler if isinstance(handler, Application) else Application([("/", handler)])
        return handler, MOUNTED_AT + part, bool(part) or not isinstance(handler, Application)

    @contextlib.contextmanager
    def refusals(self) -> Generator[None]:
        """Take it for not applicable where a connector refuses an option that stands for a condition."""
        try:
            yield
        except UnsupportedOptionError as exc:
            chosen = self.conditions.chosen
            if not chosen.keys() & {"compress", "limits", "tls", "address", "served"}:
                raise
            raise NotApplicable(str(exc)) from exc


def _name(name: str | bytes) -> str:
    return (name.decode("latin-1") if isinstance(name, bytes) else name).lower()
