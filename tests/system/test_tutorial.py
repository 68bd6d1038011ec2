"""Every pattern of the tutorial, together with programs on other clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from kombu import Connection, Consumer, Exchange, Producer, Queue

from tests.support import BASE
from tests.support.broker import Broker

#: Half a minute; what the scripts are built on has faster tests.
pytestmark = pytest.mark.slow

CLIENTS = {
    "pika": [sys.executable, "tests/support/clients/with_pika.py"],
    "kombu": [sys.executable, "tests/support/clients/with_kombu.py"],
    "aio-pika": [sys.executable, "tests/support/clients/with_aio_pika.py"],
    "amqplib": ["node", "tests/support/clients/with_amqplib.js"],
}
#: The others are slower to start, and amqplib needs Node.js.
CLIENT = [
    "pika",
    *(pytest.param(name, marks=pytest.mark.slow) for name in CLIENTS if name != "pika"),
]
QUEUES = ("hola", "hello", "task_queue", "order_notify", "order_report", "birds_only")
EXCHANGES = ("logs", "direct_logs", "topic_logs", "headers_logs", "order", "nature")
WAITING = "[*] Waiting"


@dataclass(frozen=True)
class Pattern:
    """Two scripts, their arguments, and what is printed."""

    emit: list[str]
    receive: list[str]
    key: str = ""
    #: Arguments of our scripts only.
    options: tuple[str, ...] = ()
    header: bool = False


PATTERNS = {
    "hello world": Pattern(
        ["send"], ["receive"], key="hello", options=("--queue", "hello")
    ),
    "work queues": Pattern(["new_task"], ["worker"], key="task_queue"),
    "publish/subscribe": Pattern(["emit_log"], ["receive_logs"]),
    "routing": Pattern(
        ["emit_log_direct", "error"],
        ["receive_logs_direct", "warning", "error"],
        key="error",
    ),
    "topics": Pattern(
        ["emit_log_topic", "lazy.brown.fox"],
        ["receive_logs_topic", "*.orange.*", "lazy.#"],
        key="lazy.brown.fox",
    ),
    "headers": Pattern(
        ["emit_log_headers", "format=pdf"],
        ["receive_logs_headers", "format=pdf"],
        header=True,
    ),
}


class Output(StringIO):
    """What a command prints; calls `ready` once it waits for messages."""

    def __init__(self, ready: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self._ready: Callable[[], Any] | None = ready

    def write(self, text: str) -> int:
        """Store a text, and call `ready` if it says that the command waits."""
        written = super().write(text)
        if self._ready and WAITING in text:
            self._ready, ready = None, self._ready
            ready()
        return written


def tutorial(*arguments: str, ready: Callable[[], Any] = lambda: None) -> list[str]:
    """Run a script in this process; return the lines it prints, except "Waiting"."""
    output = Output(ready)
    call_command("tutorial", *arguments, stdout=output)
    return [line for line in output.getvalue().splitlines() if WAITING not in line]


def receive_one(*arguments: str, ready: Callable[[], Any] = lambda: None) -> str:
    """Run a receiving script until it has one message; return what it prints."""
    limits = ("--count", "1", "--timeout", "20")
    return tutorial(*arguments, *limits, ready=ready)[0]


class Programs:
    """Programs that run during a test."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program whose output can be read."""
        process = subprocess.Popen(
            command, cwd=BASE, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        self._running.append(process)
        return process

    def manage(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a script of ours, and wait until it receives."""
        process = self.start(sys.executable, "manage.py", "tutorial", *arguments)
        assert process.stdout is not None
        assert WAITING in process.stdout.readline()
        return process

    def end(self) -> None:
        """Kill all programs."""
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Programs that are killed after the test."""
    started = Programs()
    yield started
    started.end()


def clean(broker: Broker) -> None:
    """Delete the queues and exchanges of the tutorials."""
    with broker.channel() as channel:
        for queue in (*QUEUES, "recommendation.watch.*"):
            channel.queue_delete(queue)
        for exchange in (*EXCHANGES, "watch"):
            channel.exchange_delete(exchange)


@pytest.fixture
def clean_broker(servers: SimpleNamespace) -> Iterator[Broker]:
    """A broker without the queues and exchanges of the tutorials."""
    broker = Broker()
    clean(broker)
    yield broker
    clean(broker)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
@pytest.mark.parametrize("client", CLIENT)
def test_our_scripts_receive_what_other_clients_send(
    clean_broker: Broker, programs: Programs, client: str, pattern: Pattern
) -> None:
    emit = (*CLIENTS[client], *pattern.emit, "¡Hola!")

    line = receive_one(
        *pattern.receive, *pattern.options, ready=lambda: programs.start(*emit)
    )

    assert "¡Hola!" in line
    assert pattern.key in line or pattern.key in QUEUES


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
@pytest.mark.parametrize("client", CLIENT)
def test_other_clients_receive_what_our_scripts_send(
    clean_broker: Broker, programs: Programs, client: str, pattern: Pattern
) -> None:
    theirs = programs.start(*CLIENTS[client], *pattern.receive)
    assert theirs.stdout is not None
    assert theirs.stdout.readline() == "waiting\n"

    script, *arguments = pattern.emit
    if pattern.header:
        arguments = [f"--header={argument}" for argument in arguments]
    tutorial(script, *arguments, *pattern.options, "¡Hola!")

    assert theirs.communicate(timeout=20)[0] == f"{pattern.key}:¡Hola!\n"
    assert theirs.returncode == 0


def received(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next `count` messages that a script of ours prints."""
    assert process.stdout is not None
    found: list[str] = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, "the script still runs"
        if "Received" in line:
            found.append(line.split("'")[1])
    return found


def all_lines(process: subprocess.Popen[str]) -> str:
    """Stop a script; return the rest of what it printed."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    return output


def test_without_a_prefetch_limit_tasks_are_distributed_round_robin(
    clean_broker: Broker, programs: Programs
) -> None:
    workers = [programs.manage("worker", "--prefetch", "0") for _ in range(2)]

    for number in range(6):
        tutorial("new_task", f"task {number}")

    shares = sorted(received(worker, 3) for worker in workers)
    assert shares == [
        ["task 0", "task 2", "task 4"],
        ["task 1", "task 3", "task 5"],
    ]


def test_with_prefetch_one_the_idle_worker_gets_the_next_task(
    clean_broker: Broker, programs: Programs
) -> None:
    busy = programs.manage("worker")
    long = "long" + "." * 60
    tutorial("new_task", long)
    assert received(busy, 1) == [long]
    idle = programs.manage("worker")

    for task in ("a", "b", "c"):
        tutorial("new_task", task)

    assert received(idle, 3) == ["a", "b", "c"]


def test_the_task_of_a_killed_worker_goes_to_another(
    clean_broker: Broker, programs: Programs
) -> None:
    first = programs.manage("worker")
    tutorial("new_task", "precious..........................")
    assert received(first, 1) == ["precious.........................."]
    second = programs.manage("worker")

    first.kill()

    assert received(second, 1) == ["precious.........................."]


@pytest.mark.slow
def test_automatically_acknowledged_tasks_are_lost_with_their_worker(
    clean_broker: Broker, programs: Programs
) -> None:
    worker = programs.manage("worker", "--ack", "sent")
    for name in ("precious..........................", "another"):
        tutorial("new_task", name)
    received(worker, 1)

    worker.kill()
    worker.wait()

    assert clean_broker.count("task_queue") == 0


def test_unacknowledged_tasks_are_redelivered(
    clean_broker: Broker, programs: Programs
) -> None:
    forgetful = programs.manage("worker", "--ack", "never", "--prefetch", "0")
    for name in ("one", "two"):
        tutorial("new_task", name)
    assert received(forgetful, 2) == ["one", "two"]
    assert clean_broker.count("task_queue") == 0

    all_lines(forgetful)

    assert receive_one("worker") == " [x] Received 'one'"


@pytest.mark.slow
def test_only_durable_messages_and_queues_survive_a_restart(
    clean_broker: Broker, servers: SimpleNamespace
) -> None:
    tutorial("new_task", "--classic", "persistent")
    tutorial("new_task", "--classic", "--transient", "transient")
    tutorial("send", "--not-durable", "in a queue that ends")

    servers.rabbitmq.stop()
    servers.rabbitmq.start()

    assert clean_broker.count("task_queue") == 1
    assert receive_one("worker", "--classic") == " [x] Received 'persistent'"
    with clean_broker.channel() as channel:
        declared = channel.queue_declare("hola")
        assert declared.method.message_count == 0


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (["*.orange.*"], {"quick.orange.rabbit", "lazy.orange.elephant"}),
        (
            ["*.*.rabbit", "lazy.#"],
            {
                "quick.orange.rabbit",
                "lazy.orange.elephant",
                "lazy.brown.fox",
                "lazy.orange.new.rabbit",
            },
        ),
        (["#"], None),
    ],
    ids=["orange", "rabbits and lazy", "all"],
)
def test_topics_match_word_by_word(
    clean_broker: Broker, patterns: list[str], taken: set[str] | None
) -> None:
    keys = [
        "quick.orange.rabbit",
        "lazy.orange.elephant",
        "lazy.brown.fox",
        "quick.brown.fox",
        "orange",
        "quick.orange.new.rabbit",
        "lazy.orange.new.rabbit",
    ]

    expected = set(keys) if taken is None else taken

    def emit() -> None:
        for key in (*keys, "lazy.orange.rabbit"):
            tutorial("emit_log_topic", key, f"<{key}>")

    count = str(len(expected) + 1)
    *lines, last = tutorial(
        "receive_logs_topic", *patterns, "--count", count, "--timeout", "20", ready=emit
    )

    assert {line.partition("<")[2].rstrip(">") for line in lines} == expected
    # All of them match it.
    assert "lazy.orange.rabbit" in last


def test_headers_match_all_or_any(clean_broker: Broker) -> None:
    def emit() -> None:
        tutorial("emit_log_headers", "--header=format=pdf", "--header=pages:=3", "both")
        tutorial("emit_log_headers", "--header=format=pdf", "one")
        tutorial("emit_log_headers", "--header=pages=3", "a text, not a number")
        tutorial("emit_log_headers", "--header=format=pdf", "--header=pages:=3", "end")

    def taken(*options: str) -> list[str]:
        wanted = ("receive_logs_headers", "format=pdf", "pages:=3", "--timeout", "20")
        lines = tutorial(*wanted, *options, ready=emit)
        return [line.rpartition(":")[2] for line in lines]

    assert taken("--count", "2") == ["both", "end"]
    assert taken("--count", "3", "--match", "any") == ["both", "one", "end"]


NATURE = ("--exchange", "nature", "--durable")


def test_a_queue_receives_what_kombu_publishes(clean_broker: Broker) -> None:
    def publish() -> None:
        with Connection(clean_broker.url) as connection:
            producer = Producer(
                exchange=Exchange(name="nature", type="topic"),
                routing_key="animal.bird",
                channel=connection.channel(),
            )
            producer.publish({"bird_name": "dove"})

    line = receive_one(
        "receive_logs_topic", *NATURE, "--queue", "birds_only", "*.bird", ready=publish
    )

    assert line == ' [x] animal.bird:{"bird_name": "dove"}'


def test_a_consumer_of_kombu_receives_what_we_publish(clean_broker: Broker) -> None:
    got: list[Any] = []

    def process_message(body: Any, message: Any) -> None:
        got.append((body, message.delivery_info["routing_key"]))
        message.ack()

    with Connection(clean_broker.url) as connection:
        exchange = Exchange(name="nature", type="topic")
        queue = Queue(name="birds_only", exchange=exchange, routing_key="*.bird")
        with Consumer(connection, queues=queue, callbacks=[process_message]):
            call_command(
                "publish", '{"bird_name": "dove"}', "--json",
                "--exchange", "nature", "--key", "animal.bird", stdout=StringIO(),
            )  # fmt: skip
            tutorial("emit_log_topic", *NATURE, "animal.bird", "owl")
            connection.drain_events(timeout=10)
            connection.drain_events(timeout=10)

    assert got == [({"bird_name": "dove"}, "animal.bird"), ("owl", "animal.bird")]


def test_a_durable_queue_keeps_messages_until_they_are_received(
    clean_broker: Broker,
) -> None:
    watch = ("--exchange", "watch", "--durable")
    listen = ("receive_logs_topic", *watch, "--queue", "recommendation.watch.*")
    with pytest.raises(CommandError, match="Only 0 of 1"):
        tutorial(*listen, "created", "--count", "1", "--timeout", "0.1")

    tutorial("emit_log_topic", *watch, "created", '{"user_id": 42}')
    tutorial("emit_log_topic", *watch, "deleted", '{"user_id": 42}')

    lines = tutorial(*listen, "created", "--timeout", "0.5")
    assert lines == [' [x] created:{"user_id": 42}']


def test_an_order_leads_to_an_email_and_a_file(
    clean_broker: Broker, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    for script in ("notify", "report"):
        tutorial(script, "--timeout", "0.1")

    lines = tutorial("publish_order", "--email", "ana@example.com")
    notified = receive_one("notify")
    reported = receive_one("report")

    assert lines == [" [x] Sent notify message", " [x] Sent report message"]
    assert notified == " [x] Notifying ana@example.com"
    assert [message.to for message in mail.outbox] == [["ana@example.com"]]
    (file,) = (tmp_path / "orders").iterdir()
    assert file.name in reported
    assert "product: Leather Jacket\n" in file.read_text()


def test_an_order_that_is_delivered_twice_is_one_file(
    clean_broker: Broker, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    order = {"id": str(uuid.uuid4()), "user_email": "ana@example.com", "quantity": 1}

    def publish() -> None:
        with clean_broker.channel() as channel:
            channel.exchange_declare(exchange="order", exchange_type="direct")
            for body in (json.dumps(order), "no order", json.dumps(order)):
                channel.basic_publish("order", "order.report", body)

    lines = tutorial("report", "--count", "3", "--timeout", "20", ready=publish)

    assert len(lines) == 3
    assert "Dropped" in lines[1]
    assert len(list((tmp_path / "orders").iterdir())) == 1


def test_an_order_without_queues_is_reported(clean_broker: Broker) -> None:
    assert [line[:4] for line in tutorial("publish_order")] == [" [ ]", " [ ]"]


def test_an_order_stays_in_its_queue_while_no_email_can_be_sent(
    clean_broker: Broker, settings: Any
) -> None:
    tutorial("notify", "--timeout", "0.1")
    tutorial("publish_order")
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1

    with pytest.raises(CommandError, match="the order stays in its queue"):
        receive_one("notify")

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert receive_one("notify") == " [x] Notifying john.doe@example.com"


def test_a_queue_declared_with_other_arguments_is_an_error(
    clean_broker: Broker,
) -> None:
    tutorial("send", "--classic")

    with pytest.raises(CommandError, match="x-queue-type"):
        tutorial("send")
