"""
The table of dead letters: one row for a message, however often it fails.

Consumers `record` the messages that they give up, in the transaction of the batch. The
queues `<queue>.dead` hold messages that the broker dead-letters (expired, delivered too
often, rejected by other programs); `store` moves them into the table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import IntegrityError, OperationalError, transaction

from messaging.amqp.client import connect
from messaging.amqp.deliveries import envelope_of
from messaging.conf import settings
from messaging.database import insert
from messaging.envelope import Delivery
from messaging.logs.outcomes import log_dead_letters
from messaging.models import DeadLetter, Inbox, Parked
from messaging.models.dead_letter import FAILURE_FIELDS, SETTLED_FIELDS
from messaging.monitoring.minutes import record_letters
from messaging.topology import dead_queue

from .letters import Failure, letter_from_queue, letter_of

logger = logging.getLogger(__name__)

#: Approximate bytes of memory for a dead letter, besides its body.
LETTER_SIZE = 2000
#: Maximum bytes of dead letters that are read from one queue: more than wait there
#: while a consumer archives them.
BROWSED_SIZE = 256 * 1024 * 1024
#: Maximum bytes of dead letters that are archived in one transaction.
BATCH_SIZE = 1024 * 1024


def record(failed: Sequence[tuple[Delivery, Failure]]) -> None:
    """
    Insert dead letters, or reopen those of earlier failures of the same messages.

    Call it in the transaction that records the failures in the inbox.
    """
    if not failed:
        return
    letters = {one.id: one for one in (letter_of(*pair) for pair in failed)}
    _save(letters)
    log_dead_letters(failed)


def _save(letters: dict[str, DeadLetter]) -> None:
    rows = DeadLetter.objects.using(settings.DATABASE)
    known = rows.select_for_update().order_by("pk").in_bulk(list(letters))
    for row in known.values():
        row.reopen(letters[row.id])
    rows.bulk_update(known.values(), {*FAILURE_FIELDS, *SETTLED_FIELDS}, 100)
    rows.add(one for one in letters.values() if one.id not in known)


def store(letters: Iterable[DeadLetter]) -> int:
    """
    Archive messages that the broker dead-lettered; return the number of new rows.

    A message that was handled, is parked, or has a dead letter already is skipped. The
    failures of the others are recorded in the inbox, for `/operations/`. This is
    idempotent. Raises `OperationalError` if another process has just stored one.
    """
    found = {letter.id: letter for letter in letters}
    try:
        with transaction.atomic(using=settings.DATABASE):
            new = {one.id: one for one in _unknown(list(found.values()))}
            _save(new)
            _record_in_inbox(new.values())
            record_letters(new.values())
            log = partial(_log_archived, list(new.values()))
            transaction.on_commit(log, using=settings.DATABASE, robust=True)
    except IntegrityError as error:
        raise OperationalError(
            "Another process has just stored one of these."
        ) from error
    return len(new)


def _log_archived(letters: Sequence[DeadLetter]) -> None:
    for one in letters:
        logger.error(
            "The broker has dead-lettered message %s of %s (%s): %s",
            one.message_id,
            one.queue,
            one.kind,
            one.reason,
            extra={
                "message_id": one.message_id,
                "event_type": one.event_type,
                "queue": one.queue,
            },
        )


def _unknown(letters: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
    ids = [one.inbox_id for one in letters if one.inbox_id]
    inbox = Inbox.objects.using(settings.DATABASE).known(ids)
    parked = Parked.objects.using(settings.DATABASE).filter(message_id__in=ids)
    waiting = set(parked.values_list("message_id", flat=True))
    nameless = [one.id for one in letters if not one.inbox_id]
    rows = DeadLetter.objects.using(settings.DATABASE).filter(pk__in=nameless)
    archived = set(rows.values_list("pk", flat=True))
    for letter in letters:
        row = inbox.get(letter.inbox_id or "")
        is_done = row is not None and row.status == Inbox.Status.DONE
        is_failed = row is not None and letter.replays <= row.replays
        if is_done or is_failed or letter.inbox_id in waiting or letter.id in archived:
            extra = {"message_id": letter.message_id, "queue": letter.queue}
            logger.info("Dead letter %s is already known", letter.id, extra=extra)
            continue
        if row is not None and row.kind == DeadLetter.Kind.PROJECTION:
            letter.kind = row.kind  # its effect is committed, and must not be repeated
        yield letter


def _record_in_inbox(letters: Iterable[DeadLetter]) -> None:
    """Record the failures of dead letters in the inbox, replacing earlier ones."""
    # Some programs send several bodies under one id.
    named = {letter.inbox_id: letter for letter in letters if letter.inbox_id}
    if not named:
        return
    inbox = Inbox.objects.using(settings.DATABASE)
    inbox.filter(pk__in=named).delete()
    now = datetime.now(UTC)
    insert(
        settings.DATABASE,
        Inbox,
        Inbox.COLUMNS,
        [
            (
                letter.inbox_id,
                letter.event_type,
                "",
                Inbox.Status.FAILED,
                "",
                letter.kind,
                letter.reason,
                letter.code,
                letter.replays,
                None,
                None,
                0,
                now,
                letter.actor,
            )
            for letter in named.values()
        ],
    )


def browse(queue: str) -> list[DeadLetter]:
    """
    Return the dead letters in `<queue>.dead`, oldest first, and leave them there.

    Raises `MessagingError` if the broker is unavailable or the queue does not exist.
    """
    with connect("dead-letters") as client, client.channel() as channel:
        # Closing the channel returns unacknowledged messages to the queue, in order.
        return [letter for letter, _ in read_queue(channel, queue, BROWSED_SIZE)]


def collect(queue: str) -> int:
    """
    Archive the dead letters in `<queue>.dead`, and return the number of new rows.

    Raises `MessagingError` if the broker is unavailable or the queue does not exist.
    """
    collected = 0
    with connect("dead-letters") as client, client.channel() as channel:
        while batch := list(read_queue(channel, queue, BATCH_SIZE)):
            collected += store(letter for letter, _ in batch)
            channel.basic_ack(batch[-1][1], multiple=True)
    return collected


def read_queue(channel: Any, queue: str, size: int) -> Iterator[tuple[DeadLetter, int]]:
    """Yield dead letters, up to about `size` bytes, with their delivery tags."""
    while size > 0:
        method, properties, body = channel.basic_get(dead_queue(queue))
        if method is None:
            return
        size -= LETTER_SIZE + len(body)
        yield (
            letter_from_queue(envelope_of(method, properties, body), queue),
            method.delivery_tag,
        )
