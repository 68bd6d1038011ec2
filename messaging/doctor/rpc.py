"""Whether the functions of this project can be called."""

from __future__ import annotations

from collections.abc import Iterator

from messaging.amqp.client import connect
from messaging.cluster.resizing import queue_state
from messaging.conf import settings
from messaging.exceptions import MessagingError
from messaging.rpc.functions import Served, served
from messaging.topology import how_to_make

from .findings import Finding, error, explained, note, ok
from .register import BROKER, examines
from .servers import version

#: The first RabbitMQ that refuses transient queues, unless it is configured otherwise.
NO_TRANSIENT_QUEUES = (4, 3)


@examines(BROKER)
def functions() -> Iterator[Finding]:
    """Examine the queue of each function that is registered with `@serves`."""
    for one in served.values():
        yield of_function(one)


def of_function(one: Served) -> Finding:
    """Return the finding about the queue of a function."""
    subject = f"function {one.name}"
    try:
        # One connection each, as brokers refuse some queues by closing it.
        with connect("doctor") as client:
            state, server = queue_state(client, one.queue), client.server
    except MessagingError as cause:
        text = f"its queue {one.queue} cannot be used: {explained(cause)}"
        remedy = "End what uses it, or choose another with @serves(..., queue=...)."
        return error(subject, text, remedy)
    if state is None and not settings.DECLARE:
        return error(subject, f"its queue {one.queue} is missing", how_to_make())
    if state is None and not one.durable and version(server) >= NO_TRANSIENT_QUEUES:
        text = f"{server} refuses its transient queue {one.queue}"
        return error(subject, text, "Leave durable=False out.")
    if state is None or not state.consumers:
        return note(subject, "no process serves it", f"manage.py serve {one.name}")
    return ok(subject, f"served through {one.queue}")
