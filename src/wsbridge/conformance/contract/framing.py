"""The contract on frames: what RFC 6455 and RFC 7692 ask of every server (FRAME)."""

from __future__ import annotations

from wsbridge.conformance.contract.definition import Rule, rule

__all__ = ["FRAME_RULES"]

_CASES: tuple[tuple[str, str, str], ...] = (
    ("FRAME-1", "RFC 6455, 5.2", "A payload length is read in 7, in 16 and in 64 bits."),
    ("FRAME-2", "RFC 6455, 5.2", "A length in more bits than it needs is refused or read right, and never misread."),
    ("FRAME-3", "RFC 6455, 5.2", "A 64-bit length whose first bit is set is refused."),
    ("FRAME-4", "RFC 6455, 5.2", "A reserved bit that no extension gives a meaning is refused with 1002."),
    ("FRAME-5", "RFC 6455, 5.2", "A reserved opcode is refused with 1002."),
    ("FRAME-6", "RFC 6455, 5.3", "Each frame's payload is unmasked by that frame's key, whatever the key is."),
    ("FRAME-7", "RFC 6455, 5.1", "A frame of the client that is not masked is refused with 1002."),
    (
        "FRAME-8",
        "RFC 6455, 5.1 and 5.2",
        "The server's frames are not masked, have the shortest length and no reserved bit.",
    ),
    ("FRAME-9", "RFC 6455, 5.2", "Frames are found in the stream however TCP cuts it up or joins it."),
    ("FRAME-10", "RFC 6455, 5.4", "The fragments of a message are joined, however many and large they are."),
    ("FRAME-11", "RFC 6455, 5.4", "Any fragment of a message may be empty."),
    ("FRAME-12", "RFC 6455, 5.4", "Control frames between the fragments of a message are handled there."),
    ("FRAME-13", "RFC 6455, 5.4", "A new message inside an unfinished one is refused with 1002."),
    ("FRAME-14", "RFC 6455, 5.4", "A continuation where no message is unfinished is refused with 1002."),
    ("FRAME-15", "RFC 6455, 5.5", "A control frame of more than 125 bytes is refused with 1002."),
    ("FRAME-16", "RFC 6455, 5.5", "A fragmented control frame is refused with 1002."),
    ("FRAME-17", "RFC 6455, 5.5.2", "A ping is answered by a pong with its payload."),
    ("FRAME-18", "RFC 6455, 5.5.3", "A pong that answers no ping is ignored."),
    ("FRAME-19", "RFC 6455, 5.5.1", "A close with a code that may be sent is answered by one with the same code."),
    ("FRAME-20", "RFC 6455, 5.5.1", "A close without a payload is answered by one without."),
    ("FRAME-21", "RFC 6455, 5.5.1", "A close with a payload of one byte is refused with 1002."),
    ("FRAME-22", "RFC 6455, 7.4", "A close with a code that may not be sent is refused with 1002."),
    ("FRAME-23", "RFC 6455, 5.5.1", "A close whose reason is not UTF-8 is refused with 1007 or 1002."),
    ("FRAME-24", "RFC 6455, 5.5.1", "A close may have a reason of up to 123 bytes in UTF-8."),
    ("FRAME-25", "RFC 6455, 5.5.1", "What comes after a close frame is not handled."),
    ("FRAME-26", "RFC 6455, 7.1.1", "When both close frames are sent, the server ends the TCP connection."),
    ("FRAME-27", "RFC 6455, 7.1.7", "What comes after a violation is not handled, and the connection ends."),
    ("FRAME-28", "RFC 6455, 8.1", "Every well-formed UTF-8 sequence is taken, at the limits of each length too."),
    ("FRAME-29", "RFC 6455, 5.6", "A character may be split between fragments at each of its bytes."),
    ("FRAME-30", "RFC 6455, 8.1", "A text that is not UTF-8 is refused with 1007."),
    ("FRAME-31", "RFC 6455, 8.1", "A text whose fragments do not make UTF-8 together is refused with 1007."),
    ("FRAME-32", "RFC 6455, 5.6", "The payload of a binary message may be anything."),
    ("FRAME-33", "RFC 7692, 5.1", "An extension is agreed on only if it was offered."),
    ("FRAME-34", "RFC 7692, 7.1", "An offer with a parameter that is unknown, repeated or ill-formed is declined."),
    ("FRAME-35", "RFC 7692, 7.1.1.1", "`server_no_context_takeover`, if agreed on, makes each message stand alone."),
    ("FRAME-36", "RFC 7692, 7.1.1.2", "`client_no_context_takeover` may be offered, and the client may keep to it."),
    ("FRAME-37", "RFC 7692, 7.1.2.1", "`server_max_window_bits`, if agreed on, is told, 15 too, and kept to."),
    ("FRAME-38", "RFC 7692, 7.1.2.2", "`client_max_window_bits` may be offered, with a value or without."),
    ("FRAME-39", "RFC 7692, 7.2", "Deflated messages are inflated, whatever their size and however deflated."),
    ("FRAME-40", "RFC 7692, 7.2.2", "A deflated message may refer to what is in the window from earlier ones."),
    ("FRAME-41", "RFC 7692, 7.2.3", "Every kind of DEFLATE block is inflated, one or several to a message."),
    ("FRAME-42", "RFC 7692, 7.2.3.4", "A block with BFINAL set ends a message, and the next one is inflated too."),
    ("FRAME-43", "RFC 7692, 7.2.3.6", "An empty message may be deflated."),
    ("FRAME-44", "RFC 7692, 6", "A message that is not deflated may come among others that are."),
    ("FRAME-45", "RFC 7692, 7.2.1", "A deflated message may be cut into fragments anywhere."),
    ("FRAME-46", "RFC 7692, 6.1", "RSV1 on a continuation is refused with 1002."),
    ("FRAME-47", "RFC 7692, 6.1", "RSV1 on a control frame is refused with 1002."),
    ("FRAME-48", "RFC 7692, 6", "With deflate agreed on, RSV2 and RSV3 are refused with 1002 as before."),
    ("FRAME-49", "RFC 7692, 7.2.2", "What cannot be inflated is refused, and no part of it is a message."),
    ("FRAME-50", "RFC 7692, 6.2", "A deflated text that is not UTF-8 is refused with 1007."),
    ("FRAME-51", "RFC 7692, 6.1", "Control frames between the fragments of a deflated message are not deflated."),
    ("FRAME-52", "RFC 7692, 6", "The server sets RSV1 on the first frame of a deflated message, and nowhere else."),
    ("FRAME-53", "RFC 7692, 5.1", "Of several offers the first that can be taken is taken, whatever stands before it."),
    ("FRAME-54", "RFC 6455, 9.1", "Within a quoted string of an offer no other offer and no parameter begins."),
)
"""Id, section, sentence."""

FRAME_RULES: tuple[Rule, ...] = tuple(
    rule(
        id,
        level="rfc",
        section=section,
        features=("compression",) if section.startswith("RFC 7692") else (),
        sentence=sentence,
    )
    for id, section, sentence in _CASES
)
