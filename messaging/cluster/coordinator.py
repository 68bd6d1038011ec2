"""Heartbeats of this worker, and the assignment of partitions to workers."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, Self

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging.amqp.subscription import Subscription
from messaging.conf import settings
from messaging.exceptions import SERVER_FAILURES
from messaging.logs.repetition import RepeatingLogger
from messaging.models import session_locks
from messaging.models.lease import Lease, PausedQueue, Worker, new_worker

from .leases import HeldLease
from .time_limit import WatchedConsumer
from .waiting import Waiting

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)

#: Heartbeats within `MESSAGING["LEASE"]`, after which a worker counts as dead.
HEARTBEATS = 5
#: Seconds for the database to delete the row of a worker that ends.
GOODBYE = 1.0


class PartitionConsumer(WatchedConsumer, Protocol):
    """What the coordinator needs of the consumer of a partition."""

    queue: str
    subscription: Subscription
    waiting: Waiting

    def held(self) -> dict[str, Any]:
        """Return what it has in hand, for the heartbeat."""

    def grant(self, lease: HeldLease) -> None:
        """Begin to consume the partition."""

    def request_release(self) -> None:
        """Release the lease after the batch in hand."""


class Coordinator:
    """
    Grants leases to the consumers of this worker, and asks for them back.

    Every worker computes the same assignment from the same two tables, asks back what
    is assigned to others, and takes what is assigned to it as soon as it is free or
    its worker is dead.
    """

    def __init__(self, consumers: Sequence[PartitionConsumer]) -> None:
        self._consumers = consumers
        self._by_queue: dict[str, list[PartitionConsumer]] = defaultdict(list)
        for consumer in consumers:
            self._by_queue[consumer.queue].append(consumer)
            consumer.on_release = self.wake
        self.me = new_worker(Worker.CONSUMER, self._by_queue)
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._last_heartbeat = time.monotonic()

    def wake(self) -> None:
        """Look at the leases now."""
        self._awake.set()

    def retire(self) -> None:
        """Take no more leases; other workers take those that this one releases."""
        self.me.queues = []
        self.wake()

    def __enter__(self) -> Self:
        """Start the heartbeats, in a thread that cannot keep the process alive."""
        self._thread = threading.Thread(
            target=self._run, name="coordinator", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the heartbeats, and delete this worker's row for others to see."""
        self._stopping.set()
        self._awake.set()
        self._thread.join(GOODBYE)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 it is logged
                # A server is away, or a bug: the leases expire, which is safe.
                repeating.warning(
                    "Heartbeat failed: %s",
                    error,
                    about=type(error),
                    exc_info=not isinstance(error, SERVER_FAILURES),
                )
                with suppress(Exception):
                    connections.close_all()
            self._awake.wait(settings.LEASE / HEARTBEATS)
            self._awake.clear()
        with suppress(DatabaseFailure):
            Worker.objects.using(settings.DATABASE).filter(pk=self.me.pk).delete()
        connections.close_all()

    def _beat(self) -> None:
        session_locks.acquire(settings.DATABASE, self.me.pk)
        workers = Worker.objects.using(settings.DATABASE)
        self.me.warnings = {
            one.name: text
            for one in self._consumers
            if (text := _warning(one)) and one.lease
        }
        self.me.holds = {
            one.name: one.held() | {"epoch": lease.epoch}
            for one in self._consumers
            if (lease := one.lease)
        }
        workers.beat(self.me)
        # After a pause of this process or of the database, the others' heartbeats may
        # be late as well: none of them counts as dead yet.
        now = time.monotonic()
        was_late = now - self._last_heartbeat > settings.LEASE / 2
        self._last_heartbeat = now
        if was_late:
            return
        living = workers.living()
        paused = PausedQueue.objects.using(settings.DATABASE).in_bulk()
        for queue in self._by_queue:
            self._follow_assignment(queue, living, is_paused=queue in paused)

    def _follow_assignment(
        self, queue: str, living: Sequence[Worker], *, is_paused: bool
    ) -> None:
        consumers = self._by_queue[queue]
        names = [consumer.name for consumer in consumers]
        objects = Lease.objects.using(settings.DATABASE)
        leases = {lease.name: lease for lease in objects.filter(queue=queue)}
        if leases.keys() != set(names):
            objects.enrol(queue, names)
            self.wake()
            return
        # A worker that is stopping gets nothing, but keeps its leases until it is done.
        members = [worker.pk for worker in living if queue in worker.queues]
        if is_paused:
            members = []
        holders = {worker.pk for worker in living}
        assigned = assign(names, members, {n: one.worker for n, one in leases.items()})
        for consumer in consumers:
            lease = leases[consumer.name]
            self._follow(
                consumer,
                lease,
                is_mine=assigned.get(lease.name) == self.me.pk,
                is_free=lease.worker not in holders,
            )

    def _follow(
        self, consumer: PartitionConsumer, row: Lease, *, is_mine: bool, is_free: bool
    ) -> None:
        """Do what the assignment of one partition asks for."""
        # Read once: the consumer's own thread may release it meanwhile.
        lease = consumer.lease
        owns = row.worker == self.me.pk
        if lease is not None:
            if not (is_mine and owns and lease.epoch == row.epoch):
                consumer.request_release()
        elif is_mine and (is_free or owns):
            self._take(consumer, row)
        elif owns:
            # The database was away when the consumer released it.
            objects = Lease.objects.using(settings.DATABASE)
            objects.release(row.name, self.me.pk, row.epoch)

    def _take(self, consumer: PartitionConsumer, row: Lease) -> None:
        epoch = Lease.objects.using(settings.DATABASE).take(row, self.me.pk)
        if epoch is not None:
            logger.info("Lease of %s taken in epoch %d", row.name, epoch)
            lease = HeldLease(row.queue, row.name, self.me.pk, epoch, consumer.watch)
            consumer.grant(lease)


def assign(
    partitions: Sequence[str], members: Sequence[str], held: Mapping[str, str]
) -> dict[str, str]:
    """
    Return the member to which each partition of one queue is assigned.

    No two members differ by more than one partition, and as few as possible of those
    that are `held` (partition to member) move. The result depends on the arguments
    alone, so that all workers compute the same.
    """
    if not members:
        return {}
    has: dict[str, list[str]] = {member: [] for member in members}
    for partition in partitions:
        if held.get(partition) in has:
            has[held[partition]].append(partition)
    # Those with most keep most; ties are broken by a hash that differs from queue to
    # queue, or one member would get all queues of a single partition.
    order = sorted(
        members, key=lambda member: (-len(has[member]), _rank(partitions[0], member))
    )
    least, more = divmod(len(partitions), len(members))
    result: dict[str, str] = {}
    room: list[str] = []
    for place, member in enumerate(order):
        quota = least + (place < more)
        kept = has[member][:quota]
        result |= dict.fromkeys(kept, member)
        room += [member] * (quota - len(kept))
    free = [partition for partition in partitions if partition not in result]
    return result | dict(zip(free, room, strict=True))


def _rank(queue: str, member: str) -> int:
    return zlib.crc32(f"{queue} {member}".encode())


def _warning(consumer: PartitionConsumer) -> tuple[str, str] | None:
    """Return what keeps a consumer from work, and what to do."""
    watch, waiting = consumer.watch, consumer.waiting
    return watch.warning() or waiting.warning() or consumer.subscription.warning
