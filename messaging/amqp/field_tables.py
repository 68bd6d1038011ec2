"""
The headers of a message that arrives, without those that pika would change.

pika cuts a float to its whole number, and fails at a time in milliseconds, which it
takes for seconds. The format is that of AMQP 0-9-1, sections 4.2.5 and 4.2.6, with the
types of RabbitMQ (https://www.rabbitmq.com/amqp-0-9-1-errata.html, section 3).
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

from pika.compat import long

from messaging.text import storable

#: Type, channel and size at the start of a frame.
FRAME = struct.Struct(">BHI")
#: Class, weight, body size and property flags at the start of a content header. The
#: properties follow; content type and encoding come before the table of headers.
CONTENT = struct.Struct(">HHQH")
CONTENT_TYPE, CONTENT_ENCODING = 1 << 15, 1 << 14
#: Bytes of the values of a type; those of other types begin with their length.
SIZES = dict(
    zip(b"tbBUusIifLldTDV", (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 5, 0), strict=True)
)
FLOATS = b"fd"
TIME, ARRAY, TABLE = b"TAF"
#: The latest time that Python represents, in seconds.
LATEST = int(datetime.max.replace(tzinfo=UTC).timestamp())
#: Levels of nested arrays and tables.
DEEPEST = 50


def may_be_changed(value: Any) -> bool:
    """Return whether pika may have changed a header while it decoded it."""
    # It returns a `long` for a float, and for an integer of 64 bits.
    match value:
        case dict():
            return any(map(may_be_changed, value.values()))
        case list():
            return any(map(may_be_changed, value))
        case _:
            return type(value) is long


def exact_headers(frame: bytes) -> tuple[bytes, list[str]]:
    """
    Return a content header frame with the headers that pika decodes as they were sent.

    Returns also the names of the others. Bytes after the frame are ignored.
    """
    kind, channel, size = FRAME.unpack_from(frame)
    flags = CONTENT.unpack_from(frame, FRAME.size)[-1]
    start = FRAME.size + CONTENT.size
    for flag in (CONTENT_TYPE, CONTENT_ENCODING):
        if flags & flag:
            start += 1 + frame[start]
    at, end = start + 4, start + 4 + int.from_bytes(frame[start : start + 4])
    kept, left_out = bytearray(), []
    while at < end:
        value = at + 1 + frame[at]
        after = _end_of(frame, value)
        if _is_exact(frame, value):
            kept += frame[at:after]
        else:
            left_out.append(storable(frame[at + 1 : value], 40))
        at = after
    content = frame[FRAME.size : start] + len(kept).to_bytes(4) + kept
    content += frame[end : FRAME.size + size]
    # The octet after the content ends every frame.
    last = frame[FRAME.size + size : FRAME.size + size + 1]
    return FRAME.pack(kind, channel, len(content)) + content + last, left_out


def _end_of(frame: bytes, at: int) -> int:
    """Return where a value ends."""
    size = SIZES.get(frame[at])
    if size is None:
        size = 4 + int.from_bytes(frame[at + 1 : at + 5])
    return at + 1 + size


def _is_exact(frame: bytes, at: int, depth: int = 0) -> bool:
    kind, end = frame[at], _end_of(frame, at)
    if kind in (ARRAY, TABLE) and depth < DEEPEST:
        at += 5
        while at < end:
            if kind == TABLE:
                at += 1 + frame[at]
            if not _is_exact(frame, at, depth + 1):
                return False
            at = _end_of(frame, at)
        return True
    if kind == TIME:
        return int.from_bytes(frame[at + 1 : end]) <= LATEST
    return kind not in (*FLOATS, ARRAY, TABLE)
