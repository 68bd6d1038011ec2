"""Other programs declare the public queues in their own way, and get in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby, pairwise
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from django.core.management import call_command
from django.db import transaction
from pika.exceptions import AMQPError

from messaging import publish
from messaging.amqp.client import connect
from messaging.amqp.publisher import publisher
from messaging.cluster import moving
from messaging.cluster.resizing import queue_state
from messaging.doctor.findings import Level
from messaging.doctor.leases import warnings
from messaging.envelope import PARTITION_KEY, Delivery, Envelope
from messaging.models import DeadLetter, Inbox, Outbox
from messaging.models.lease import Lease, Worker
from messaging.models.parked import Parked, digest_of, properties_of
from messaging.outbox.relay import Relay
from messaging.topology import Binding, declared, partition_for, work_queue
from tests.support import BASE, private_servers
from tests.support.broker import NEW_QUEUE, Broker, virtual_host
from tests.support.messages import make_people
from tests.support.processes import Processes, start_api
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from users.commands import UserCreate, UserUpdate
from users.models import User

QUEUE = "users_queue"
PARTITION = f"{QUEUE}.0"
#: Seconds within which what a frozen process consumes is consumed by another one.
TAKEOVER = 10.0
#: Ways in which programs declare a durable queue.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quorum": {"x-queue-type": "quorum"},
    "classic, single active consumer": {"x-single-active-consumer": True},
    "quorum, single active consumer": {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
    },
    "with a length limit and a dead letter exchange": {
        "x-max-length": 100_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "graveyard",
    },
}


@pytest.fixture
def site(broker: Broker, no_consumers: None, settings: Any) -> Iterator[Broker]:
    """A virtual host of its own, without any queue."""
    url = virtual_host(f"public-{uuid.uuid4().hex[:8]}")
    settings.MESSAGING = settings.MESSAGING | {"URL": url}
    publisher.close()
    yield Broker(url)
    publisher.close()


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(processes: Processes, site: Broker) -> Start:
    """Return a function that starts the consumer of users."""

    def start(**environment: str) -> subprocess.Popen[bytes]:
        return processes.manage(
            "run_consumer", "users", **{"RABBITMQ_URL": site.url} | environment
        )

    return start


class Client:
    """A program that declares the queue before it sends, as tutorials do."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.declare(**arguments)
        self.channel.confirm_delivery()

    def declare(self, **arguments: Any) -> None:
        self.channel.queue_declare(QUEUE, durable=True, arguments=arguments)

    def send(self, body: dict[str, Any] | bytes, **properties: Any) -> None:
        self.channel.basic_publish(
            "",
            QUEUE,
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            pika.BasicProperties(delivery_mode=2, **properties),
            mandatory=True,
        )


