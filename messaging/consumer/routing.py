"""What a consumer publishes itself: misrouted messages, and replies to clients."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from messaging.amqp.publisher import publisher, rounds
from messaging.exceptions import PublishError
from messaging.message import REDELIVERED, Envelope
from messaging.received import Received, origin_of
from messaging.topology import partition_for

from .context import Context

logger = logging.getLogger(__name__)

#: Seconds to wait until the broker has confirmed the replies of a batch.
REPLY_TIMEOUT = 1.0


def forward(contexts: Iterable[Context]) -> None:
    """
    Send messages to the partitions to which they belong, those of one key in order.

    Raises a `PublishError` if the broker does not take all; those that it has taken are
    recognised there when they are sent again.
    """
    for step in rounds(contexts, key=lambda context: context.key):
        publisher().publish(*(_forwarded(context) for context in step.values()))


def _forwarded(context: Context) -> Envelope:
    envelope = context.delivery.envelope
    headers = envelope.headers
    if not context.has_message_id and context.delivery.redelivered:
        headers = headers | {REDELIVERED: True}
    if isinstance(context.message, Received):
        headers = headers | origin_of(envelope)
    return envelope.copy(
        exchange="",
        routing_key=partition_for(context.delivery.queue, context.key),
        message_id=context.id if context.has_message_id else None,
        headers=headers,
        mandatory=True,
    )


def reply(contexts: Iterable[Context]) -> None:
    """Send outcomes to the clients that wait for them; losing one does no harm."""
    answers = [
        Envelope(
            context.outcome.encode(),
            routing_key=context.delivery.envelope.reply_to,
            correlation_id=context.delivery.envelope.correlation_id,
            mandatory=False,
        )
        for context in contexts
        if context.delivery.envelope.reply_to
    ]
    if not answers:
        return
    try:
        outcomes = publisher().outcomes(*answers, timeout=REPLY_TIMEOUT)
    except PublishError as error:
        outcomes = [error]
    # Clients wait for a limited time, and can ask for the operation.
    if lost := [error for error in outcomes if error is not None]:
        logger.info("%d outcomes could not be sent: %s", len(lost), lost[0])
