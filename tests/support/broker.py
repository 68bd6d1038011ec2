"""The broker as a plain AMQP client and as an operator."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
from django.conf import settings

from . import private_servers
from .waiting import eventually

#: Seconds after which RabbitMQ 3.10 has a new quorum queue on disk: killed earlier, it
#: may never recover the queue.
NEW_QUEUE = 2.0
QUEUES = tuple(
    f"{name}_queue{suffix}"
    for name in ("users", "reports", "notifications", "report_files")
    for suffix in ("", ".0", ".dead")
)


class Broker:
    """The broker as a plain AMQP client sees it."""

    def __init__(self, url: str = "") -> None:
        self.url = url or settings.MESSAGING["URL"]

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Yield a channel of a connection of its own."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    @contextmanager
    def own_queue(self) -> Iterator[str]:
        """Yield the name of an empty durable queue, which is deleted afterwards."""
        name = f"test-{uuid.uuid4()}"
        arguments = {"x-queue-type": "quorum"}
        with self.channel() as channel:
            channel.queue_declare(name, durable=True, arguments=arguments)
            yield name
            channel.queue_delete(name)

    def send(
        self,
        queue: str,
        *bodies: dict[str, Any] | bytes,
        exchange: str = "",
        **properties: Any,
    ) -> None:
        """Publish bodies without declaring anything and with no other property."""
        with self.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(
                    exchange,
                    queue,
                    body if isinstance(body, bytes) else json.dumps(body).encode(),
                    pika.BasicProperties(**properties) if properties else None,
                )

    def count(self, queue: str) -> int:
        """Return how many messages are ready in a queue."""
        with self.channel() as channel:
            return channel.queue_declare(queue, passive=True).method.message_count

    def take(self, queue: str) -> tuple[pika.BasicProperties, bytes]:
        """Wait for a message in a queue; return its properties and body."""
        with self.channel() as channel:
            _, properties, body = eventually(
                lambda: (got := channel.basic_get(queue, auto_ack=True))[0] and got,
                f"a message in {queue}",
            )
        return properties, body

    def purge(self) -> None:
        """Empty all queues."""
        with self.channel() as channel:
            for queue in QUEUES:
                channel.queue_purge(queue)


def virtual_host(name: str, *options: str) -> str:
    """Create a virtual host, where no other process consumes; return its URL."""
    server = private_servers.rabbitmq
    server.control("add_vhost", name, *options)
    server.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    return f"{server.url}{name}"


def restricted_user(**patterns: str) -> str:
    """
    Create a user of the virtual host "/"; return its URL.

    `configure`, `write` and `read` are patterns of the names that it may use, and
    `topics` one of routing keys that it may publish to amq.topic; all by default.
    """
    server, name = private_servers.rabbitmq, f"u-{uuid.uuid4()}"
    wanted = [patterns.get(kind, ".*") for kind in ("configure", "write", "read")]
    texts = [f'<<"{text}">>' for text in (name, "/", *wanted)]
    user, host, by = texts[0], texts[1], '<<"tests">>'
    topics = f'<<"amq.topic">>, <<"{patterns.get("topics", ".*")}">>, <<".*">>'
    module = "rabbit_auth_backend_internal"
    server.control(
        "eval",
        f'{module}:add_user({user}, <<"guest">>, {by}), '
        f"{module}:set_permissions({', '.join(texts)}, {by}), "
        f"{module}:set_topic_permissions({user}, {host}, {topics}, {by}).",
    )
    return f"amqp://{name}:guest@127.0.0.1:{server.port}/"