class Program:
    """The same in a process of its own, on another client."""

    COMMANDS = {
        "aio-pika": [sys.executable, "tests/support/clients/producer_aio_pika.py"],
        "amqplib": ["node", "tests/support/clients/producer_amqplib.js"],
    }

    def __init__(self, name: str, url: str, **arguments: Any) -> None:
        self.process = subprocess.Popen(
            [*self.COMMANDS[name], QUEUE, json.dumps(arguments)],
            cwd=BASE,
            env=os.environ | {"RABBITMQ_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("declared")

    def _expect(self, line: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == f"{line}\n"

    def send(self, body: dict[str, Any]) -> None:
        print(json.dumps(body), file=self.process.stdin, flush=True)
        self._expect("confirmed")

    def end(self) -> None:
        self.process.communicate(timeout=10)


Connect = Callable[..., Client]
Run = Callable[..., Program]


@pytest.fixture
def run(site: Broker) -> Iterator[Run]:
    """Return a function that runs a program, which declares the queue."""
    programs: list[Program] = []

    def run(name: str, url: str = site.url, **arguments: Any) -> Program:
        if name == "amqplib" and not shutil.which("node"):
            pytest.skip("Node.js is not installed")
        programs.append(Program(name, url, **arguments))
        return programs[-1]

    yield run
    for program in programs:
        program.end()


@pytest.fixture
def client_of(site: Broker) -> Iterator[Connect]:
    """Return a function that connects a client, which declares the queue."""
    clients: list[Client] = []

    def connect(url: str = site.url, **arguments: Any) -> Client:
        clients.append(Client(url, **arguments))
        return clients[-1]

    yield connect
    for client in clients:
        if client.connection.is_open:
            client.connection.close()


def creation(name: str) -> dict[str, Any]:
    return {
        "event_type": "user.create",
        "nombre": name,
        "apellido": "Lee",
        "email": f"{name}@example.com",
    }


def update(user: User, text: str) -> dict[str, Any]:
    return {"event_type": "user.update", "user_id": user.pk, "biografia": text}


def created(name: str) -> User:
    """Wait for a user of that name."""
    rows = User.objects.filter(nombre=name)
    found: User = eventually(rows.first, f"{name} is created", 30)
    return found


def biography_is(user: User, text: str, timeout: float = 30) -> None:
    rows = User.objects.filter(pk=user.pk, biografia=text)
    eventually(rows.exists, f"the biography is {text}", timeout)


@pytest.mark.parametrize("arguments", WAYS.values(), ids=WAYS.keys())
def test_a_client_may_declare_the_queue_before_and_after_the_consumer(
    site: Broker, client_of: Connect, start: Start, arguments: dict[str, Any]
) -> None:
    early = client_of(**arguments)
    early.send(creation("ana"))

    start()

    user = created("ana")
    late = client_of(**arguments)
    for text in ("a", "b", "a"):
        late.send(update(user, text))
    late.send(creation("bo"))
    created("bo")
    # Without ids, each was a message of its own.
    updates = Inbox.objects.filter(event_type="user.update")
    eventually(lambda: updates.count() == 3, "all are applied")
    biography_is(user, "a")
    early.declare(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", Program.COMMANDS)
@pytest.mark.parametrize("arguments", WAYS.values(), ids=WAYS.keys())
def test_programs_on_other_clients_get_in_before_and_after_the_consumer(
    site: Broker, run: Run, start: Start, name: str, arguments: dict[str, Any]
) -> None:
    early = run(name, **arguments)
    early.send(creation("ana"))

    start()

    user = created("ana")
    late = run(name, **arguments)
    late.send(creation("bo"))
    other = created("bo")
    for number in range(20):
        late.send(update(user, f"theirs {number}"))
        publish(UserUpdate(user_id=user.pk, biografia=f"ours {number}"))
        publish(UserUpdate(user_id=other.pk, biografia=f"other {number}"))
    late.send(update(user, "end"))
    biography_is(user, "end")
    biography_is(other, "other 19")
    texts = biographies(user)
    for sender in ("theirs", "ours"):
        sent = [f"{sender} {number}" for number in range(20)]
        assert [text for text in texts if text.startswith(sender)] == sent
    assert not DeadLetter.objects.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pika", *Program.COMMANDS])
def test_the_default_type_of_a_virtual_host_may_be_quorum(
    broker: Broker,
    no_consumers: None,
    servers: SimpleNamespace,
    processes: Processes,
    client_of: Connect,
    run: Run,
    name: str,
) -> None:
    if int(servers.rabbitmq.control("version").partition(".")[0]) < 4:
        pytest.skip("RabbitMQ 3 declares queues without a type as classic")
    host = f"quorum-{uuid.uuid4().hex[:8]}"
    url = virtual_host(host, "--default-queue-type", "quorum")
    early: Client | Program = client_of(url) if name == "pika" else run(name, url)
    early.send(creation("ana"))

    processes.manage("run_consumer", "users", RABBITMQ_URL=url)

    user = created("ana")
    late: Client | Program = client_of(url) if name == "pika" else run(name, url)
    for text in ("a", "b", "a"):
        late.send(update(user, text))
    late.send(creation("bo"))
    created("bo")
    biography_is(user, "a")
    kinds = servers.rabbitmq.control("list_queues", "-p", host, "name", "type")
    assert f"{QUEUE}\tquorum" in kinds


def test_a_missing_queue_is_declared_as_tutorials_declare_it(
    site: Broker, client_of: Connect, start: Start
) -> None:
    start()
    eventually(lambda: consumers_of(site, QUEUE) is not None, "the public queue", 20)

    client_of().send(creation("ana"))

    created("ana")


def holders() -> dict[str, str]:
    """Return the names of the leases by the process that holds them."""
    named = Worker.objects.values_list("pk", "name")
    pids = {worker: name.rpartition(":")[2] for worker, name in named}
    held = Lease.objects.filter(queue=QUEUE, worker__in=pids)
    return {pids[lease.worker]: lease.name for lease in held}


def is_leased() -> bool:
    return Lease.objects.filter(pk=QUEUE).exclude(worker="").exists()


def consumers_of(site: Broker, name: str) -> int | None:
    """Return how many consumers a queue has, or None if there is none of that name."""
    with connect("test") as client:
        state = queue_state(client, name)
    return state.consumers if state else None


def test_writes_of_the_api_and_of_others_each_keep_their_order(
    site: Broker, client_of: Connect, start: Start, processes: Processes
) -> None:
    start()
    api = start_api(processes, RABBITMQ_URL=site.url)
    eventually(lambda: consumers_of(site, QUEUE) is not None, "the public queue", 20)
    client = client_of()
    client.send(creation("ana"))
    user = created("ana")
    body = {"nombre": "bo", "apellido": "Lee", "email": "bo@example.com"}
    assert api.post("/users/", body).status_code == 202
    other = created("bo")

    def write(user: User, text: str) -> None:
        answer = api.patch(f"/users/{user.pk}/", {"biografia": text})
        assert answer.status_code == 202

    for number in range(50):
        client.send(update(user, f"theirs {number}"))
        write(user, f"api {number}")
        write(other, f"other {number}")
    client.send(update(user, "end"))

    biography_is(other, "other 49")
    eventually(lambda: len(events_of(user)) == 101, "all are applied")
    texts = biographies(user)
    for sender in ("theirs", "api"):
        sent = [f"{sender} {number}" for number in range(50)]
        assert [text for text in texts if text.startswith(sender)] == sent
    assert biographies(other) == [f"other {number}" for number in range(50)]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"durable": True, "arguments": {"x-queue-type": "stream"}}, "it is a stream"),
        ({"auto_delete": True}, "when its last consumer ends"),
    ],
)
def test_a_queue_that_would_lose_messages_is_refused_and_the_rest_is_served(
    site: Broker,
    processes: Processes,
    capfd: pytest.CaptureFixture[str],
    options: dict[str, Any],
    reason: str,
) -> None:
    with site.channel() as channel:
        channel.queue_declare(QUEUE, **options)

    processes.manage("run_consumer", "users", RABBITMQ_URL=site.url)

    output: list[str] = []

    def is_refused() -> bool:
        output.append(capfd.readouterr().err)
        return reason in "".join(output)

    eventually(is_refused, "the queue is refused", 20)
    eventually(lambda: consumers_of(site, PARTITION), "the partition is there", 20)
    publish(UserCreate(nombre="bo", apellido="Lee", email="bo@example.com"))
    created("bo")
    with site.channel() as channel:
        assert channel.queue_declare(QUEUE, passive=True).method.consumer_count == 0


