"""`manage.py publish` and `listen`, in scripts and in a terminal."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from django.core.management import CommandError, call_command

from messaging.envelope import ACTOR
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.waiting import eventually

QUEUE = "for-looking"
EXCHANGE = "for-listening"
URL_OF_NOBODY = "amqp://guest:secret@127.0.0.1:1/"


@pytest.fixture
def queue(servers: SimpleNamespace) -> Iterator[Broker]:
    """A broker with an empty queue."""
    broker = Broker()
    with broker.channel() as channel:
        channel.exchange_delete(EXCHANGE)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    yield broker
    with broker.channel() as channel:
        channel.queue_delete(QUEUE)
        channel.exchange_delete(EXCHANGE)


class Output(StringIO):
    """The output of a command; calls a function when the command is listening."""

    def __init__(self, ready: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self._ready = ready

    def write(self, text: str) -> int:
        """Keep the text."""
        written = super().write(text)
        if "Listening" in text:
            self._ready()
        return written


def publish(*arguments: str) -> str:
    """Publish, and return the output."""
    output = StringIO()
    call_command("publish", *arguments, stdout=output, stderr=StringIO())
    return output.getvalue()


def listen(*arguments: str, ready: Callable[[], Any] = lambda: None) -> list[str]:
    """Listen, call `ready` once listening, and return the printed lines."""
    output = StringIO()
    call_command("listen", *arguments, stdout=output, stderr=Output(ready))
    return output.getvalue().splitlines()


def run(
    *arguments: str, piped: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a shell does."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE,
        env=os.environ | environment,
        input=piped,
        capture_output=True,
        check=False,
        timeout=60,
    )


def bodies(broker: Broker, count: int) -> list[bytes]:
    """Remove so many messages, which must be all, and return their bodies."""
    found = [broker.take(QUEUE)[1] for _ in range(count)]
    assert broker.count(QUEUE) == 0
    return found


def test_a_message_with_headers_and_properties_is_published(queue: Broker) -> None:
    said = publish(
        '{"a": 1}', "--json", "--key", QUEUE, "--header", "format=pdf",
        "--header", "pages:=3", "--property", "type=t", "--property", "priority=4",
        "--property", "timestamp=2026-01-02T03:04:05", "--transient",
    )  # fmt: skip

    properties, body = queue.take(QUEUE)
    assert body == b'{"a": 1}'
    assert properties.headers.items() >= {"format": "pdf", "pages": 3}.items()
    assert (properties.content_type, properties.type) == ("application/json", "t")
    assert (properties.priority, properties.timestamp) == (4, 1767323045)
    assert said.startswith(f"1 confirmed: queue {QUEUE} at 127.0.0.1:")


def test_repeated_messages_have_ids_of_their_own(
    queue: Broker,
) -> None:
    publish("x", "--key", QUEUE, "--count", "3")

    ids = {queue.take(QUEUE)[0].message_id for _ in range(3)}
    assert len(ids) == 3


def test_a_file_is_one_message_or_one_for_each_line(
    queue: Broker, tmp_path: Path
) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b'{"n": 1}\r\n\n{"n": 2}')

    publish("--file", str(file), "--key", QUEUE)
    publish("--file", str(file), "--key", QUEUE, "--lines", "--json")

    assert bodies(queue, 3) == [b'{"n": 1}\r\n\n{"n": 2}', b'{"n": 1}', b'{"n": 2}']


@pytest.mark.slow
def test_many_lines_of_the_standard_input_are_many_messages(queue: Broker) -> None:
    lines = [b"line %d" % number for number in range(12_000)]

    done = run("publish", "--key", QUEUE, "--lines", piped=b"\n".join(lines))

    assert done.returncode == 0
    assert done.stdout.startswith(b"12000 confirmed")
    assert b"messages are confirmed" in done.stderr
    eventually(lambda: queue.count(QUEUE) == 12_000, "all are there")
    with queue.channel() as channel:
        got = [channel.basic_get(QUEUE, auto_ack=True)[2] for _ in range(100)]
    assert got == lines[:100]


@pytest.mark.slow
def test_a_line_is_published_as_soon_as_it_is_there(queue: Broker) -> None:
    with subprocess.Popen(
        [sys.executable, "manage.py", "publish", "--key", QUEUE, "--lines"],
        cwd=BASE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None
        program.stdin.write(b"now\n")
        program.stdin.flush()

        assert queue.take(QUEUE)[1] == b"now"
        program.stdin.close()
        assert program.wait(20) == 0


def test_lines_before_a_bad_one_are_published_and_counted(queue: Broker) -> None:
    done = run(
        *("publish", "--key", QUEUE, "--lines", "--json"),
        piped=b'{"a": 1}\n{\n{"b": 2}',
    )

    assert done.returncode == 1
    assert b"It is not JSON" in done.stderr
    assert b"1 messages were confirmed before" in done.stderr
    assert bodies(queue, 1) == [b'{"a": 1}']


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["x"], 2, "Where to?"),
        (["x", "--key", "k", "--lines"], 2, "one body"),
        (["x", "--key", "k", "--declare", "topic"], 2, "needs --exchange"),
        (["x", "--key", "k", "--file", "f"], 2, "one body"),
        (["--key", "k", "--file", "/nowhere"], 1, "No such file"),
        (["{", "--key", "k", "--json"], 1, "It is not JSON"),
        (["x", "--key", "nobody"], 1, "--optional"),
        (["x", "--exchange", "nowhere"], 1, "--declare"),
        (["x", "--exchange", "amq.topic", "--declare", "fanout"], 1, "leave --declare"),
        (["x", "--key", "k", "--header", "a"], 1, "neither name=text"),
        (["x", "--key", "k", "--header", "a:=b"], 1, "'b': Expecting value"),
        (["x", "--key", "k", "--header", "a:=1.5"], 1, "no fractions"),
        (["NaN", "--key", "k", "--json"], 1, "It is not JSON"),
        (["x", "--key", "k", "--property", "a=b"], 1, "NAME=VALUE with one of"),
        (["x", "--key", "k", "--property", "priority=256"], 1, "from 0 to 255"),
        (["x", "--key", "k", "--property", "expiration=soon"], 1, "milliseconds"),
        (["x", "--key", "k", "--property", "timestamp=soon"], 1, "timestamp=soon"),
        (["x", "--key", "k", "--property", "user_id=eve"], 1, "user_id"),
        (["x", "--key", "k", "--count", "0"], 1, "from 1 on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_publishing_is_reported(
    servers: SimpleNamespace, arguments: list[str], code: int, expected: str
) -> None:
    with pytest.raises(CommandError, match=expected) as error:
        publish(*arguments)

    # From a command line, what `argparse` refuses ends with 2.
    assert error.value.returncode == code


def test_an_optional_message_needs_no_queue(servers: SimpleNamespace) -> None:
    assert publish("x", "--key", "nobody", "--optional").startswith("1 confirmed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code"),
    [(["publish", "x", "--key", "k"], 75), (["listen", "--exchange", "x"], 1)],
    ids=["publish", "listen"],
)
def test_a_command_says_where_there_is_no_broker_and_hides_the_password(
    command: list[str], code: int
) -> None:
    done = run(*command, RABBITMQ_URL=URL_OF_NOBODY, CONFIRM_TIMEOUT="0.5")

    assert done.returncode == code
    assert b"127.0.0.1:1/" in done.stderr
    assert b"secret" not in done.stderr


def test_messages_of_an_exchange_are_printed_as_lines_of_json(queue: Broker) -> None:
    def emit() -> None:
        at = ("--exchange", EXCHANGE, "--key")
        publish('{"a": [1]}', *at, "animal.bird", "--header", "n:=1", "--json")
        publish("not\nmatched", *at, "animal.fish", "--optional")
        publish("two\nlines", *at, "animal.bird")
        with queue.channel() as channel:
            channel.basic_publish(EXCHANGE, "x.bird", b"\xff")

    lines = listen(
        "--exchange", EXCHANGE, "--declare", "topic", "--key", "*.bird",
        "--json", "--count", "3", "--timeout", "20", ready=emit,
    )  # fmt: skip

    first, second, third = map(json.loads, lines)
    assert first["json"] == {"a": [1]}
    assert first["routing_key"] == "animal.bird"
    assert first["exchange"] == EXCHANGE
    assert first["headers"].keys() == {"n", ACTOR}
    assert first["headers"]["n"] == 1
    assert first["properties"]["content_type"] == "application/json"
    assert first["persistent"] is True
    assert second["text"] == "two\nlines"
    assert third["base64"] == "/w=="
    assert third["properties"] == {}


@pytest.mark.parametrize("options", [["--json"], []], ids=["json", "text"])
def test_compressed_bodies_are_printed_decoded(
    queue: Broker, options: list[str]
) -> None:
    bodies = [gzip.compress(b'{"a": [1]}'), gzip.compress(b"{}")[:-1]]
    with queue.channel() as channel:
        for body in bodies:
            packed = pika.BasicProperties(content_encoding="gzip")
            channel.basic_publish("", QUEUE, body, packed)

    lines = listen("--queue", QUEUE, "--ack", "--count", "2", *options)

    if not options:
        assert lines[0] == '{"a": [1]}'
        assert lines[1].startswith("\\u001f\\x8b")
        return
    first, second = map(json.loads, lines)
    assert first["json"] == {"a": [1]}
    assert first["properties"] == {"content_encoding": "gzip"}
    assert "base64" in second


def test_a_headers_exchange_is_bound_with_headers(queue: Broker) -> None:
    def emit() -> None:
        at = ("--exchange", EXCHANGE, "--optional", "--header")
        publish("one", *at, "format=pdf")
        publish("two", *at, "format=pdf", "--header", "pages:=2")

    lines = listen(
        "--exchange", EXCHANGE, "--declare", "headers", "--not-durable",
        "--header", "format=pdf", "--header", "pages:=2",
        "--count", "1", "--timeout", "20", ready=emit,
    )  # fmt: skip

    assert lines == ["two"]


def test_without_a_key_all_messages_of_an_exchange_are_printed(queue: Broker) -> None:
    with queue.channel() as channel:
        channel.exchange_declare(EXCHANGE, "fanout")

    lines = listen(
        "--exchange", EXCHANGE, "--count", "1",
        ready=lambda: publish("hello", "--exchange", EXCHANGE),
    )  # fmt: skip

    assert lines == ["hello"]


def test_peeking_into_a_queue_leaves_it_unchanged(queue: Broker) -> None:
    for body in ("a", "b", "c", "d"):
        publish(body, "--key", QUEUE)

    for count in (2, 3, 4):
        seen = listen("--queue", QUEUE, "--requeue", "--count", str(count))
        assert seen == ["a", "b", "c", "d"][:count]
        eventually(lambda: queue.count(QUEUE) == 4, "they are back")

    assert len(listen("--queue", QUEUE, "--requeue", "--timeout", "0.3")) == 4
    eventually(lambda: queue.count(QUEUE) == 4, "they are back")
    assert listen("--queue", QUEUE, "--ack", "--count", "1") == ["a"]
    eventually(lambda: queue.count(QUEUE) == 3, "the others are back")
    assert bodies(queue, 3) == [b"b", b"c", b"d"]


def test_too_few_messages_in_time_are_an_error_if_a_count_was_given(
    queue: Broker,
) -> None:
    assert listen("--queue", QUEUE, "--ack", "--timeout", "0.1") == []
    with pytest.raises(CommandError, match="Only 0 of 1") as error:
        listen("--queue", QUEUE, "--ack", "--timeout", "0.1", "--count", "1")
    assert error.value.returncode == 124


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "Name --exchange or --queue"),
        (["--queue", QUEUE, "--exchange", "x"], 2, "one of them"),
        (["--exchange", ""], 2, "Name --exchange or --queue"),
        (["--queue", QUEUE], 2, "--ack takes them out"),
        (["--exchange", "x", "--ack"], 2, "need --queue"),
        (["--queue", QUEUE, "--ack", "--key", "k"], 2, "need --exchange"),
        (["--exchange", "nowhere"], 1, "--declare TYPE makes it"),
        (["--queue", "nowhere", "--ack"], 1, "no queue 'nowhere'"),
        (["--exchange", "amq.topic", "--declare", "fanout"], 1, "'type'"),
        (["--queue", QUEUE, "--ack", "--timeout", "0"], 1, "seconds above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_listening_is_reported(
    servers: SimpleNamespace, arguments: list[str], code: int, expected: str
) -> None:
    with pytest.raises(CommandError, match=expected) as error:
        listen(*arguments)

    assert error.value.returncode == code


def test_the_deletion_of_the_queue_ends_listening(queue: Broker) -> None:
    def delete() -> None:
        with queue.channel() as channel:
            eventually(
                lambda: (
                    channel.queue_delete(QUEUE, if_unused=False)
                    if channel.queue_declare(QUEUE, passive=True).method.consumer_count
                    else None
                ),
                "somebody listens",
            )

    deleting = threading.Thread(target=delete)
    with pytest.raises(CommandError, match="was deleted"):
        listen("--queue", QUEUE, "--ack", "--timeout", "20", ready=deleting.start)
    deleting.join()


@pytest.mark.slow
def test_a_closed_pipe_ends_listening_and_takes_no_further_message(
    queue: Broker,
) -> None:
    with queue.channel() as channel:
        for number in range(2000):
            named = pika.BasicProperties(delivery_mode=2)
            channel.basic_publish("", QUEUE, b"%d" % number + b" " * 100, named)
    eventually(lambda: queue.count(QUEUE) == 2000, "all are there")

    done = subprocess.run(
        f"{sys.executable} manage.py listen --queue {QUEUE} --ack 2>errors | head -n1"
        "; echo ${PIPESTATUS[0]}; cat errors; rm errors",
        shell=True,
        executable="/bin/bash",
        cwd=BASE,
        capture_output=True,
        text=True,
        check=True,
    )

    first, code, *errors = done.stdout.splitlines()
    assert (first.strip(), code) == ("0", "0")
    assert all("Listening" in line for line in errors)
    eventually(lambda: 1000 < queue.count(QUEUE) < 2000, "most are left")


def test_listening_ends_cleanly_when_it_is_stopped(queue: Broker) -> None:
    publish("x", "--key", QUEUE)
    with subprocess.Popen(
        [sys.executable, "manage.py", "listen", "--queue", QUEUE, "--ack"],
        cwd=BASE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"x\n"

        program.send_signal(signal.SIGTERM)

        assert program.wait(10) == 0
    assert queue.count(QUEUE) == 0
