"""The verb that sends any body anywhere."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction

from . import topology
from .amqp.publisher import Properties, publisher
from .conf import settings
from .exceptions import PublishError, TooLarge
from .message import PARTITION_KEY, SHORT, Envelope, Event, Message, key_of


def send(
    body: Any,
    *,
    routing_key: str,
    exchange: str = "",
    headers: dict[str, Any] | None = None,
    mandatory: bool = True,
    timeout: float | None = None,
    **properties: Any,
) -> str:
    """
    Send one message to any exchange, and return its `message_id`.

    The body is bytes, a text, or anything that JSON holds; `content_type` says which
    unless given. Further `properties` are those of `Envelope`: `message_id`, `type`,
    `correlation_id`, `reply_to`, `priority`, `expiration`, `persistent` and so on.

    Returns when the broker has confirmed; inside `transaction.atomic()` the message is
    stored in the outbox and leaves with the commit, or never. Raises `Unroutable` when
    no queue takes it, unless `mandatory` is false, and otherwise what `publish` does.
    """
    envelope = pack(
        body,
        routing_key=routing_key,
        exchange=exchange,
        headers=headers or {},
        mandatory=mandatory,
        **properties,
    )
    if len(envelope.body) > settings.MAX_BODY:
        raise TooLarge
    dispatch([envelope], timeout=timeout)
    return str(envelope.message_id)


def pack(body: Any, *, message_id: str | None = None, **properties: Any) -> Envelope:
    """Give the envelope of a body; raises `PublishError` for what AMQP cannot carry."""
    encoded, content_type = encode(body)
    properties.setdefault("content_type", content_type)
    try:
        envelope = Envelope(
            encoded, message_id=message_id or str(uuid.uuid4()), **properties
        )
    except TypeError as error:
        raise PublishError(f"There is no such property: {error}") from None
    for name in envelope.__dataclass_fields__:
        value = getattr(envelope, name)
        if isinstance(value, str) and len(value.encode(errors="replace")) > SHORT:
            raise PublishError(f"{name} takes {SHORT} bytes at most: {value[:40]}...")
    return envelope


def encode(body: Any) -> tuple[bytes, str]:
    """Give the bytes of a body and their content type."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), "application/octet-stream"
    try:
        if isinstance(body, str):
            return body.encode(), "text/plain"
        text = json.dumps(body, cls=DjangoJSONEncoder, allow_nan=False)
        return text.encode(), "application/json"
    except (TypeError, ValueError) as error:
        raise PublishError(f"The body is no text or JSON: {error}") from error


def dispatch(envelopes: Sequence[Envelope], timeout: float | None = None) -> None:
    """Send envelopes now, or with the commit of the transaction that is going on."""
    if not transaction.get_connection(settings.DATABASE).in_atomic_block:
        publisher().publish(*envelopes, timeout=timeout, in_turn=True)
        return
    for envelope in envelopes:
        # The usual ones are known to be sendable, and this takes time.
        if envelope.unusual or envelope.headers.keys() - {PARTITION_KEY}:
            Properties(envelope)
    from .models import Outbox  # models load after this package

    Outbox.objects.using(settings.DATABASE).add(envelopes)


def publish(
    *messages: Message,
    message_id: str | None = None,
    headers: dict[str, Any] | None = None,
    reply_to: str | None = None,
    timeout: float | None = None,
) -> list[str]:
    """
    Publish messages, in order, and return their `message_id`s.

    Inside `transaction.atomic()` they are stored in the outbox and leave with the
    commit, or never. Outside they are sent now, those of different keys at a time, and
    this returns when the broker has confirmed each; it waits `timeout` seconds at most
    (`MESSAGING["CONFIRM_TIMEOUT"]`). The outcome is sent to the queue `reply_to`.

    Raises `TooLarge`, `Unroutable` or `Unconfirmed`; after the last it is unknown
    whether the broker has the messages, and publishing one again under the same
    `message_id` is safe.
    """
    envelopes = [
        envelope_for(message, message_id=message_id, headers=headers, reply_to=reply_to)
        for message in messages
    ]
    dispatch(envelopes, timeout)
    return [str(envelope.message_id) for envelope in envelopes]


def envelope_for(
    message: Message,
    *,
    message_id: str | None = None,
    headers: dict[str, Any] | None = None,
    reply_to: str | None = None,
) -> Envelope:
    """Give the envelope in which a message travels."""
    if not isinstance(message, Message):
        raise TypeError(f"publish takes a Message, not {message!r}; send takes others.")
    key = key_of(message)
    event = isinstance(message, Event)
    message_id = message_id or str(uuid.uuid4())
    return Envelope(
        message.encode(),
        routing_key=message.event_type
        if event
        else topology.partition_for(message.queue, key),
        exchange=settings.EVENTS_EXCHANGE if event else "",
        message_id=message_id,
        type=message.event_type,
        correlation_id=message_id if reply_to else None,
        reply_to=reply_to,
        headers={PARTITION_KEY: key, **(headers or {})},
        # Nobody need be listening to an event; a command nobody takes is an error.
        mandatory=not event,
    )
