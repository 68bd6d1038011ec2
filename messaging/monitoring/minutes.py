"""
Counting what happens, in a row for each source, event type and minute.

A consumer counts in the transaction of its batch, so that the numbers are exact
whatever is killed, and a batch that is processed again is counted once. A process that
publishes stores its numbers every few seconds, from a thread of its own.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

from django.db import DatabaseError, connections

from messaging.amqp.process import OnePerProcess
from messaging.amqp.tally import Counts, tally
from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.envelope import Delivery, now_ms
from messaging.message import TYPE_LENGTH
from messaging.models import DeadLetter, Minute, Worker
from messaging.models.lease import new_worker
from messaging.models.minute import Label, count_times
from messaging.text import storable
from messaging.topology import dead_queue

logger = logging.getLogger(__name__)

#: Seconds between two stores of the numbers of a process that publishes.
FLUSH_PAUSE = 4.0

#: What is counted of a message, by the state in which its batch leaves it.
COLUMNS = {
    "DONE": ("handled",),
    "FAILED": ("failed", "dead_lettered"),
    "RETRY": ("failed", "retried"),
}

Numbers = defaultdict[Label, Counter[str]]


class Attempted(Protocol):
    """What `record` needs of the context of a message."""

    delivery: Delivery

    @property
    def state(self) -> Enum:
        """What has become of the message."""

    @property
    def event_type(self) -> str:
        """The event type in its body."""


def record(
    lease: HeldLease, contexts: Iterable[Attempted], began: int | None = None
) -> None:
    """
    Count messages in the transaction that decides about them, as its last statement.

    `began` is when their batch began, in milliseconds since 1970; without it, their
    times were counted before. Without a worker, as in tests, nothing is counted.
    """
    if not lease.worker:
        return
    same: dict[tuple[str, int], list[Attempted]] = defaultdict(list)
    for context in contexts:
        same[context.event_type, id(context.state)].append(context)
    found = Numbers(Counter)
    for (event_type, _), some in same.items():
        if columns := COLUMNS.get(some[0].state.name):
            numbers = found[Label(lease.name, lease.queue, event_type)]
            numbers.update(dict.fromkeys(columns, len(some)))
            if began is not None and "retried" not in columns:
                sent = [one.delivery.envelope.sent_ms or began for one in some]
                count_times(numbers, sent, began, now_ms())
    add(found)


def add(found: Numbers) -> None:
    """Add numbers to those of this minute."""
    if found:
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        Minute.objects.using(settings.DATABASE).add(minute, found)


def record_letters(letters: Iterable[DeadLetter]) -> None:
    """Count messages that the broker has dead-lettered, in their transaction."""
    found = Numbers(Counter)
    for one in letters:
        label = Label(dead_queue(one.queue), one.queue, one.event_type)
        found[label].update(("failed", "dead_lettered"))
    add(found)


def record_published(kind: str) -> None:
    """
    Count what this process publishes from now on, and store it in the background.

    `kind` is "api", whose messages are counted as accepted or refused, or "relay",
    whose messages are counted as published. A process that is forked counts for itself.
    """
    Flusher.kind = kind
    tally.on_count = flusher


class Flusher:
    """Stores what this process publishes, and that it lives, in its own thread."""

    kind = ""

    def __init__(self) -> None:
        self._me = new_worker(self.kind)
        self._source = f"{self.kind} {self._me.name}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Store what is left, within `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        self.flush()
        while not self._stopping.wait(FLUSH_PAUSE):
            self.flush()
        self.flush()
        with suppress(DatabaseError):
            Worker.objects.using(settings.DATABASE).filter(pk=self._me.pk).delete()
        connections.close_all()

    def flush(self) -> None:
        """Store the numbers and a heartbeat; keep the numbers if that fails."""
        counts = tally.take()
        try:
            close_stale_connections()
            while counts:
                minute = min(counts).minute
                some = Counter({k: n for k, n in counts.items() if k.minute == minute})
                Minute.objects.using(settings.DATABASE).add(
                    datetime.fromtimestamp(minute * 60, UTC), self._numbers(some)
                )
                counts -= some
            Worker.objects.using(settings.DATABASE).beat(self._me)
        except Exception as error:  # noqa: BLE001 nothing depends on this thread
            tally.add(counts)
            logger.warning("Counts of what was published are kept: %s", error)
            connections.close_all()

    def _numbers(self, counts: Counts) -> Numbers:
        confirmed = "published" if self.kind == "relay" else "accepted"
        found = Numbers(Counter)
        for one, number in counts.items():
            label = Label(self._source, "", storable(one.what, TYPE_LENGTH))
            column = confirmed if one.outcome == "confirmed" else one.outcome
            found[label][column] += number
        return found


#: That of this process, which is started when it first publishes.
flusher = OnePerProcess(Flusher)
