"""
The public queues, to which other programs publish and which they may have declared.

Such a queue is used as it is. `PublicSubscription` consumes it for the ingress.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from messaging import topology
from messaging.conf import settings
from messaging.exceptions import NotAllowed, NotThere, TopologyMismatch
from messaging.logs.repetition import RepeatingLogger

from .channels import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED
from .client import Client
from .connection import Connection
from .declaration import Declaration
from .publisher import Publisher
from .queues import ConsumerWatchdog, hide_refusals
from .subscription import Subscription

repeating = RepeatingLogger(__name__)

#: Seconds before looking again at a queue that another program consumes, or that is
#: none from which messages can be forwarded.
LOOK_PAUSE, OBSTACLE_PAUSE = 1.0, 30.0
#: Reply codes from which the subscription learns, or which it logs itself.
EXPECTED = (ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED)
#: What to do about a public queue that others consume, or that may lose messages.
STOP = "Stop that program; `rabbitmqctl list_consumers` names its connection."
DECLARE = (
    "Its owner may delete it while it is empty, and declare it as durable and without "
    "arguments."
)


def inspect(client: Client, name: str) -> Declaration:
    """
    Return how an existing queue was declared, as far as the broker tells.

    Raises `NotThere` if there is none, or another `MessagingError`.
    """
    declaration = Declaration(name)
    with client.channel() as channel:
        channel.queue_declare(name, passive=True)
    while True:
        try:
            with client.channel() as channel:
                declaration.declare(channel)
        except TopologyMismatch as error:
            if declaration.learn(str(error)):
                continue
        return declaration


def weaknesses(client: Client, name: str) -> Iterator[str]:
    """
    Yield why a public queue is not consumed, or how it may lose messages.

    That takes permission to declare it, without which nothing is found out.

    Raises `MessagingError`; yields nothing for a queue that does not exist.
    """
    if not settings.DECLARE:
        return
    try:
        declaration = inspect(client, name)
    except (NotAllowed, NotThere):
        return
    if obstacle := declaration.obstacle:
        yield f"the public queue {name} is not consumed: {obstacle}"
    for risk in declaration.risks():
        yield f"the public queue {name} {risk}"


class PublicSubscription(Subscription):
    """
    Consumes a public queue, exclusively, once no other program does.

    The steps run one after the other, and the broker closes the channel to say no: find
    the queue, or declare it if it is missing; inspect it; bind its exchange, and look
    again; consume it.
    """

    def __init__(self, queue: str, name: str) -> None:
        super().__init__(queue, name)
        self._forget_queue()
        self._step = "find"
        #: The channel on which the steps are under way.
        self._asking: Any = None
        hide_refusals(lambda: self._channel, *EXPECTED)

    def _forget_queue(self) -> None:
        self._declaration = Declaration(self.name)
        self._is_missing = False
        self._is_inspected = not settings.DECLARE
        self._is_exclusive = True
        #: Whether its exchange is bound, or cannot be.
        self._is_bound = not settings.DECLARE

    # What follows runs in the I/O thread.

    def _prepare(self, channel: Any) -> None:
        self._find(channel)

    def _consume(self) -> None:
        if self._channel and not self._is_consuming:
            self._find(self._channel)

    def _find(self, channel: Any) -> None:
        if channel is not self._channel or not channel.is_open:
            return
        if self._is_consuming or channel is self._asking:
            return
        self._asking = channel
        self._step = "declare" if self._is_missing else "find"
        channel.queue_declare(
            self.name,
            durable=True,
            passive=not self._is_missing,
            callback=lambda frame: self._found(channel, frame),
        )

    def _found(self, channel: Any, frame: Any) -> None:
        if channel is not self._channel:
            return
        if not (self._is_inspected or self._is_missing):
            self._step = "inspect"
            self._declaration.declare(
                channel, lambda frame: self._inspected(channel, frame)
            )
            return
        self._inspected(channel, frame)

    def _inspected(self, channel: Any, frame: Any) -> None:
        self._is_inspected, self._is_missing, self._asking = True, False, None
        if channel is not self._channel or self._is_consuming or not self._is_wanted:
            return
        if obstacle := self._declaration.obstacle:
            self._wait(channel, obstacle, DECLARE, OBSTACLE_PAUSE)
            self._forget_queue()
            return
        if frame.method.consumer_count:
            self._wait(channel, "another program consumes it", STOP, LOOK_PAUSE)
            return
        if not self._is_bound:
            self._step, self._asking = "bind", channel
            exchange, binding = topology.entrance(self.queue)
            topology.declare(channel, exchange)
            channel.queue_bind(
                binding.queue,
                binding.exchange,
                binding.routing_key,
                callback=lambda _frame: self._bound(channel),
            )
            return
        self.warning = None
        self._step = "consume"
        self._is_consuming = True
        alone = self._is_exclusive and not self._declaration.arguments.get(
            "x-single-active-consumer"
        )
        channel.basic_consume(self.name, self._arrived, exclusive=alone)
        ConsumerWatchdog(channel, self.name, self._subscribe_again).start()

    def _bound(self, channel: Any) -> None:
        """Look again whether another program consumes it by now."""
        self._is_bound, self._asking = True, None
        self._find(channel)

    def _wait(self, channel: Any, why: str, remedy: str, pause: float) -> None:
        """Look again after a pause; log the reason once."""
        if self.warning is None:
            text = "The public queue %s waits: %s"
            repeating.error(text, self.name, why, about=(self.name, why))
        self.warning = (f"does not consume it: {why}", remedy)
        channel.connection.ioloop.call_later(pause, lambda: self._find(channel))

    def closed(self, error: Exception) -> float:
        """Learn from a refusal; return the pause before a new channel."""
        code, step = getattr(error, "reply_code", None), self._step
        text = getattr(error, "reply_text", "")
        # Declared without success, it is on a node that is down.
        if code == NOT_FOUND and settings.DECLARE and step != "declare":
            self._forget_queue()
            self._is_missing = True
        elif code == PRECONDITION_FAILED and step == "declare":
            self._forget_queue()  # another program has just declared it
        elif code == PRECONDITION_FAILED and step == "inspect":
            self._is_inspected = not self._declaration.learn(text)
        elif code == ACCESS_REFUSED and step == "inspect":
            self._is_inspected = True  # not permitted to declare: used as it is
        elif code in (ACCESS_REFUSED, PRECONDITION_FAILED) and step == "bind":
            self._is_bound = True
            repeating.warning("Nothing leads to %s but its name: %s", self.name, text)
        else:
            if code == ACCESS_REFUSED and step == "consume":
                # A queue with a single active consumer has no exclusive one.
                self._is_exclusive = not self._is_exclusive
            return super().closed(error)
        self._forget()
        return 0.0


def connect(
    partitions: Sequence[Subscription], public: Sequence[Subscription]
) -> tuple[Connection, Publisher]:
    """
    Start the connection of partitions, and that of public queues with its publisher.

    What an ingress takes and what it forwards share a connection, so that both end
    together: a process that was frozen and replaced can send nothing more.
    """
    heartbeat = settings.CONSUMER_HEARTBEAT
    connection = Connection("consumer", *partitions, heartbeat=heartbeat)
    gateway = Publisher("ingress", *public, heartbeat=heartbeat)
    for users, used in ((partitions, connection), (public, gateway.connection)):
        for subscription in users:
            subscription.attach(used)
    connection.start()
    return connection, gateway
