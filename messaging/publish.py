"""Publish messages now, or with the transaction through the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from . import topology
from .amqp.encoding import pack
from .amqp.publisher import publisher
from .conf import settings
from .envelope import PARTITION_KEY, PARTITIONS, SENT_AT, Envelope, now_ms, random_id
from .logs.context import inheriting
from .message import Event, Message, key_of
from .registry import handlers
from .traces.spans import sending


def publish(
    *messages: Message,
    message_id: str | None = None,
    headers: dict[str, Any] | None = None,
    reply_to: str | None = None,
    timeout: float | None = None,
) -> list[str]:
    """
    Publish messages in order and return their `message_id`s.

    Inside `transaction.atomic()` on `MESSAGING["DATABASE"]` they are stored in the
    outbox and sent after the commit, or never. Outside, this returns when the broker
    has confirmed each, within `timeout` seconds (`MESSAGING["CONFIRM_TIMEOUT"]`). The
    outcome goes to the queue `reply_to`.

    Raises `InvalidMessage` for a message that would not arrive as it is, `TooLarge`,
    `Unroutable`, `Unconfirmed` or another `PublishError`. After `Unconfirmed` the
    broker may have the messages; repeating one under its `message_id` is safe.
    """
    if message_id is not None and len(messages) != 1:
        raise TypeError("message_id identifies one message: publish the others apart.")
    if _in_transaction() and not (message_id or headers or reply_to):
        from .models import Outbox  # models load after this package

        if len(events := [m for m in messages if isinstance(m, Event)]) == len(
            messages
        ):
            return Outbox.objects.using(settings.DATABASE).add_events(events)
    envelopes = [envelope_for(m, message_id, headers, reply_to) for m in messages]
    dispatch(envelopes, timeout)
    return [str(envelope.message_id) for envelope in envelopes]


def send(
    body: Any,
    *,
    routing_key: str,
    exchange: str = "",
    headers: dict[str, Any] | None = None,
    timeout: float | None = None,
    **properties: Any,
) -> str:
    """
    Send any body to an exchange or a queue, as `publish` sends, and return its id.

    `body` is bytes, a string, or what JSON can represent; `properties` are the other
    fields of `Envelope`. Raises what `publish` raises, and `PublishError` for what AMQP
    cannot carry, or a `priority` to a queue with handlers. With `mandatory=False` it is
    no error if no queue takes the message.
    """
    properties |= {"exchange": exchange, "headers": headers or {}}
    envelope = pack(body, routing_key=routing_key, **properties)
    dispatch([envelope], timeout)
    return str(envelope.message_id)


def envelope_for(
    message: Message,
    message_id: str | None = None,
    headers: dict[str, Any] | None = None,
    reply_to: str | None = None,
) -> Envelope:
    """Build the envelope of an event, or of a command of this or another project."""
    if not isinstance(message, Message):
        raise TypeError(f"publish takes a Message, not {message!r}; send takes others.")
    key = key_of(message)
    is_event = isinstance(message, Event)
    if is_event:
        exchange, routing_key = settings.EVENTS_EXCHANGE, message.event_type
    elif message.queue in handlers:
        exchange, routing_key = PARTITIONS, topology.partition_for(message.queue, key)
        headers = {SENT_AT: now_ms(), **(headers or {})}
    else:  # what is behind the public queue is the business of its owner
        exchange, routing_key = "", message.queue
    message_id = message_id or random_id()
    return Envelope(
        message.encode(),
        routing_key=routing_key,
        exchange=exchange,
        message_id=message_id,
        type=message.event_type,
        correlation_id=message_id if reply_to else None,
        reply_to=reply_to,
        headers={PARTITION_KEY: key, **(headers or {})},
        mandatory=not is_event,  # an event may have no listener
    )


def dispatch(envelopes: Sequence[Envelope], timeout: float | None = None) -> None:
    """Send envelopes now, or store them in the outbox inside a transaction."""
    if not _in_transaction():
        with sending(inheriting(envelopes)) as sent:
            publisher().publish(*sent, timeout=timeout, in_turn=True)
        return
    from .models import Outbox  # models load after this package

    Outbox.objects.using(settings.DATABASE).add_checked(envelopes)


def _in_transaction() -> bool:
    return bool(transaction.get_connection(settings.DATABASE).in_atomic_block)
