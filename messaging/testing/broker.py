"""Queues, exchanges and a publisher in memory."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from messaging import topology
from messaging.amqp.encoding import app_id_of
from messaging.amqp.outgoing import PublishRequest
from messaging.amqp.publisher import Publisher
from messaging.conf import settings
from messaging.envelope import ORIGIN_EXCHANGE, REPLAYS, Delivery, Envelope
from messaging.exceptions import MessagingError, PublishError, Unconfirmed, Unroutable
from messaging.models.dead_letter import DeadLetter
from messaging.models.parked import Parked
from messaging.outbox.relay import Relay
from messaging.registry import handlers
from messaging.rpc.arguments import Parameters
from messaging.rpc.functions import Served, queue_of, served
from messaging.rpc.protocol import seconds_left
from messaging.sources import Exchange

from .calls import MemoryReplies
from .consumers import PAUSE, PERSISTENCE, MemoryConsumer, StillWaiting
from .routing import matches


class Envelopes(list[Envelope]):
    """Envelopes in the order of their publication."""

    @property
    def bodies(self) -> list[Any]:
        """The bodies, parsed as JSON."""
        return [json.loads(envelope.body) for envelope in self]


class MemoryBroker:
    """
    A broker in memory with the topology of the project.

    It confirms, returns or refuses messages as RabbitMQ does, and keeps them in queues
    until `settle` runs the project's own consumers and relay.
    """

    def __init__(self) -> None:
        #: All confirmed envelopes.
        self.published = Envelopes()
        self.publisher = MemoryPublisher(self)
        self.replies = MemoryReplies(self._is_served)
        self.is_away = False
        self._queues: dict[str, deque[Delivery]] = {}
        self._exchanges = {"": "direct"}
        self._bindings: list[tuple[str, str, str, dict[str, Any]]] = []
        self._listeners: dict[str, Envelopes] = {}
        #: Served functions, by queue.
        self._served = {one.queue: one for one in served.values()}
        self._tags = 0
        #: Logical queues, by the broker's name of a partition.
        self._queue_of: dict[str, str] = {}
        for item in topology.declared():
            self.declare(item)
        for queue in handlers:
            self._queue_of |= dict.fromkeys(topology.consumed_names(queue), queue)
        self._consumers = {
            name: MemoryConsumer(queue, name, self._queues[name])
            for name, queue in self._queue_of.items()
        }

    def declare(self, item: topology.Queue | Exchange | topology.Binding) -> None:
        """Create a queue, an exchange or a binding if it does not exist."""
        match item:
            case topology.Queue():
                self._queues.setdefault(item.name, deque())
            case Exchange():
                self._exchanges.setdefault(item.name, item.type)
            case topology.Binding():
                arguments = getattr(item, "arguments", None) or {}
                self.bind(item.queue, item.exchange, item.routing_key, arguments)

    def bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Bind a queue to an exchange; both must exist."""
        if queue not in self._queues and queue not in self._listeners:
            raise MessagingError(f"There is no queue {queue!r}: {self._known_queues}")
        if exchange not in self._exchanges:
            raise MessagingError(
                f"There is no exchange {exchange!r}; there are "
                f"{', '.join(filter(None, self._exchanges))}."
            )
        binding = (queue, exchange, routing_key, arguments or {})
        if binding not in self._bindings:
            self._bindings.append(binding)

    def listen(self, exchange: str, routing_key: str = "#") -> Envelopes:
        """Return a list that collects what is published to an exchange from now on."""
        name = f"listener-{len(self._listeners)}"
        self._listeners[name] = Envelopes()
        self.bind(name, exchange, routing_key)
        return self._listeners[name]

    def send(
        self, queue: str, *bodies: dict[str, Any] | bytes, **properties: Any
    ) -> None:
        """Put bodies into a queue as another program might: without any property."""
        for body in bodies:
            encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
            unset = {"message_id": None, "timestamp": None, "content_type": None}
            envelope = Envelope(encoded, queue, **unset | properties)
            self._existing(queue)
            self._put(queue, envelope)

    def serve(
        self, name: str, function: Callable[..., Any], *, text: bool = False
    ) -> None:
        """Answer calls of `name` with a function, in place of the real service."""
        queue = queue_of(name)
        self._served[queue] = Served(
            name, queue, function, text, False, True, Parameters(function)
        )

    def waiting(self, queue: str) -> Envelopes:
        """Return the envelopes in a queue and its partitions, oldest first."""
        names = topology.consumed_names(queue) if queue in handlers else [queue]
        found = [delivery for name in names for delivery in self._existing(name)]
        found.sort(key=lambda delivery: delivery.tag)
        return Envelopes(delivery.envelope for delivery in found)

    def dead_letters(self, queue: str) -> list[DeadLetter]:
        """Return the dead letters of a queue, oldest first."""
        rows = DeadLetter.objects.using(settings.DATABASE).filter(queue=queue)
        return list(rows.order_by("failed_at"))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be unavailable inside: `publish` raises `Unconfirmed` at once."""
        self.is_away = True
        try:
            yield
        finally:
            self.is_away = False

    def settle(self, *, lose_acknowledgements: bool = False) -> None:
        """
        Relay the outbox and handle all messages, until none is left.

        Parked messages are retried at once. With `lose_acknowledgements` each batch is
        delivered twice, as if the connection had been lost before the acknowledgement.
        Raises `StillWaiting` if there is no progress for a while; the messages then
        stay in their queues, or parked.
        """
        progress, parked = time.monotonic(), 0
        patience = max((settings.of(one, "PATIENCE") for one in handlers), default=0.0)
        while True:
            if self._handle_all(lose_acknowledgements):
                progress = time.monotonic()
                continue
            rows = Parked.objects.using(settings.DATABASE).filter(
                partition__in=self._consumers
            )
            before, parked = parked, rows.count()
            if not parked:
                return
            if parked < before:
                progress = time.monotonic()
            elif time.monotonic() - progress > patience + PERSISTENCE:
                first = rows.exclude(error="").order_by("id").first()
                raise StillWaiting(
                    f"{parked} messages are parked: {first and first.error}"
                )
            for consumer in self._consumers.values():
                consumer.retry()
            time.sleep(PAUSE)

    def _handle_all(self, lose_acknowledgements: bool) -> bool:
        """Relay the outbox and handle a batch per queue; return if there was any."""
        moves = [
            consumer.handle(lose_acknowledgements=lose_acknowledgements)
            for consumer in self._consumers.values()
        ]
        return Relay().drain()[0] > 0 or any(moves)

    def take(self, envelope: Envelope) -> PublishError | None:
        """Route an envelope, or return what the publisher raises for it."""
        if self.is_away:
            return Unconfirmed("The broker is unavailable.")
        if (kind := self._exchanges.get(envelope.exchange)) is None:
            return Unroutable(
                f"The broker refuses this message: no exchange {envelope.exchange!r}"
            )
        sent = envelope.timestamp
        received = envelope.copy(
            app_id=app_id_of(envelope),
            timestamp=sent and sent.replace(microsecond=0),
        )
        queues = self._route(kind, received)
        if not queues and envelope.mandatory:
            return Unroutable(
                f"No queue takes this message (NO_ROUTE: {envelope.routing_key!r}): "
                "run `manage.py topology apply`."
            )
        if ORIGIN_EXCHANGE not in envelope.own or REPLAYS in envelope.own:
            self.published.append(received)  # it is not just forwarded
        for name in queues:
            self._deliver(name, received)
        return None

    def _deliver(self, name: str, envelope: Envelope) -> None:
        if name in self._listeners:
            self._listeners[name].append(envelope)
        elif name in self._served:
            self._answer(self._served[name], envelope)
        elif name == self.replies.address:
            self.replies.take(envelope)
        else:
            self._put(name, envelope)

    def _answer(self, function: Served, call: Envelope) -> None:
        reply = function.reply(call.body, call)
        left = seconds_left(call.headers)
        if call.reply_to and (left is None or left > 0):
            self.take(reply.envelope(call))

    def _is_served(self, queue: str) -> bool:
        if self.is_away:
            raise TimeoutError("The broker is unavailable.")
        return queue in self._served

    def _route(self, kind: str, envelope: Envelope) -> list[str]:
        """Return the queues to which an envelope is routed, each once."""
        if not envelope.exchange:
            known = {*self._queues, *self._served, self.replies.address}
            return [name for name in (envelope.routing_key,) if name in known]
        found = [
            queue
            for queue, exchange, key, arguments in self._bindings
            if exchange == envelope.exchange
            and matches(kind, key, arguments, envelope.routing_key, envelope.headers)
        ]
        return list(dict.fromkeys(found))

    def _put(self, name: str, envelope: Envelope) -> None:
        self._tags += 1
        queue = self._queue_of.get(name, name)
        self._queues[name].append(
            Delivery(envelope, queue, self._tags, source=name, consumer_tag="memory")
        )

    def _existing(self, queue: str) -> deque[Delivery]:
        if queue not in self._queues:
            raise MessagingError(f"There is no queue {queue!r}: {self._known_queues}")
        return self._queues[queue]

    @property
    def _known_queues(self) -> str:
        return f"known are {', '.join(sorted(self._queues))}."


class MemoryPublisher(Publisher):
    """Publishes to the broker in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        # There is no connection to make.
        self._broker = broker

    def problem(self, patience: float = 0.0) -> str | None:
        """Return why nothing can be published, or None, without waiting."""
        return "The broker is unavailable." if self._broker.is_away else None

    def send_and_wait(
        self, request: PublishRequest, deadline: float
    ) -> list[PublishError | None]:
        """Send a request and return each envelope's error, or None."""
        return [
            one.error or self._broker.take(one.envelope) for one in request.outgoing
        ]

    def wake_relay(self) -> None:
        """Do nothing: `settle` runs the relay."""

    def declare(self) -> None:
        """Declare the topology again."""
        for item in topology.declared():
            self._broker.declare(item)

    def close(self, timeout: float = 5.0) -> None:
        """Do nothing: there is no connection."""
