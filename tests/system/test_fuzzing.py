"""Millions of hostile messages crash nothing, and none is lost."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from django.db import connections

from messaging.models import DeadLetter, Inbox, Parked
from messaging.registry import handlers
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.fuzzing import QUEUES, Fuzzer, decoded, reacting, samples
from tests.support.letters import creation
from tests.support.waiting import eventually
from users.models import User

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * 3600)]

IN_PROCESS, THROUGH_BROKER = 1_000_000, 50_000
#: Headers by which the broker itself routes, or refuses a message.
BROKERS = ("CC", "x-death")
#: Seconds for which a fuzzer looks for inputs that reach code not yet reached.
GUIDED = 300


@pytest.fixture
def quiet() -> Iterator[None]:
    """Log nothing about what is refused; know all queues."""
    logging.disable(logging.CRITICAL)
    with reacting():
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_million_messages_are_decoded_or_refused(queue: str, quiet: None) -> None:
    start, taken = time.monotonic(), 0

    for envelope in Fuzzer(QUEUES.index(queue)).envelopes(IN_PROCESS):
        taken += decoded(queue, envelope) is not None

    seconds = time.monotonic() - start
    sys.stdout.write(f"{queue}: {taken:,} of {IN_PROCESS:,} taken, {seconds:.0f} s\n")
    assert 0 < taken < IN_PROCESS


def test_each_message_through_the_broker_is_handled_or_dead_lettered(
    broker: Broker, consumers: None
) -> None:
    fuzzer, start, queues = Fuzzer(0), time.monotonic(), list(handlers)
    with broker.channel() as channel:
        for number in range(THROUGH_BROKER):
            envelope = fuzzer.envelope()
            properties = pika.BasicProperties(
                # Its own, or those that repeat would be handled once.
                message_id=str(number),
                type=envelope.type,
                content_type=envelope.content_type,
                content_encoding=envelope.content_encoding,
                correlation_id=envelope.correlation_id,
                headers={n: v for n, v in envelope.headers.items() if n not in BROKERS},
                delivery_mode=2,
            )
            queue = queues[number % len(queues)]
            channel.basic_publish("", queue, envelope.body, properties)

    def settled() -> bool:
        connections.close_all()  # idle for long, they are closed at the other end
        waiting = sum(broker.count(f"{q}{end}") for q in queues for end in ("", ".0"))
        return not (waiting or Parked.objects.exists()) and known() >= THROUGH_BROKER

    eventually(settled, "all messages are settled", THROUGH_BROKER / 20)
    seconds = time.monotonic() - start
    dead = DeadLetter.objects.count()
    sys.stdout.write(
        f"{THROUGH_BROKER:,} sent, {known():,} in the inbox, of these {dead:,} dead "
        f"letters, {seconds:.0f} s\n"
    )
    # What follows is handled as ever.
    broker.send("users_queue", creation("despues"))
    eventually(User.objects.filter(nombre="despues").exists, "the user", 30)


def known() -> int:
    """Return how many of the messages have an outcome, each counted once."""
    return Inbox.objects.count()


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
