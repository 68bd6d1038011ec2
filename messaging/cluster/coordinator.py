"""Keeps the leases of one process: beats, takes over, and shares with the others."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, Self

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging.conf import settings
from messaging.exceptions import SERVER_FAILURES
from messaging.models.lease import Lease, Worker

from . import sessions
from .leases import HeldLease
from .sharing import share

logger = logging.getLogger(__name__)

#: Heartbeats within the time after which a process counts as dead.
BEATS = 5
#: Seconds for the database to take the goodbye of a process.
FAREWELL = 1.0


class Consumer(Protocol):
    """What consumes a partition while this process holds its lease."""

    queue: str
    name: str
    on_release: Callable[[], None]

    @property
    def lease(self) -> HeldLease | None:
        """The lease in force."""

    def grant(self, lease: HeldLease) -> None:
        """Begin to consume."""

    def ask_back(self) -> None:
        """Release the lease after the batch in hand."""


class Coordinator:
    """
    Grants partitions to the consumers of this process, and asks for them back.

    Each process computes who is to hold what from the same two tables, gives back what
    it should not hold, and takes what is free or was a dead one's.
    """

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        self._by_queue: dict[str, list[Consumer]] = defaultdict(list)
        for consumer in consumers:
            self._by_queue[consumer.queue].append(consumer)
            consumer.on_release = self.wake
        self.me = Worker(
            id=uuid.uuid4().hex,
            name=f"{socket.gethostname()}:{os.getpid()}",
            queues=sorted(self._by_queue),
        )
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._last_beat = time.monotonic()

    def wake(self) -> None:
        """Look at the leases now."""
        self._awake.set()

    def retire(self) -> None:
        """Take no more partitions, and leave those in hand to others when let go."""
        self.me.queues = []
        self.wake()

    def __enter__(self) -> Self:
        """Begin to beat, in a thread that no hanging database can keep alive."""
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Have the others know at once that this process is gone."""
        self._stopping.set()
        self._awake.set()
        self._thread.join(FAREWELL)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._beat()
            except Exception as error:
                logger.warning(
                    "The leases cannot be kept: %s",
                    error,
                    exc_info=not isinstance(error, SERVER_FAILURES),
                )
                with suppress(Exception):
                    connections.close_all()
            self._awake.wait(settings.LEASE / BEATS)
            self._awake.clear()
        with suppress(DatabaseFailure):
            Worker.objects.using(settings.DATABASE).filter(pk=self.me.pk).delete()
        connections.close_all()

    def _beat(self) -> None:
        sessions.hold(settings.DATABASE, self.me.pk)
        workers = Worker.objects.using(settings.DATABASE)
        workers.beat(self.me)
        # Whoever was held up, as all are by a database that was, judges nobody yet.
        now = time.monotonic()
        was_silent = now - self._last_beat > settings.LEASE / 2
        self._last_beat = now
        if was_silent:
            return
        living = workers.living()
        for queue in self._by_queue:
            self._share(queue, living)

    def _share(self, queue: str, living: Sequence[Worker]) -> None:
        members = [worker.pk for worker in living if queue in worker.queues]
        # One that is stopping is no member, and keeps what it has until it is done.
        holders = {worker.pk for worker in living}
        consumers = self._by_queue[queue]
        names = [consumer.name for consumer in consumers]
        objects = Lease.objects.using(settings.DATABASE)
        leases = {lease.name: lease for lease in objects.filter(queue=queue)}
        if leases.keys() != set(names):
            objects.enrol(queue, names)
            self.wake()
            return
        held = {name: lease.worker for name, lease in leases.items()}
        wanted = share(names, members, held)
        for consumer in consumers:
            self._follow(
                consumer,
                leases[consumer.name],
                is_mine=wanted.get(consumer.name) == self.me.pk,
                is_free=held[consumer.name] not in holders,
            )

    def _follow(
        self, consumer: Consumer, lease: Lease, *, is_mine: bool, is_free: bool
    ) -> None:
        """Bring one consumer to what was decided about its partition."""
        held = consumer.lease
        owns = lease.worker == self.me.pk
        if held is not None:
            if not (is_mine and owns and held.epoch == lease.epoch):
                consumer.ask_back()
        elif is_mine and (is_free or owns):
            self._take(consumer, lease)
        elif owns:
            # It could not be given back when it was let go.
            objects = Lease.objects.using(settings.DATABASE)
            objects.give_back(lease.name, self.me.pk, lease.epoch)

    def _take(self, consumer: Consumer, lease: Lease) -> None:
        epoch = Lease.objects.using(settings.DATABASE).take(lease, self.me.pk)
        if epoch is not None:
            logger.info("HeldLease %s in epoch %d", lease.name, epoch)
            consumer.grant(HeldLease(consumer.queue, consumer.name, self.me.pk, epoch))