def test_it_waits_for_another_program_that_consumes(
    site: Broker, client_of: Connect, start: Start
) -> None:
    client = client_of()
    taken: list[bytes] = []
    tag = client.channel.basic_consume(
        QUEUE, lambda _c, _m, _p, body: taken.append(body), auto_ack=True
    )
    start()
    eventually(is_leased, "the lease is held", 20)
    client.send(creation("theirs"))
    eventually(
        lambda: client.connection.process_data_events(0.1) or taken, "it arrives"
    )
    eventually(lambda: [*warnings()], "the doctor names it", 10)
    (finding,) = warnings()
    assert (finding.level, finding.subject) == (Level.WARNING, QUEUE)
    assert "another program consumes it" in finding.text
    assert "rabbitmqctl list_consumers" in finding.remedy

    client.channel.basic_cancel(tag)
    client.send(creation("ours"))

    created("ours")
    assert not User.objects.filter(nombre="theirs").exists()


def kill(process: subprocess.Popen[bytes], proxy: Proxy) -> None:
    process.kill()


def freeze(process: subprocess.Popen[bytes], proxy: Proxy) -> None:
    process.send_signal(signal.SIGSTOP)


def cut(process: subprocess.Popen[bytes], proxy: Proxy) -> None:
    proxy.cut()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "lost", "is_named"),
    [
        (kill, QUEUE, True),
        (freeze, QUEUE, False),
        (cut, QUEUE, False),
        pytest.param(kill, QUEUE, False, marks=pytest.mark.slow),
        pytest.param(kill, PARTITION, True, marks=pytest.mark.slow),
        pytest.param(freeze, QUEUE, True, marks=pytest.mark.slow),
        pytest.param(freeze, PARTITION, False, marks=pytest.mark.slow),
        pytest.param(cut, QUEUE, True, marks=pytest.mark.slow),
    ],
)
def test_the_order_stays_while_an_ingress_or_a_partition_is_lost(
    site: Broker,
    client_of: Connect,
    start: Start,
    fault: Callable[..., None],
    lost: str,
    is_named: bool,
) -> None:
    port = private_servers.rabbitmq.port
    client = client_of()
    with Proxy(port) as proxy:
        through = site.url.replace(f":{port}/", f":{proxy.port}/")
        first = start(RABBITMQ_URL=through)
        client.send(creation("ana"))
        user = created("ana")
        eventually(is_leased, "the lease is held")
        second = start()
        eventually(lambda: len(holders()) == 2, "both have their share", 20)
        # The first one keeps the ingress, and the second one gets the partition.
        assert holders() == {str(first.pid): QUEUE, str(second.pid): PARTITION}
        culprit = first if lost == QUEUE else second
        for number in range(400):
            given = {"message_id": str(uuid.uuid4())} if is_named else {}
            client.send(update(user, f"n {number}"), **given)
            if number == 200:
                fault(culprit, proxy)
        biography_is(user, "n 399", 30)
        if fault is freeze:
            culprit.send_signal(signal.SIGCONT)
            time.sleep(2.0)
            biography_is(user, "n 399")
    numbers = [int(text.split()[1]) for text in biographies(user) if text]
    assert set(numbers) == set(range(400))
    if is_named or lost == PARTITION:  # in a partition every message has an id
        assert numbers == sorted(numbers)
    # At least once, and in order: what comes again comes with all that follows it.
    assert all(later <= earlier + 1 for earlier, later in pairwise(numbers))


