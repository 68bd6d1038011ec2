"""Deliveries are taken in batches that fit into memory."""

from __future__ import annotations

import gzip

import pytest

from messaging.amqp.deliveries import DeliveryBuffer
from messaging.envelope import Delivery, Envelope


@pytest.mark.parametrize(
    ("encoding", "expected"), [("gzip", [4, 4, 2]), (None, [10])], ids=repr
)
def test_a_batch_of_compressed_messages_fits_when_it_is_decompressed(
    encoding: str | None, expected: list[int]
) -> None:
    buffer = DeliveryBuffer(4 * 1024 * 1024)
    body = gzip.compress(bytes(1024 * 1024))
    for tag in range(10):
        envelope = Envelope(b"", "any", content_encoding=encoding)
        buffer.add(Delivery(envelope, "any", tag), body)

    assert [len(buffer.take(100, 0)) for _ in expected] == expected
