"""
What `make bench` prints: this project beside the plain way, run in turn.

Machines are noisy: only the ratios mean anything.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.support import private_servers as servers  # first: it sets the environment

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

import django

django.setup()

import pika
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.utils import timezone

from messaging import publish
from messaging.amqp.client import declare
from messaging.amqp.connection import Connection
from messaging.amqp.publisher import publisher
from messaging.cluster.leases import HeldLease
from messaging.consumer.consumer import Consumer
from messaging.models.lease import Lease
from users.commands import UserCreate
from users.models import User

QUEUE = "users_queue"
#: Its only partition, unless the settings want more.
PARTITION = "users_queue.0"
MESSAGES = 5_000
ROUNDS = 3
PARTITIONED = {"QUEUES": {QUEUE: {"PARTITIONS": 8}}}


def main() -> None:
    """Start servers, run each comparison, stop servers."""
    try:
        with ThreadPoolExecutor() as pool:
            every = (servers.rabbitmq, servers.mariadb, servers.mongodb)
            list(pool.map(lambda server: server.start(), every))
        call_command("migrate", database="default", verbosity=0)
        declare()
        compare("drain a queue into MariaDB", drain_one_by_one, drain_in_batches)
        compare("publish with confirm", publish_one_by_one, publish_from_threads)
        compare_consumers()
    finally:
        publisher().close()
        servers.pytest_unconfigure()


def compare(title: str, plain: Callable[[], float], ours: Callable[[], float]) -> None:
    """Run both in turn and print medians and the ratio of each round."""
    rounds = [(plain(), ours()) for _ in range(ROUNDS)]
    slow, fast = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    say(f"{title}: {slow:,.0f}/s the plain way, {fast:,.0f}/s here, {ratio:.1f} times")


def drain_one_by_one() -> float:
    """Consume with prefetch 1, create with the ORM, commit and acknowledge each."""
    fill()
    done = 0

    def handle(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        nonlocal done
        message = UserCreate.parse(json.loads(body))
        User.objects.create(
            **message.model_dump(exclude={"event_type"}, exclude_none=True),
            fecha_creacion=timezone.now(),
        )
        channel.basic_ack(method.delivery_tag)
        done += 1
        if done == MESSAGES:
            channel.stop_consuming()

    with channel() as opened:
        opened.basic_qos(prefetch_count=1)
        opened.basic_consume(PARTITION, handle)
        started = time.monotonic()
        opened.start_consuming()
    return MESSAGES / (time.monotonic() - started)


def drain_in_batches() -> float:
    """Consume as `run_consumer` does, inbox, ledger and events included."""
    before = User.objects.count()
    fill()
    consumer = Consumer(QUEUE, PARTITION)
    connection = Connection("bench", consumer.subscription)
    consumer.subscription.attach(connection)
    consumer.grant(HeldLease(QUEUE, PARTITION))
    started = time.monotonic()
    connection.start()
    thread = threading.Thread(target=consumer.run)
    thread.start()
    while User.objects.count() < before + MESSAGES:
        time.sleep(0.01)
    elapsed = time.monotonic() - started
    consumer.stop()
    thread.join()
    connection.close()
    return MESSAGES / elapsed


def compare_consumers() -> None:
    """Print what a message costs two processes that share a queue, and what one."""
    with override_settings(MESSAGING=django_settings.MESSAGING | PARTITIONED):
        declare()
        Lease.objects.all().delete()
        start_up = consumers_cpu(1, messages=0)
        rounds = [
            [consumers_cpu(n) - n * start_up for n in (1, 2)] for _ in range(ROUNDS)
        ]
    one, _ = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(two / one for one, two in rounds)
    say(
        f"CPU of consumers: {one / MESSAGES * 1e6:,.0f} us a message in one process, "
        f"{ratio:.2f} times that in two"
    )


def consumers_cpu(count: int, messages: int = MESSAGES) -> float:
    """Return the CPU seconds that so many processes take to drain eight partitions."""
    before = User.objects.count()
    environment = os.environ | {
        "MESSAGING": json.dumps(PARTITIONED),
        "RABBITMQ_URL": servers.rabbitmq.url,
    }
    started = [
        subprocess.Popen(
            [sys.executable, "manage.py", "run_consumer", "users"],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]
    while Lease.objects.exclude(worker="").values("worker").distinct().count() < count:
        time.sleep(0.1)
    time.sleep(3)  # until each has its share
    publish(*(new_user() for _ in range(messages)), timeout=60)
    while User.objects.count() < before + messages:
        time.sleep(0.05)
    for process in started:
        process.terminate()
    usages = [os.wait4(process.pid, 0)[2] for process in started]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def publish_one_by_one() -> float:
    """Publish with pika's blocking connection, waiting for each confirm."""
    with channel() as opened:
        opened.confirm_delivery()
        started = time.monotonic()
        for _ in range(MESSAGES):
            opened.basic_publish(
                "", PARTITION, new_user().encode(), persistent(), mandatory=True
            )
        elapsed = time.monotonic() - started
        opened.queue_purge(PARTITION)
    return MESSAGES / elapsed


def publish_from_threads() -> float:
    """Publish from 16 threads on one connection, each waiting for its confirm."""
    publish(new_user())
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: publish(new_user()), range(MESSAGES)))
    elapsed = time.monotonic() - started
    with channel() as opened:
        opened.queue_purge(PARTITION)
    return MESSAGES / elapsed


def fill() -> None:
    """Put users to create into the partition."""
    publish(*(new_user() for _ in range(MESSAGES)), timeout=60)


@contextmanager
def channel() -> Iterator[Any]:
    """Yield a channel of a connection of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(servers.rabbitmq.url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def persistent() -> pika.BasicProperties:
    """Return the properties of a message that survives a restart."""
    return pika.BasicProperties(message_id=str(uuid.uuid4()), delivery_mode=2)


def new_user() -> UserCreate:
    """Return a user whose e-mail is free."""
    return UserCreate(
        nombre="John",
        apellido="Doe",
        email=f"{uuid.uuid4().hex}@example.com",
        url_foto_perfil="http://example.com/photo.jpg",
        biografia="A test user",
    )


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
    connections.close_all()
