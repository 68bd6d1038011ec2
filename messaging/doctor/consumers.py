"""Whether anybody consumes."""

from __future__ import annotations

from collections.abc import Iterator

from messaging import topology
from messaging.amqp.client import Tool, tool
from messaging.cluster.resizing import queue_state
from messaging.registry import consumer_name, handlers
from messaging.topology import dead_queue

from .findings import Finding, error, note, ok, warning
from .register import BROKER, examines


@examines(BROKER)
def consumers() -> Iterator[Finding]:
    """Look at the queues of commands and events."""
    with tool("doctor") as use:
        for queue in sorted(handlers):
            yield from _of_queue(use, queue)


def _of_queue(use: Tool, queue: str) -> Iterator[Finding]:
    sights = {name: queue_state(use, name) for name in topology.partition_names(queue)}
    found = {name: sight for name, sight in sights.items() if sight}
    alone = {name: sight.ready for name, sight in found.items() if not sight.consumers}
    waiting = sum(sight.ready for sight in found.values())
    remedy = f"manage.py run_consumer {consumer_name(queue)}"
    if any(alone.values()):
        text = f"nobody consumes {', '.join(alone)}, and {waiting} messages wait"
        yield error(queue, text, remedy)
    elif alone:
        yield warning(queue, f"nobody consumes {', '.join(alone)}", remedy)
    elif found:
        yield ok(queue, f"consumed; {waiting} messages wait")


@examines(BROKER)
def queues_of_dead_letters() -> Iterator[Finding]:
    """Look at the queues that the archive empties."""
    with tool("doctor") as use:
        for queue in sorted(handlers):
            name = dead_queue(queue)
            sight = queue_state(use, name)
            remedy = "manage.py run_consumer dead_letters"
            if sight is None or (sight.consumers and not sight.ready):
                continue
            if sight.consumers:
                yield note(name, f"{sight.ready} are about to be archived")
            elif sight.ready:
                text = f"nobody archives it, and {sight.ready} dead letters wait"
                yield warning(name, text, remedy)
            else:
                yield note(name, "nobody archives it", remedy)
