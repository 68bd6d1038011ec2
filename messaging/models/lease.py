"""
Workers with their heartbeats, the lease of each partition with its epoch, and the
queues that are paused.

A lease is taken over when its worker has died or sends no heartbeats, and its epoch
grows. Every transaction of a batch locks its lease and compares the epoch, so that a
worker that was believed dead, and was only slow, can no longer write.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from functools import cache

from django.db import connections, models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from messaging import __version__
from messaging.conf import settings
from messaging.exceptions import TopologyMismatch

from . import session_locks
from .inbox import Inbox


class LeaseLost(Exception):
    """Another worker holds the partition now."""


class WorkerQuerySet(models.QuerySet["Worker"]):
    """Heartbeats of workers."""

    def beat(self, worker: Worker) -> None:
        """Record a heartbeat, and which queues the worker consumes."""
        row = self.filter(pk=worker.pk)
        state = {
            name: getattr(worker, name) for name in ("queues", "warnings", "holds")
        }
        if not row.update(seen_at=Now(), **state):
            fixed = {
                name: getattr(worker, name) for name in ("name", "kind", "release")
            }
            self.create(id=worker.pk, seen_at=Now(), started_at=Now(), **fixed, **state)

    def living(self) -> list[Worker]:
        """Return the consuming workers that live, as far as the database knows."""
        recent = Now() - timedelta(seconds=settings.LEASE)
        seen = self.filter(kind=Worker.CONSUMER, seen_at__gt=recent)
        workers = list(seen)
        dead = session_locks.not_held(self.db, [worker.pk for worker in workers])
        return [worker for worker in workers if worker.pk not in dead]

    def dead(self) -> models.QuerySet[Worker]:
        """Return the workers without a heartbeat in the last hour."""
        return self.filter(seen_at__lt=Now() - timedelta(hours=1))


class Worker(models.Model):
    """A process that consumes, or that publishes: an API or a relay."""

    CONSUMER = "consumer"

    id = models.CharField(max_length=32, primary_key=True)
    #: Host and process id, for people.
    name = models.CharField(_("process"), max_length=255)
    #: What it does: `CONSUMER`, "api" or "relay".
    kind = models.CharField(_("kind"), max_length=10, default=CONSUMER)
    #: What it runs: `MESSAGING["RELEASE"]`, or the version of this package.
    release = models.CharField(_("release"), max_length=100, default="")
    started_at = models.DateTimeField(_("started"), null=True)
    #: The queues that it consumes; none once it is stopping.
    queues = models.JSONField(_("queues"))
    #: By partition, what is wrong and what to do, for operators.
    warnings = models.JSONField(null=True)
    #: By partition, what it has in hand: see `Waiting.held`.
    holds = models.JSONField(null=True)
    #: By the clock of the database, which all workers share.
    seen_at = models.DateTimeField(_("last seen"))

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("process")
        verbose_name_plural = _("processes")

    def __str__(self) -> str:
        return self.name


def new_worker(kind: str, queues: Collection[str] = ()) -> Worker:
    """Return a worker for this process, which is not stored yet."""
    return Worker(
        id=uuid.uuid4().hex,
        name=f"{socket.gethostname()}:{os.getpid()}",
        kind=kind,
        release=settings.RELEASE or __version__,
        queues=sorted(queues),
    )


class PausedQueueQuerySet(models.QuerySet["PausedQueue"]):
    """The queues that operators have paused."""

    def pause(self, queue: str, paused_by: str) -> bool:
        """Pause a queue; return False if it was paused before."""
        values = {"paused_by": paused_by, "paused_at": Now()}
        return self.get_or_create(queue=queue, defaults=values)[1]

    def resume(self, queue: str) -> bool:
        """Resume a queue; return False if it was not paused."""
        return bool(self.filter(queue=queue).delete()[0])


class PausedQueue(models.Model):
    """A queue of which no process gets a lease, so that its messages wait."""

    queue = models.CharField(max_length=255, primary_key=True)
    paused_by = models.CharField(max_length=255)
    paused_at = models.DateTimeField()

    objects = PausedQueueQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.queue}, by {self.paused_by}"


class LeaseQuerySet(models.QuerySet["Lease"]):
    """The leases of all partitions."""

    def enrol(self, queue: str, partitions: Sequence[str]) -> None:
        """
        Create the leases of a queue and its partitions where they are missing.

        Raises `TopologyMismatch` when the queue has other partitions.
        """
        known = set(self.filter(queue=queue).values_list("name", flat=True))
        if known and known != set(partitions):
            raise TopologyMismatch(
                f"The leases of {queue} are {', '.join(sorted(known))}, and the "
                f"settings want {', '.join(partitions)}: run `manage.py topology plan`."
            )
        self.bulk_create(
            (Lease(name=name, queue=queue) for name in partitions if name not in known),
            ignore_conflicts=True,
        )

    def lock_all(self) -> None:
        """
        Lock all leases until the transaction ends.

        They are read in the order of the primary key. MySQL reports a deadlock where
        one transaction waits in the index of queues while another replaces rows there.
        """
        list(self.select_for_update().order_by("pk").values_list("pk"))

    def replace(self, queue: str, partitions: Iterable[str]) -> None:
        """Replace the leases of a queue by free ones of these partitions."""
        with transaction.atomic(using=self.db):
            self.filter(queue=queue).delete()
            self.bulk_create(Lease(name=name, queue=queue) for name in partitions)

    def partitions_of(self, queue: str) -> list[str]:
        """Return the names of a queue that have leases, in their order."""
        names = self.filter(queue=queue).values_list("name", flat=True)
        return sorted(names, key=lambda name: (len(name), name))

    def take(self, lease: Lease, worker: str) -> int | None:
        """
        Take over a lease in the state in which it was read.

        Returns the new epoch, or None if the lease has changed since.
        """
        if lease.worker not in ("", worker):
            session_locks.end_session(self.db, lock_name(lease.worker, lease.name))
        taken = self.filter(pk=lease.name, worker=lease.worker, epoch=lease.epoch)
        if taken.update(worker=worker, epoch=F("epoch") + 1):
            return lease.epoch + 1
        return None

    def release(self, name: str, worker: str, epoch: int) -> None:
        """Free a lease, if the worker still holds it in this epoch."""
        self.filter(pk=name, worker=worker, epoch=epoch).update(worker="")

    def lock(
        self, name: str, worker: str, epoch: int, ids: Collection[str] = ()
    ) -> bool:
        """
        Lock a lease until the transaction ends; raises `LeaseLost`.

        Returns whether the inbox has one of `ids`, from the same statement. A row that
        another transaction commits while this one waits for the lock may be missed.
        """
        sql = _lock_statement(self.db, len(ids))
        with connections[self.db].cursor() as cursor:
            cursor.execute(sql, [*ids, name, worker, epoch])
            row = cursor.fetchone()
        if row is None:
            raise LeaseLost(name)
        return bool(row[0])


@cache
def _lock_statement(alias: str, number: int) -> str:
    """
    Return the statement of `LeaseQuerySet.lock` for a number of ids.

    It is written by hand because each batch executes it, and Django takes longer to
    compile it than MySQL to execute it.
    """
    connection = connections[alias]
    quote = connection.ops.quote_name
    known = "0"
    if number:
        inbox, ids = quote(Inbox._meta.db_table), ", ".join(["%s"] * number)
        known = f"EXISTS(SELECT 1 FROM {inbox} WHERE message_id IN ({ids}))"  # noqa: S608
    locking = (
        connection.ops.for_update_sql()
        if connection.features.has_select_for_update
        else ""
    )
    return (
        f"SELECT {known} FROM {quote(Lease._meta.db_table)} "  # noqa: S608
        f"WHERE name = %s AND worker = %s AND epoch = %s {locking}"
    )


class Lease(models.Model):
    """Which worker may write what comes from one partition."""

    #: The broker's name of the partition.
    name = models.CharField(_("partition"), max_length=255, primary_key=True)
    queue = models.CharField(_("queue"), max_length=255, db_index=True)
    #: The id of the worker that holds it, or "".
    worker = models.CharField(max_length=32, default="")
    #: Grows with each takeover.
    epoch = models.PositiveBigIntegerField(_("epoch"), default=0)

    objects = LeaseQuerySet.as_manager()

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")

    def __str__(self) -> str:
        return f"{self.name} ({self.epoch})"


def lock_name(worker: str, partition: str) -> str:
    """Return the name of the lock held by the session that writes for a lease."""
    return f"{worker} {partition}"
