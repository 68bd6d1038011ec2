"""A flood of messages fills neither the disk nor what waits behind it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test import Client

from messaging import publish, topology
from messaging.amqp.client import declare
from messaging.amqp.publisher import Publisher, publisher
from messaging.dead_letters.archive import collect
from messaging.doctor import disk
from messaging.doctor.findings import Finding, Level
from messaging.doctor.limits import limits_of_queues
from messaging.envelope import PARTITIONS, Envelope
from messaging.lab.processes import free_port
from messaging.lab.servers import RabbitMQ
from messaging.models import DeadLetter, Outbox
from messaging.outbox.relay import Relay
from messaging.rpc.functions import Served, served, serves
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


def flood(queue: str = PARTITION) -> int:
    """Fill a queue by its name, as a stranger would, until it refuses."""
    one = Publisher("stranger")
    sent = 0
    try:
        while one.outcomes(Envelope(b"x" * 500, queue)) == [None]:
            sent += 1
            assert sent < 100, "there is no limit"
    finally:
        one.close()
    return sent


def test_a_full_partition_is_503_and_keeps_the_outbox_waiting(site: Broker) -> None:
    sent = flood()
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
@pytest.mark.timeout(600)
def test_a_full_queue_of_dead_letters_loses_none(site: Broker) -> None:
    """
    The broker tries again what it could not dead-letter.

    It does so every three minutes, with those that have waited for as long: who came
    a moment after the first waits for the second round.
    """
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
        400,
    )


def test_existing_queues_get_no_limit_and_are_used(site: Broker, settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_QUEUE_BYTES": 10**6}

    declare()

    assert flood() < 10


@pytest.fixture
def function() -> Iterator[Served]:
    """A function that nobody serves yet."""

    @serves("sums")
    def total(a: int, b: int) -> int:
        return a + b

    yield served["sums"]
    del served["sums"]


def test_the_queue_of_a_function_has_a_limit(site: Broker, function: Served) -> None:
    with site.channel() as channel:
        topology.declare(channel, function.declaration)

        assert flood("sums") < 10

        channel.queue_delete("sums")


def test_a_function_of_other_programs_is_declared_as_they_do(function: Served) -> None:
    plain = replace(function, limited=False).declaration
    transient = replace(function, durable=False).declaration

    assert plain.arguments == {"x-queue-type": "quorum"}
    assert transient.arguments == {}


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A broker with the management plugin, and a user who may only look."""
    server = RabbitMQ(tmp_path_factory.mktemp("managed"), management=True)
    with server:
        server.control("add_user", "monitor", "s3cret/")
        server.control("set_user_tags", "monitor", "monitoring")
        server.control("set_permissions", "monitor", "^$", "^$", "^$")
        yield server


@pytest.fixture
def watched(managed: RabbitMQ, settings: Any) -> Iterator[RabbitMQ]:
    """The same broker, whose plugin the doctor asks, with the queues of the project."""
    port = managed.ports["management"]
    settings.MESSAGING = settings.MESSAGING | {
        "URL": managed.url,
        "MAX_QUEUE_BYTES": 2000,
        "CONFIRM_TIMEOUT": 0.5,
        "BROKER_MANAGEMENT": f"http://monitor:s3cret%2F@127.0.0.1:{port}/",
    }
    one = Publisher("flood")
    with publisher.replaced_by(one):
        declare()
        yield managed
    one.close()
    for policy in json.loads(managed.control("list_policies", "--formatter", "json")):
        managed.control("clear_policy", policy["name"])


def findings() -> dict[str, Finding]:
    """Return what the doctor finds about the limits of queues, by subject."""
    return {one.subject: one for one in limits_of_queues()}


def test_the_doctor_names_public_queues_without_a_limit_and_the_command_for_it(
    watched: RabbitMQ, function: Served
) -> None:
    with Broker(watched.url).channel() as channel:
        # As an earlier version has declared it.
        channel.queue_declare(
            "sums", durable=True, arguments={"x-queue-type": "quorum"}
        )
        found = findings()
        assert found.keys() == {*topology.handlers, "sums"}
        assert {one.level for one in found.values()} == {Level.WARNING}

        for queue in ("users_queue", "sums"):
            watched.control(*shlex.split(found[queue].remedy)[1:])

            assert 0 < flood(queue) < 10
        # Other programs declare it as ever.
        channel.queue_declare("users_queue", durable=True)
        channel.queue_purge("users_queue")
        channel.queue_delete("sums")
    # The plugin learns of a policy after some seconds.
    eventually(lambda: "users_queue" not in findings(), "the policy is seen", 20)
    assert {"reports_queue", "limits of queues"} <= findings().keys()


def test_the_doctor_names_a_public_queue_that_drops_its_oldest_messages(
    watched: RabbitMQ,
) -> None:
    limit = ("^users_queue$", '{"max-length": 5}', "--apply-to", "queues")
    watched.control("set_policy", "limit-users_queue", *limit)

    text = "drops the messages that have waited longest"
    eventually(lambda: text in str(findings().get("users_queue")), "it is named", 20)


def test_the_exported_policies_limit_all_public_queues(
    watched: RabbitMQ, tmp_path: Path
) -> None:
    out = StringIO()
    call_command("topology", "export", stdout=out)
    path = tmp_path / "definitions.json"
    path.write_text(out.getvalue())

    watched.control("import_definitions", str(path))

    eventually(lambda: findings().keys() == {"limits of queues"}, "all have one", 20)
    assert 0 < flood("users_queue") < 10


@pytest.mark.parametrize(("debug", "level"), [(True, "note"), (False, "warning")])
def test_what_the_doctor_is_not_told_to_watch_is_a_finding(
    settings: Any, debug: bool, level: str
) -> None:
    settings.DEBUG = debug

    found = [*limits_of_queues(), *disk.broker_disk()]

    assert [one.level for one in found] == [level, level]
    assert "BROKER_MANAGEMENT" in found[0].remedy
    assert "BROKER_METRICS" in found[1].remedy


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
