"""
Workers with their heartbeats, and the lease of each partition with its epoch.

A lease is taken over when its worker has died or sends no heartbeats, and its epoch
grows. Every transaction of a batch locks its lease and compares the epoch, so that a
worker that was believed dead, and was only slow, can no longer write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from functools import cache

from django.db import connections, models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

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
        state = {"queues": worker.queues, "warnings": worker.warnings}
        if not row.update(seen_at=Now(), **state):
            self.create(id=worker.pk, name=worker.name, seen_at=Now(), **state)

    def living(self) -> list[Worker]:
        """Return the workers that are alive as far as the database knows."""
        seen = self.filter(seen_at__gt=Now() - timedelta(seconds=settings.LEASE))
        workers = list(seen)
        dead = session_locks.not_held(self.db, [worker.pk for worker in workers])
        return [worker for worker in workers if worker.pk not in dead]

    def dead(self) -> models.QuerySet[Worker]:
        """Return the workers without a heartbeat in the last hour."""
        return self.filter(seen_at__lt=Now() - timedelta(hours=1))


class Worker(models.Model):
    """A process that consumes."""

    id = models.CharField(max_length=32, primary_key=True)
    #: Host and process id, for people.
    name = models.CharField(_("process"), max_length=255)
    #: The queues that it consumes; none once it is stopping.
    queues = models.JSONField(_("queues"))
    #: By partition, what is wrong and what to do, for operators.
    warnings = models.JSONField(null=True)
    #: By the clock of the database, which all workers share.
    seen_at = models.DateTimeField(_("last seen"))

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("consuming process")
        verbose_name_plural = _("consuming processes")

    def __str__(self) -> str:
        return self.name


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
