"""
Content encodings: bodies that their senders have compressed.

A body is stored, forwarded and dead-lettered as it was sent. It is decoded only where
it is parsed or shown.
"""

from __future__ import annotations

import json
import re
import zlib

from django.utils.translation import gettext as _

from .conf import settings
from .envelope import Envelope
from .exceptions import InvalidMessage
from .text import storable

#: Values of `content_encoding` for a body that is not compressed. Some clients use the
#: property for the charset, as Celery does.
PLAIN = frozenset(
    ["", "identity", "utf-8", "utf8", "us-ascii", "ascii", "binary", "8bit", "7bit"]
)
#: The formats of zlib (its `wbits`) to try for each compression. RFC 9110 means by
#: "deflate" a stream with a zlib header, but some programs send none.
FORMATS = {
    "gzip": (16 + zlib.MAX_WBITS,),
    "x-gzip": (16 + zlib.MAX_WBITS,),
    "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),
}
#: Maximum bytes that one byte of a deflate stream can become.
EXPANSION = 1032
#: Bytes that are decompressed at a time; what follows the end of a member is copied.
CHUNK = 4096


def decoded(body: bytes, encoding: str | None) -> bytes:
    """
    Return a body without its content encoding, at most `MESSAGING["MAX_BODY"]` bytes.

    A JSON object that is not compressed, although its sender says so, is returned as it
    is. Raises `InvalidMessage`.
    """
    name = _compression(encoding)
    if not name:
        return body
    if name not in FORMATS:
        text = _("The content encoding %(encoding)s is not supported; use gzip.")
        raise InvalidMessage({"": [text % {"encoding": name[:100]}]})
    for format in FORMATS[name]:
        try:
            return _inflated(body, format)
        except zlib.error:
            continue
    if body.lstrip()[:1] == b"{":
        return body
    text = _("The body is damaged or incomplete: it cannot be decoded as %(encoding)s.")
    raise InvalidMessage({"": [text % {"encoding": name}]})


def is_decodable(encoding: str | None) -> bool:
    """Return whether `decoded` supports a content encoding."""
    name = _compression(encoding)
    return not name or name in FORMATS


def legible(body: bytes, encoding: str | None) -> bytes:
    """Return a body as people read it: decoded, or as it is if that is impossible."""
    try:
        return decoded(body, encoding)
    except InvalidMessage:
        return body


def decoded_size(size: int, encoding: str | None) -> int:
    """Return the maximum size in bytes of a body of `size` bytes once it is decoded."""
    if _compression(encoding) in FORMATS:
        return max(size, min(size * EXPANSION, int(settings.MAX_BODY)))
    return size


def _compression(encoding: str | None) -> str:
    """
    Return the name of a compression, or "" if there is none.

    Spring AMQP adds the charset, as in "gzip, UTF-8" or, earlier, "gzip:UTF-8".
    """
    if not encoding:
        return ""
    names = [name.strip() for name in re.split("[,:]", storable(encoding).lower())]
    return ", ".join(name for name in names if name not in PLAIN)


def _inflated(body: bytes, format: int) -> bytes:
    """
    Decompress a stream or, in gzip only, several in a row.

    Raises `zlib.error`, or `InvalidMessage` as soon as the result is too large.
    """
    limit = int(settings.MAX_BODY)
    result, start = bytearray(), 0
    while start < len(body):
        if start and format <= zlib.MAX_WBITS:
            raise zlib.error("Something follows the stream.")
        stream = zlib.decompressobj(format)
        while not stream.eof:
            if start == len(body):
                raise zlib.error("The stream is incomplete.")
            chunk = body[start : start + CHUNK]
            result += stream.decompress(chunk, limit + 1 - len(result))
            start += len(chunk) - len(stream.unused_data)
            if max(len(result), len(body)) > limit:
                text = _("Decoded, the body is larger than %d bytes.") % limit
                raise InvalidMessage({"": [text]})
    return bytes(result)


def event_type(envelope: Envelope) -> str:
    """Return the event type in the properties or the body, or ""."""
    if envelope.type:
        return storable(envelope.type)
    body = legible(envelope.body, envelope.content_encoding)
    if len(body) > settings.MAX_BODY:
        return ""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    given = parsed.get("event_type") if isinstance(parsed, dict) else None
    return given if isinstance(given, str) else ""
