"""What is thrown: each input is malformed in at least one place, between things that are right."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import strategies as st

__all__ = ["Input", "inputs"]

VALID_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_CONT, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
_NO_UTF8 = (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"ok\x80", b"\xc0\xaf")
_BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


@dataclass(frozen=True, slots=True)
class Input:
    """What one connection is sent.

    Attributes:
        head: The request.
        body: What follows the 101; None if the request is what is malformed.
        cuts: Where it is split into several writes.
    """

    head: bytes
    body: bytes | None
    cuts: tuple[int, ...]


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True, width: int = 0) -> bytes:
    """Return a frame; ``width`` 2 or 8 is a length that is longer than it need be."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload)
    mask_bit = 0x80 if masked else 0
    if width == 8 or size > 65535:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    elif width == 2 or size > 125:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BB", first, mask_bit | size)
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


_payloads = st.binary(max_size=40) | st.sampled_from((b"", b"\x00" * 126, b"a" * 4096, b"z" * 66000))
_small = st.binary(max_size=125)
_good = st.one_of(
    st.text(max_size=20).map(lambda text: frame(_TEXT, text.encode())),
    _payloads.map(lambda data: frame(_BINARY, data)),
    _small.map(lambda data: frame(_PING, data)),
    _small.map(lambda data: frame(_PONG, data)),
    st.text(max_size=8).map(lambda text: frame(_TEXT, text.encode(), fin=False) + frame(_CONT, b"", fin=True)),
)
_bad = st.one_of(
    st.builds(frame, st.sampled_from(_RESERVED), _small),
    st.builds(frame, st.sampled_from((_TEXT, _BINARY, _CLOSE, _PING)), _small, rsv=st.integers(1, 7)),
    st.builds(frame, st.sampled_from((_TEXT, _BINARY, _CONT)), _payloads, masked=st.just(False)),
    st.builds(frame, st.sampled_from((_CLOSE, _PING, _PONG)), _small, fin=st.just(False)),
    st.builds(frame, st.sampled_from((_CLOSE, _PING, _PONG)), st.binary(min_size=126, max_size=300)),
    st.builds(frame, st.sampled_from((_CLOSE, _PING, _TEXT)), _small, width=st.sampled_from((2, 8))),
    st.sampled_from(_NO_UTF8).map(lambda data: frame(_TEXT, data)),
    st.sampled_from(_NO_UTF8).map(lambda data: frame(_TEXT, data[:1], fin=False) + frame(_CONT, data[1:])),
    st.sampled_from(_NO_UTF8).map(lambda data: frame(_CLOSE, b"\x03\xe8" + data)),
    st.sampled_from(_BAD_CODES).map(lambda code: frame(_CLOSE, struct.pack("!H", code) + b"why")),
    st.binary(min_size=1, max_size=1).map(lambda data: frame(_CLOSE, data)),
    _payloads.map(lambda data: frame(_CONT, data)),
    _payloads.map(lambda data: frame(_TEXT, b"a", fin=False) + frame(_BINARY, data)),
    _payloads.map(lambda data: frame(_BINARY, data, rsv=4)),  # no deflated data, or no deflate agreed on
    st.integers(2**17, 2**64 - 1).map(lambda size: struct.pack("!BBQ", 0x82, 0xFF, size) + b"\0" * 20),
    st.builds(lambda data, cut: frame(_BINARY, data)[: -1 - cut % (len(data) + 1)], _payloads, st.integers(0, 2**16)),
    st.binary(min_size=1, max_size=60),
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Frames that were right until a byte was changed, taken out or put in."""
    data = bytearray(b"".join(draw(st.lists(_good, min_size=1, max_size=4))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(data), 200) - 1)) if data else 0
        how = draw(st.integers(0, 2))
        if how == 0 and data:
            data[place] ^= draw(st.integers(1, 255))
        elif how == 1 and data:
            del data[place]
        else:
            data.insert(place, draw(st.integers(0, 255)))
    return bytes(data)


_bodies = st.builds(
    lambda before, bad, after: b"".join(before) + bad + b"".join(after),
    st.lists(_good, max_size=3),
    _bad | _mutated(),
    st.lists(_good, max_size=2),
)

# ---- handshakes -----------------------------------------------------------------------------------------------------

_LINES = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": VALID_KEY,
    "Sec-WebSocket-Version": "13",
}


def request(*, deflate: bool) -> bytes:
    """Return a request that is right."""
    lines = [f"{name}: {value}" for name, value in _LINES.items()]
    if deflate:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    return ("GET / HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()


_words = st.text(st.characters(codec="latin-1"), max_size=30).map(lambda text: text.encode("latin-1"))
_starts = st.one_of(
    st.sampled_from(
        (
            b"GET / HTTP/1.0",
            b"GET / HTTP/2.0",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"get / HTTP/1.1",
            b"POST / HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"GET http://[::1 HTTP/1.1",
            b"GET /%zz/%ff?%80 HTTP/1.1",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /" + b"a" * 70000 + b" HTTP/1.1",
        )
    ),
    _words,
)
_headers = st.one_of(
    st.sampled_from(
        (
            b"Host: a\r\nHost: b",
            b"Sec-WebSocket-Key: short",
            b"Sec-WebSocket-Key: " + VALID_KEY.encode(),
            b"Sec-WebSocket-Version: 8, 13, x",
            b'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99; x="',
            b"Sec-WebSocket-Protocol: a b, ,\x01",
            b"Content-Length: -1",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Connection: close",
            b"Upgrade: h2c",
            b"Origin: null",
            b"Origin: http://\xff\xfe",
            b"no colon",
            b": no name",
            b"X: a\x00b",
            b"X: a\rb",
            b"X : space",
            b" folded",
            b"X: " + b"y" * 70000,
            b"Expect: 100-continue",
        )
    ),
    st.builds(lambda name, value: name + b": " + value, _words, _words),
)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """A request with something wrong in it, or that ends too early."""
    start = draw(st.just(b"GET / HTTP/1.1") | _starts)
    names = draw(st.permutations(list(_LINES)))
    kept = names[: draw(st.integers(2, len(names)))]
    lines = [f"{name}: {_LINES[name]}".encode() for name in kept]
    for header in draw(st.lists(_headers, min_size=1, max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), header)
    if draw(st.integers(0, 30)) == 0:
        lines += [b"A: b"] * 300
    end = draw(st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")))
    whole = end.join([start, *lines]) + end + end
    if draw(st.integers(0, 5)) == 0:
        whole = whole[: draw(st.integers(0, len(whole)))]
    return whole + draw(st.binary(max_size=10))


_cuts = st.lists(st.integers(1, 400), max_size=3).map(lambda cuts: tuple(sorted(cuts)))
inputs: st.SearchStrategy[Input] = st.one_of(
    st.builds(lambda deflate, body, cuts: Input(request(deflate=deflate), body, cuts), st.booleans(), _bodies, _cuts),
    st.builds(lambda deflate, body, cuts: Input(request(deflate=deflate), body, cuts), st.booleans(), _bodies, _cuts),
    st.builds(lambda head, cuts: Input(head, None, cuts), _requests(), _cuts),
)
"""Two inputs with malformed frames for one with a malformed request."""