@pytest.mark.slow
def test_the_last_of_equal_messages_counts_whenever_a_consumer_is_killed(
    site: Broker, client_of: Connect, start: Start
) -> None:
    client = client_of()
    running = {str(process.pid): process for process in (start(), start())}
    client.send(creation("ana"))
    user = created("ana")

    for number in range(5):
        eventually(lambda: len(holders()) == 2, "both have their share", 20)
        (pid,) = (pid for pid, name in holders().items() if name == PARTITION)
        for text in ("a", "b", "a"):
            client.send(update(user, f"{text} {number}"))
            if text == "b":
                running.pop(pid).kill()
        client.send(update(user, f"end {number}"))
        biography_is(user, f"end {number}")
        assert biographies(user)[-4:] == [
            f"{text} {number}" for text in ("a", "b", "a", "end")
        ]
        another = start()
        running[str(another.pid)] = another
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(
    "lost",
    [
        [QUEUE, PARTITION],
        pytest.param([QUEUE], marks=pytest.mark.slow),
        pytest.param([PARTITION], marks=pytest.mark.slow),
    ],
    ids=" and ".join,
)
def test_another_process_takes_over_from_stopped_ones_within_ten_seconds(
    site: Broker, client_of: Connect, start: Start, lost: list[str]
) -> None:
    """With nothing in hand, so that no time is needed to process it again."""
    client = client_of()
    running = {str(process.pid): process for process in (start() for _ in range(3))}
    client.send(creation("ana"))
    user = created("ana")
    eventually(lambda: len(holders()) == 2, "two have a lease each", 20)
    stopped = [running[pid] for pid, name in holders().items() if name in lost]
    assert len(stopped) == len(lost)

    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    client.send(update(user, "a"))
    biography_is(user, "a", 20)

    assert time.monotonic() - stopped_at < TAKEOVER


