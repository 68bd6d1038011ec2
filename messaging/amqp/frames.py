"""Frames of AMQP 0-9-1 that its client library cannot read."""

from __future__ import annotations

import struct

#: Type, channel and size of a frame.
FRAME = struct.Struct(">BHI")
#: Class, weight and body size at the start of a content header, then which properties
#: follow, of which content type and encoding stand before the table of headers
#: (AMQP 0-9-1, section 4.2.6.1).
CONTENT = struct.Struct(">HHQH")
CONTENT_TYPE, CONTENT_ENCODING, HEADERS = 1 << 15, 1 << 14, 1 << 13


def without_headers(frame: bytes) -> bytes:
    """Give a content header frame without the table of headers."""
    kind, channel, size = FRAME.unpack_from(frame)
    class_id, weight, body_size, flags = CONTENT.unpack_from(frame, FRAME.size)
    start = table = FRAME.size + CONTENT.size
    for flag in (CONTENT_TYPE, CONTENT_ENCODING):
        if flags & flag:
            table += 1 + frame[table]
    after = table + 4 + int.from_bytes(frame[table : table + 4])
    content = CONTENT.pack(class_id, weight, body_size, flags & ~HEADERS)
    content += frame[start:table] + frame[after : FRAME.size + size]
    # What follows the content is the octet that ends every frame.
    end = frame[FRAME.size + size : FRAME.size + size + 1]
    return FRAME.pack(kind, channel, len(content)) + content + end
