"""From the queues of the dead into the table, once each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db import IntegrityError, transaction

from messaging.amqp.client import tool
from messaging.amqp.subscription import envelope_of
from messaging.conf import settings
from messaging.exceptions import Retry
from messaging.message import Delivery
from messaging.models.dead_letter import FAILURE_FIELDS, SETTLED_FIELDS, DeadLetter
from messaging.topology import dead_queue, origin

from .letters import read

#: Bytes that a dead letter takes beside its body, about.
LETTER_SIZE = 2000
#: Bytes of the letters that are looked at in one queue: what a terminal's program may
#: well take, and more than an archive that keeps up ever leaves there.
BROWSED_SIZE = 256 * 1024 * 1024
#: Bytes of the letters that are archived in one transaction.
BATCH_SIZE = 1024 * 1024
#: Transactions of which one meets no other process that archives the same letters.
TRIES = 3


def archive(batch: Sequence[Delivery]) -> None:
    """Store a batch of deliveries from a queue of the dead."""
    store(read(one.envelope, origin(one.queue)) for one in batch)


def store(letters: Iterable[DeadLetter]) -> None:
    """
    Store dead letters, each message once.

    Those that are known change nothing, unless they tell of a later failure. Raises
    `Retry` when another process has just stored one of them.
    """
    rows = DeadLetter.objects.using(settings.DATABASE)
    try:
        with transaction.atomic(using=settings.DATABASE):
            latest = {letter.id: letter for letter in without_copies(letters)}
            locked = rows.select_for_update().order_by("pk")
            known = locked.in_bulk(list(latest))
            changed = [
                row for row in known.values() if row.learn_from(latest.pop(row.id))
            ]
            rows.bulk_update(changed, {*FAILURE_FIELDS, *SETTLED_FIELDS}, 100)
            rows.add(latest.values())
    except IntegrityError as error:
        raise Retry("Another process has just archived one of these.") from error


def without_copies(letters: Iterable[DeadLetter]) -> Iterable[DeadLetter]:
    """
    Leave out copies of letters whose messages have no id.

    Two equal bodies are two messages. But one that had been handed out before it
    failed may be the second letter about a message, from a consumer that died between
    the letter and the acknowledgement: it is taken for one that waits already.
    """
    letters = list(letters)
    suspects = {letter.fingerprint for letter in letters if letter.deliveries} - {""}
    earlier: dict[str, list[DeadLetter]] = defaultdict(list)
    rows = DeadLetter.objects.using(settings.DATABASE).waiting()
    for row in rows.filter(fingerprint__in=suspects).select_for_update().order_by("pk"):
        earlier[row.fingerprint].append(row)
    for letter in letters:
        twins = earlier[letter.fingerprint] if letter.fingerprint else []
        first = next((twin for twin in twins if letter.copies(twin)), None)
        if first is None:
            twins.append(letter)
            yield letter
        else:
            first.absorb(letter)


def browse(queue: str) -> list[DeadLetter]:
    """
    Give the dead letters that wait in the queue, oldest first, and leave them there.

    Raises `MessagingError` when the broker or the queue is away.
    """
    with tool("dead-letters") as use, use.channel() as channel:
        # Unsettled messages go back, in their order, when the channel closes.
        return [letter for letter, _ in take(channel, queue, BROWSED_SIZE)]


def collect(queue: str) -> int:
    """
    Archive the dead letters that wait in the queue, and give how many did.

    Raises `MessagingError` when the broker or the queue is away.
    """
    collected = 0
    with tool("dead-letters") as use, use.channel() as channel:
        while batch := list(take(channel, queue, BATCH_SIZE)):
            for attempt in reversed(range(TRIES)):
                try:
                    store(letter for letter, _ in batch)
                except Retry:
                    if not attempt:
                        raise
                else:
                    break
            channel.basic_ack(batch[-1][1], multiple=True)
            collected += len(batch)
    return collected


def take(channel: Any, queue: str, size: int) -> Iterator[tuple[DeadLetter, int]]:
    """Give dead letters and their delivery tags until their bodies have `size`."""
    while size > 0:
        method, properties, body = channel.basic_get(dead_queue(queue))
        if method is None:
            return
        size -= LETTER_SIZE + len(body)
        yield read(envelope_of(method, properties, body), queue), method.delivery_tag