def test_the_order_stays_when_a_partition_refuses_messages(
    site: Broker, client_of: Connect, start: Start, servers: SimpleNamespace
) -> None:
    client = client_of()
    start()
    client.send(creation("ana"))
    user = created("ana")
    host = site.url.rpartition("/")[2]
    limit = ["^users_queue.0$", json.dumps({"max-length": 3}), "--apply-to", "queues"]
    servers.rabbitmq.control("set_policy", "-p", host, "short", *limit)
    sender = client.connection.channel()  # without confirms, so that messages pile up

    for number in range(600):
        body = json.dumps(update(user, f"n {number}")).encode()
        sender.basic_publish("", QUEUE, body)
        if number % 3 == 0:
            publish(UserUpdate(user_id=user.pk, nombre=f"N {number}"))

    biography_is(user, "n 599", 60)
    seen = [event["biografia"] for event in events_of(user)]
    numbers = [int(text.split()[1]) for text in seen if " " in text]
    assert [n for n, _ in groupby(numbers)] == list(range(600))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_named", [True, False], ids=["with ids", "without"])
def test_nothing_is_lost_when_the_broker_is_killed(
    site: Broker,
    client_of: Connect,
    start: Start,
    outage: SimpleNamespace,
    is_named: bool,
) -> None:
    client = client_of()
    start()
    client.send(creation("ana"))
    user = created("ana")
    time.sleep(NEW_QUEUE)
    texts = [f"n {number}" for number in range(300)] + ["a", "b", "a"]

    for place, text in enumerate(texts):
        given = {"message_id": str(uuid.uuid4())} if is_named else {}
        if place in (150, 302):  # while messages wait, and just after some were applied
            outage.rabbitmq.kill()
            outage.rabbitmq.start()
        try:
            client.send(update(user, text), **given)
        except AMQPError:
            # Without a confirm it is sent again; without an id it may be doubled.
            client = client_of()
            client.send(update(user, text), **given)

    biography_is(user, "a", 60)
    eventually(lambda: site.count(QUEUE) + site.count(PARTITION) == 0, "no more", 30)
    seen = [event["biografia"] for event in events_of(user)]
    numbers = [int(text.split()[1]) for text in seen if " " in text]
    assert set(numbers) == set(range(300))
    assert all(later <= earlier + 1 for earlier, later in pairwise(numbers))
    assert seen[-3:] == ["a", "b", "a"]
    if is_named:
        assert seen == texts


def events_of(user: User) -> list[dict[str, Any]]:
    """Return the events about a user, in order."""
    rows = Outbox.objects.filter(type="user.updated").order_by("id")
    bodies = [json.loads(bytes(row.body)) for row in rows]
    return [body for body in bodies if body["user_id"] == user.pk]


def biographies(user: User) -> list[str]:
    """Return what the events about a user say of it, in order."""
    return [event["biografia"] for event in events_of(user)]


def test_what_a_stranger_says_in_our_headers_is_not_believed(
    site: Broker, client_of: Connect, start: Start
) -> None:
    client = client_of()
    start()
    client.send(creation("ana"), message_id="m")
    user = created("ana")
    headers = {
        "replays": 5,
        "redelivered": True,
        "if_version": 77,
        "assigned-id": "m",
        "origin-exchange": "x",
        "origin-routing-key": "y",
        "origin-user-id": "guest",
        "idempotency-key": "m",
        "x-delivery-count": 99,
        "x-death": [{"count": 9, "queue": QUEUE, "reason": "rejected"}],
    }

    client.send(update(user, "a"), headers=headers, message_id="a")
    client.send(
        update(user, "b"),
        headers=headers,
        message_id="b",
        priority=9,
        expiration="60000",
    )
    client.send(creation("ana"), headers=headers, message_id="m")

    biography_is(user, "b")
    client.send(update(user, "end"), headers=headers)
    biography_is(user, "end")
    assert Inbox.objects.count() == 4
    assert not DeadLetter.objects.exists()


