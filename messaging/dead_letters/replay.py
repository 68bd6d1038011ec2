"""Settling dead letters: requeue them, unchanged or corrected, or discard them."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import Max

from messaging import topology
from messaging.amqp.encoding import sendable
from messaging.amqp.headers import from_json
from messaging.conf import settings
from messaging.envelope import (
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    PARTITION_KEY,
    PARTITIONS,
    REPLAYS,
    Envelope,
)
from messaging.exceptions import InvalidMessage
from messaging.message import Message, decode
from messaging.models import Inbox, Outbox
from messaging.models.dead_letter import SETTLED_FIELDS, DeadLetter, DeadLetterQuerySet
from messaging.received import Received
from messaging.registry import handlers, messages_of

from .formatting import printable
from .query import portions

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
) -> Iterator[list[DeadLetter]]:
    """
    Send dead letters again, oldest first; yield them in portions once committed.

    A replay is accepted anew, under the same message id. It is published through the
    outbox, in the transaction that marks the dead letter as requeued: it is neither
    lost nor sent twice, and no lock is held while waiting for the broker. `body`
    replaces that of a single dead letter, and is sent without content encoding. Those
    of queues without handlers are skipped.

    Raises `InvalidMessage` for a body that no handler accepts.
    """
    details = {} if body is None else {"body": body.decode(errors="backslashreplace")}

    def publish(letters: list[DeadLetter]) -> None:
        envelopes = [replay(letter, body) for letter in letters]
        Outbox.objects.using(settings.DATABASE).add(envelopes)
        for letter in letters:
            letter.replays += 1

    sendable = rows.filter(queue__in=handlers)
    yield from _settle(sendable, DeadLetter.Status.REQUEUED, by, publish, **details)


def unsendable(rows: DeadLetterQuerySet) -> list[DeadLetter]:
    """Return the dead letters of queues without handlers, which `requeue` skips."""
    return list(rows.exclude(queue__in=handlers))


def discard(rows: DeadLetterQuerySet, by: str) -> Iterator[list[DeadLetter]]:
    """Mark dead letters as discarded; yield them in portions once committed."""
    yield from _settle(rows, DeadLetter.Status.DISCARDED, by, lambda _: None)


def _settle(
    rows: DeadLetterQuerySet,
    status: str,
    by: str,
    act: Callable[[list[DeadLetter]], None],
    **details: str,
) -> Iterator[list[DeadLetter]]:
    archive = DeadLetter.objects.using(settings.DATABASE)
    for portion in portions(rows):
        with transaction.atomic(using=settings.DATABASE):
            chosen = rows.filter(pk__in=portion).prefetch_related("parts")
            # Locked in the same order as by consumers.
            letters = list(chosen.order_by("pk").select_for_update())
            letters.sort(key=lambda letter: (letter.failed_at, letter.id))
            act(letters)
            for letter in letters:
                letter.settle(status, by, **details)
            archive.bulk_update(letters, SETTLED_FIELDS)
        yield letters


def replay(letter: DeadLetter, body: bytes | None = None) -> Envelope:
    """Return the envelope that requeues a dead letter."""
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
    envelope = Envelope(
        letter.body if body is None else body,
        topology.partition_for(letter.queue, str(headers.get(PARTITION_KEY, ""))),
        exchange=PARTITIONS,
        message_id=letter.message_id,
        headers=origin | headers | {REPLAYS: letter.replays + 1},
        **kept,
    )
    # Those that came from an exchange may have filled a frame without ours.
    return sendable(envelope)


def corrected(letter: DeadLetter, body: bytes) -> Message:
    """Parse a corrected body; raises `InvalidMessage`."""
    if letter.queue not in handlers:
        raise InvalidMessage({"": [f"No app handles messages of {letter.queue}."]})
    envelope = Envelope(body, letter.queue, headers=headers_of(letter))
    return decode(body, messages_of(letter.queue), envelope)


def headers_of(letter: DeadLetter) -> dict[str, Any]:
    """Return the headers set by its sender."""
    given = letter.original_properties["headers"]
    return {name: from_json(value) for name, value in given.items()}


def overtaken(letters: list[DeadLetter]) -> dict[str, datetime]:
    """
    Return the dead letters that failed before a newer message of their key was applied.

    The result maps their ids to the time when the latest such message was applied.
    """
    keys = {letter.id: key for letter in letters if (key := partition_key(letter))}
    if not keys:
        return {}
    latest = dict(
        Inbox.objects.using(settings.DATABASE)
        .filter(
            processed_at__gt=min(letter.failed_at for letter in letters),
            key__in=set(keys.values()),
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


def warnings(letters: list[DeadLetter]) -> Iterator[str]:
    """Yield a line of text for each dead letter that is `overtaken`."""
    times = overtaken(letters)
    for letter in letters:
        if letter.id in times:
            yield (
                f"{printable(str(letter))}: newer messages of its key were applied, "
                f"the last at {times[letter.id]:%Y-%m-%d %H:%M:%S} UTC"
            )


def system_user() -> str:
    """Return the user that runs this process, and the host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as an id without a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def partition_key(letter: DeadLetter) -> str:
    """Return the partition key of a dead letter, or "" if its body has none."""
    try:
        return corrected(letter, letter.content).partition_key
    except InvalidMessage:
        return ""
