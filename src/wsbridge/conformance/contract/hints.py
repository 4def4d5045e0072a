"""What usually causes the failure of a check: from experience with servers, by the id of a check or of a rule.

A hint is a guess that saves a reader the first hour. It says where to look, not what the contract asks: that is said
by the rule and by the check's title.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["HINTS", "hint"]

_NO_CLOSE_FRAME = (
    "Mostly the server finds the violation, but ends TCP at once instead of sending a close frame first. Or the "
    "frame is sent, and lost: closing a socket that still has unread bytes makes the system send a reset, which "
    "overtakes it. Shut down the sending side, read to the end for a while, then close."
)

HINTS: Mapping[str, str] = MappingProxyType(
    {
        # ---- the handshake ----
        "HS-1": (
            "Upgrade and Connection are lists of tokens, each in any case, and may stand in several lines: compare "
            'tokens, not the whole value with "websocket" or "Upgrade". Firefox, for one, sends "Connection: '
            'keep-alive, Upgrade".'
        ),
        "HS-1/accept-key": (
            "The accept key is the base64 of the SHA-1 of the key as it was sent, as text and not decoded, with "
            "258EAFA5-E914-47DA-95CA-C5AB0DC85B11 behind it. Usual slips: the hash in hexadecimal, base64 with a "
            "line break at the end, or a blank of the header's value hashed too."
        ),
        "HS-1/nothing-unasked-in-the-101": (
            "A default subprotocol or extension is sent without a look at the offer. A client must fail a connection "
            "whose 101 names what it has not offered (RFC 6455, 4.1)."
        ),
        "HS-2": (
            "The headers come from a mapping that keeps one value of each name, or joins them. Take them from the "
            "raw list of the server, which nearly every one has somewhere."
        ),
        "HS-3/offers-over-several-lines": (
            "Only the first Sec-WebSocket-Protocol line is read, or only the last. Join all lines with a comma, "
            "split at commas, strip blanks."
        ),
        "HS-3/the-options-order-decides": (
            "The server walks the peer's offers and takes the first that it knows. Walk your own list, and take the "
            "first that the peer offers."
        ),
        "HS-3/no-match-is-accepted": (
            "The handshake is refused when no subprotocol matches, or the 101 has an empty Sec-WebSocket-Protocol. "
            "Without a match that header is left out, and the client decides."
        ),
        "HS-4": (
            "The server checks in another order, answers by its own status (often 400 or 404 for all), or its "
            "routing comes first. If it answers before your code runs, look for a hook of its HTTP parser, or check "
            "there."
        ),
        "HS-4/no-upgrade": (
            "A plain request gets the server's page or a 400. A 426 needs Upgrade: websocket and Connection: Upgrade "
            'in the answer as well. "Connection: upgraded" is no token "upgrade": search no substring.'
        ),
        "HS-4/another-version": (
            "The version is not looked at, compared as a number that is at least 13, or the first of several lines "
            "is taken. The answer to another one needs Sec-WebSocket-Version: 13."
        ),
        "HS-4/a-version-that-is-not-spoken": (
            "The refusal lacks Sec-WebSocket-Version: 13, by which a client learns what to ask for, or comes as a "
            "400 from an HTTP layer that knows no 426."
        ),
        "HS-4/a-bad-key": (
            "The key is only looked for, not decoded: it is to be the base64 of 16 bytes. Many decoders skip "
            "characters that are no base64 unless told to be strict."
        ),
        "HS-4/bad-handshakes-open-no-channel": (
            "The message names which request was taken. Most often it is one without Host, with a key that is not "
            "the base64 of 16 bytes, or of another method: libraries leave those to the HTTP server, which leaves "
            "them to the library."
        ),
        "HS-5": (
            "The upgrade is answered before the routing is asked, and the path is looked at afterwards, when only a "
            "close is left. Match the path first."
        ),
        "HS-6": (
            "A browser sends Origin with every handshake and does not enforce anything: the server has to. Compare "
            'scheme, host and port as a whole; "null" is a foreign origin; no Origin at all is no browser.'
        ),
        "HS-7": (
            "The library's call to refuse has a status, but drops the headers or the body, or joins repeated headers."
        ),
        "HS-8": (
            "The headers go into a mapping, so that the second one of a name replaces the first; or they are added "
            "to an answer that was already sent."
        ),
        "HS-11": (
            "What is read past the blank line of the request is thrown away when the connection is handed from the "
            "HTTP parser to the frame parser. Feed the rest of that buffer to the frame parser first."
        ),
        "HS-17": (
            "The server counts each line, or has a fixed limit of its own. Look for its options for the size of the "
            "head, often two: of the request line and of all headers."
        ),
        "HS-10": (
            "The time runs only from the first byte on, or only between reads: then a peer that sends one byte now "
            "and then stays for ever. One timer from the accept on, that no byte renews."
        ),
        # ---- open, messages ----
        "OPEN-4": (
            "The message of on_open is queued behind the answer to the peer's first message, or sent before the 101."
        ),
        "OPEN-5": (
            "The close is asked for before the channel is ready for one, and is lost; or the peer's messages are "
            "handled although it has been asked for."
        ),
        "RECV-1": (
            "The text goes through another encoding, a C string that ends at NUL, or a library's own limit below 1 MiB."
        ),
        "RECV-7": (
            "The pong is queued behind the messages that are being handled, or is made only when a callback reads. "
            "Answer pings where frames are parsed; the payload comes back to the byte."
        ),
        "RECV-8": (
            "The decoding raises inside a task that nobody awaits; or the close goes out with 1002 or 1011, since "
            "the error is not told apart from others."
        ),
        "RECV-9": _NO_CLOSE_FRAME,
        "RECV-9/unmasked-frame": (
            "The parser unmasks if the bit is set and goes on if it is not. A server must look at the bit and refuse "
            "a frame without it: 1002."
        ),
        # ---- closing ----
        "CLOSE-4": (
            "The server answers a close by its own fixed code, mostly 1000, or drops the text; or it ends TCP before "
            "the answer has left its buffer."
        ),
        "CLOSE-4/an-empty-close-for-an-empty-one": (
            "An empty close is read as 1000 or 1005, and that is sent back. 1005 must never be on the wire; the "
            "answer to an empty close is an empty close."
        ),
        "CLOSE-5": (
            "The time starts only when the peer answers, or the answer ends the wait although TCP stays open. One "
            "timer from the close on, until the socket is closed."
        ),
        "CLOSE-6": (
            "Nobody reads the socket when no message is wanted, so that its end is found with the next send, or "
            "never. Keep one read pending, or ask the transport for its connection_lost."
        ),
        "CLOSE-7": (
            "Who has ended the channel is guessed from the last exception. Note it where it happens, and let the "
            "first note stand: by the peer's close frame, by the end of the stream, or by an end of your own."
        ),
        "CLOSE-10": (
            "Two ends meet, such as a close of the peer and one of the application, and the later one overwrites the "
            "reason."
        ),
        "ERR-1": (
            "The exception is taken and logged by the server's own task, before the connector sees it: the channel "
            "then ends with 1006 or 1000 in place of 1011."
        ),
        # ---- limits and back pressure ----
        "LIM-1": (
            "The limit is the server's, and counts each frame, the deflated bytes, or characters instead of bytes; "
            "or it ends TCP without a close. 1009 has to go out before the whole message is in memory."
        ),
        "LIM-2": "Pings and pongs count as traffic, or the timer is not set anew by what is sent.",
        "LIM-3": (
            "The server pings by itself, with another interval; or any incoming byte counts as the answer. Switch "
            "its own pings off."
        ),
        "LIM-4": (
            "The time is measured for each send as a whole. It is about a buffer from which no byte leaves: a slow "
            "peer that reads stays."
        ),
        "FLOW-1": (
            "Messages are put into a queue without a bound while the callback runs. Stop reading the socket when the "
            "queue is full: TCP then holds the peer back by itself."
        ),
        "FLOW-2": (
            "send returns once the message is in the transport's buffer, which has no bound. Wait until it is below "
            "its high-water mark (drain), in every way to send."
        ),
        "FLOW-3": (
            "One lock, one queue or one writer task serves all channels, and waits for a peer that does not read."
        ),
        "FLOW-4": (
            "A send that need not wait never gives the event loop a turn. Yield now and then, as by asyncio.sleep(0)."
        ),
        "SEND-4": (
            "A message is written in pieces with a wait between, and another task writes in that wait. Hold a lock "
            "for the whole message, or write it by one call."
        ),
        "SEND-6": (
            "The close goes past a queue of messages, or a message past the close: both have to go through one queue."
        ),
        # ---- stopping ----
        "STOP-2": "The server's own stop ends TCP, or closes one channel after another and waits for each answer.",
        "STOP-3": (
            "A task or a socket outlives the stop: what was left is named in the message. Await each task after its "
            "cancel, and wait_closed() after each close()."
        ),
        # ---- frames ----
        "FRAME-1": (
            "The length is cut to 16 bits, or the message is above a default limit of the library: many have 64 KiB."
        ),
        "FRAME-2": (
            "The length is taken from the first byte alone, so that the bytes of the longer form are read as payload."
        ),
        "FRAME-3": (
            "The length is read as a signed number, and becomes negative; or the server waits for a payload that "
            "never comes. Refuse it by the header alone."
        ),
        "FRAME-4": (
            "The reserved bits are masked away before anyone looks. Without an extension all three must be 0 on "
            "every frame, control frames and continuations too."
        ),
        "FRAME-5": "An unknown opcode is skipped, or falls into the branch for binary messages.",
        "FRAME-6": (
            "The key is applied from a wrong offset: it starts anew with each frame, and goes on over what arrives "
            "in pieces within one."
        ),
        "FRAME-7": (
            "The parser unmasks if the bit is set and goes on if it is not. A server must look at the bit and refuse "
            "a frame without it: 1002 (RFC 6455, 5.1)."
        ),
        "FRAME-8": (
            "A frame builder for clients is used, which masks; or a length of 125 or less, or 65535 or less, takes "
            "more bytes than it needs."
        ),
        "FRAME-9": (
            "The parser takes each read from the socket for whole frames. Keep what is left over for the next read, "
            "and go on parsing until nothing whole is left."
        ),
        "FRAME-9/many-in-one-piece": (
            "After one read only the first frame is handled, and the rest waits for the next read, which never "
            "comes. Or the queue of messages is full and the server throws the rest away."
        ),
        "FRAME-9/head-cut-anywhere": (
            "The header is parsed as soon as two bytes are there, although its length and key may take up to twelve "
            "more."
        ),
        "FRAME-10": (
            "Each fragment is delivered as a message of its own, joined by a copy of all before it (slow for many), "
            "or there is a limit of fragments or of their size."
        ),
        "FRAME-11": (
            'An empty fragment is taken for the end, or for nothing: then what follows it is "a continuation of '
            'nothing".'
        ),
        "FRAME-12": (
            "A control frame between fragments resets the opcode or the buffer of the message, or waits until the "
            "message is complete. Control frames are handled where they come."
        ),
        "FRAME-13": (
            "The buffer is overwritten by the new message. While one is unfinished, only continuations and control "
            "frames are legal."
        ),
        "FRAME-14": (
            "A continuation without a beginning is dropped, or delivered as a message. It is a violation: 1002."
        ),
        "FRAME-15": (
            "The length of a control frame is not looked at, or the parser waits for its payload first. 126 in the "
            "seven bits is enough to refuse it."
        ),
        "FRAME-16": "FIN is looked at for messages alone. A control frame without it is a violation: 1002.",
        "FRAME-17": (
            "The pong has an empty payload, a cut or a decoded one: it is bytes, up to 125 of them, and comes back "
            "as it was. Or pings are answered on a timer, and the last of many never is."
        ),
        "FRAME-18": "A pong is compared with the last ping, and an unknown one ends the connection.",
        "FRAME-19": (
            "The answer has a fixed code, mostly 1000; or the server has a list of codes that is older than 1012 to "
            "1014 or leaves out 3000 to 4999."
        ),
        "FRAME-20": "An empty close is read as 1000 or 1005, and that is sent back. The answer is an empty close.",
        "FRAME-21": (
            "The code is unpacked from two bytes whatever the length is: one byte raises, or reads past the end."
        ),
        "FRAME-22": (
            "The code is not looked at and sent back as it came. Below 1000, 1004, 1005, 1006, 1015 and above are "
            "not to be on the wire: a close with 1002 answers them."
        ),
        "FRAME-23": (
            "The reason is never decoded, or decoded so that errors are replaced. It is text, and must be UTF-8."
        ),
        "FRAME-24": "The reason is cut or refused by its number of characters. It may have 123 bytes in UTF-8.",
        "FRAME-25": (
            "The server goes on handling what came in one packet with the close. After a close frame of the peer "
            "nothing is read but the end."
        ),
        "FRAME-26": (
            "After both close frames the server waits for the client to end TCP. It is the server's turn to close "
            "first (RFC 6455, 7.1.1), and at once."
        ),
        "FRAME-27": (
            "The frames behind the bad one, in the same read, are still handled; or TCP stays open after the close."
        ),
        "FRAME-28": (
            "A decoder of its own has a table that is off by one at a limit, or noncharacters such as U+FFFF are "
            "refused: they are legal."
        ),
        "FRAME-29": "Each fragment is decoded by itself. Decode incrementally, or the whole message at its end.",
        "FRAME-30": (
            "The decoder is lenient (surrogates, overlong forms), replaces what is wrong, or the text is never "
            "checked. Where it is found, the close needs 1007, not 1002 or 1011."
        ),
        "FRAME-31": (
            "Fragments are checked one by one, so that a character cut short at the very end is not found; or not at "
            "all, since only whole frames are checked."
        ),
        "FRAME-32": "Binary messages go through the check or the decoder for text.",
        # ---- permessage-deflate ----
        "FRAME-33": "The extension stands in every 101, or in one for an offer of something else.",
        "FRAME-34": (
            "The offer is searched for the extension's name, and its parameters are skipped. One that is unknown or "
            "ill-formed declines the offer; it does not refuse the handshake."
        ),
        "FRAME-35": "The parameter is agreed on, but the compressor is kept: reset it after each message.",
        "FRAME-37": (
            "The window is agreed on, but the compressor is made with 15 bits; or zlib's raw deflate, which has no "
            "window of 8 bits, is asked for one."
        ),
        "FRAME-39": (
            "The four bytes 00 00 FF FF are not put back before inflating, or a limit counts the deflated bytes."
        ),
        "FRAME-42": (
            "The inflater stops at a block with BFINAL, and is used again: it has to be made anew with the same window."
        ),
        "FRAME-46": "RSV1 is looked at on every frame. It is legal on the first of a message alone.",
        "FRAME-47": "RSV1 is allowed on every frame once deflate is agreed on. Control frames are never deflated.",
        "FRAME-49": "What zlib raises is not caught, and the connection ends without a close frame.",
    }
)
"""By the id of a check, or of a rule for all of its checks that have none."""

_BY_CAUSE: Mapping[str, str] = MappingProxyType(
    {
        "hang": (
            "Something waits for what never comes, or blocks the event loop: below stands where each task and each "
            "thread waited."
        ),
        "left-over": (
            "What is named was still there after stop(). Each task, socket and thread that a connector starts has to "
            "end before its stop() returns."
        ),
        "death": (
            "The process that ran the check is gone: something called os._exit, was killed, or crashed in native "
            "code. What it wrote last stands below."
        ),
    }
)


def hint(check: str, cause: str = "promise", message: str = "") -> str:
    """Return what usually causes a failure of ``check``; "" where experience tells nothing.

    Args:
        check: The check's id.
        cause: The kind of the failure, as a result has it. What hung or was left over is no question of the rule.
        message: What failed. Where only the close frame is missing, the server has found what the rule is about.
    """
    if cause in _BY_CAUSE:
        return _BY_CAUSE[cause]
    if "saw no close frame" in message:
        return _NO_CLOSE_FRAME
    return HINTS.get(check) or HINTS.get(check.partition("/")[0], "")
