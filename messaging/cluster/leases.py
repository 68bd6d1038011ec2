"""A partition in the hands of this process."""

from __future__ import annotations

from typing import Any

from django.db import connections

from messaging.conf import settings
from messaging.models.lease import Lease, hold_session


class HeldLease:
    """
    A partition in the hands of this process, under a lease.

    Without a `worker` there is no lease to keep: tests and tools do without.
    """

    def __init__(
        self, queue: str, name: str = "", worker: str = "", epoch: int = 0
    ) -> None:
        self.queue = queue
        #: The broker's name of the partition.
        self.name = name or queue
        self.worker = worker
        self.epoch = epoch
        self._session: Any = None

    def lock(self) -> None:
        """
        Keep the lease until the transaction ends; raises `LeaseLost`.

        Nobody can take it over before, unless by ending this session.
        """
        if not self.worker:
            return
        session = connections[settings.DATABASE].connection
        if session is not self._session:
            hold_session(self.worker, self.name)
            self._session = session
        Lease.objects.using(settings.DATABASE).lock(self.name, self.worker, self.epoch)

    def release(self) -> None:
        """Let others have it."""
        if self.worker:
            Lease.objects.using(settings.DATABASE).give_back(
                self.name, self.worker, self.epoch
            )
