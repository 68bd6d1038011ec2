"""Whether this process may consume: its settings must agree with the leases."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from django.db import connections

from messaging import topology
from messaging.backoff import Backoff
from messaging.conf import settings
from messaging.exceptions import SERVER_FAILURES, TopologyMismatch
from messaging.models.lease import Lease
from messaging.worker import on_stop

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the process is to stop.
LOOK = 0.1


def admitted(queues: Sequence[str]) -> bool:
    """
    Enrol the partitions of all queues; waits for a database that is away.

    Gives false if the process is to stop before that. Raises `TopologyMismatch` when a
    queue has another number of partitions than the settings want: to consume then would
    put messages of one key into two hands.
    """
    stopping = threading.Event()
    # Plain lists: the signal handler runs in this thread, which may hold any lock.
    asked: list[bool] = []
    refusals: list[TopologyMismatch] = []
    thread = threading.Thread(
        target=_enrol, args=(queues, stopping, refusals), name="admission", daemon=True
    )
    with on_stop(lambda: asked.append(True)):
        thread.start()
        while thread.is_alive() and not asked:
            thread.join(LOOK)
    if asked:
        stopping.set()
        return False
    for refusal in refusals:
        raise refusal
    return True


def _enrol(
    queues: Sequence[str],
    stopping: threading.Event,
    refusals: list[TopologyMismatch],
) -> None:
    pause = Backoff()
    while not stopping.is_set():
        try:
            for queue in queues:
                leases = Lease.objects.using(settings.DATABASE)
                leases.enrol(queue, topology.partition_names(queue))
            break
        except TopologyMismatch as error:
            refusals.append(error)
            break
        except Exception as error:
            # A server is away, or a table is yet to be made: to wait loses nothing.
            logger.warning(
                "The leases cannot be read: %s",
                error,
                exc_info=not isinstance(error, SERVER_FAILURES),
            )
            connections.close_all()
            stopping.wait(pause())
    connections.close_all()
