"""
Who holds which partition: processes that beat like a heart, and leases with epochs.

A lease is taken over when its holder has died or fallen silent, and its epoch grows.
Every transaction of a batch locks its lease and compares the epoch, so that a process
that was believed dead, and was only slow, cannot write any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from messaging.cluster import sessions
from messaging.conf import settings
from messaging.exceptions import TopologyMismatch


class LeaseLost(Exception):
    """Another process holds the partition now."""


class WorkerQuerySet(models.QuerySet["Worker"]):
    """The processes that consume."""

    def beat(self, worker: Worker) -> None:
        """Say that a process lives, and what it consumes."""
        alive = self.filter(pk=worker.pk)
        if not alive.update(seen_at=Now(), queues=worker.queues):
            self.create(
                id=worker.pk, name=worker.name, queues=worker.queues, seen_at=Now()
            )

    def living(self) -> list[Worker]:
        """Give those that live, as far as the database knows."""
        seen = self.filter(seen_at__gt=Now() - timedelta(seconds=settings.LEASE))
        workers = list(seen)
        gone = sessions.gone(self.db, [worker.pk for worker in workers])
        return [worker for worker in workers if worker.pk not in gone]

    def dead(self) -> models.QuerySet[Worker]:
        """Give those that have been silent for an hour."""
        return self.filter(seen_at__lt=Now() - timedelta(hours=1))

    def forget_dead(self) -> int:
        """Remove those that have been silent for an hour; give how many."""
        return self.dead().delete()[0]


class Worker(models.Model):
    """A process that consumes."""

    id = models.CharField(max_length=32, primary_key=True)
    #: Host and process id, for people.
    name = models.CharField(_("process"), max_length=255)
    #: What it consumes; nothing once it is stopping.
    queues = models.JSONField(_("queues"))
    #: By the clock of the database, which all of them share.
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
        Have a lease for every partition of a queue.

        Raises `TopologyMismatch` when the queue has another number of them.
        """
        known = set(self.filter(queue=queue).values_list("name", flat=True))
        if known and known != set(partitions):
            raise TopologyMismatch(
                f"The number of partitions of {queue} is {len(known)}, and the "
                f"settings want {len(partitions)}: run `manage.py topology plan`."
            )
        self.bulk_create(
            (Lease(name=name, queue=queue) for name in partitions if name not in known),
            ignore_conflicts=True,
        )

    def take(self, lease: Lease, worker: str) -> int | None:
        """Take over a lease as it was found; give the epoch, or None if too late."""
        if lease.worker not in ("", worker):
            sessions.end(self.db, fence(lease.worker, lease.name))
        taken = self.filter(pk=lease.name, worker=lease.worker, epoch=lease.epoch)
        if taken.update(worker=worker, epoch=F("epoch") + 1):
            return lease.epoch + 1
        return None

    def give_back(self, name: str, worker: str, epoch: int) -> None:
        """Let others have a lease, if it is still held."""
        self.filter(pk=name, worker=worker, epoch=epoch).update(worker="")

    def lock(self, name: str, worker: str, epoch: int) -> None:
        """Keep a lease until the transaction ends; raises `LeaseLost`."""
        held = self.filter(pk=name, worker=worker, epoch=epoch).select_for_update()
        if not held.values_list("epoch"):
            raise LeaseLost(name)


class Lease(models.Model):
    """Who may write what comes from one partition."""

    #: The broker's name of the partition.
    name = models.CharField(_("partition"), max_length=255, primary_key=True)
    queue = models.CharField(_("queue"), max_length=255, db_index=True)
    #: The id of the process, or "" for nobody.
    worker = models.CharField(max_length=32, default="")
    #: Grows whenever it changes hands.
    epoch = models.PositiveBigIntegerField(_("epoch"), default=0)

    objects = LeaseQuerySet.as_manager()

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")

    def __str__(self) -> str:
        return f"{self.name} ({self.epoch})"


def fence(worker: str, partition: str) -> str:
    """Name the lock of the session in which the batches of a lease are written."""
    return f"{worker} {partition}"


def hold_session(worker: str, partition: str) -> None:
    """Have this thread's session end when the lease is taken over."""
    sessions.hold(settings.DATABASE, fence(worker, partition))


def redeclare(queue: str, partitions: Iterable[str]) -> None:
    """Have a queue consist of these partitions, whatever it consisted of before."""
    leases = Lease.objects.using(settings.DATABASE)
    with transaction.atomic(using=settings.DATABASE):
        leases.filter(queue=queue).delete()
        leases.bulk_create(Lease(name=name, queue=queue) for name in partitions)
