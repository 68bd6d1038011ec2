"""Whether the queues are consumed, what waits in them, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from messaging.amqp.client import connect
from messaging.amqp.public_queue import DECLARE, weaknesses
from messaging.cluster.resizing import queue_state
from messaging.monitoring import state
from messaging.monitoring.state import Backlog, Cause
from messaging.registry import consumer_name, handlers
from messaging.text import duration
from messaging.topology import dead_queue

from .findings import Finding, error, note, ok, warning
from .register import BROKER, DATABASE, examines

#: Failures that last longer do not pass by themselves.
LONG = timedelta(minutes=1)
#: Causes that are shown of one queue.
CAUSES = 3


@examines(BROKER, DATABASE)
def consumers() -> Iterator[Finding]:
    """Examine the queues of commands and events."""
    with connect("doctor") as client:
        found = state.partitions(state.in_broker(client))
        failing = state.failing_queues()
        for queue in sorted(handlers):
            parts = [one for one in found if one.queue == queue]
            yield from _of_queue(queue, parts)
            if queue in failing:
                yield _failing(queue, failing[queue])
            for text in weaknesses(client, queue):
                yield warning(queue, text, DECLARE)


def _of_queue(queue: str, parts: Sequence[Backlog]) -> Iterator[Finding]:
    (total,) = state.queues(parts)
    there = [one for one in parts if one.ready is not None]
    idle = [one for one in there if not one.consumers]
    silent = [one.name for one in there if one.consumers and not one.holders]
    remedy = f"manage.py run_consumer {consumer_name(queue)}"
    if total.paused:
        resume = f"manage.py queues resume {queue}"
        yield warning(queue, f"{total.paused}; {backlog(total)}", resume)
    elif idle:
        text = f"no process consumes {', '.join(one.name for one in idle)}"
        if any(one.waiting for one in idle):
            yield error(queue, f"{text}, and {total.waiting} messages wait", remedy)
        else:
            yield warning(queue, text, remedy)
    elif silent:
        text = f"what consumes {', '.join(silent)} sends no heartbeats"
        yield warning(queue, f"{text}; {backlog(total)}", f"Look at it, or {remedy}")
    elif there:
        yield ok(queue, f"consumed; {backlog(total)}")
    # What processes wait for is a finding of `warnings`.
    for cause in [one for one in total.causes if one.count][:CAUSES]:
        yield _because(queue, cause, total)


def backlog(total: Backlog) -> str:
    """Return what waits in a queue, as text."""
    text = f"{total.waiting} messages wait"
    if total.waiting:
        text += f" ({total.in_hand} in hand, {total.parked} parked)"
    if total.oldest:
        text += f", the oldest since {total.oldest:%Y-%m-%d %H:%M:%S} UTC"
    if total.waiting and total.drained_in is not None:
        text += f", done in {duration(total.drained_in)}"
    return text


def _because(queue: str, cause: Cause, total: Backlog) -> Finding:
    text = f"{cause}; {total.in_hand} in hand, {total.parked} parked"
    remedy = "Fix that cause: they are retried by themselves, or `try now`."
    is_long = cause.since and cause.since < datetime.now(UTC) - LONG
    return (warning if is_long else note)(queue, text, remedy)


def _failing(queue: str, causes: Sequence[Cause]) -> Finding:
    minutes = state.FAILURE_SPAN // timedelta(minutes=1)
    text = f"every attempt of the last {minutes} minutes has failed"
    if causes:
        text += f": {'; '.join(map(str, causes[:CAUSES]))}"
    remedy = f"Fix the cause; manage.py dead_letters list --queue {queue}"
    return warning(queue, text, remedy)


@examines(BROKER)
def queues_of_dead_letters() -> Iterator[Finding]:
    """Examine the queues that the archive empties."""
    with connect("doctor") as client:
        for queue in sorted(handlers):
            name = dead_queue(queue)
            found = queue_state(client, name)
            remedy = "manage.py run_consumer dead_letters"
            if found is None or (found.consumers and not found.ready):
                continue
            if found.consumers:
                yield note(name, f"{found.ready} are about to be archived")
            elif found.ready:
                text = f"no process archives it, and {found.ready} dead letters wait"
                yield warning(name, text, remedy)
            else:
                yield note(name, "no process archives it", remedy)
