"""Connectors that change what was asked for: the path, the query, or where a mount stands (HS-2, MOUNT-1)."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from tests.conformance.breaking import BrokenConnector, breaks


class _Changes(BrokenConnector):
    def change(self, request: Any) -> None:
        """Change a request before the application gets it."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        self.change(request)
        return await super().handle_by(request, source, run)


@breaks("HS-2")
class DecodesAPathTwice(_Changes):
    def change(self, request: Any) -> None:
        request.path = unquote(request.path)


@breaks("HS-2")
class MergesSlashes(_Changes):
    def change(self, request: Any) -> None:
        request.path = re.sub("//+", "/", request.path)


@breaks("MOUNT-1", base="tornado")
class MergesSlashesInAMount(MergesSlashes):
    pass


@breaks("MOUNT-1", base="aiohttp")
class TakesAPathForItsParts(_Changes):
    """Removes what stands after a semicolon, and dots."""

    def change(self, request: Any) -> None:
        request.path = re.sub(r";[^/]*|/\.(?=/|$)", "", request.path)


@breaks("MOUNT-1")
class ForgetsWhereItIsMounted(_Changes):
    def change(self, request: Any) -> None:
        request.root_path = ""


@breaks("MOUNT-1", base="aiohttp")
class DecodesTheQuery(_Changes):
    def change(self, request: Any) -> None:
        request.query_string = unquote(request.query_string.decode("latin-1")).encode()
