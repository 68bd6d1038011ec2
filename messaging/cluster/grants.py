"""
Which names at the broker each kind of process needs, as permissions of RabbitMQ.

A process with these permissions and no others can do its work, and nothing else
(https://www.rabbitmq.com/docs/access-control#authorisation).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from messaging import topology
from messaging.amqp import wake_up
from messaging.amqp.refusals import DEFAULT_EXCHANGE
from messaging.conf import settings
from messaging.envelope import PARTITIONS
from messaging.message import Event
from messaging.registry import event_exchanges, handlers, messages_of
from messaging.rpc.client import REPLIES
from messaging.rpc.functions import served
from messaging.sources import Exchange

NOTHING = "^$"


@dataclass(frozen=True, slots=True)
class Grant:
    """Patterns of the names that a user may declare, publish to, and read from."""

    role: str
    text: str
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON takes it."""
        return asdict(self)


def grants() -> list[Grant]:
    """Return what each kind of process needs, according to the registered handlers."""
    exchanges = {one for one in topology.declared() if isinstance(one, Exchange)}
    events = {settings.EVENTS_EXCHANGE, *event_exchanges}
    functions = {one.queue for one in served.values()}
    replies = f"^{re.escape(REPLIES)}.+$"
    names = "|".join(sorted(map(re.escape, handlers)))
    queues = rf"({names})(\.([0-9]+|dead))?"
    others = {one for one in exchanges if not one.name.endswith(topology.PUBLIC)}
    with_entrances = rf"({names})(\.([0-9]+|dead|public))?"
    apply = Grant(
        "topology",
        "topology apply",
        configure=only((x.name for x in others if not x.passive), with_entrances),
        write=only({PARTITIONS}, queues),
        read=only((x.name for x in others), with_entrances),
    )
    return [
        apply,
        Grant(
            "api",
            "the API and the admin",
            configure=replies,
            write=only({PARTITIONS}),
            read=replies,
        ),
        Grant(
            "consumer",
            "run_consumer",
            configure=apply.configure,
            write=only({PARTITIONS, DEFAULT_EXCHANGE}, queues),
            read=apply.read,
        ),
        Grant(
            "relay",
            "relay_outbox",
            configure=only({PARTITIONS, wake_up.QUEUE}),
            write=only(events | {PARTITIONS, wake_up.QUEUE}),
            read=only({PARTITIONS, wake_up.QUEUE}),
        ),
        Grant(
            "caller",
            "what calls functions",
            configure=replies,
            write=only({DEFAULT_EXCHANGE}),
            read=replies,
        ),
        Grant(
            "server",
            "serve",
            configure=only(functions),
            write=only({DEFAULT_EXCHANGE}),
            read=only(functions),
        ),
        Grant(
            "operator",
            "dead_letters, replay_jobs and erase_person",
            write=only({PARTITIONS}),
            read=only((), rf"({names})\.dead"),
        ),
        *(
            Grant(
                f"sender to {queue}",
                f"another program that sends messages to {queue}",
                write=only({topology.public_exchange(queue)}),
            )
            for queue in sorted(handlers)
            if not all(issubclass(one, Event) for one in messages_of(queue))
        ),
        Grant("reader", "top, and whatever else counts messages"),
    ]


def only(names: Iterable[str], *patterns: str) -> str:
    """Return a pattern that matches these names and patterns alone."""
    either = [*sorted(map(re.escape, names)), *patterns]
    return f"^({'|'.join(either)})$" if either else NOTHING
