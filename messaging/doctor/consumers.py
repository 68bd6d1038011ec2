"""Whether the queues are consumed."""

from __future__ import annotations

from collections.abc import Iterator

from messaging import topology
from messaging.amqp.client import Client, connect
from messaging.amqp.public_queue import DECLARE, weaknesses
from messaging.cluster.resizing import queue_state
from messaging.registry import consumer_name, handlers
from messaging.topology import dead_queue

from .findings import Finding, error, note, ok, warning
from .register import BROKER, examines


@examines(BROKER)
def consumers() -> Iterator[Finding]:
    """Examine the queues of commands and events."""
    with connect("doctor") as client:
        for queue in sorted(handlers):
            yield from _of_queue(client, queue)
            for text in weaknesses(client, queue):
                yield warning(queue, text, DECLARE)


def _of_queue(client: Client, queue: str) -> Iterator[Finding]:
    found = {
        name: state
        for name in topology.consumed_names(queue)
        if (state := queue_state(client, name))
    }
    idle = {name: state.ready for name, state in found.items() if not state.consumers}
    waiting = sum(state.ready for state in found.values())
    remedy = f"manage.py run_consumer {consumer_name(queue)}"
    if any(idle.values()):
        text = f"no process consumes {', '.join(idle)}, and {waiting} messages wait"
        yield error(queue, text, remedy)
    elif idle:
        yield warning(queue, f"no process consumes {', '.join(idle)}", remedy)
    elif found:
        yield ok(queue, f"consumed; {waiting} messages wait")


@examines(BROKER)
def queues_of_dead_letters() -> Iterator[Finding]:
    """Examine the queues that the archive empties."""
    with connect("doctor") as client:
        for queue in sorted(handlers):
            name = dead_queue(queue)
            state = queue_state(client, name)
            remedy = "manage.py run_consumer dead_letters"
            if state is None or (state.consumers and not state.ready):
                continue
            if state.consumers:
                yield note(name, f"{state.ready} are about to be archived")
            elif state.ready:
                text = f"no process archives it, and {state.ready} dead letters wait"
                yield warning(name, text, remedy)
            else:
                yield note(name, "no process archives it", remedy)
