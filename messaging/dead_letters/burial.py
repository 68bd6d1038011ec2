"""What a consumer does with messages that it gives up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from messaging.amqp.publisher import publisher
from messaging.consumer.context import Failure
from messaging.exceptions import Unroutable
from messaging.message import Delivery

from .letters import dead_letter

logger = logging.getLogger(__name__)


def bury(failed: Sequence[tuple[Delivery, Failure]]) -> None:
    """
    Put messages into the queues of the dead, and return when the broker has them.

    Raises a `PublishError` when it has not: the originals must stay unacknowledged.
    """
    if not failed:
        return
    try:
        publisher().publish(*(dead_letter(*one) for one in failed), limit=False)
    except Unroutable:
        # Somebody has deleted the queue; the next try finds it again.
        publisher().declare()
        raise
    for delivery, failure in failed:
        logger.error(
            "Message %s of %s is a dead letter (%s): %s",
            delivery.inbox_id,
            delivery.queue,
            failure.kind,
            failure.reason,
        )
