"""
How broker and leases differ from what settings and handlers want, and what to do.

Bindings cannot be seen over AMQP: every `apply` makes them, which changes nothing where
they exist, and no plan speaks of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import Error as DatabaseFailure

from messaging import topology
from messaging.amqp.client import Client
from messaging.conf import settings
from messaging.exceptions import NotThere, TopologyMismatch
from messaging.models.lease import Lease
from messaging.registry import Exchange, handlers

from .resizing import OFFLINE, delete, resize
from .survey import in_force, is_migrated, is_there, obstacles, see, surplus

#: What to do about arguments, which nobody can change.
REPLACE = (
    "Stop what publishes to it, let it be emptied, stop its consumers, delete it "
    "(rabbitmqctl delete_queue, delete_exchange), and apply."
)


@dataclass(frozen=True, slots=True)
class Step:
    """One difference, and how it goes away."""

    #: "make", "replace", "record", "divide" or "delete".
    action: str
    #: What it is done to.
    name: str
    text: str
    #: Why it must not be done now.
    obstacles: tuple[str, ...] = ()
    #: What a person does about the obstacles.
    remedy: str = ""
    act: Callable[[Client], None] = field(default=lambda _: None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Give what there is to know, for JSON."""
        return {
            "action": self.action,
            "name": self.name,
            "text": self.text,
            "obstacles": list(self.obstacles),
            "remedy": self.remedy,
        }


def plan(use: Client) -> Iterator[Step]:
    """Give what `apply` would do, in its order; raises `MessagingError`."""
    wanted = [x for x in topology.declared() if isinstance(x, Exchange)]
    for exchange in dict.fromkeys(wanted):
        yield from _made(use, exchange)
    for queue in sorted(handlers):
        yield from _made(use, topology.dead_letter_queue(queue))
        yield from _of_queue(use, queue)


def bind(use: Client) -> None:
    """Make the bindings of all queues, whether or not they exist."""
    for item in topology.declared():
        if isinstance(item, topology.Binding):
            # What is not there is part of the plan.
            with suppress(NotThere):
                use.declare(item)


def _made(use: Client, item: topology.Queue | Exchange) -> Iterator[Step]:
    """Give the step that makes an exchange or a queue, if it is not there."""
    kind = type(item).__name__.lower()
    try:
        if is_there(use, item):
            return
    except TopologyMismatch as error:
        text = f"replace the {kind} {item.name}, whose arguments are others"
        yield Step("replace", item.name, text, (str(error),), REPLACE)
        return
    if isinstance(item, Exchange) and item.passive:
        why = f"{item.name} is somebody else's, and not there"
        yield Step("make", item.name, f"find {item.name}", (why,), "Start its owner.")
        return
    yield Step(
        "make",
        item.name,
        f"make the {kind} {item.name}",
        act=lambda use: use.declare(item),
    )


def _of_queue(use: Client, queue: str) -> Iterator[Step]:
    wanted = topology.partition_names(queue)
    try:
        # Before the first migration nobody can have consumed.
        recorded = in_force(queue) if is_migrated() else wanted
    except DatabaseFailure as error:
        # One partition there always is; whether others may be made only it knows.
        yield from _made(use, topology.work_queue(queue))
        text = f"compare {queue} with its leases"
        why = f"the database {settings.DATABASE!r} is away: {error}"
        yield Step("record", queue, text, (why,), "Bring the database back.")
        return
    beyond = list(surplus(use, queue, {*wanted, *recorded}))
    if not recorded:
        # Nobody has consumed yet, but somebody may have published.
        first = [queue] if see(use, queue) else []
        recorded = [*first, *beyond] or wanted
        yield Step(
            "record",
            queue,
            f"record that {queue} has {_count(recorded)}",
            act=lambda _: Lease.objects.using(settings.DATABASE).enrol(queue, recorded),
        )
        beyond = [name for name in beyond if name not in recorded]
    for name in wanted:
        if name in recorded or see(use, name):
            yield from _made(use, topology.work_queue(queue, name))
    if set(recorded) != set(wanted):
        yield _division(use, queue, recorded, wanted)
    for name in beyond:
        yield _deletion(use, queue, name)


def _division(
    use: Client, queue: str, recorded: Sequence[str], wanted: Sequence[str]
) -> Step:
    more = [name for name in wanted if name not in recorded]
    less = [name for name in recorded if name not in wanted]
    changes = [f"make {name}" for name in more] + [f"delete {name}" for name in less]
    return Step(
        "divide",
        queue,
        f"divide {queue} into {_count(wanted)} in place of {len(recorded)}: "
        f"{', '.join(changes)}",
        tuple(obstacles(use, queue, [*recorded, *more])),
        OFFLINE,
        lambda use: resize(use, queue),
    )


def _deletion(use: Client, queue: str, name: str) -> Step:
    sight = see(use, name)
    why = []
    if sight and sight.ready:
        why.append(f"{name} holds {sight.ready} messages")
    if sight and sight.consumers:
        why.append(f"{name} has a consumer")
    return Step(
        "delete",
        name,
        f"delete {name}: {queue} has no such partition",
        tuple(why),
        f"Find out who uses it. Messages may be moved to {queue}, whose consumers send "
        "them on to where they belong.",
        lambda use: delete(use, queue, name),
    )


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} partition{'' if len(names) == 1 else 's'}"
