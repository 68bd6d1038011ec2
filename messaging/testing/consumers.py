"""The project's own consumers at a queue in memory."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

from messaging.conf import settings
from messaging.consumer import Work
from messaging.exceptions import MessagingError
from messaging.inbox import TRANSIENT, Unexpected
from messaging.message import Delivery

#: Seconds for which a message is tried that a consumer would try for ever, beyond
#: what `MESSAGING["PATIENCE"]` allows.
PERSISTENCE = 1.0
#: Seconds between two tries.
PAUSE = 0.01


class StillWaiting(MessagingError):
    """Messages cannot be handled for now, and stay in their queue."""


def handle(queue: str, waiting: deque[Delivery], lose_acknowledgements: bool) -> None:
    """
    Handle the next batch, as a consumer does, and take it out of the queue.

    Raises `StillWaiting` with the reason of the last try.
    """
    batch = _next_batch(waiting)
    try:
        _succeed(Work(queue, batch))
        if lose_acknowledgements:
            _succeed(Work(queue, [_again(delivery) for delivery in batch]))
    except StillWaiting:
        waiting.extendleft(_again(delivery) for delivery in reversed(batch))
        raise


def _next_batch(waiting: deque[Delivery]) -> list[Delivery]:
    """Take what a consumer would: never two equal bodies without an id."""
    batch: list[Delivery] = []
    nameless: set[bytes] = set()
    while waiting and len(batch) < max(1, settings.PREFETCH // 2):
        envelope = waiting[0].envelope
        if envelope.message_id is None:
            if envelope.body in nameless:
                break
            nameless.add(envelope.body)
        batch.append(waiting.popleft())
    return batch


def _succeed(work: Work) -> None:
    """Go through all steps of a batch, however often some of them fail."""
    deadline = time.monotonic() + settings.PATIENCE + PERSISTENCE
    while True:
        try:
            work.go_on()
        except Unexpected as error:
            work.tries.count(error)
        except TRANSIENT as error:
            if time.monotonic() > deadline:
                work.withdraw()
                raise StillWaiting(
                    f"{len(work.batch)} messages of {work.queue} wait: {error}"
                ) from error
            time.sleep(PAUSE)
        else:
            return


def _again(delivery: Delivery) -> Delivery:
    return replace(delivery, redelivered=True, delivery_count=1)
