"""The lease of one partition while this worker holds it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction

from messaging.conf import settings
from messaging.models import LastNameless, session_locks
from messaging.models.lease import Lease, lock_name
from messaging.topology import partition_name

from .time_limit import Watch


class HeldLease:
    """
    The lease of one partition, held in one epoch.

    Without a `worker` there is no row in the database, `lock` and `release` do nothing:
    tests and `messaging.testing` consume without leases.
    """

    def __init__(
        self,
        queue: str,
        name: str = "",
        worker: str = "",
        epoch: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self.queue = queue
        #: The broker's name of the partition; by default, of the first one.
        self.name = name or partition_name(queue, 0)
        #: The id of the worker that holds it.
        self.worker = worker
        self.epoch = epoch
        #: The calls of users' code in the thread that works under it.
        self.watch = watch or Watch(queue)
        #: Whether messages may be parked; only the holder of the lease can park any.
        self.has_parked = True
        self._session: Any = None
        self._has_nameless: bool | None = None

    @property
    def has_nameless(self) -> bool:
        """Whether messages without `message_id` are remembered of this queue."""
        if self._has_nameless is None:
            rows = LastNameless.objects.using(settings.DATABASE)
            self._has_nameless = rows.filter(queue=self.queue).exists()
        return self._has_nameless

    @has_nameless.setter
    def has_nameless(self, value: bool) -> None:
        self._has_nameless = value

    @contextmanager
    def transaction(self, ids: Collection[str] = ()) -> Iterator[bool]:
        """
        Hold the lease, locked, for a transaction; raises `LeaseLost`.

        Yields whether the inbox may have one of `ids`, as `lock` returns it.
        """
        self.watch.check()
        self.watch.hooks = []
        try:
            with transaction.atomic(using=settings.DATABASE):
                yield self.lock(ids)
                self.watch.hooks = connections[settings.DATABASE].run_on_commit
        finally:
            self.watch.check()  # the end of a lost session may raise something else

    def lock(self, ids: Collection[str] = ()) -> bool:
        """
        Lock the lease until the transaction ends; raises `LeaseLost`.

        Until then no other worker can take it over, except by ending this session.
        Returns whether the inbox may have one of `ids`: see `LeaseQuerySet.lock`.
        """
        if not self.worker:
            return True
        session = connections[settings.DATABASE].connection
        if session is not self._session:
            # So that a takeover can end this session.
            name = lock_name(self.worker, self.name)
            session_locks.acquire(settings.DATABASE, name)
            self._session = session
        return Lease.objects.using(settings.DATABASE).lock(
            self.name, self.worker, self.epoch, ids
        )

    def end_session(self) -> None:
        """End the session that has locked the lease last, and so its transaction."""
        if self.worker:
            name = lock_name(self.worker, self.name)
            session_locks.end_session(settings.DATABASE, name)

    def release(self) -> None:
        """Free the lease for other workers."""
        if self.worker:
            Lease.objects.using(settings.DATABASE).release(
                self.name, self.worker, self.epoch
            )
