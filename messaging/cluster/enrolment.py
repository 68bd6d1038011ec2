"""Creating the leases of a worker's partitions when it starts."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from django.db import connections

from messaging import topology
from messaging.amqp.backoff import Backoff
from messaging.conf import settings
from messaging.exceptions import (
    SERVER_FAILURES,
    MessagingError,
    TopologyMismatch,
    UnsuitableDatabase,
)
from messaging.logs.repetition import RepeatingLogger
from messaging.models import Lease, session_locks
from messaging.worker import on_stop

repeating = RepeatingLogger(__name__)

#: Seconds between checks whether the process is to stop.
LOOK = 0.1


def enrol(queues: Sequence[str]) -> bool:
    """
    Create the leases of all partitions, waiting for an unavailable database.

    Returns false if the process is to stop before that. Raises `TopologyMismatch` if a
    queue has another number of partitions than the settings want: two workers could
    then process messages of one key at the same time. For the same reason, raises
    `UnsuitableDatabase` if the locks of sessions do not work.
    """
    stopping = threading.Event()
    # Plain lists: the signal handler runs in this thread, which may hold any lock.
    asked: list[bool] = []
    refusals: list[MessagingError] = []
    thread = threading.Thread(
        target=_enrol, args=(queues, stopping, refusals), name="enrol", daemon=True
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
    refusals: list[MessagingError],
) -> None:
    pause = Backoff()
    while not stopping.is_set():
        try:
            if problem := session_locks.problem_of(settings.DATABASE):
                raise UnsuitableDatabase(f"DATABASES[{settings.DATABASE!r}]: {problem}")
            for queue in queues:
                leases = Lease.objects.using(settings.DATABASE)
                leases.enrol(queue, topology.consumed_names(queue))
            break
        except (TopologyMismatch, UnsuitableDatabase) as error:
            refusals.append(error)
            break
        except Exception as error:  # noqa: BLE001 it is logged
            is_expected = isinstance(error, SERVER_FAILURES)
            text = "The leases cannot be read: %s"
            repeating.warning(text, error, exc_info=not is_expected)
            connections.close_all()
            stopping.wait(pause())
    connections.close_all()
