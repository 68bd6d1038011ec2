"""
The differences between broker and leases on one side, settings and handlers on the
other, and the step that removes each.

Bindings cannot be listed over AMQP: every `apply` makes them, which changes nothing
where they exist, and no plan mentions them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging import topology
from messaging.amqp.client import Client
from messaging.amqp.declaration import adjusted
from messaging.conf import settings
from messaging.exceptions import NotThere, TopologyMismatch
from messaging.models.lease import Lease
from messaging.registry import handlers
from messaging.sources import Exchange

from .moving import is_old, is_own, move, replace_public
from .resizing import OFFLINE, busy, delete, obstacles, queue_state, resize, uses

#: What to do about arguments, which cannot be changed.
REPLACE = (
    "Stop what publishes to it, let it be emptied, stop its consumers, delete it "
    "(rabbitmqctl delete_queue, delete_exchange), and apply."
)
#: What RabbitMQ says of a classic queue that is there again when its node is.
NODE_IS_DOWN = "is down or inaccessible"
RESTART = "Start that node, or delete the queue with what it holds."
#: Why nothing is changed at the broker, and what to do instead.
OTHERS = "MESSAGING['DECLARE'] is False"
EXPORT = "Whoever makes the topology can import what `topology export` prints."
#: Consecutive missing numbers after which the search for surplus partitions ends.
GAP = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One difference, and the action that removes it."""

    #: "make", "move", "replace", "record", "divide" or "delete".
    action: str
    #: The queue or exchange that it changes.
    name: str
    text: str
    #: Why it must not be done now.
    obstacles: tuple[str, ...] = ()
    #: What a person can do about the obstacles.
    remedy: str = ""
    act: Callable[[Client], None] = field(default=lambda _: None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the step as JSON takes it."""
        return {
            "action": self.action,
            "name": self.name,
            "text": self.text,
            "obstacles": list(self.obstacles),
            "remedy": self.remedy,
        }


def plan(client: Client) -> Iterator[Step]:
    """Yield the steps of `apply`, in its order; raises `MessagingError`."""
    for step in _differences(client):
        if settings.DECLARE or step.action == "record":
            yield step
        else:
            yield replace(step, obstacles=(*step.obstacles, OTHERS), remedy=EXPORT)


def _differences(client: Client) -> Iterator[Step]:
    wanted = [x for x in topology.declared() if isinstance(x, Exchange)]
    for exchange in dict.fromkeys(wanted):
        yield from _missing(client, exchange)
    for queue in sorted(handlers):
        yield from _missing(client, topology.dead_letter_queue(queue))
        yield from _missing(client, topology.Queue(queue, is_public=True))
        yield from _of_queue(client, queue)


def apply(client: Client) -> Iterator[Step]:
    """
    Take every step of the plan that has no obstacles, then bind all queues.

    Yields each step before it is taken; raises `MessagingError`.
    """
    for step in plan(client):
        yield step
        if not step.obstacles:
            step.act(client)
    for item in topology.declared():
        if isinstance(item, topology.Binding):
            # A queue or exchange that is missing had a step with obstacles.
            with suppress(NotThere):
                client.declare(item)


def differences(client: Client) -> Iterator[str]:
    """Yield which queues of ours have other arguments than a new one would have."""
    for queue in sorted(handlers):
        partitions = topology.partition_names(queue)
        ours = [topology.work_queue(queue, name) for name in partitions]
        for item in (topology.dead_letter_queue(queue), *ours):
            if queue_state(client, item.name) is None:
                continue
            if (text := client.difference(item)) and adjusted(item, text):
                yield f"{item.name} is used as it is: {text}"


def _missing(client: Client, item: topology.Queue | Exchange) -> Iterator[Step]:
    """Yield the step that declares an exchange or a queue, unless it exists."""
    kind = type(item).__name__.lower()
    try:
        if _exists(client, item):
            return
    except NotThere as error:
        text = f"find the {kind} {item.name}"
        yield Step("make", item.name, text, (str(error),), RESTART)
        return
    except TopologyMismatch as error:
        text = f"replace the {kind} {item.name}, which has other arguments"
        yield Step("replace", item.name, text, (str(error),), REPLACE)
        return
    if isinstance(item, Exchange) and item.passive:
        why = f"{item.name} belongs to another program, and does not exist"
        text = f"find {item.name}"
        yield Step("make", item.name, text, (why,), "Start the program that owns it.")
        return
    yield Step(
        "make",
        item.name,
        f"make the {kind} {item.name}",
        act=lambda client: client.declare(item),
    )


def _exists(client: Client, item: topology.Queue | Exchange) -> bool:
    """
    Whether the broker has it.

    Raises `TopologyMismatch` for other arguments, and `NotThere` for a queue whose node
    is down.
    """
    try:
        with client.channel() as channel:
            if isinstance(item, Exchange):
                channel.exchange_declare(item.name, passive=True)
            else:
                channel.queue_declare(item.name, passive=True)
    except NotThere as error:
        if NODE_IS_DOWN in str(error):
            raise
        return False
    if not getattr(item, "is_public", False):
        # Declaring what exists changes nothing, but compares the arguments.
        client.declare(item)
    return True


def _of_queue(client: Client, queue: str) -> Iterator[Step]:
    wanted = topology.partition_names(queue)
    try:
        # Before the first migration nothing can have been consumed.
        recorded = _recorded(queue) if _is_migrated() else wanted
    except DatabaseFailure as error:
        text = f"compare {queue} with its leases"
        why = f"the database {settings.DATABASE!r} is away: {error}"
        yield Step("record", queue, text, (why,), "Bring the database back.")
        return
    if is_old(queue, recorded):
        yield _move(client, queue, recorded)
        return
    recorded = [name for name in recorded if name != queue]
    surplus = list(_surplus(client, queue, {*wanted, *recorded}))
    if not recorded:
        # Nothing was consumed yet, but something may have been published.
        exist = [name for name in [*wanted, *surplus] if queue_state(client, name)]
        recorded = exist or wanted
        yield _record(queue, recorded)
        surplus = [name for name in surplus if name not in recorded]
    for name in wanted:
        if name in recorded or queue_state(client, name):
            yield from _missing(client, topology.work_queue(queue, name))
    if set(recorded) != set(wanted):
        yield _division(client, queue, recorded, wanted)
    for name in surplus:
        yield _deletion(client, queue, name)
    if is_own(client, queue):
        yield _replacement(client, queue)


def _recorded(queue: str) -> list[str]:
    return Lease.objects.using(settings.DATABASE).partitions_of(queue)


def _is_migrated() -> bool:
    tables = connections[settings.DATABASE].introspection.table_names()
    return Lease._meta.db_table in tables


def _surplus(client: Client, queue: str, known: Iterable[str]) -> Iterator[str]:
    """Yield the names of partitions that the broker has beside the known ones."""
    others = {*known, *handlers}
    number, missing = 0, 0
    while missing < GAP:
        name = topology.partition_name(queue, number)
        number += 1
        if name in others:
            missing = 0
        elif queue_state(client, name) is None:
            missing += 1
        else:
            missing = 0
            yield name


def _record(queue: str, names: Sequence[str]) -> Step:
    return Step(
        "record",
        queue,
        f"record that {queue} has {_count(names)}",
        act=lambda _: Lease.objects.using(settings.DATABASE).enrol(
            queue, [queue, *names]
        ),
    )


def _move(client: Client, queue: str, recorded: Sequence[str]) -> Step:
    return Step(
        "move",
        queue,
        f"move {queue} to {topology.partition_name(queue, 0)}, with its messages, and "
        f"use {queue} for other programs",
        tuple(busy(client, queue, recorded)),
        "Stop everything of this project that publishes or consumes; then apply.",
        lambda client: move(client, queue),
    )


def _replacement(client: Client, queue: str) -> Step:
    return Step(
        "replace",
        queue,
        f"replace the queue {queue}, which has the arguments of a partition, so that "
        "clients which declare it without any get in",
        tuple(uses(client, queue)),
        "It works as it is. To replace it, stop what consumes it and publishes to it.",
        lambda client: replace_public(client, queue),
    )


def _division(
    client: Client, queue: str, recorded: Sequence[str], wanted: Sequence[str]
) -> Step:
    more = [name for name in wanted if name not in recorded]
    less = [name for name in recorded if name not in wanted]
    changes = [f"make {name}" for name in more] + [f"delete {name}" for name in less]
    return Step(
        "divide",
        queue,
        f"divide {queue} into {_count(wanted)} in place of {len(recorded)}: "
        f"{', '.join(changes)}",
        tuple(obstacles(client, queue, [*recorded, *more])),
        OFFLINE,
        lambda client: resize(client, queue),
    )


def _deletion(client: Client, queue: str, name: str) -> Step:
    return Step(
        "delete",
        name,
        f"delete {name}: {queue} has no such partition",
        tuple(uses(client, name)),
        f"Find out who uses it. Messages may be moved to {queue}, whose ingress "
        "forwards them to their partitions.",
        lambda client: delete(client, queue, name),
    )


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} partition{'' if len(names) == 1 else 's'}"
