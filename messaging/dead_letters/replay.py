"""Settling dead letters: requeue them, unchanged or corrected, or discard them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Max

from messaging import topology
from messaging.amqp.encoding import sendable
from messaging.amqp.headers import from_json
from messaging.conf import settings
from messaging.envelope import (
    ACTOR,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    PARTITION_KEY,
    PARTITIONS,
    REPLAYS,
    SENT_AT,
    Envelope,
    now_ms,
)
from messaging.exceptions import InvalidMessage
from messaging.masking import printable
from messaging.message import Message, decode, key_of
from messaging.models import Inbox, Outbox
from messaging.models.dead_letter import SETTLED_FIELDS, DeadLetter, DeadLetterQuerySet
from messaging.received import Received
from messaging.registry import handlers, messages_of

from .query import portions

Letters = list[DeadLetter]

#: Properties that a replay keeps. `reply_to` is not: its client no longer waits; nor is
#: `priority`, with which it would overtake others of its key.
KEPT = (
    "type",
    "content_type",
    "content_encoding",
    "app_id",
    "correlation_id",
)


def requeue(
    rows: DeadLetterQuerySet, by: str, *, body: bytes | None = None
) -> Iterator[Letters]:
    """
    Send dead letters again, oldest first; yield them in portions once committed.

    A replay is accepted anew, under the same message id. `body` replaces that of a
    single dead letter, and is sent without content encoding. Those of queues without
    handlers are skipped.

    Raises `InvalidMessage` for a body that no handler accepts.
    """
    sendable = rows.filter(queue__in=handlers)
    yield from _in_portions(sendable, partial(send, by=by, body=body))


def unsendable(rows: DeadLetterQuerySet) -> Letters:
    """Return the dead letters of queues without handlers, which `requeue` skips."""
    return list(rows.exclude(queue__in=handlers))


def discard(rows: DeadLetterQuerySet, by: str) -> Iterator[Letters]:
    """Mark dead letters as discarded; yield them in portions once committed."""
    yield from _in_portions(rows, partial(_settle, DeadLetter.Status.DISCARDED, by))


def restore(rows: DeadLetterQuerySet, by: str) -> Iterator[Letters]:
    """Let discarded dead letters wait again; yield them in portions once committed."""
    discarded = rows.filter(status=DeadLetter.Status.DISCARDED)
    yield from _in_portions(discarded, partial(_restore, by))


def _in_portions(
    rows: DeadLetterQuerySet, act: Callable[[Letters], None]
) -> Iterator[Letters]:
    for portion in portions(rows):
        with transaction.atomic(using=settings.DATABASE):
            letters = locked(rows.filter(pk__in=portion))
            act(letters)
        yield letters


def locked(rows: DeadLetterQuerySet) -> Letters:
    """Return rows with their bodies, oldest first, locked like consumers lock them."""
    chosen = rows.prefetch_related("parts").order_by("pk").select_for_update()
    return sorted(chosen, key=lambda letter: (letter.failed_at, letter.id))


def send(letters: Letters, by: str, body: bytes | None = None) -> None:
    """
    Publish locked dead letters through the outbox, and mark them as requeued.

    It happens in the transaction of the caller: they are neither lost nor sent twice,
    and no lock is held while waiting for the broker.
    """
    details = {} if body is None else {"body": body.decode(errors="backslashreplace")}
    envelopes = [replay(letter, by, body) for letter in letters]
    Outbox.objects.using(settings.DATABASE).add(envelopes)
    for letter in letters:
        letter.replays += 1
    _settle(DeadLetter.Status.REQUEUED, by, letters, **details)


def _settle(status: str, by: str, letters: Letters, **details: str) -> None:
    for letter in letters:
        letter.settle(status, by, **details)
    _save(letters)


def _restore(by: str, letters: Letters) -> None:
    for letter in letters:
        letter.restore(by)
    _save(letters)


def _save(letters: Letters) -> None:
    rows = DeadLetter.objects.using(settings.DATABASE)
    rows.bulk_update(letters, SETTLED_FIELDS)


def replay(letter: DeadLetter, by: str, body: bytes | None = None) -> Envelope:
    """Return the envelope that requeues a dead letter; its actor names both."""
    properties = letter.original_properties
    headers = headers_of(letter)
    kept: dict[str, Any] = {name: properties.get(name) for name in KEPT}
    kept = {name: from_json(value) for name, value in kept.items()}
    if body is not None:
        message = corrected(letter, body)
        kept["content_encoding"] = None
        if not isinstance(message, Received):
            kept["type"] = message.event_type
            headers[PARTITION_KEY] = message.partition_key
    origin = {ORIGIN_EXCHANGE: "", ORIGIN_ROUTING_KEY: letter.queue}
    actor = f"{headers.get(ACTOR, 'unknown')}, replayed by {by}"
    ours = {REPLAYS: letter.replays + 1, SENT_AT: now_ms(), ACTOR: actor}
    envelope = Envelope(
        letter.body if body is None else body,
        topology.partition_for(letter.queue, str(headers.get(PARTITION_KEY, ""))),
        exchange=PARTITIONS,
        message_id=letter.message_id,
        headers=origin | headers | ours,
        **kept,
    )
    # Those that came from an exchange may have filled a frame without ours.
    return sendable(envelope)


def corrected(letter: DeadLetter, body: bytes) -> Message:
    """Parse a corrected body; raises `InvalidMessage`."""
    if letter.queue not in handlers:
        raise InvalidMessage({"": [f"No app handles messages of {letter.queue}."]})
    envelope = Envelope(
        body, letter.queue, message_id=letter.message_id, headers=headers_of(letter)
    )
    return decode(body, messages_of(letter.queue), envelope)


def headers_of(letter: DeadLetter) -> dict[str, Any]:
    """Return the headers set by its sender."""
    given = letter.original_properties["headers"]
    return {name: from_json(value) for name, value in given.items()}


def overtaken(
    letters: Letters, keys: Mapping[str, str] | None = None
) -> dict[str, datetime]:
    """
    Return the dead letters that failed before a newer message of their key was applied.

    The result maps their ids to the time when the latest such message was applied.
    `keys` are their partition keys by id, if they are known.
    """
    if keys is None:
        keys = {letter.id: partition_key(letter) for letter in letters}
    known = set(filter(None, keys.values()))
    if not known:
        return {}
    latest = dict(
        Inbox.objects.using(settings.DATABASE)
        .filter(
            processed_at__gt=min(letter.failed_at for letter in letters),
            key__in=known,
            status=Inbox.Status.DONE,
        )
        .values_list("key")
        .annotate(Max("processed_at"))
    )
    never = datetime.min.replace(tzinfo=UTC)
    return {
        letter.id: at
        for letter in letters
        if (at := latest.get(keys.get(letter.id, ""), never)) > letter.failed_at
    }


def warnings(
    letters: Letters, times: Mapping[str, datetime] | None = None
) -> Iterator[str]:
    """Yield a line of text for each dead letter that is `overtaken`."""
    times = overtaken(letters) if times is None else times
    for letter in letters:
        if letter.id in times:
            yield (
                f"{printable(str(letter))}: newer messages of its key were applied, "
                f"the last at {times[letter.id]:%Y-%m-%d %H:%M:%S} UTC"
            )


def partition_key(letter: DeadLetter) -> str:
    """Return the partition key of a dead letter, or "" if its body has none."""
    try:
        return key_of(corrected(letter, letter.content))
    except InvalidMessage:
        return ""
