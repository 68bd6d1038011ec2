"""The verb that publishes everything."""

from __future__ import annotations

import uuid
from typing import Any

from . import partitions
from .conf import settings
from .message import PARTITION_KEY, Envelope, Fact, Message
from .sending import dispatch


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
    fact = isinstance(message, Fact)
    message_id = message_id or str(uuid.uuid4())
    return Envelope(
        message.encode(),
        routing_key=message.event_type
        if fact
        else partitions.home(message.queue, message.partition_key),
        exchange=settings.FACTS_EXCHANGE if fact else "",
        message_id=message_id,
        type=message.event_type,
        correlation_id=message_id if reply_to else None,
        reply_to=reply_to,
        headers={PARTITION_KEY: message.partition_key, **(headers or {})},
        # Nobody need be listening to a fact; a command nobody takes is an error.
        mandatory=not fact,
    )
