"""Bodies and properties of messages in the form in which AMQP carries them."""

from __future__ import annotations

import json
import logging
import struct
from typing import Any

import pika
from django.core.serializers.json import DjangoJSONEncoder
from pika.exceptions import AMQPError

from messaging.conf import settings
from messaging.envelope import (
    ASSIGNED_ID,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    ORIGIN_USER,
    PARTITIONS,
    REDELIVERED,
    SENT_AT,
    SHORT,
    Delivery,
    Envelope,
    at_origin,
    now_ms,
    random_id,
)
from messaging.exceptions import PublishError, TooLarge
from messaging.text import storable
from messaging.topology import keeps_order

from .headers import fitting, original

logger = logging.getLogger(__name__)

#: Bytes of all properties together: they must fit into one frame of 128 KiB, or the
#: broker closes the connection.
MAX_PROPERTIES = 128 * 1024 - 64
#: Bytes of all properties but the headers of other programs.
ROOM = 8 * 1024
#: What pika raises for values that do not fit into its frames, and on closed channels.
UNSENDABLE = (
    AMQPError,
    struct.error,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
)


def encode_body(body: Any) -> tuple[bytes, str]:
    """Return a body as bytes, and its content type; raises `PublishError`."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), "application/octet-stream"
    try:
        if isinstance(body, str):
            return body.encode(), "text/plain"
        text = json.dumps(body, cls=DjangoJSONEncoder, allow_nan=False)
        return text.encode(), "application/json"
    except (TypeError, ValueError) as error:
        raise PublishError(f"The body is no text or JSON: {error}") from error


class Properties(pika.BasicProperties):  # type: ignore[misc]
    """
    The AMQP properties of an envelope, encoded once, in the caller's thread.

    Raises `TooLarge` when they exceed one frame, and `PublishError` when they cannot be
    encoded.
    """

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(
            message_id=envelope.message_id,
            type=envelope.type,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            priority=envelope.priority,
            timestamp=envelope.timestamp and int(envelope.timestamp.timestamp()),
            app_id=app_id_of(envelope),
            correlation_id=envelope.correlation_id,
            reply_to=envelope.reply_to,
            expiration=envelope.expiration,
            user_id=envelope.user_id,
            headers=envelope.headers or None,
            delivery_mode=2 if envelope.persistent else 1,
        )
        try:
            self._pieces = super().encode()
        except UNSENDABLE as error:
            raise PublishError(f"The properties cannot be sent: {error!r}") from error
        if sum(map(len, self._pieces)) > MAX_PROPERTIES:
            raise TooLarge(f"The properties take more than {MAX_PROPERTIES} bytes.")

    def encode(self) -> list[bytes]:
        """Return the encoded properties, as a list that pika may change."""
        return list(self._pieces)


def app_id_of(envelope: Envelope) -> str | None:
    """Return the `app_id` to send: ours, unless another program is the publisher."""
    is_foreign = ORIGIN_EXCHANGE in envelope.headers
    return envelope.app_id or (None if is_foreign else settings.APP_ID)


def for_partition(delivery: Delivery, partition: str) -> Envelope:
    """
    Return the envelope in which a delivery is forwarded to a partition.

    It has nothing that would route or order the message otherwise.
    """
    given = at_origin(delivery.envelope)
    own = delivery.envelope.own | {
        ORIGIN_EXCHANGE: given.exchange,
        ORIGIN_ROUTING_KEY: given.routing_key,
        SENT_AT: min(now_ms(), delivery.envelope.sent_ms or now_ms()),
    }
    if given.user_id:
        own[ORIGIN_USER] = given.user_id
    if delivery.is_nameless:
        own[ASSIGNED_ID] = delivery.message_id
        own |= {REDELIVERED: True} if delivery.is_again else {}
    forwarded = given.copy(
        exchange=PARTITIONS,
        routing_key=partition,
        priority=None,  # it would overtake others of its key
        user_id=None,  # the broker accepts only that of this connection
        headers=original(given.headers) | own,
        mandatory=True,
    )
    # Without headers of others it is sure to fit, and the check takes 4 us.
    return sendable(forwarded) if given.headers else forwarded


def sendable(envelope: Envelope) -> Envelope:
    """
    Return an envelope for a partition without those headers that cannot be sent.

    Left out are headers that pika decodes and cannot encode, and the largest of those
    that do not fit into a frame; the log names them.
    """
    try:
        Properties(envelope)
    except PublishError:
        return _with_fewer_headers(envelope)
    return envelope


def _with_fewer_headers(envelope: Envelope) -> Envelope:
    own = envelope.own
    others = {n: v for n, v in envelope.headers.items() if n not in own}
    kept = {n: v for n, v in others.items() if _is_encodable(n, v)}
    kept = fitting(kept, MAX_PROPERTIES - ROOM)
    lost = [storable(name, 40) for name in others if name not in kept]
    logger.warning(
        "A message to %s goes on without %d headers that cannot be sent: %s",
        envelope.routing_key,
        len(lost),
        ", ".join(lost[:10]),
        extra={"message_id": envelope.message_id},
    )
    return envelope.copy(headers=kept | own)


def _is_encodable(name: object, value: object) -> bool:
    try:
        pika.BasicProperties(headers={name: value}).encode()
    except UNSENDABLE:
        return False
    return True


def check_lengths(envelope: Envelope) -> None:
    """Raise `PublishError` if a text of an envelope is longer than AMQP allows."""
    for name in envelope.__dataclass_fields__:
        value = getattr(envelope, name)
        if isinstance(value, str) and len(value.encode(errors="replace")) > SHORT:
            raise PublishError(f"{name} takes {SHORT} bytes at most: {value[:40]}...")


def check_priority(envelope: Envelope) -> None:
    """Raise `PublishError` if an envelope could overtake others of its key."""
    if envelope.priority is None:
        return
    if keeps_order(envelope.exchange, envelope.routing_key):
        raise PublishError(
            f"{envelope.exchange or envelope.routing_key} leads to a queue that keeps "
            "the order of its messages: leave `priority` out."
        )


def pack(body: Any, *, message_id: str | None = None, **properties: Any) -> Envelope:
    """Build the envelope of a body; raises `PublishError` if it cannot be sent so."""
    encoded, content_type = encode_body(body)
    properties.setdefault("content_type", content_type)
    message_id = message_id or random_id()
    try:
        envelope = Envelope(encoded, message_id=message_id, **properties)
    except TypeError as error:
        raise PublishError(f"There is no such property: {error}") from None
    check_lengths(envelope)
    check_priority(envelope)
    return envelope
