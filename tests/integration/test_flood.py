"""A flood of messages fills neither the disk nor what waits behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import Client

from messaging import publish, topology
from messaging.amqp.client import declare
from messaging.amqp.publisher import Publisher, publisher
from messaging.dead_letters.archive import collect
from messaging.doctor import disk
from messaging.doctor.findings import Level
from messaging.envelope import PARTITIONS, Envelope
from messaging.lab.processes import free_port
from messaging.lab.servers import RabbitMQ
from messaging.models import DeadLetter, Outbox
from messaging.outbox.relay import Relay
from tests.support.broker import Broker, virtual_host
from tests.support.messages import ANN
from tests.support.waiting import eventually

PARTITION = "users_queue.0"
GIB = 2**30


@pytest.fixture(scope="module")
def elsewhere(servers: Any) -> str:
    """The URL of a virtual host of these tests."""
    return virtual_host("flood")


@pytest.fixture
def site(broker: Broker, elsewhere: str, settings: Any) -> Iterator[Broker]:
    """A broker whose queues take a few thousand bytes."""
    settings.MESSAGING = settings.MESSAGING | {
        "URL": elsewhere,
        "MAX_QUEUE_BYTES": 2000,
        "CONFIRM_TIMEOUT": 0.5,
    }
    one = Publisher("flood")
    with publisher.replaced_by(one):
        declare()
        connections.close_all()  # so many new queues may take as long as a session
        yield Broker(elsewhere)
    one.close()
    connections.close_all()
    with Broker(elsewhere).channel() as channel:
        for queue in topology.handlers:
            for name in (*topology.consumed_names(queue), topology.dead_queue(queue)):
                channel.queue_delete(name)


def flood(site: Broker) -> int:
    """Fill a partition by its name, as a stranger would, until it refuses."""
    one = Publisher("stranger")
    sent = 0
    try:
        while one.outcomes(Envelope(b"x" * 500, PARTITION)) == [None]:
            sent += 1
            assert sent < 100, "there is no limit"
    finally:
        one.close()
    return sent


def test_a_full_partition_is_503_and_keeps_the_outbox_waiting(site: Broker) -> None:
    sent = flood(site)
    body = {"nombre": "Ana", "apellido": "Ruiz", "email": "a@example.com"}
    answer = Client().post("/users/", body, content_type="application/json")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    with transaction.atomic():
        publish(ANN)
    Relay().drain()
    assert Outbox.objects.count() == 1
    assert site.count(PARTITION) == sent

    with site.channel() as channel:
        channel.queue_purge(PARTITION)
    eventually(lambda: Relay().drain() and not Outbox.objects.exists(), "it is sent")
    assert site.count(PARTITION) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_full_queue_of_dead_letters_loses_none(site: Broker) -> None:
    """The broker tries again what it could not dead-letter, after three minutes."""
    for number in range(4):
        site.send("users_queue.dead", b"%d" % number * 600)
    for number in range(3):
        body = b"dead %d" % number
        site.send(
            PARTITION,
            body,
            exchange=PARTITIONS,
            expiration="1",
            message_id=body.decode(),
        )

    eventually(lambda: not site.count(PARTITION), "they have expired")
    eventually(
        lambda: collect("users_queue") + 1 and DeadLetter.objects.count() == 7,
        "all are archived",
        240,
    )


def test_existing_queues_get_no_limit_and_are_used(site: Broker, settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_QUEUE_BYTES": 10**6}

    declare()

    assert flood(site) < 10


def page(free: float, limit: float) -> bytes:
    """Return a page of metrics as RabbitMQ's plugin writes it."""
    return (
        "# TYPE rabbitmq_disk_space_available_bytes gauge\n"
        f"rabbitmq_disk_space_available_bytes {free}\n"
        f"rabbitmq_disk_space_available_limit_bytes {limit}\n"
    ).encode()


@pytest.fixture
def node(settings: Any) -> Iterator[dict[str, bytes]]:
    """A page of metrics, of which a test sets the text."""
    content = {"text": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content["text"])

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        settings.MESSAGING = settings.MESSAGING | {"BROKER_METRICS": [url]}
        yield content
        server.shutdown()


@pytest.mark.parametrize(
    ("free", "level"),
    [(20 * GIB, Level.OK), (1.5 * GIB, Level.WARNING), (0.4 * GIB, Level.ERROR)],
)
def test_a_warning_comes_before_the_disk_of_the_broker_is_full(
    node: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
    every_line: None,
    free: float,
    level: Level,
) -> None:
    node["text"] = page(free, 0.5 * GIB)

    [finding] = disk.broker_disk()
    disk.log_disks()

    assert finding.level == level
    assert ("fills up" in caplog.text) is (level != Level.OK)


def test_the_home_page_says_that_the_disk_fills_up(
    node: dict[str, bytes], broker: Broker, login: Any
) -> None:
    node["text"] = page(1.2 * GIB, 0.5 * GIB)

    shown = login("view_operations").get("/admin/messaging/")

    assert "El disco del servidor de mensajes se llena" in shown.content.decode()


@pytest.mark.parametrize("text", [b"", b"\xff<html>", page(float("nan"), 1)[:60]])
def test_a_page_that_is_no_metrics_is_a_finding_and_no_failure(
    node: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
    every_line: None,
    text: bytes,
) -> None:
    node["text"] = text

    with pytest.raises(ValueError, match="Prometheus"):
        disk.disks()
    disk.log_disks()

    assert "is not known" in caplog.text


def test_the_metrics_of_a_real_broker_are_read(tmp_path: Path, settings: Any) -> None:
    server = RabbitMQ(tmp_path, management=True)
    server.plugins.append("rabbitmq_prometheus")
    port = free_port()
    config = f"[{{rabbitmq_prometheus, [{{tcp_config, [{{port, {port}}}]}}]}}]."
    (tmp_path / "advanced.config").write_text(config)
    url = f"http://127.0.0.1:{port}/metrics"
    settings.MESSAGING = settings.MESSAGING | {"BROKER_METRICS": [url]}
    with ExitStack() as stack:
        stack.enter_context(server)

        [found] = eventually(read, "the plugin answers", 20)

    assert found.limit == 50_000_000
    assert found.free > 0


def read() -> list[disk.Disk]:
    """Return the disks once they can be read."""
    try:
        return disk.disks()
    except (OSError, ValueError):
        return []
