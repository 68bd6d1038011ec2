"""
Ways to publish from Python with a confirm for each message.

    python -m tests.benchmarks.baselines.publishers NAME QUEUE COUNT

Prints how many seconds it took, after some messages to warm up.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

#: Messages before the clock starts.
WARM = 100
THREADS = 16


def body() -> dict[str, Any]:
    """Return the body of a message."""
    return {
        "event_type": "user.create",
        "nombre": "John",
        "apellido": "Doe",
        "email": f"{uuid.uuid4().hex}@example.com",
        "fecha_nacimiento": "1990-01-01T00:00:00Z",
        "url_foto_perfil": "http://example.com/photo.jpg",
        "biografia": "A test user",
        "fecha_creacion": datetime.now(UTC).isoformat(),
    }


def properties(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the properties that all messages have."""
    return {
        "message_id": str(uuid.uuid4()),
        "type": "user.create",
        "content_type": "application/json",
        "timestamp": int(time.time()),
        "app_id": "users",
        "headers": {"partition_key": f"email:{fields['email']}"},
        "delivery_mode": 2,
    }


def pika(queue: str) -> Callable[[int], None]:
    """Publish with a blocking connection, one message after the other."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()

    def publish(count: int) -> None:
        for _ in range(count):
            fields = body()
            sent = pika.BasicProperties(**properties(fields))
            content = json.dumps(fields).encode()
            channel.basic_publish("", queue, content, sent, mandatory=True)

    return publish


def kombu(queue: str) -> Callable[[int], None]:
    """Publish with kombu and `confirm_publish`."""
    from kombu import Connection

    connection = Connection(
        os.environ["RABBITMQ_URL"], transport_options={"confirm_publish": True}
    )
    producer = connection.Producer(serializer="json")

    def publish(count: int) -> None:
        for _ in range(count):
            fields = body()
            sent = properties(fields)
            del sent["content_type"]  # the serializer sets it
            producer.publish(fields, routing_key=queue, mandatory=True, **sent)

    return publish


def celery(queue: str) -> Callable[[int], None]:
    """Send Celery tasks, with `confirm_publish`."""
    from .celery_app import create_user

    def publish(count: int) -> None:
        for _ in range(count):
            create_user.apply_async([body()], queue=queue)

    return publish


def pika_in_threads(queue: str) -> Callable[[int], None]:
    """Publish from threads that have a connection each."""
    every = [pika(queue) for _ in range(THREADS)]

    def publish(count: int) -> None:
        share = math.ceil(count / THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda one: one(share), every))

    return publish


def messaging(_queue: str, threads: int = 1) -> Callable[[int], None]:
    """Publish with this project from threads that each wait for their confirm."""
    import django

    django.setup()
    from messaging import publish as publish_message
    from users.commands import UserCreate

    def one(_: object) -> None:
        publish_message(UserCreate.parse(body(), strict=False))

    def publish(count: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(count)))

    return publish


messaging_in_threads = partial(messaging, threads=THREADS)


def main(name: str, queue: str, count: int) -> None:
    publish = globals()[name](queue)
    publish(WARM)
    started = time.monotonic()
    publish(count)
    sys.stdout.write(f"{time.monotonic() - started}\n")
    sys.stdout.flush()
    os._exit(0)  # threads of the libraries need no goodbye


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