def test_copies_that_a_stranger_asks_for_are_not_copied_again(
    site: Broker,
    client_of: Connect,
    start: Start,
    processes: Processes,
    settings: Any,
) -> None:
    more = {"QUEUES": {QUEUE: {"PARTITIONS": 3}}}
    settings.MESSAGING = settings.MESSAGING | more
    partitions = [f"{QUEUE}.{number}" for number in range(3)]
    client = client_of()
    consumer = start(MESSAGING=json.dumps(more))
    client.send(creation("ana"))
    user = created("ana")
    # The broker itself sends one of these to each.
    headers = {"CC": partitions[:2], "BCC": partitions[2:]}

    client.send(update(user, "named"), headers=headers, message_id="cc")
    client.send(update(user, "nameless"), headers=headers)

    # Those that came by another partition may be the last ones.
    expected = ["named"] + ["nameless"] * 4
    eventually(lambda: len(events_of(user)) >= 5, "all are applied", 30)
    assert sorted(biographies(user)) == expected
    client.send(update(user, "end"))
    biography_is(user, "end")
    # What it has in hand returns to the queues.
    assert processes.stop(consumer) == 0
    assert [site.count(name) for name in (QUEUE, *partitions)] == [0, 0, 0, 0]
    assert biographies(user)[5:] == ["end"]
    assert not DeadLetter.objects.exists()


