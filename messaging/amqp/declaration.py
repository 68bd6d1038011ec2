"""
How an existing queue was declared, as far as the broker tells.

AMQP has no question for it: a declaration that differs is refused, with a text that
names one difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from messaging import topology
from messaging.sources import Exchange

from .channels import PRECONDITION_FAILED

#: How RabbitMQ names what differs from the declaration of an existing queue.
DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for queue .+ but current is "
    r"(?:the value )?'?(?P<value>.*?)'?(?: of type '(?P<type>\w+)')?$",
    re.DOTALL,
)


#: Arguments by which a queue may lose messages, and how.
LOSSES = {
    "x-message-ttl": "drops messages that wait too long",
    "x-expires": "is deleted while nobody uses it",
    "x-max-length": "drops or refuses messages when it is full",
    "x-max-length-bytes": "drops or refuses messages when it is full",
}


class Declaration:
    """
    What is known of how a queue was declared, learned from refusals.

    `learn` takes over the difference that a refusal names, until the broker accepts the
    declaration.
    """

    def __init__(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        self.name = name
        self.durable = True
        self.auto_delete = False
        self.arguments: dict[str, Any] = dict(arguments or {})

    def declare(
        self, channel: Any, callback: Callable[[Any], None] | None = None
    ) -> Any:
        """Declare the queue as it is known so far."""
        more = {} if callback is None else {"callback": callback}
        return channel.queue_declare(
            self.name,
            durable=self.durable,
            auto_delete=self.auto_delete,
            arguments=self.arguments,
            **more,
        )

    def learn(self, refusal: str) -> bool:
        """Take over what a refusal names; return whether that is anything new."""
        before = (self.durable, self.auto_delete, dict(self.arguments))
        if found := DIFFERENCE.search(refusal):
            name, text, kind = found["name"], found["value"], found["type"]
            if name == "durable":
                self.durable = text == "true"
            elif name == "auto_delete":
                self.auto_delete = text == "true"
            elif kind == "bool":
                self.arguments[name] = text == "true"
            elif kind == "longstr":
                self.arguments[name] = text
            elif text.lstrip("-").isdigit():
                self.arguments[name] = int(text)
            elif kind is None and text == "none":
                self.arguments.pop(name, None)
            elif kind is None:
                self.arguments[name] = text  # so RabbitMQ 4 names a queue type
        return before != (self.durable, self.auto_delete, self.arguments)

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be consumed, or None."""
        if self.arguments.get("x-queue-type") == "stream":
            return "it is a stream, from which no message is ever removed"
        if self.auto_delete:
            return "it is deleted, with its messages, when its last consumer ends"
        return None

    def risks(self) -> Iterator[str]:
        """Yield how it may lose messages before they are forwarded."""
        if not self.durable:
            yield "does not survive a restart of the broker"
        for name, value in self.arguments.items():
            if name in LOSSES:
                yield f"{LOSSES[name]} ({name}: {value})"


def adjusted(queue: topology.Queue, refusal: str) -> topology.Queue | None:
    """
    Return a queue with the argument of the existing one that a refusal names.

    None if it names another queue, or an argument in which ours must not differ.
    """
    known = Declaration(queue.name, queue.arguments)
    if f"for queue '{queue.name}' in vhost" not in refusal or not known.learn(refusal):
        return None
    found = replace(queue, arguments=known.arguments)
    is_tolerable = known.durable == queue.durable and not known.auto_delete
    return found if is_tolerable and topology.tolerates(queue, found) else None


class Needs:
    """What a consumer declares each time, adjusted to the queues that exist."""

    def __init__(
        self, items: Iterable[topology.Queue | Exchange | topology.Binding]
    ) -> None:
        self._items = list(items)

    def declare(self, channel: Any) -> None:
        """Declare all, in order, on a channel of pika."""
        for item in self._items:
            topology.declare(channel, item)

    def adjust(self, error: Exception) -> bool:
        """Return whether to declare again, after the broker has closed the channel."""
        if getattr(error, "reply_code", None) != PRECONDITION_FAILED:
            return False
        for number, item in enumerate(self._items):
            if isinstance(item, topology.Queue):
                other = adjusted(item, str(getattr(error, "reply_text", "")))
                if other is not None:
                    self._items[number] = other
                    return True
        return False
