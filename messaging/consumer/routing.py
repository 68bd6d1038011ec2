"""What a consumer publishes itself: misrouted messages, and replies to clients."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from messaging.amqp.encoding import for_partition
from messaging.amqp.outgoing import rounds
from messaging.amqp.publisher import Publisher, publisher
from messaging.envelope import Envelope
from messaging.exceptions import MessagingError, PublishError, Unroutable
from messaging.logs.repetition import RepeatingLogger
from messaging.text import storable
from messaging.topology import partition_for, takes_replies

from .context import Context, State, in_states

repeating = RepeatingLogger(__name__)

#: Seconds to wait until the broker has confirmed the replies of a batch.
REPLY_TIMEOUT = 1.0


def forward(contexts: Iterable[Context], gateway: Publisher | None) -> None:
    """
    Send messages to the partitions to which they belong, those of one key in order.

    With a `gateway`, a publisher on the connection they came by, nothing is sent once
    the channel they came by is closed: by then another process may have them.

    Raises a `PublishError` if the broker does not take all; those that it has taken are
    not sent again.
    """
    misrouted = in_states(contexts, State.MISROUTED)
    for step in rounds(misrouted, key=lambda context: context.key):
        envelopes = [
            for_partition(one.delivery, partition_for(one.delivery.queue, one.key))
            for one in step.values()
        ]
        source = misrouted[0].delivery.channel if gateway else None
        outcomes = (gateway or publisher()).outcomes(*envelopes, while_open=source)
        for context, error in zip(step.values(), outcomes, strict=True):
            if error is None:
                context.state = State.FORWARDED
        for error in filter(None, outcomes):
            if isinstance(error, Unroutable):
                with suppress(MessagingError):
                    publisher().declare()  # the next attempt finds it
            raise error


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
        if (to := context.delivery.envelope.reply_to) and takes_replies(storable(to))
    ]
    if not answers:
        return
    try:
        outcomes = publisher().outcomes(*answers, timeout=REPLY_TIMEOUT)
    except PublishError as error:
        outcomes = [error]
    # Clients wait for a limited time, and can ask for the operation.
    if lost := [error for error in outcomes if error is not None]:
        repeating.info("%d outcomes could not be sent: %s", len(lost), lost[0])
