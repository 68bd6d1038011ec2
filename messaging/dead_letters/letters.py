"""Building dead letters, from failures in a consumer and from `<queue>.dead`."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from messaging.amqp.headers import fitting, original, to_json
from messaging.bodies import event_type
from messaging.conf import settings
from messaging.envelope import (
    ACTOR,
    ASSIGNED_ID,
    IF_VERSION,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    ORIGIN_USER,
    PARTITIONS,
    PROPERTIES,
    SHORT,
    Delivery,
    Envelope,
    at_origin,
)
from messaging.message import TYPE_LENGTH
from messaging.models import DeadLetter
from messaging.text import storable

from .causes import cause_of

#: Namespace of the ids of messages without `message_id` that the broker dead-lettered:
#: reading such a message twice yields the same id.
NAMELESS = uuid.UUID("0b5f3d0c-2a4e-5c41-8a55-7d1f1f0e9a63")
#: Maximum bytes of a frame, and so of all headers of a message.
FRAME_SIZE = 128 * 1024
#: Maximum characters of a reason.
REASON_LENGTH = 1000

#: Kind and reason for each of the broker's reasons in `x-death`
#: (https://www.rabbitmq.com/docs/dlx#effects).
BROKER_REASONS = {
    "delivery_limit": (
        "poison",
        "It reached the delivery limit: its consumers died or returned it each time.",
    ),
    "expired": ("expired", "It expired: it waited longer than its sender allowed."),
    "rejected": ("rejected", "A consumer outside this project rejected it."),
    "maxlen": ("rejected", "The queue had reached its maximum length."),
}
UNEXPLAINED = ("rejected", "It was dead-lettered without a reason.")
#: The same for a message that did not come by our exchange.
FOREIGN = (
    "rejected",
    "Another program put it into the queue of dead letters, or the broker did so from "
    "a queue that an earlier version has declared.",
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message is given up: `kind` is for operators, `code` for programs."""

    #: "rejected" (the sender's fault), "exhausted", "poison", "expired", "projection".
    kind: str
    reason: str
    code: str = "rejected"
    #: Name of the exception's class, if there was one.
    exception: str = ""
    #: Whether the database refused to store it: only safe values are recorded.
    is_unstorable: bool = False
    #: For the log.
    error: BaseException | None = field(default=None, compare=False, repr=False)


def letter_of(delivery: Delivery, failure: Failure) -> DeadLetter:
    """Return the unsaved dead letter of a message that a consumer gives up."""
    envelope = delivery.envelope
    if failure.is_unstorable:
        # An event must stay one, or its replay would not be believed.
        safe = {"exchange": settings.EVENTS_EXCHANGE if envelope.is_event else ""}
        envelope = envelope.copy(**dict.fromkeys(PROPERTIES[1:]), **safe, headers={})
    return _letter(
        replace(delivery, envelope=envelope),
        kind=failure.kind,
        code=failure.code,
        reason=storable(failure.reason, REASON_LENGTH),
        exception=storable(failure.exception, SHORT),
        failed_at=datetime.now(UTC),
        is_answered=failure.kind == "rejected" and _is_awaited(envelope),
    )


def _is_awaited(envelope: Envelope) -> bool:
    """Whether a client probably waits for the outcome, which it is sent now."""
    sent = envelope.timestamp
    if envelope.reply_to is None or sent is None:
        return envelope.reply_to is not None
    return datetime.now(UTC) - sent < timedelta(seconds=settings.CALL_TIMEOUT)


