"""Compressed bodies are decoded, within limits of memory and time."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import translation

from messaging.bodies import decoded, decoded_size, legible
from messaging.conf import settings
from messaging.envelope import Delivery, Envelope
from messaging.exceptions import InvalidMessage
from messaging.models.parked import Parked, properties_of
from messaging.received import received_as

LIMIT = settings.MAX_BODY
BODY = b'{"a": "\xc3\xb1"}'


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Show errors untranslated."""
    with translation.override("en"):
        yield


def raw_deflate(body: bytes) -> bytes:
    """Return a deflate stream without a zlib header."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def bomb(size: int) -> bytes:
    """Return gzip data that unpacks to so many megabytes."""
    stream = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    zeros = bytes(1024 * 1024)
    return b"".join(stream.compress(zeros) for _ in range(size)) + stream.flush()


@pytest.mark.parametrize(
    "encoding",
    [
        # No encoding, by any name.
        *(None, "", "identity", "Identity"),
        # Charsets: Celery and kombu.
        *("utf-8", "UTF-8", "utf8", "us-ascii", "binary"),
        *(" utf-8 ", "utf-8, identity", "gzip", "deflate"),
    ],
)
def test_a_body_that_is_not_compressed_stays_as_it_is(encoding: str | None) -> None:
    assert decoded(BODY, encoding) == BODY


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        # Several members are one body.
        (
            "gzip",
            gzip.compress(BODY[:3]) + gzip.compress(b"") + gzip.compress(BODY[3:]),
        ),
        ("deflate", zlib.compress(BODY)),
        ("Deflate", zlib.compress(BODY, wbits=9)),
        ("deflate", raw_deflate(BODY)),
        # Spring AMQP.
        ("gzip, UTF-8", gzip.compress(BODY)),
        ("gzip:UTF-8", gzip.compress(BODY)),
    ],
    ids=range(9),
)
def test_a_compressed_body_is_decoded(encoding: str, body: bytes) -> None:
    assert decoded(body, encoding) == BODY


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)[:-1]),
        ("gzip", gzip.compress(BODY)[:15]),
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
        ("gzip", gzip.compress(BODY) + b"more"),
        ("gzip", b"\x1f\x8b"),
        ("gzip", zlib.compress(BODY)),
        ("gzip", b"no gzip"),
        ("deflate", zlib.compress(BODY)[:-1]),
        ("deflate", zlib.compress(BODY)[:-4] + bytes(4)),
        ("deflate", zlib.compress(BODY) + zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)[:-1]),
        ("deflate", b"no deflate"),
    ],
    ids=range(12),
)
def test_a_damaged_body_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(InvalidMessage, match=f"damaged or incomplete.*as {encoding}"):
        decoded(body, encoding)

    assert legible(body, encoding) == body


@pytest.mark.parametrize(
    "encoding",
    ["br", "zstd", "gzip, br", "deflate, gzip", "utf-16", "x" * 255, b"\xff"],
)
def test_an_encoding_that_is_not_supported_is_named(encoding: Any) -> None:
    named = "\\\\xff" if encoding == b"\xff" else encoding[:100]
    with pytest.raises(InvalidMessage, match=f"encoding {named} is not"):
        decoded(BODY, encoding)


def test_the_reasons_are_translated() -> None:
    with translation.override("es"):
        for body, encoding, text in [
            (BODY, "br", "No se admite la codificación de contenido br; use gzip."),
            (b"x", "gzip", "El cuerpo está dañado o incompleto: "),
            (bomb(2), "gzip", "Descodificado, el cuerpo supera 1048576 bytes."),
        ]:
            with pytest.raises(InvalidMessage, match=text):
                decoded(body, encoding)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, raw_deflate])
def test_the_limit_is_that_of_the_decoded_body(compress: Any) -> None:
    encoding = "gzip" if compress is gzip.compress else "deflate"

    assert decoded(compress(bytes(LIMIT)), encoding) == bytes(LIMIT)
    with pytest.raises(InvalidMessage, match="larger than 1048576 bytes"):
        decoded(compress(bytes(LIMIT + 1)), encoding)


@pytest.mark.parametrize(
    "body",
    [
        # 1 GiB.
        bomb(64) * 16,
        # As many members as fit, none of which adds anything.
        gzip.compress(b"") * (LIMIT // 20),
        # More than is read.
        gzip.compress(b"") * LIMIT,
        # Many members, then too much.
        gzip.compress(bytes(1000)) * 2000,
    ],
    ids=["bomb", "empty members", "large", "members"],
)
def test_a_body_that_unpacks_to_a_gigabyte_costs_little(body: bytes) -> None:
    started = time.process_time()
    legible(body, "gzip")
    assert time.process_time() - started < 1

    tracemalloc.start()
    legible(body[: 64 * 1024], "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LIMIT


def test_the_size_of_a_decoded_body_is_bounded_beforehand() -> None:
    assert decoded_size(2000, None) == decoded_size(2000, "br") == 2000
    assert decoded_size(2000, "gzip") == LIMIT
    assert decoded_size(2 * LIMIT, "gzip") == 2 * LIMIT
    for size in (0, 100, 100_000, LIMIT):
        packed = gzip.compress(bytes(size), 9)
        assert size <= decoded_size(len(packed), "gzip")


def received(kind: Any, body: bytes, encoding: str) -> Any:
    """Return what a listener to bodies of a type gets."""
    envelope = Envelope(body, "any", content_encoding=encoding)
    message = received_as(kind).decode(body, envelope)
    assert message.envelope is envelope
    return message.body


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(bytes, BODY), (str, BODY.decode()), (dict, {"a": "ñ"})],
    ids=["bytes", "str", "dict"],
)
def test_a_listener_gets_the_decoded_body(kind: Any, expected: Any) -> None:
    assert received(kind, gzip.compress(BODY), "gzip") == expected
    assert received(kind, zlib.compress(BODY), "deflate") == expected
    assert received(kind, BODY, "binary") == expected
    with pytest.raises(InvalidMessage):
        received(kind, b"no gzip", "gzip")


def test_a_listener_to_bytes_gets_those_of_other_encodings_as_they_were_sent() -> None:
    assert received(bytes, b"\x0b\x02", "br") == b"\x0b\x02"
    for kind in (str, dict):
        with pytest.raises(InvalidMessage, match="br"):
            received(kind, b"\x0b\x02", "br")


def test_a_parked_message_is_legible_and_knows_how_large_it_may_become() -> None:
    envelope = Envelope(gzip.compress(BODY), "any", content_encoding="gzip")
    properties = properties_of(Delivery(envelope, "any", 1))
    row = Parked(body=envelope.body, properties=properties, size=2000)

    assert row.content == BODY
    assert row.decoded_size == LIMIT