def test_headers_that_cannot_be_carried_are_left_out(
    site: Broker, client_of: Connect, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    client = client_of()
    start()
    client.send(creation("ana"))
    user = created("ana")

    client.send(update(user, "a"), headers={"big": "x" * 130_900})

    biography_is(user, "a")
    assert (
        "goes on without 1 headers that cannot be sent: big" in capfd.readouterr().err
    )


def test_an_id_of_odd_bytes_is_readable_in_the_dead_letter(
    site: Broker, client_of: Connect, start: Start
) -> None:
    client = client_of()
    start()

    client.send(b"{", message_id=b"\xff" * 80)

    letter = eventually(DeadLetter.objects.first, "a dead letter", 30)
    assert letter.message_id.startswith("\\xff\\xff")
    assert len(letter.message_id) <= 255


def test_the_same_id_in_two_queues_names_two_messages(
    site: Broker, client_of: Connect, processes: Processes
) -> None:
    client = client_of()
    client.channel.queue_declare("reports_queue", durable=True)
    processes.manage("run_consumer", "users", "reports", RABBITMQ_URL=site.url)
    client.send(creation("ana"), message_id="same")
    user = created("ana")
    report = {
        "event_type": "report.create",
        "id_usuario": user.pk,
        "tipo_reporte": 1,
        "descripcion": "Bache",
    }
    client.channel.basic_publish(
        "",
        "reports_queue",
        json.dumps(report).encode(),
        pika.BasicProperties(message_id="same"),
    )

    rows = User.objects.filter(pk=user.pk, numero_reportes=1)
    eventually(rows.exists, "the report is counted", 20)


def test_the_queues_of_an_earlier_version_are_moved(
    site: Broker, client_of: Connect, start: Start
) -> None:
    with connect("test") as client:
        client.declare(work_queue(QUEUE, QUEUE))
    Lease.objects.create(name=QUEUE, queue=QUEUE)
    for number in range(300):
        site.send(QUEUE, creation(f"u{number}"))
    site.send(QUEUE, b" " * 1_100_000)  # more than is published or applied

    call_command("topology", "apply")

    assert set(Lease.objects.filter(queue=QUEUE).values_list("name", flat=True)) == {
        QUEUE,
        PARTITION,
    }
    assert site.count(PARTITION) == 301
    assert site.count(QUEUE) == 0
    # Now empty, it is replaced by one that others can declare.
    call_command("topology", "apply")
    client = client_of()
    client.send(creation("last"))
    start()
    created("last")
    eventually(lambda: User.objects.count() == 301, "all are created", 30)


def test_all_queues_are_moved_with_their_messages_and_bindings(
    site: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "QUIET", 0.3)  # for each of the queues
    queues = (
        "users_queue",
        "reports_queue",
        "notifications_queue",
        "report_files_queue",
    )
    bound = [  # to the events that the handlers of these queues listen to
        (binding.queue.removesuffix(".0"), binding.routing_key)
        for binding in declared()
        if isinstance(binding, Binding) and binding.exchange == "events"
    ]
    assert {queue for queue, _ in bound} == {*queues[2:]}
    with site.channel() as channel:
        channel.exchange_declare("events", "topic", durable=True)
    with connect("test") as client:
        for queue in queues:
            client.declare(work_queue(queue, queue))
            Lease.objects.create(name=queue, queue=queue)
            site.send(queue, b"{}")
    with site.channel() as channel:
        for queue, key in bound:
            channel.queue_bind(queue, "events", key)

    call_command("topology", "apply")

    assert [site.count(queue) for queue in queues] == [0, 0, 0, 0]
    assert [site.count(f"{queue}.0") for queue in queues] == [1, 1, 1, 1]
    for key in {key for _, key in bound}:
        site.send(key, b"{}", exchange="events")
    expected = {f"{queue}.0": 1 for queue in queues}
    for queue, _ in bound:
        expected[f"{queue}.0"] += 1
    eventually(
        lambda: {name: site.count(name) for name in expected} == expected,
        "events reach the partitions",
    )
    assert [site.count(queue) for queue in queues] == [0, 0, 0, 0]
    call_command("topology", "apply")
    for queue in queues:
        with site.channel() as channel:
            channel.queue_declare(queue, durable=True)  # as other programs do


def test_the_topology_is_applied_beside_a_queue_of_another_program(
    site: Broker, client_of: Connect
) -> None:
    limits = {"x-max-length": 100_000, "x-max-length-bytes": 10**9}
    arguments = {"x-queue-type": "quorum", **limits}
    client = client_of(**arguments)
    client.send(creation("ana"))

    for _ in range(2):
        call_command("topology", "apply")

        assert site.count(PARTITION) == 0
        client.declare(**arguments)  # it is as it was
    eventually(lambda: site.count(QUEUE) == 1, "its message waits for the ingress")
    with pytest.raises(SystemExit) as end:
        call_command("topology", "plan")
    assert end.value.code == 0


def test_partitions_parked_messages_and_the_outbox_are_moved_with_the_queue(
    site: Broker, start: Start, settings: Any
) -> None:
    more = {"QUEUES": {QUEUE: {"PARTITIONS": 3}}}
    settings.MESSAGING = settings.MESSAGING | more
    publisher.close()
    people = make_people(12)
    # As they were called: the public queue was the first partition.
    old = {
        user: partition_for(QUEUE, str(user.pk)).replace(PARTITION, QUEUE)
        for user in people
    }
    names = [QUEUE, f"{QUEUE}.1", f"{QUEUE}.2"]
    assert set(old.values()) == set(names)
    for name in names:
        with connect("test") as client:
            client.declare(work_queue(QUEUE, name))
        Lease.objects.create(name=name, queue=QUEUE)
    for user, name in old.items():
        park(name, str(user.pk), json.dumps(update(user, "parked")).encode())
        for text in ("waits first", "waits last"):
            site.send(name, update(user, text))
        body = json.dumps(update(user, "from the outbox")).encode()
        headers = {PARTITION_KEY: str(user.pk)}
        envelope = Envelope(body, name, message_id=str(uuid.uuid4()), headers=headers)
        with transaction.atomic():
            Outbox.objects.add([envelope])

    call_command("topology", "apply")
    call_command("topology", "apply")

    assert Lease.objects.partitions_of(QUEUE) == [
        QUEUE,
        *(f"{QUEUE}.{n}" for n in range(3)),
    ]
    start(MESSAGING=json.dumps(more))
    for user in people:
        biography_is(user, "waits last")
        texts = [event["biografia"] for event in events_of(user)]
        assert texts == ["parked", "waits first", "waits last"]
    Relay().drain()  # the events, too
    for user in people:
        biography_is(user, "from the outbox")
    assert not Parked.objects.exists()
    assert not DeadLetter.objects.exists()


def park(partition: str, key: str, body: bytes) -> None:
    """Park a message of a partition, to be tried now."""
    envelope = Envelope(body, QUEUE, message_id=str(uuid.uuid4()))
    now = datetime.now(UTC)
    Parked.objects.create(
        partition=partition,
        message_id=envelope.message_id,
        event_type="user.update",
        key=key,
        digest=digest_of(key),
        due_at=now,
        parked_at=now,
        size=len(body),
        properties=properties_of(Delivery(envelope, QUEUE, tag=0)),
        body=body,
    )
