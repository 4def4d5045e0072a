"""Connectors that take a peer for another one: by forwarded headers, by its origin, or in the log."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import logging
from typing import Any

from werkzeug.http import parse_list_header

from tests.conformance.breaking import BrokenConnector, breaks
from wsbridge.http import Request
from wsbridge.refusal import Refusal

logger = logging.getLogger("wsbridge")


@breaks("HS-2")
class LetsAQuoteHideTheRest(BrokenConnector):
    """Splits the header as one of RFC 9110 is split, where commas in quotes separate nothing."""

    def _believe_proxies(self, request: Request) -> None:
        if not self._trusted.trusts(request.remote_address):
            return
        lines: list[str] = request.headers.getlist("X-Forwarded-For")
        request.headers.remove("X-Forwarded-For")
        for hop in parse_list_header(",".join(lines)):
            request.headers.add("X-Forwarded-For", hop)
        super()._believe_proxies(request)


@breaks("HS-2")
class TakesTheProxyForThePeer(BrokenConnector):
    """Falls back to the connection's own address where no other is told, and knows no ports."""

    def _believe_proxies(self, request: Request) -> None:
        before = request.remote_address
        super()._believe_proxies(request)
        if request.remote_address is None or request.remote_address[1] not in (0, (before or ("", 0))[1]):
            request.remote_address = before


@breaks("HS-2")
class BelievesNoScheme(BrokenConnector):
    def _believe_proxies(self, request: Request) -> None:
        scheme = request.scheme
        super()._believe_proxies(request)
        request.scheme = scheme


@breaks("HS-2")
class KeepsTheFirstCertificate(BrokenConnector):
    certificate: Any = None

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        self.certificate = request.client_certificate = self.certificate or request.client_certificate
        return await super().handle_by(request, source, run)


@breaks("HS-2")
class TrustsWhoeverHasNoAddress(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        if options.get("unix_path") is not None:
            options["trusted_proxies"] = (*options.get("trusted_proxies", ()), "unix")
        super().__init__(app, **options)


@breaks("HS-2")
class TakesUnixForEverybody(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        if "unix" in options.get("trusted_proxies", ()):
            options["trusted_proxies"] = ("0.0.0.0/0", "::/0")
        super().__init__(app, **options)


@breaks("HS-6")
class KnowsTheWebAlone(BrokenConnector):
    """Refuses origins that are not of the web, or of more than one label, and what a proxy tells of the host."""

    def _believe_proxies(self, request: Request) -> None:
        super()._believe_proxies(request)
        request.forwarded_hosts = ()

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        origin = request.headers.get("Origin", "")
        if "://" in origin and (not origin.startswith("http") or "xn--" in origin or origin.count(".") > 1):
            request.headers["Origin"] = "null"
        return await super().handle_by(request, source, run)


@breaks("HS-6")
class TakesWhatMatchesNothing(BrokenConnector):
    """Lets in by the end of the name, and leaves every entry to that."""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        if request.headers.get("Origin", "").endswith(("example.com", request.headers.get("Host", ""))):
            del request.headers["Origin"]
        return await super().handle_by(request, source, run)


@breaks("HS-14")
class RefusesWithoutAWord(BrokenConnector):
    def _refused(self, request: Any, refusal: Refusal) -> Refusal:
        return refusal


@breaks("HS-14")
class WritesDownEverything(BrokenConnector):
    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        if not hasattr(outcome, "run"):
            logger.info("%d for %s from %s", outcome.status_code, request.path, request.headers.get("Origin"))
        return outcome

    def _refused(self, request: Any, refusal: Refusal) -> Refusal:
        return refusal


@breaks("HS-15")
class ReadsForwardedFirst(BrokenConnector):
    """Takes the two families for one, and the word of anybody for true."""

    def _believe_proxies(self, request: Request) -> None:
        forwarded = request.headers.get("Forwarded", "")
        if forwarded and "for=" in forwarded:
            request.remote_address = (forwarded.split("for=", 1)[1].split(";")[0], 0)
        else:
            super()._believe_proxies(request)


@breaks("HS-15")
class ReadsXForwardedAlone(BrokenConnector):
    def _believe_proxies(self, request: Request) -> None:
        request.headers.remove("Forwarded")
        super()._believe_proxies(request)
