"""Typed messages: what turns objects into messages and back, for callbacks (``on_message``) and for streams."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload, runtime_checkable

from wsbridge._common.logs import said
from wsbridge.close import check_close
from wsbridge.errors import MessageDecodeError, MessageKindError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsbridge.protocols import WebSocketChannel

__all__ = ["Codec", "Decoded", "check_codec", "decode_or_close", "json_codec", "msgspec_codec"]

M = TypeVar("M")


@runtime_checkable
class Codec(Protocol[M]):
    """Turns messages into objects of the type ``M`` and back. One serves many channels: it keeps no state. CODEC-1.

    One that has an attribute ``invalid_code``, a close code, has the channel closed with that for what does not decode.
    """

    def encode(self, message: M, /) -> str | bytes:
        """Return what is sent for ``message``: a text message, or a binary one.

        What it raises reaches the caller of ``send`` as it is, and nothing is sent.
        """
        ...

    def decode(self, data: str | bytes, /) -> M:
        """Return the object that a text message (``str``) or a binary one (``bytes``) stands for.

        Raises:
            MessageKindError: This codec reads no messages of that kind; the channel is closed with 1003.
            Exception: Any other: the message does not decode; the channel is closed with 1007.
        """
        ...


def check_codec(codec: object) -> None:
    """Check the option ``codec``.

    Raises:
        TypeError: It lacks one of its methods.
    """
    for method in ("encode", "decode"):
        if codec is not None and not callable(getattr(codec, method, None)):
            raise TypeError(f"codec must have a method {method!r}, which {codec!r} has not")


def decode_or_close(codec: Codec[M], channel: WebSocketChannel, data: str | bytes) -> M:
    """Return what ``data`` stands for, or close the channel (CODEC-2).

    With the codec's ``invalid_code``, if it has one; else with 1003 for the wrong kind and 1007 for what is invalid.

    Raises:
        MessageKindError: A message of the kind that the codec does not read.
        MessageDecodeError: A message that does not decode.
    """
    try:
        return codec.decode(data)
    except MessageKindError:
        channel.close(getattr(codec, "invalid_code", None) or 1003)
        raise
    except Exception as exc:
        channel.close(getattr(codec, "invalid_code", None) or 1007)
        raise MessageDecodeError(f"a message of channel {channel.id} does not decode: {said(exc)}") from exc


class Decoded:
    """An ``on_text`` or ``on_binary`` that decodes for an ``on_message``."""

    __slots__ = ("callback", "codec")

    def __init__(self, codec: Codec[Any], callback: Callable[..., object]) -> None:
        self.codec = codec
        self.callback = callback

    def __call__(self, channel: WebSocketChannel, process: Any, data: str | bytes, /) -> object:
        return self.callback(channel, process, decode_or_close(self.codec, channel, data))


class _TextCodec(Generic[M]):
    """Text messages, by two functions."""

    __slots__ = ("_dumps", "_loads", "invalid_code")

    def __init__(self, dumps: Callable[[M], str], loads: Callable[[str], M], invalid_code: int | None) -> None:
        self.invalid_code = None if invalid_code is None else check_close(invalid_code, "")
        self._dumps = dumps
        self._loads = loads

    def encode(self, message: M, /) -> str:
        return self._dumps(message)

    def decode(self, data: str | bytes, /) -> M:
        if not isinstance(data, str):
            raise MessageKindError("a binary message came where JSON is spoken in texts")
        return self._loads(data)


class _BinaryCodec(Generic[M]):
    """Binary messages, by two functions."""

    __slots__ = ("_dumps", "_loads", "invalid_code")

    def __init__(self, dumps: Callable[[M], bytes], loads: Callable[[bytes], M], invalid_code: int | None) -> None:
        self.invalid_code = None if invalid_code is None else check_close(invalid_code, "")
        self._dumps = dumps
        self._loads = loads

    def encode(self, message: M, /) -> bytes:
        return self._dumps(message)

    def decode(self, data: str | bytes, /) -> M:
        if not isinstance(data, bytes):
            raise MessageKindError("a text message came where MessagePack is spoken in binary ones")
        return self._loads(data)


def json_codec(invalid_code: int | None = None) -> Codec[Any]:
    """Return a codec for JSON in text messages, of what JSON knows: dicts, lists, strings, numbers, bools and None.

    By the standard library, whatever else is installed, so that what goes over the wire does not depend on it; for more
    speed and more types there is `msgspec_codec`. What is sent is compact, with all letters as they are. A tuple is a
    list, and a key that is a number, a bool or None its text. NaN and the infinities, numbers that a float cannot hold,
    and lone surrogates are neither encoded nor decoded; whole numbers are exact up to 4,300 digits; of equal keys the
    last counts.

    Args:
        invalid_code: What to close with for a message that is not JSON, or is binary; None: 1007, or 1003.

    Raises:
        TypeError: ``invalid_code`` is not an int.
        ValueError: It may not be sent (CLOSE-2).

    CODEC-1 to CODEC-3.
    """
    return _TextCodec(_dumps, _loads, invalid_code)


def _dumps(message: Any) -> str:
    text = _ENCODE(message)
    if not text.isascii():
        text.encode()  # no text message can hold lone surrogates, whose meaning RFC 8259, 8.2, leaves open
    return text


def _loads(text: str) -> Any:
    message = _DECODE(text)
    if _SURROGATE.search(text):  # an escape, mostly one of a pair; by far the most messages have none
        try:
            _ENCODE(message).encode()
        except UnicodeEncodeError as exc:
            raise ValueError("a lone surrogate is no text") from exc
    return message


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large for a float")
    return number


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_DECODE = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@overload
def msgspec_codec(
    type: type[M], *, format: Literal["json", "msgpack"] = "json", invalid_code: int | None = None
) -> Codec[M]: ...
@overload
def msgspec_codec(
    type: Any, *, format: Literal["json", "msgpack"] = "json", invalid_code: int | None = None
) -> Codec[Any]: ...
def msgspec_codec(
    type: Any, *, format: Literal["json", "msgpack"] = "json", invalid_code: int | None = None
) -> Codec[Any]:
    """Return a codec for messages of one type, checked as they are decoded, by msgspec.

    Args:
        type: What msgspec reads: a ``Struct``, a dataclass, a union of tagged structs, ...
        format: ``"json"``, in text messages, or ``"msgpack"``, in binary ones.
        invalid_code: As for `json_codec`.

    Raises:
        ImportError: msgspec is not installed.
        TypeError: ``type`` is nothing that msgspec reads, or ``invalid_code`` is not an int.
        ValueError: ``format`` is neither of the two, or ``invalid_code`` may not be sent.

    CODEC-1, CODEC-2.
    """
    try:
        import msgspec
    except ImportError as exc:
        raise ImportError("msgspec_codec needs msgspec: pip install 'wsbridge[msgspec]'") from exc
    if format == "json":
        encode = msgspec.json.Encoder().encode
        return _TextCodec(lambda message: encode(message).decode(), msgspec.json.Decoder(type).decode, invalid_code)
    if format == "msgpack":
        return _BinaryCodec(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(type).decode, invalid_code)
    raise ValueError(f"format must be 'json' or 'msgpack', not {format!r}")