def letter_from_queue(envelope: Envelope, queue: str) -> DeadLetter:
    """
    Return the unsaved dead letter of a message from `<queue>.dead`.

    What the broker says about its death is believed if it came by our exchange, to
    which partitions dead-letter. Anybody may publish to the queue by its name: then
    nothing is believed, and no message that was accepted is affected.
    """
    death = _last_death(envelope.headers)
    at = death.get("time")
    if is_believed := envelope.exchange == PARTITIONS:
        kind, reason = BROKER_REASONS.get(storable(death.get("reason")), UNEXPLAINED)
        envelope = _as_published(envelope, death)
    else:
        kind, reason = FOREIGN
    assigned = envelope.own_header(ASSIGNED_ID)
    nameless = uuid.uuid5(NAMELESS, f"{_id_of(queue, envelope.body)} {at}")
    letter = _letter(
        Delivery(envelope, queue, 0, assigned_id=assigned or str(nameless)),
        kind=kind,
        code="failed",
        reason=reason,
        failed_at=at if is_believed and isinstance(at, datetime) else datetime.now(UTC),
    )
    if not is_believed:
        letter.id = _id_of(queue, letter.message_id, envelope.body, f"foreign {at}")
    if not is_believed or (envelope.message_id is None and not assigned):
        letter.inbox_id = None  # no inbox row can be about it
    return letter


def _letter(delivery: Delivery, **failure: Any) -> DeadLetter:
    envelope, queue, message_id = delivery.envelope, delivery.queue, delivery.message_id
    letter = DeadLetter(
        id=_id_of(queue, message_id, envelope.body),
        queue=queue,
        message_id=storable(message_id, SHORT),
        event_type=storable(event_type(envelope), TYPE_LENGTH),
        properties=json.dumps(properties(envelope), ensure_ascii=False),
        size=len(envelope.body),
        replays=delivery.replays,
        archived_at=datetime.now(UTC),
        **failure,
    )
    letter.cause = cause_of(
        queue,
        letter.event_type,
        letter.kind,
        letter.code,
        letter.reason,
        letter.is_answered,
    )
    letter.inbox_id = delivery.inbox_id
    letter.body = envelope.body
    letter.note_failure()
    return letter


def _id_of(*parts: str | bytes) -> str:
    """Return the id of the dead letter with these parts."""
    result = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        result.update(b"%d:" % len(encoded))
        result.update(encoded)
    return result.hexdigest()


def _last_death(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the latest entry of the `x-death` header, or {}."""
    match headers.get("x-death"):
        case [dict() as latest, *_]:
            return latest
        case _:
            return {}


def _as_published(envelope: Envelope, death: dict[str, Any]) -> Envelope:
    """
    Return an envelope with the exchange and routing key it was published with.

    Brokers before RabbitMQ 4 add to an `x-death` that the sender has set. So it is not
    enough to say who that was, nor that it is an event.
    """
    match death.get("routing-keys"):
        case [first, *_]:
            key = storable(first)
        case _:
            key = ""
    exchange = storable(death.get("exchange", ""))
    who = (ORIGIN_USER, ACTOR)
    headers = {n: v for n, v in envelope.headers.items() if n not in who}
    found = envelope.copy(exchange=exchange, routing_key=key, headers=headers)
    return found.copy(exchange="") if found.is_event else found


def properties(envelope: Envelope) -> dict[str, Any]:
    """Return the properties of a message in a form that JSON can represent."""
    condition, actor = envelope.own_header(IF_VERSION), envelope.actor
    envelope = at_origin(envelope)
    headers = fitting(original(envelope.headers), FRAME_SIZE)
    if condition is not None:
        headers[IF_VERSION] = condition
    if envelope.exchange:
        headers |= {
            ORIGIN_EXCHANGE: storable(envelope.exchange, SHORT),
            ORIGIN_ROUTING_KEY: storable(envelope.routing_key, SHORT),
        }
    if actor:
        headers[ACTOR] = actor
    if envelope.user_id:
        headers[ORIGIN_USER] = storable(envelope.user_id, SHORT)
    given = {name: to_json(getattr(envelope, name)) for name in PROPERTIES}
    return {name: value for name, value in given.items() if value is not None} | {
        "headers": {
            storable(name, SHORT): to_json(value) for name, value in headers.items()
        }
    }
