"""What is agreed on about deflate, from what a peer offers and what the options want."""

from __future__ import annotations

import pytest

from wsbridge import Compression, Request
from wsbridge.connector.deflate import agree

NAME = "permessage-deflate"


def agreed(*offers: str, compression: bool | Compression = True, window_bits: int | None = None) -> str | None:
    """Return what the 101 says to lines of offers."""
    request = Request[None]("GET", "/", headers=[("Sec-WebSocket-Extensions", line) for line in offers], native=None)
    agreement = agree(request, compression, window_bits=window_bits)
    return None if agreement is None else str(agreement)


@pytest.mark.rule("FRAME-33", "FRAME-37", "FRAME-38")
@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ("", ""),
        ("; client_max_window_bits", ""),
        (
            " ; server_no_context_takeover;client_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            "; server_max_window_bits=10; client_max_window_bits = 15",
            "; server_max_window_bits=10; client_max_window_bits=15",
        ),
        ("; server_max_window_bits=15", "; server_max_window_bits=15"),
        ('; server_max_window_bits="10"', "; server_max_window_bits=10"),
        (r'; server_max_window_bits="1\0"', "; server_max_window_bits=10"),
        ("; client_max_window_bits=8", ""),
    ],
)
def test_an_offer_is_answered(parameters: str, answer: str) -> None:
    assert agreed(NAME + parameters) == NAME + answer


@pytest.mark.rule("FRAME-34")
@pytest.mark.parametrize(
    "parameters",
    [
        "; server_max_window_bits=8",
        "; server_max_window_bits",
        "; server_max_window_bits=7",
        "; server_max_window_bits=16",
        "; server_max_window_bits=09",
        '; server_max_window_bits="10',
        '; server_max_window_bits=""',
        '; server_max_window_bits="10"1',
        "; server_max_window_bits=",
        "; server_no_context_takeover=1",
        "; server_no_context_takeover; server_no_context_takeover",
        "; client_max_window_bits; client_max_window_bits=10",
        "; Client_Max_Window_Bits",
        "; unknown",
        ";",
        "; ; client_max_window_bits",
    ],
)
def test_an_offer_that_is_not_understood_is_declined(parameters: str) -> None:
    assert agreed(NAME + parameters) is None


@pytest.mark.rule("FRAME-33")
@pytest.mark.parametrize("offers", [(), ("",), (",",), ("x-deflate",), (f"x; {NAME}",), (NAME.upper(),)])
def test_what_is_not_offered_is_not_agreed_on(offers: tuple[str, ...]) -> None:
    assert agreed(*offers) is None


@pytest.mark.rule("FRAME-33")
def test_compression_that_is_off_agrees_to_nothing() -> None:
    assert agreed(NAME, compression=False) is None


@pytest.mark.rule("FRAME-53")
@pytest.mark.parametrize(
    "offers",
    [
        (f"x-other; a=1, {NAME}; server_max_window_bits=10, {NAME}",),
        ("x-other", f"{NAME}; server_max_window_bits=10"),
        (f"{NAME}; unknown, {NAME};, {NAME}; server_max_window_bits=8, {NAME}; server_max_window_bits=10",),
        (f"{NAME}; unknown", f"{NAME}; server_max_window_bits=10"),
        (f",, {NAME}; server_max_window_bits=10 ,",),
    ],
)
def test_the_first_offer_that_can_be_taken_is(offers: tuple[str, ...]) -> None:
    assert agreed(*offers) == f"{NAME}; server_max_window_bits=10"


@pytest.mark.rule("FRAME-54")
@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (f'x; y=",{NAME},"', None),
        (rf'x; y="\",{NAME},"', None),
        (f'x; y=", {NAME}', None),  # without an end
        (f'{NAME}; unknown="; client_max_window_bits"', None),
        (f'x; y=",", {NAME}', NAME),
        (rf'x; y="a\\", {NAME}', NAME),
        (rf'x; y="a\", {NAME}', None),
    ],
)
def test_a_quoted_string_is_not_cut(offer: str, answer: str | None) -> None:
    assert agreed(offer) == answer


@pytest.mark.rule("FRAME-54")
def test_a_quoted_string_goes_on_in_the_next_line() -> None:
    assert agreed('x; y="', f'{NAME}; z="') is None  # as a proxy that joins lines hands it on (RFC 9110, 5.3)


@pytest.mark.rule("SEND-8")
@pytest.mark.parametrize(
    ("settings", "offer", "answer"),
    [
        (Compression(window_bits=10), "", "; server_max_window_bits=10"),
        (Compression(window_bits=10), "; server_max_window_bits=9", "; server_max_window_bits=9"),
        (Compression(window_bits=10), "; server_max_window_bits=12", "; server_max_window_bits=10"),
        (
            Compression(window_bits=10),
            "; client_max_window_bits",
            "; server_max_window_bits=10; client_max_window_bits=10",
        ),
        (
            Compression(window_bits=10),
            "; client_max_window_bits=9",
            "; server_max_window_bits=10; client_max_window_bits=9",
        ),
        (Compression(context_takeover=False), "", "; server_no_context_takeover; client_no_context_takeover"),
        (Compression(context_takeover=True), "; server_no_context_takeover", "; server_no_context_takeover"),
        (Compression(), "", ""),
        (Compression(memory_level=1), "", ""),
    ],
)
def test_the_settings_of_compression_are_told(settings: Compression, offer: str, answer: str) -> None:
    assert agreed(NAME + offer, compression=settings) == NAME + answer


@pytest.mark.rule("SEND-8")
def test_a_servers_own_window_counts_where_none_is_set() -> None:
    assert agreed(NAME, window_bits=12) == f"{NAME}; server_max_window_bits=12"
    assert agreed(NAME, compression=Compression(window_bits=15), window_bits=12) == f"{NAME}; server_max_window_bits=15"
