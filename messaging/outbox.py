"""The relay: publishes what transactions left in the outbox."""

from __future__ import annotations

import logging
import threading

from django.db import connections, transaction

from .conf import settings
from .consumer import Backoff
from .inbox import TRANSIENT
from .models import Outbox, OutboxShard
from .publisher import publisher

logger = logging.getLogger(__name__)

#: Rows of one shard that are published in one pipeline.
BATCH = 500
#: Seconds between two looks into an empty outbox.
IDLE_PAUSE = 0.1


class Relay:
    """
    Publishes outbox rows with confirms, then deletes them.

    Several relays may run: each locks the shard it works on, and rows of one shard go
    out in the order of their ids. Within one entity that is the order of the commits,
    for a row is inserted while the entity is locked. A relay that dies after the
    confirm leaves rows that are published again: facts arrive at least once.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the rows in hand, then end `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Publish until `stop`."""
        pause = Backoff()
        while not self._stopping.is_set():
            try:
                published = self.drain()
            except Exception as error:
                # Whatever it is, the rows are still there; to wait loses nothing.
                logger.warning(
                    "The outbox waits: %s",
                    error,
                    exc_info=not isinstance(error, TRANSIENT),
                )
                connections.close_all()
                self._stopping.wait(pause())
            else:
                pause = Backoff()
                if not published:
                    self._stopping.wait(IDLE_PAUSE)

    def drain(self) -> int:
        """Publish one batch of every shard that has any; give how many rows."""
        outbox = Outbox.objects.using(settings.DATABASE)
        shards = outbox.order_by("shard").values_list("shard", flat=True).distinct()
        return sum(self._drain_shard(shard) for shard in list(shards))

    def _drain_shard(self, shard: int) -> int:
        outbox = Outbox.objects.using(settings.DATABASE)
        with transaction.atomic(using=settings.DATABASE):
            if not OutboxShard.objects.using(settings.DATABASE).lock(shard):
                return 0
            rows = list(outbox.filter(shard=shard).order_by("id")[:BATCH])
            publisher().publish(*(row.envelope for row in rows), limit=False)
            outbox.filter(pk__in=[row.pk for row in rows]).delete()
        if rows:
            logger.info("%d messages of shard %d are published", len(rows), shard)
        return len(rows)
