"""Dead letters as messages: what is put into `<queue>.dead`, and how it is read."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from messaging.amqp.headers import fitting, original, text, to_json
from messaging.conf import settings
from messaging.consumer.context import CODE, Failure
from messaging.message import PROPERTIES, REPLAYS, Delivery, Envelope
from messaging.models.dead_letter import DeadLetter
from messaging.received import ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY
from messaging.topology import dead_queue

#: Namespace of the ids made for messages that have none.
NAMELESS = uuid.UUID("0b5f3d0c-2a4e-5c41-8a55-7d1f1f0e9a63")
#: Characters of a reason that travel in a header, up to four bytes each. All headers
#: together must stay under 16 KiB, or the broker closes the connection.
REASON_LENGTH = 1000
#: Bytes of the original headers that are kept.
HEADERS_SIZE = 7000
#: Characters that tell the names of those that are not.
DROPPED_LENGTH = 300

#: Bytes of a frame, and so of all headers that a message can have.
FRAME_SIZE = 128 * 1024

#: What the broker's own reasons for dead-lettering are called here.
BROKER_KINDS = {
    "delivery_limit": (
        DeadLetter.Kind.POISON,
        "Every consumer that was handed this message died.",
    ),
    "expired": (
        DeadLetter.Kind.EXPIRED,
        "It waited longer than its sender allowed.",
    ),
    "rejected": (DeadLetter.Kind.REJECTED, "A foreign consumer refused it."),
    "maxlen": (DeadLetter.Kind.REJECTED, "The queue was too long to keep it."),
}
UNEXPLAINED = (DeadLetter.Kind.REJECTED, "It was put here without a reason.")


def dead_letter(delivery: Delivery, failure: Failure) -> Envelope:
    """
    Give the envelope that keeps a message for an operator.

    Body and properties stay those of the original; headers say why and whence.
    """
    envelope = delivery.envelope
    theirs = original(envelope.headers)
    kept = fitting(theirs, HEADERS_SIZE)
    ours = {
        "dead-kind": failure.kind,
        "dead-code": text(failure.code, CODE),
        "dead-reason": text(failure.reason, REASON_LENGTH),
        "dead-exception": text(failure.exception, 255),
        "dead-queue": delivery.queue,
        "dead-exchange": envelope.exchange,
        "dead-routing-key": text(envelope.routing_key, 255),
        "dead-at": datetime.now(UTC).isoformat(),
        "dead-deliveries": delivery.delivery_count or int(delivery.redelivered),
    }
    if envelope.message_id is None:
        # The same for every try of this consumer to publish the letter.
        name = f"{delivery.queue} {delivery.consumer_tag} {delivery.tag}"
        ours["dead-id"] = str(uuid.uuid5(NAMELESS, name))
    if dropped := theirs.keys() - kept.keys():
        names = ", ".join(sorted(text(name, 255) for name in dropped))
        ours["dead-dropped-headers"] = names[:DROPPED_LENGTH]
    return envelope.copy(
        exchange="",
        routing_key=dead_queue(delivery.queue),
        mandatory=True,
        headers=kept | ours,
    )


def read(envelope: Envelope, queue: str) -> DeadLetter:
    """
    Give the row of a message found in `<queue>.dead`.

    This package put it there, or the broker itself, or anybody.
    """
    headers = envelope.headers
    message_id = text(envelope.message_id, 255)
    nameless = not message_id
    fingerprint = digest(queue, envelope.body)
    if nameless:
        message_id = text(headers.get("dead-id"), 255) or str(
            uuid.uuid5(NAMELESS, f"{fingerprint} {death(headers).get('time')}")
        )
    replay_id = message_id
    exchange = headers.get("dead-exchange", death(headers).get("exchange"))
    if exchange := text(exchange, 255):
        # It is sent to the one queue, and the inbox tells such messages apart.
        first = envelope.copy(message_id=message_id, exchange=exchange)
        replay_id = Delivery(first, queue, tag=0).inbox_id
    letter = DeadLetter(
        id=digest(queue, replay_id, envelope.body),
        queue=queue,
        message_id=message_id,
        replay_id=replay_id,
        fingerprint=fingerprint if nameless else "",
        event_type=event_type(envelope),
        properties=json.dumps(properties(envelope), ensure_ascii=False),
        size=len(envelope.body),
        deliveries=count(headers.get("dead-deliveries")),
        replays=count(headers.get(REPLAYS)),
        archived_at=datetime.now(UTC),
        **failure(headers),
    )
    letter.body = envelope.body
    letter.note_failure()
    return letter


def digest(*parts: str | bytes) -> str:
    """Give 32 hexadecimal digits that only the same `parts` have."""
    result = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        result.update(b"%d:" % len(encoded))
        result.update(encoded)
    return result.hexdigest()


def failure(headers: dict[str, Any]) -> dict[str, Any]:
    """Give what headers say of why and when, as fields of the row."""
    if headers.get("dead-kind") in DeadLetter.Kind.values:
        return {
            "kind": headers["dead-kind"],
            "code": text(headers.get("dead-code"), CODE),
            "reason": text(headers.get("dead-reason"), 1000),
            "exception": text(headers.get("dead-exception"), 255),
            "failed_at": moment(headers.get("dead-at")),
        }
    said = text(death(headers).get("reason"), 50)
    kind, reason = BROKER_KINDS.get(said, UNEXPLAINED)
    at = moment(death(headers).get("time"))
    return {"kind": kind, "reason": reason, "failed_at": at}


def death(headers: dict[str, Any]) -> dict[str, Any]:
    """Give what the broker says of its own last dead-lettering, if there was any."""
    match headers.get("x-death"):
        case [dict() as latest, *_]:
            return latest
        case _:
            return {}


def origin(headers: dict[str, Any]) -> dict[str, str]:
    """Give, as headers, through which exchange a message came, and with which key."""
    exchange = text(headers.get("dead-exchange", death(headers).get("exchange")), 255)
    if not exchange:
        return {}
    match death(headers).get("routing-keys"):
        case [first, *_]:
            key = first
        case _:
            key = ""
    key = text(headers.get("dead-routing-key", key), 255)
    return {ORIGIN_EXCHANGE: exchange, ORIGIN_ROUTING_KEY: key}


def moment(value: object) -> datetime:
    """Give the time a header tells, or now if it tells none that can be true."""
    now = datetime.now(UTC)
    try:
        told = (
            value
            if isinstance(value, datetime)
            else datetime.fromisoformat(text(value, 40))
        )
    except ValueError:
        return now
    told = told if told.tzinfo else told.replace(tzinfo=UTC)
    return told if abs(told - now) < timedelta(days=3650) else now


def count(value: object) -> int:
    """Give the number a header tells, or 0."""
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def event_type(envelope: Envelope) -> str:
    """Give the event type that the properties or the body name, or ""."""
    if envelope.type:
        return text(envelope.type, 100)
    if len(envelope.body) > settings.MAX_BODY:
        return ""
    try:
        parsed = json.loads(envelope.body)
    except (ValueError, RecursionError):
        return ""
    return text(parsed.get("event_type"), 100) if isinstance(parsed, dict) else ""


def properties(envelope: Envelope) -> dict[str, Any]:
    """Give what restores the original, in a form that JSON holds."""
    headers = fitting(original(envelope.headers), FRAME_SIZE)
    headers |= origin(envelope.headers)
    given = {name: to_json(getattr(envelope, name)) for name in PROPERTIES}
    given["dropped_headers"] = envelope.headers.get("dead-dropped-headers")
    return {name: value for name, value in given.items() if value is not None} | {
        "headers": {text(name, 255): to_json(value) for name, value in headers.items()}
    }
