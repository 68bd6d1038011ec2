"""Whether the broker has the queues and exchanges that it should have."""

from __future__ import annotations

from collections.abc import Iterator

from messaging.amqp.client import connect
from messaging.amqp.wake_up import QUEUE as HINTS
from messaging.cluster.repartition import Step, differences, plan
from messaging.cluster.resizing import queue_state
from messaging.conf import settings
from messaging.topology import how_to_make

from .findings import Finding, Level, note, ok
from .register import BROKER, DATABASE, examines

#: What to do about arguments that earlier versions gave to queues.
RENEW = (
    "Arguments cannot be changed. To have the new ones, stop all processes of the "
    "project while the queue is empty, delete it, and run `manage.py topology apply`."
)


@examines(BROKER, DATABASE)
def topology() -> Iterator[Finding]:
    """Report the steps of `topology plan`."""
    with connect("doctor") as client:
        steps = list(plan(client))
        differing = list(differences(client))
        no_hints = not settings.DECLARE and queue_state(client, HINTS) is None
    for step in steps:
        text = "; ".join([f"to do: {step.text}", *step.obstacles])
        remedy = step.remedy if step.obstacles else "manage.py topology apply"
        yield Finding(level(step), "topology", text, remedy)
    for text in differing:
        yield Finding(Level.NOTE, "topology", text, RENEW)
    if no_hints:
        text = f"{HINTS} is missing: relays poll the outbox"
        yield note("topology", text, how_to_make())
    if not steps:
        yield ok("topology", "all queues and exchanges are as they should be")


def level(step: Step) -> Level:
    """Return how bad it is that a step has yet to be taken."""
    if step.obstacles or step.action == "make":
        return Level.ERROR
    return Level.NOTE if step.action == "record" else Level.WARNING
