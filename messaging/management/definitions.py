"""The topology as a definitions file of RabbitMQ, for those who make it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from messaging.amqp import wake_up
from messaging.amqp.refusals import DEFAULT_EXCHANGE
from messaging.cluster.grants import NOTHING, only
from messaging.cluster.policies import limits_by_policy
from messaging.conf import settings
from messaging.envelope import PARTITIONS
from messaging.rpc.functions import served
from messaging.sources import Exchange
from messaging.topology import Binding, Queue, declared

#: Name of the policy that spreads the leaders of quorum queues over the nodes.
LEADERS = "messaging-leaders"


def definitions(users: Iterable[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """
    Return what `rabbitmqctl import_definitions` and the management plugin import.

    That is everything in the virtual host of `MESSAGING["URL"]`, except exchanges that
    belong to others. `users`, who must exist, get the permissions that this project
    needs when it declares nothing.
    """
    hints = Queue(wake_up.QUEUE, wake_up.ARGUMENTS)
    items = [*declared(), hints, Binding(hints.name, PARTITIONS, hints.name)]
    items += [one.declaration for one in served.values()]
    queues = {one.name: one for one in items if isinstance(one, Queue)}
    exchanges = {one.name: one for one in items if isinstance(one, Exchange)}
    result = {
        "permissions": list(_permissions(users, queues, exchanges)),
        "policies": list(_policies(queues.values())),
        "queues": [
            {"name": one.name, "durable": one.durable, "arguments": one.arguments}
            | {"auto_delete": False}
            for one in queues.values()
        ],
        "exchanges": [
            {"name": one.name, "type": one.type, "durable": one.durable}
            | {"auto_delete": False, "internal": False, "arguments": {}}
            for one in exchanges.values()
            if not one.passive
        ],
        "bindings": [
            {"source": one.exchange, "destination": one.queue}
            | {"destination_type": "queue", "routing_key": one.routing_key}
            | {"arguments": one.arguments}
            for one in items
            if isinstance(one, Binding)
        ],
    }
    vhost = settings.virtual_host
    placed = {key: [{"vhost": vhost} | x for x in xs] for key, xs in result.items()}
    return {"vhosts": [{"name": vhost}]} | placed


def _permissions(
    users: Iterable[str], queues: Iterable[str], exchanges: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """Yield what users need to publish, consume and reply, and no more."""
    for user in users:
        yield {
            "user": user,
            "configure": NOTHING,
            "write": only([DEFAULT_EXCHANGE, *exchanges]),
            "read": only(queues),
        }


def _policies(queues: Iterable[Queue]) -> Iterator[dict[str, Any]]:
    """
    Yield what no argument says: the limits of some queues, and where leaders start.

    One policy applies to a queue, so each queue is in one of them.
    """
    limits = limits_by_policy()
    policies: list[tuple[str, str, dict[str, Any]]] = [
        (one.name, one.pattern, one.definition) for one in limits
    ]
    others = [
        one.name
        for one in queues
        if one.arguments.get("x-queue-type") == "quorum"
        and one.name not in {limit.queue for limit in limits}
    ]
    if others:
        leaders = {"queue-leader-locator": "balanced"}
        policies.append((LEADERS, only(others), leaders))
    for name, pattern, definition in policies:
        yield {
            "name": name,
            "pattern": pattern,
            "apply-to": "queues",
            "definition": definition,
            "priority": 0,
        }
