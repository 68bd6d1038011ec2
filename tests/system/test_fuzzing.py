"""Millions of hostile messages crash nothing, and none is lost."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from django.db import connections

from messaging import call
from messaging.amqp.reply_queue import DIRECT
from messaging.envelope import PARTITIONS, Envelope
from messaging.models import DeadLetter, Inbox, Parked
from messaging.models.lease import Lease, Worker
from messaging.rpc.client import dropped_replies, replies
from messaging.rpc.protocol import DEADLINE
from tests.support import BASE, private_servers
from tests.support.broker import Broker
from tests.support.fuzzing import (
    QUEUES,
    REPLIES,
    Fuzzer,
    decoded,
    reacting,
    samples,
    samples_for,
)
from tests.support.letters import creation
from tests.support.processes import Processes, start_api
from tests.support.rpc_servers import Servers
from tests.support.waiting import eventually
from users.models import User

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * 3600)]

IN_PROCESS, THROUGH_BROKER = 1_000_000, 50_000
#: Calls of functions, and replies to each of two processes.
CALLED, REPLIED = 10_000, 10_000
#: How a message reaches a consumer of a queue: exchange, and what follows its name.
WAYS = [
    ("", ""), ("", ".0"), (PARTITIONS, ".0"), ("", ".dead"), (PARTITIONS, ".dead"),
]  # fmt: skip
WAIT = {"Prefer": "wait=10"}
#: Seconds for which a fuzzer looks for inputs that reach code not yet reached.
GUIDED = 300


@pytest.fixture
def quiet() -> Iterator[None]:
    """Log nothing about what is refused; know all queues."""
    logging.disable(logging.CRITICAL)
    with reacting():
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def function_servers(broker: Broker) -> Iterator[Servers]:
    """Servers of functions."""
    started = Servers()
    yield started
    started.processes.kill_all()


@pytest.mark.parametrize("queue", QUEUES)
def test_a_million_messages_are_decoded_or_refused(queue: str, quiet: None) -> None:
    start, taken = time.monotonic(), 0

    fuzzer = Fuzzer(QUEUES.index(queue), samples_for(queue))
    for envelope in fuzzer.envelopes(IN_PROCESS):
        taken += decoded(queue, envelope) is not None

    seconds = time.monotonic() - start
    sys.stdout.write(f"{queue}: {taken:,} of {IN_PROCESS:,} taken, {seconds:.0f} s\n")
    assert 0 < taken < IN_PROCESS


def properties_of(envelope: Envelope, **given: Any) -> pika.BasicProperties:
    """Return the properties of a message, some of them as given."""
    # The broker itself reads the header CC, and closes the channel if it is no list.
    headers = {name: v for name, v in envelope.headers.items() if name != "CC"}
    usual = {
        "type": envelope.type,
        "content_type": envelope.content_type,
        "content_encoding": envelope.content_encoding,
        "correlation_id": envelope.correlation_id,
        "headers": headers,
        "delivery_mode": 2,
    }
    return pika.BasicProperties(**usual | given)


def reply_to_of(envelope: Envelope) -> str | None:
    """Return where a reply is to go, if the broker takes that of who consumes none."""
    return None if envelope.reply_to == DIRECT else envelope.reply_to


@contextmanager
def routed(broker: Broker) -> Iterator[Any]:
    """Yield a channel; fail if a queue is missing or refuses a message."""
    returned: list[Any] = []
    with broker.channel() as channel:
        channel.add_on_return_callback(lambda *given: returned.append(given[1]))
        yield channel
    assert returned == []


def test_each_message_through_the_broker_is_handled_or_dead_lettered(
    no_consumers: None, broker: Broker, processes: Processes, tmp_path: Path
) -> None:
    processes.manage(
        *("run_consumer", "--all"),
        DELETED_AUTHORS="anonymise",
        EMAIL_URL=f"filemail:///{tmp_path}/mail",
    )
    living = eventually(lambda: ids_of(Worker.objects.living()), "a consumer", 60)
    eventually(lambda: Lease.objects.count() == 3 * len(QUEUES), "all leases", 60)
    fuzzer, start = Fuzzer(0), time.monotonic()
    foreign = nameless = 0
    with routed(broker) as channel:
        for number in range(THROUGH_BROKER):
            envelope = fuzzer.envelope()
            exchange, suffix = WAYS[number // len(QUEUES) % len(WAYS)]
            # Its own id, or those that repeat would be handled once.
            name = f"fuzzed-{number}"
            given = {"message_id": name, "reply_to": reply_to_of(envelope)}
            if suffix == "" and fuzzer.random.random() < 0.3:
                del given["message_id"]
                nameless += 1
            foreign += (exchange, suffix) == ("", ".dead")
            queue = f"{QUEUES[number % len(QUEUES)]}{suffix}"
            if fuzzer.random.random() < 0.2:
                body = json.dumps(creation(f"user{number}")).encode()
                envelope = envelope.copy(body=body, content_encoding=None)
            properties = properties_of(envelope, **given)
            channel.basic_publish(exchange, queue, envelope.body, properties, True)

    def settled() -> bool:
        connections.close_all()  # idle for long, they are closed at the other end
        ends = ("", ".0", ".dead")
        waiting = sum(broker.count(f"{queue}{end}") for queue in QUEUES for end in ends)
        done = Inbox.objects.count() + foreign >= THROUGH_BROKER
        return not waiting and done and not Parked.objects.exists()

    eventually(settled, "all messages are settled", THROUGH_BROKER / 20, 1.0)
    seconds = time.monotonic() - start
    failed = Inbox.objects.filter(status=Inbox.Status.FAILED).count()
    sys.stdout.write(
        f"{THROUGH_BROKER:,} sent, {nameless:,} without an id; "
        f"{Inbox.objects.count():,} in the inbox, {failed:,} of them dead letters; "
        f"{foreign:,} foreign dead letters; {seconds:.0f} s\n"
    )
    # Each has one outcome, and all that failed are kept.
    assert Inbox.objects.count() == THROUGH_BROKER - foreign
    assert DeadLetter.objects.count() == failed + foreign
    letters = DeadLetter.objects.filter(message_id__startswith="fuzzed-")
    assert letters.values("message_id").distinct().count() == letters.count()
    assert User.objects.count() > THROUGH_BROKER / 100
    # None has ended a consumer, and what follows is handled as ever.
    assert ids_of(Worker.objects.living()) == living
    broker.send("users_queue", creation("despues"))
    eventually(User.objects.filter(nombre="despues").exists, "the user", 30)


def ids_of(workers: list[Worker]) -> set[str]:
    """Return the ids of processes: one that is started again has another."""
    return {one.pk for one in workers}


def test_each_hostile_call_is_answered_once(
    broker: Broker, function_servers: Servers
) -> None:
    calls: dict[str, list[dict[str, Any]]] = {
        "echo": [{"text": "a"}],
        "next_year": [{"day": "2024-01-01"}],
        "count": [{"order": {"reference": "A-1", "amounts": [1, 2]}}],
        "greet": [{"name": "Ana"}],
    }
    server = function_servers.start(*calls)
    answers: Counter[str] = Counter()
    with routed(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        awaited = set()
        for seed, (name, like) in enumerate(calls.items()):
            fuzzer = Fuzzer(seed, like)
            for number in range(CALLED // len(calls)):
                envelope = fuzzer.envelope()
                # Those of the others go where nobody may be sent a reply.
                given = {"reply_to": reply_to_of(envelope)}
                if number % 2 == 0:
                    envelope.headers.pop(DEADLINE, None)
                    given = {"reply_to": queue, "correlation_id": f"{name} {number}"}
                    awaited.add(f"{name} {number}")
                properties = properties_of(envelope, **given)
                channel.basic_publish("", name, envelope.body, properties, True)
        for _, properties, _ in channel.consume(queue, True, inactivity_timeout=1):
            if properties is not None:
                answers[properties.correlation_id] += 1
            elif not any(map(broker.count, calls)):
                break

    assert answers == dict.fromkeys(awaited, 1)
    assert server.poll() is None
    assert call("echo", "después") == "después"


def test_each_hostile_reply_is_dropped(
    broker: Broker, consumers: None, processes: Processes, function_servers: Servers
) -> None:
    function_servers.start("echo")
    assert call("echo", "antes") == "antes"
    api = start_api(processes)
    body = {"nombre": "Ana", "apellido": "Ruiz", "email": "antes@example.com"}
    assert api.post("/users/", body, headers=WAIT).status_code == 201
    before, fuzzer = Counter(dropped_replies()), Fuzzer(9, REPLIES)
    queues = reply_queues()
    assert replies().address in queues
    assert len(queues) == 2

    with routed(broker) as channel:
        for number in range(REPLIED):
            envelope = fuzzer.envelope()
            for queue in queues:
                properties = properties_of(envelope)
                channel.basic_publish("", queue, envelope.body, properties, True)
            if number % 1_000 == 0:
                assert call("echo", f"{number}") == f"{number}"
    dropped = eventually(
        lambda: (new := Counter(dropped_replies()) - before).total() >= REPLIED and new,
        "all are dropped",
        60,
    )

    assert dropped == {"unknown": REPLIED}
    # Neither has lost its queue.
    assert reply_queues() == queues
    body["email"] = "despues@example.com"
    assert api.post("/users/", body, headers=WAIT).status_code == 201
    assert call("echo", "después") == "después"


def reply_queues() -> set[str]:
    """Return the names of the queues on which processes wait for replies."""
    listed = private_servers.rabbitmq.control("list_queues", "name").splitlines()
    return {name for name in listed if name.startswith("replies.")}


def test_a_fuzzer_that_is_guided_by_coverage_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is no wheel of atheris")

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, sample in enumerate(samples()):
        for first in range(len(QUEUES)):
            content = bytes([first]) + json.dumps(sample).encode()
            (corpus / f"{number}-{first}").write_bytes(content)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.guided_fuzzing",
            f"-max_total_time={GUIDED}",
            "-max_len=4096",
            "-rss_limit_mb=2048",
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
        ],
        cwd=BASE,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "project.settings"},
        capture_output=True,
        text=True,
    )

    sys.stdout.write(ran.stderr[-300:])
    assert ran.returncode == 0, ran.stderr[-5000:]
