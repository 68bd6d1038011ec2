"""What is given up is kept once, seen by everybody, and settled without a loss."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections, transaction
from django.db.models import QuerySet
from django.test import Client
from django.utils import timezone

from messaging.amqp.client import declare
from messaging.amqp.deliveries import envelope_of
from messaging.amqp.publisher import publisher
from messaging.dead_letters.archive import browse, collect, record, store
from messaging.dead_letters.letters import Failure
from messaging.envelope import (
    ASSIGNED_ID,
    PARTITIONS,
    Delivery,
    Envelope,
    at_origin,
    inbox_id,
)
from messaging.models import DeadLetter, Inbox, Outbox, Parked
from messaging.outbox.relay import Relay
from tests.support import BASE
from tests.support.broker import Broker, virtual_host
from tests.support.messages import process
from tests.support.processes import API, Processes, SharedConsumers, start_api
from tests.support.transactions import is_idle
from tests.support.waiting import eventually
from users.models import User

PARTITION = "users_queue.0"
REFUSED = Failure("rejected", "Ya existe un usuario con ese e-mail.", "conflict")


@pytest.fixture(scope="module")
def broker_url(servers: SimpleNamespace) -> str:
    """A virtual host that the consumers of other tests do not know."""
    return virtual_host("dead-letters")


@pytest.fixture
def broker(
    broker_url: str,
    transactional_db: None,
    shared_consumers: SharedConsumers,
    settings: Any,
) -> Iterator[Broker]:
    """Empty queues that nobody consumes, beside empty databases."""
    shared_consumers.stop()  # they hold the leases, wherever they consume
    publisher.close()  # the next one goes to this broker
    settings.MESSAGING = {"URL": broker_url}
    declare()
    broker = Broker(broker_url)
    broker.purge()
    yield broker
    publisher.close()
    eventually(is_idle, "consumers are idle", 30)


@pytest.fixture
def processes(broker: Broker, broker_url: str) -> Iterator[Processes]:
    """Programs that end with the test."""
    started = Processes()
    started.environment["RABBITMQ_URL"] = broker_url
    yield started
    started.kill_all()


@pytest.fixture
def api(processes: Processes) -> API:
    """The API."""
    return start_api(processes)


def create(name: str, **fields: Any) -> dict[str, Any]:
    """Give the body of a `user.create`."""
    return {
        "event_type": "user.create",
        "nombre": name,
        "apellido": "Ruiz",
        "email": f"{name}@example.com",
    } | fields


def delivery(body: dict[str, Any] | bytes, tag: int = 1, **options: Any) -> Delivery:
    """Give a delivery of `users_queue`, as a consumer holds it."""
    given = {name: options.pop(name) for name in ("redelivered",) if name in options}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    envelope = Envelope(content, PARTITION, PARTITIONS, **options)
    return Delivery(envelope, "users_queue", tag, consumer_tag="test", **given)


def give_up(*deliveries: Delivery, failure: Failure = REFUSED) -> None:
    """Record dead letters, as consumers do."""
    with transaction.atomic():
        record([(one, failure) for one in deliveries])


def expire(broker: Broker, *bodies: dict[str, Any], **properties: Any) -> None:
    """Publish commands that the broker gives up at once."""
    broker.send(PARTITION, *bodies, exchange=PARTITIONS, expiration="1", **properties)


def dead_letter(broker: Broker, message_id: str) -> None:
    """Put a message into the queue of dead letters as the broker does."""
    broker.send(
        "users_queue.dead", create("eva"), exchange=PARTITIONS, message_id=message_id
    )


def relay() -> None:
    """Publish what is in the outbox."""
    while Relay().drain()[0]:
        pass


def requeue(*arguments: str) -> str:
    """Send letters again, and return what the command prints."""
    printed = run("requeue", *arguments)
    relay()
    return printed


def run(*arguments: str) -> str:
    """Run the command here, and give what it prints."""
    output = io.StringIO()
    call_command("dead_letters", *arguments, stdout=output, stderr=output)
    return output.getvalue()


def listed(*arguments: str) -> list[dict[str, Any]]:
    """Give what the command lists."""
    return json.loads(run("list", "--json", *arguments))


def letters(**wanted: Any) -> list[DeadLetter]:
    """Give the rows of the archive."""
    return list(DeadLetter.objects.filter(**wanted).order_by("failed_at"))


def taken(broker: Broker, queue: str, number: int) -> list[Any]:
    """Take messages out of a queue of commands: their properties and bodies."""
    found = []
    with broker.channel() as channel:
        channel.basic_qos(prefetch_count=number)
        for method, properties, body in channel.consume(queue, inactivity_timeout=10):
            if method is None:
                break
            found.append((properties, body))
            channel.basic_ack(method.delivery_tag)
            if len(found) == number:
                break
    assert len(found) == number
    return found


def consumed(processes: Processes, *names: str) -> subprocess.Popen[bytes]:
    """Start consumers."""
    return processes.manage("run_consumer", *names)


def test_a_refused_message_is_archived_with_its_reason_and_properties(
    broker: Broker, processes: Processes
) -> None:
    consumed(processes, "--all")
    broker.send(
        "users_queue",
        create("ana", email="nonsense"),
        message_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        headers={"trace": "1"},
        correlation_id="c",
    )

    [letter] = eventually(letters, "a row in the archive")
    assert (letter.queue, letter.event_type) == ("users_queue", "user.create")
    assert letter.message_id == "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    assert (letter.kind, letter.exception) == ("rejected", "InvalidMessage")
    assert "email" in letter.reason
    assert json.loads(letter.body) == create("ana", email="nonsense")
    assert letter.original_properties["headers"] == {"trace": "1"}
    assert letter.original_properties["correlation_id"] == "c"
    assert letter.status == "waiting"
    assert datetime.now(UTC) - letter.failed_at < timedelta(minutes=1)
    eventually(lambda: broker.count("users_queue.dead") == 0, "the queue is empty")


def test_a_letter_of_the_broker_that_is_read_twice_is_one_row(broker: Broker) -> None:
    assigned = str(uuid.uuid4())
    expire(broker, create("ana"), message_id="1")
    expire(broker, create("bob"), headers={ASSIGNED_ID: assigned})
    expire(broker, create("eva"))
    eventually(lambda: broker.count("users_queue.dead") == 3, "all have expired")
    found = browse("users_queue")

    assert store(found) == 3
    assert store(found) == 0

    assert len(letters()) == 3
    assert {letter.message_id for letter in letters()} >= {"1", assigned}


def test_the_broker_gives_up_nothing_that_was_handled_or_is_parked(
    broker: Broker,
) -> None:
    done, parked, failed = (str(uuid.uuid4()) for _ in range(3))
    process("users_queue", [delivery(create("ana"), message_id=done)])
    process("users_queue", [delivery(create("ana"), message_id=failed)])
    Parked.objects.create(
        partition=PARTITION,
        message_id=inbox_id("users_queue", parked),
        parked_at=timezone.now(),
        size=0,
        properties="{}",
        body=b"",
    )
    assert [letter.message_id for letter in letters()] == [failed]
    for message_id in (done, parked, failed):
        dead_letter(broker, message_id)
    eventually(lambda: broker.count("users_queue.dead") == 3, "three letters")

    assert collect("users_queue") == 0

    assert [letter.message_id for letter in letters()] == [failed]
    assert broker.count("users_queue.dead") == 0


def test_the_operation_of_what_the_broker_gave_up_has_failed(broker: Broker) -> None:
    message_id = str(uuid.uuid4())
    expire(broker, create("ana"), message_id=message_id)
    eventually(lambda: broker.count("users_queue.dead") == 1, "it has expired")

    collect("users_queue")

    row = Inbox.objects.get(pk=inbox_id("users_queue", message_id))
    assert (row.status, row.kind) == ("failed", "expired")
    requeue("--all")
    [(properties, _)] = taken(broker, PARTITION, 1)
    again = delivery(create("ana"), message_id=message_id, headers=properties.headers)
    process("users_queue", [again])
    assert Inbox.objects.get(pk=row.pk).status == "done"


def test_equal_bodies_without_id_are_two_letters(broker: Broker) -> None:
    give_up(delivery(b"x", 1, message_id=None), delivery(b"x", 2, message_id=None))

    assert len(letters()) == 2


def test_what_the_broker_itself_gives_up_is_recognised(broker: Broker) -> None:
    expire(broker, create("ana"), message_id="1")
    eventually(lambda: broker.count("users_queue.dead") == 1, "it has expired")
    broker.send(
        PARTITION,
        create("eva"),
        exchange=PARTITIONS,
        message_id="2",
        headers={"a": b"\xff"},
    )
    for deliveries in range(200):  # noqa: B007
        # Every version counts a lost consumer. From 4.3 on, none counts `basic.nack`.
        with broker.channel() as channel:
            method, _, _ = next(channel.consume(PARTITION, inactivity_timeout=2))
        if method is None:
            break  # the broker does not deliver it again
    eventually(lambda: broker.count("users_queue.dead") == 2, "it is poison")

    collect("users_queue")

    expired, poison = letters()
    assert deliveries == 101
    assert (expired.kind, expired.message_id) == ("expired", "1")
    assert (poison.kind, poison.message_id) == ("poison", "2")
    assert poison.event_type == "user.create"
    assert poison.original_properties["headers"] == {"a": {"$bytes": "/w=="}}
    requeue("--kind", "poison")
    [(properties, body)] = taken(broker, PARTITION, 1)
    assert json.loads(body) == create("eva")
    assert properties.message_id == "2"
    others = ("x-delivery-count", "messaging-sent-at", "messaging-actor")
    assert {k: v for k, v in properties.headers.items() if k not in others} == {
        "a": b"\xff",
        "replays": 1,
        "origin-exchange": "",
        "origin-routing-key": "users_queue",
    }


def return_again_and_again(broker: Broker, times: int) -> int:
    """Return the first message of the partition to it so often, while it comes."""
    with broker.channel() as channel:
        found = channel.consume(PARTITION, inactivity_timeout=2)
        for returned, (method, _, _) in enumerate(found):
            if method is None or returned == times:
                return returned
            channel.basic_nack(method.delivery_tag, requeue=True)
    raise AssertionError("The consumer was cancelled.")


def test_what_other_programs_return_again_and_again_is_applied_once(
    broker: Broker, processes: Processes
) -> None:
    """Up to 4.2 the broker gives it up after 100 returns; from 4.3 on, never."""
    often, seldom = create("eva"), create("ana")
    broker.send(PARTITION, often, exchange=PARTITIONS, message_id="1")
    returned = return_again_and_again(broker, 150)
    dead = broker.count("users_queue.dead")
    assert returned == (101 if dead else 150)
    broker.send(PARTITION, seldom, exchange=PARTITIONS, message_id="2")
    assert return_again_and_again(broker, 60) == 60

    consumed(processes, "users", "dead_letters")

    eventually(lambda: User.objects.filter(nombre="ana"), "it is applied", 20)
    if dead:
        [letter] = eventually(letters, "a letter", 20)
        assert (letter.kind, letter.message_id) == ("poison", "1")
        assert json.loads(letter.body) == often
        assert User.objects.count() == 1
        requeue("--all")
    eventually(lambda: User.objects.filter(nombre="eva"), "the other one, too", 20)
    assert User.objects.count() == Inbox.objects.filter(status="done").count() == 2
    assert len(letters()) == dead
    assert broker.count(PARTITION) == broker.count("users_queue.dead") == 0


def test_properties_and_headers_of_the_sender_are_kept(broker: Broker) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    theirs = {
        "small": "ñ",
        b"\xff": b"\x00\xff",
        "number": Decimal("1.25"),
        "time": moment,
        "nested": {"$time": ["x", None, True, 2**40]},
        "huge": "€" * 40_000,
        "deep": [],
        "CC": ["users_queue"],
        **{f"h{number}": "€" * 1000 for number in range(5)},
        "x-death": [{"reason": "rejected"}],
    }
    for _ in range(100):
        theirs["deep"] = [theirs["deep"]]
    give_up(
        delivery(
            b"x" * 10,
            headers=theirs,
            type="t" * 255,
            message_id="m" * 255,
            content_type="text/plain",
            content_encoding="gzip",
            priority=3,
            timestamp=moment,
            correlation_id="c" * 255,
            reply_to="r" * 255,
        ),
        failure=Failure("rejected", "€" * 5000 + "\ud800", exception="E" * 5000),
    )

    [letter] = letters()
    assert letter.reason == "€" * 1000
    assert letter.exception == "E" * 255
    requeue("--all")
    [(again, _)] = taken(broker, PARTITION, 1)
    for name in ("small", b"\xff", "number", "time", "nested"):
        key = name if isinstance(name, str) else "\\xff"
        assert again.headers[key] == theirs[name]
    assert not {"x-death", "CC", "deep"} & again.headers.keys()
    assert (again.type, again.priority) == ("t" * 255, None)


@pytest.mark.slow
def test_the_archive_waits_for_mysql(
    broker: Broker, processes: Processes, servers: SimpleNamespace
) -> None:
    process = consumed(processes, "dead_letters")
    broker.send("users_queue.dead", b"1", message_id="1")
    eventually(letters, "archiving")
    servers.mariadb.kill()
    broker.send("users_queue.dead", b"2", message_id="2")
    eventually(lambda: broker.count("users_queue.dead") == 0, "it is in hand")
    servers.mariadb.start()
    connections["default"].close()

    eventually(lambda: len(letters()) == 2, "both are archived", 30)
    assert process.poll() is None


def test_list_covers_queue_and_archive(broker: Broker) -> None:
    give_up(delivery(create("ana"), message_id="1"))
    broker.send("users_queue.dead", b"\xff", message_id="2")
    eventually(lambda: broker.count("users_queue.dead") == 1, "one letter")

    found = listed("--queue", "users_queue")

    assert [(one["message_id"], one["where"]) for one in found] == [
        ("1", "archive"),
        ("2", "queue"),
    ]
    assert json.loads(found[0]["body"]) == create("ana")
    assert (found[1]["body"], found[1]["body_base64"]) == (None, "/w==")
    assert found[0]["reason"] == REFUSED.reason
    assert found[0]["code"] == "conflict"
    assert listed("--queue", "reports_queue") == []
    assert broker.count("users_queue.dead") == 1
    table = run("list")
    assert "in queue" in table
    assert table.endswith("\n2 dead letters\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"1", "2", "3", "5"}),
        (["--kind", "exhausted"], {"3"}),
        (["--type", "user.create"], {"1", "5"}),
        (["--reason", "YA EXISTE"], {"1", "2"}),
        (["--reason", "WITHOUT A"], {"5"}),
        (["--id", "1", "--id", "3"], {"1", "3"}),
        (["--status", "discarded"], {"4"}),
        (["--all"], {"1", "2", "3", "4", "5"}),
    ],
)
def test_list_filters_alike_in_queue_and_archive(
    broker: Broker, arguments: list[str], expected: set[str]
) -> None:
    give_up(delivery(b"4", message_id="4"))
    run("discard", "--all")
    give_up(delivery(create("ana"), message_id="1"), delivery(b"2", message_id="2"))
    give_up(delivery(b"3", message_id="3"), failure=Failure("exhausted", "Boom"))
    dead_letter(broker, "5")
    eventually(lambda: broker.count("users_queue.dead") == 1, "one letter")

    in_queue = {one["message_id"] for one in listed(*arguments)}
    collect("users_queue")
    in_archive = {one["message_id"] for one in listed(*arguments)}

    assert in_queue == in_archive == expected


def test_show_takes_the_beginning_of_an_id(broker: Broker) -> None:
    give_up(
        delivery(create("ana"), message_id="aaaa-1", headers={"trace": "t-1"}),
        delivery(create("eva"), message_id="aaaa-2"),
    )
    first = listed()[0]

    for name in (first["id"][:12], "aaaa-1"):
        shown = run("show", name)
        assert REFUSED.reason in shown
        assert '"nombre": "ana"' in shown
        assert "trace = t-1" in shown
        assert "eva" not in shown
    with pytest.raises(CommandError, match="2 dead letters begin with aaaa"):
        run("show", "aaaa")
    with pytest.raises(CommandError, match="No dead letter"):
        run("show", "zzzz")


def test_export_writes_a_line_each(broker: Broker, tmp_path: Any) -> None:
    give_up(delivery(b"1"))
    broker.send("users_queue.dead", b"2")
    eventually(lambda: broker.count("users_queue.dead") == 1, "one letter")

    lines = run("export").splitlines()
    told = run("export", "--output", str(tmp_path / "letters"))

    assert [json.loads(line)["body"] for line in lines] == ["1", "2"]
    assert told.startswith("2 dead letters")
    written = (tmp_path / "letters").read_text().splitlines()
    assert [json.loads(line)["body"] for line in written] == ["1", "2"]


def test_the_table_fits_and_survives_a_closed_pipe(
    broker: Broker, processes: Processes
) -> None:
    give_up(*(delivery(b"%d" % number, number) for number in range(300)))
    command = f"{sys.executable} manage.py dead_letters list | head -n 3"

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=BASE,
        env=processes.environment,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
    terminal = subprocess.run(
        [
            "script",
            "-qec",
            f"{sys.executable} manage.py dead_letters list",
            "/dev/null",
        ],
        cwd=BASE,
        env=processes.environment | {"COLUMNS": "80", "LINES": "24"},
        capture_output=True,
        text=True,
    )
    assert max(map(len, terminal.stdout.splitlines())) <= 80


HOSTILE = {
    "binary": bytes(range(256)) * 8,
    "html": b"<script>alert(1)</script>\x1b[2J\xc2\x9b31m\xe2\x80\xae",
    "nested": b"[" * 100_000,
    "one MiB": b'{"a": "' + b"\x1b" * (1024 * 1024 - 9) + b'"}',
    "quotes": b"'" * 10_000_000,
    "random": uuid.uuid4().bytes * 1_000_000,
}


def test_hostile_bodies_are_kept_whole_and_shown_safely(
    broker: Broker, admin: Client
) -> None:
    give_up(
        *(
            delivery(body, number, message_id=name, type="\x1b[2J\n<b>")
            for number, (name, body) in enumerate(HOSTILE.items())
        ),
        failure=Failure("rejected", "<b>\x1b[2J\n"),
    )

    for name, body in HOSTILE.items():
        [letter] = letters(message_id=name)
        assert letter.body == body
        for text in (run("show", name), run("list", "--id", name)):
            assert len(text) < 500_000
            assert not any(sign in text for sign in "\x1b\x9b\u202e\x00")
        page = admin.get(f"/admin/messaging/deadletter/{letter.pk}/change/")
        assert page.status_code == 200
        assert len(page.content) < 2_500_000
        assert b"<script>alert" not in page.content
        assert b"<b>" not in page.content
    listing = admin.get("/admin/messaging/deadletter/").content
    assert b"<b>" not in listing
    found = listed("--id", "html")
    assert found[0]["body"].encode() == HOSTILE["html"]


def test_requeue_makes_the_operation_done_by_itself(
    broker: Broker, api: API, processes: Processes
) -> None:
    consumed(processes, "--all")
    api.post("/users/", create("ana"))
    eventually(User.objects.exists, "ana")
    answer = api.post("/users/", create("eva", email="ana@example.com"))
    path = urlsplit(answer.headers["Location"]).path
    eventually(lambda: api.get(path).json()["status"] == "failed", "it failed")
    eventually(letters, "it is archived")
    User.objects.all().delete()

    told = requeue("--reason", "Ya existe")

    assert told.splitlines()[-1] == "1 dead letter requeued"
    done = eventually(
        lambda: (found := api.get(path).json())["status"] == "done" and found, "done"
    )
    assert api.get(done["link"]).json()["nombre"] == "eva"
    [letter] = letters()
    assert letter.status == "requeued"
    assert letter.settled_by.startswith("command ")
    assert [event["what"] for event in letter.history] == ["failed", "requeued"]


def test_a_requeued_message_that_fails_again_waits_again(
    broker: Broker, processes: Processes
) -> None:
    consumed(processes, "--all")
    broker.send("users_queue", {"event_type": "user.delete", "user_id": 1})
    [letter] = eventually(letters, "it is archived")

    for times in (1, 2):
        requeue("--all")
        [again] = eventually(
            lambda times=times: letters(status="waiting", replays=times), "failed again"
        )

        assert again.pk == letter.pk
        assert again.failed_at > letter.failed_at
        assert [event["what"] for event in again.history] == (
            ["failed", *(["requeued", "failed"] * times)]
        )


def test_a_requeue_that_cannot_be_sent_yet_is_sent_later(
    broker: Broker, processes: Processes
) -> None:
    give_up(delivery(create("ana"), message_id="1"))

    printed = run("requeue", "--all")

    assert printed.endswith("1 dead letter requeued\n")
    assert Outbox.objects.count() == 1
    assert [letter.status for letter in letters()] == ["requeued"]
    relay()
    assert [body for _, body in taken(broker, PARTITION, 1)]


@pytest.mark.parametrize("size", [130_850, 130_900, 130_950])
def test_a_letter_whose_headers_fill_a_frame_is_sent_again(
    broker: Broker, size: int
) -> None:
    headers = {"large": "x" * size, "small": "kept"}
    give_up(delivery(create("ana"), message_id="1", headers=headers))

    run("requeue", "--all")

    relay()
    [(properties, _)] = taken(broker, PARTITION, 1)
    assert properties.headers["small"] == "kept"
    assert not Outbox.objects.exists()


def test_a_letter_of_a_queue_without_handlers_stays_and_holds_up_no_other(
    broker: Broker,
) -> None:
    give_up(*(delivery(b"%d" % n, message_id=f"{n}") for n in range(4)))
    DeadLetter.objects.filter(message_id="1").update(queue="gone_queue")

    for expected in (3, 0):
        printed = requeue("--all")

        assert f"{expected} dead letters requeued" in printed
        assert printed.count("stays") == 1
    assert [letter.message_id for letter in letters(status="waiting")] == ["1"]
    assert len(taken(broker, PARTITION, 3)) == 3


def test_replays_are_new_acceptances_in_the_old_order(broker: Broker) -> None:
    old = datetime.now(UTC) - timedelta(days=400)
    give_up(
        *(
            delivery(b"%d" % n, n, message_id=f"{n}", timestamp=old, reply_to="gone")
            for n in range(250)
        ),
        delivery(b"nameless", 250, message_id=None),
    )

    requeue("--queue", "users_queue")

    replays = taken(broker, PARTITION, 251)
    assert [body for _, body in replays[:-1]] == [b"%d" % n for n in range(250)]
    assert [p.message_id for p, _ in replays[:-1]] == [f"{n}" for n in range(250)]
    assert all(time.time() - p.timestamp < 60 for p, _ in replays)
    assert not any(p.reply_to for p, _ in replays)
    assert not any(
        name.startswith(("dead-", "x-death")) for p, _ in replays for name in p.headers
    )
    assert replays[-1][0].message_id == letters()[-1].message_id
    assert listed() == []


#: Requeues all, and dies once as many letters are marked as the argument says, before
#: the portion that holds the last of them is committed.
KILLED_REQUEUE = """
import os, signal, sys
import django
django.setup()
from django.core.management import call_command
from messaging.models import DeadLetter

def settle(letter, *args, **details):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    original(letter, *args, **details)

left = int(sys.argv[1])
original, DeadLetter.settle = DeadLetter.settle, settle
call_command("dead_letters", "requeue", "--all")
"""


def test_a_killed_requeue_loses_and_doubles_nothing(
    broker: Broker, processes: Processes
) -> None:
    # Every third message has no id.
    give_up(
        *(
            delivery(create(f"u{n}"), n, **({} if n % 3 else {"message_id": None}))
            for n in range(300)
        )
    )

    killed = processes.start("-c", KILLED_REQUEUE, "130")

    assert killed.wait(30) == -signal.SIGKILL
    # The first portion is committed, the second is not.
    assert len(letters(status="waiting")) == 200
    assert Outbox.objects.count() == 100
    consumed(processes, "--all")
    told = requeue("--all")
    assert told.splitlines()[-1] == "200 dead letters requeued"
    eventually(lambda: broker.count(PARTITION) == 0, "all are handled")
    eventually(lambda: User.objects.count() == 300, "each user, once")
    assert Inbox.objects.filter(status="done").count() == 300
    assert Inbox.objects.count() == 300
    assert {letter.status for letter in letters()} == {"requeued"}


def test_a_corrected_body_goes_out_in_place_of_the_original(
    broker: Broker, processes: Processes, tmp_path: Any
) -> None:
    give_up(delivery(create("ana", email="bad"), message_id="1"), delivery(b"x", 2))
    corrected = tmp_path / "body.json"
    corrected.write_text(json.dumps(create("ana", email="still bad")))

    with pytest.raises(CommandError, match="email"):
        run("requeue", "--id", "1", "--body", str(corrected))
    with pytest.raises(CommandError, match="--id"):
        run("requeue", "--all", "--body", str(corrected))
    done = subprocess.run(
        [sys.executable, "manage.py", "dead_letters", "requeue", "--id=1", "--body=-"],
        cwd=BASE,
        env=processes.environment,
        input=json.dumps(create("ana")),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.endswith("1 dead letter requeued\n")
    relay()
    [(properties, body)] = taken(broker, PARTITION, 1)
    assert json.loads(body) == create("ana")
    assert (properties.message_id, properties.type) == ("1", "user.create")
    assert properties.headers["partition_key"] == "email:ana@example.com"
    [letter] = letters(message_id="1")
    assert json.loads(letter.body) == create("ana", email="bad")
    assert json.loads(letter.history[-1]["body"]) == create("ana")


def test_a_compressed_body_is_shown_decoded_and_sent_again_as_it_was(
    broker: Broker,
) -> None:
    body = gzip.compress(json.dumps(create("ana")).encode())
    compressed = {"content_encoding": "gzip"}
    give_up(
        delivery(body, message_id="packed", **compressed),
        delivery(body[:-9], message_id="torn", **compressed),
        delivery(b"\x8b\x02", message_id="brotli", content_encoding="br"),
    )

    shown = run("show", "packed")
    assert '"nombre": "ana"' in shown
    assert "content_encoding = gzip" in shown
    for name, left in (("torn", body[:-9]), ("brotli", b"\x8b\x02")):
        assert f"00000000  {left[:16].hex(' ')}" in run("show", name)
    # Copies are exact.
    assert listed("--id", "packed")[0]["body"] is None
    assert {letter.event_type for letter in letters()} == {"user.create", ""}

    requeue("--id", "packed")
    [(properties, again)] = taken(broker, PARTITION, 1)
    assert (again, properties.content_encoding) == (body, "gzip")


def test_a_corrected_body_is_not_compressed(broker: Broker, tmp_path: Any) -> None:
    body = gzip.compress(json.dumps(create("ana", email="bad")).encode())
    give_up(delivery(body, message_id="1", content_encoding="gzip"))
    corrected = tmp_path / "body.json"
    corrected.write_text(json.dumps(create("ana")))

    requeue("--id", "1", "--body", str(corrected))

    [(properties, sent)] = taken(broker, PARTITION, 1)
    assert json.loads(sent) == create("ana")
    assert properties.content_encoding is None


def test_requeue_warns_of_newer_messages_of_the_key(
    broker: Broker, processes: Processes
) -> None:
    consumed(processes, "--all")
    broker.send("users_queue", create("ana"), create("eva"))
    eventually(lambda: User.objects.count() == 2, "two users")
    ana, eva = (
        {"event_type": "user.update", "user_id": user.pk}
        for user in User.objects.order_by("nombre")
    )
    broker.send(
        "users_queue",
        ana | {"email": "eva@example.com"},
        eva | {"email": "ana@example.com"},
    )
    eventually(lambda: len(letters()) == 2, "both are refused")
    broker.send("users_queue", ana | {"nombre": "new"})
    eventually(User.objects.filter(nombre="new").exists, "the newer one is applied")

    for arguments in (["--dry-run"], []):
        told = requeue("--all", *arguments)
        assert told.count("newer messages of its key") == 1

    assert told.splitlines()[-1] == "2 dead letters requeued"


def test_discard_keeps_the_row_and_says_who(broker: Broker) -> None:
    give_up(delivery(b"1", message_id="1"), delivery(b"2", message_id="2"))

    assert "2 dead letters would be discarded" in run("discard", "--all", "--dry-run")
    assert len(letters(status="waiting")) == 2
    with pytest.raises(CommandError, match="Say which"):
        run("discard")
    with pytest.raises(CommandError, match="No such dead letter"):
        run("discard", "--id", "3")
    assert run("discard", "--id", "1").endswith("1 dead letter discarded\n")

    assert [one["message_id"] for one in listed()] == ["2"]
    [discarded] = listed("--status", "discarded")
    assert discarded["settled_by"].startswith("command ")
    assert discarded["history"][-1]["what"] == "discarded"
    assert broker.count(PARTITION) == 0
    requeue("--id", "1", "--status", "discarded")
    assert [body for _, body in taken(broker, PARTITION, 1)] == [b"1"]


def test_a_thousand_letters_take_seconds(broker: Broker) -> None:
    give_up(*(delivery(create(f"u{n}"), n) for n in range(1000)))

    started = time.monotonic()
    assert len(listed()) == 1000
    assert requeue("--all").endswith("1000 dead letters requeued\n")
    sent = time.monotonic()

    assert broker.count(PARTITION) == 1000
    assert sent - started < 60  # 3 s on two idle cores


def test_an_event_is_sent_again_to_the_one_queue_that_refused_it(
    broker: Broker,
) -> None:
    event = Envelope(
        b"{}", "user.deleted", exchange="events", message_id=str(uuid.uuid4())
    )
    first = Delivery(event, "reports_queue", 1)
    give_up(first)

    requeue("--all")

    [(properties, body)] = taken(broker, "reports_queue.0", 1)
    method = SimpleNamespace(exchange=PARTITIONS, routing_key="reports_queue.0")
    again = Delivery(envelope_of(method, properties, body), "reports_queue", 2)
    assert again.envelope.message_id == event.message_id
    # The inbox knows it as what it was.
    assert again.inbox_id == first.inbox_id
    published = at_origin(again.envelope)
    assert (published.exchange, published.routing_key) == ("events", "user.deleted")
    give_up(again)
    assert [letter.status for letter in letters()] == ["waiting"]


def test_a_readable_id_is_made_of_bytes_that_are_no_text(broker: Broker) -> None:
    method = SimpleNamespace(exchange=PARTITIONS, routing_key=PARTITION)
    sent = pika.BasicProperties(message_id=b"\xff" * 80)
    bad = Delivery(envelope_of(method, sent, b"bad"), "users_queue", 1)
    process("users_queue", [bad])

    [letter] = letters()
    assert letter.message_id.startswith("\\xff" * 50)
    assert len(letter.message_id) == 255
    requeue("--all")
    [(properties, body)] = taken(broker, PARTITION, 1)
    assert properties.message_id == letter.message_id
    again = Delivery(envelope_of(method, properties, body), "users_queue", 2)
    assert again.inbox_id == bad.inbox_id


@pytest.fixture
def browser(broker: Broker, uncollected: None) -> Client:
    """A browser."""
    return Client()


@pytest.fixture
def admin(browser: Client) -> Client:
    """A browser of an administrator."""
    browser.force_login(get_user_model().objects.create_superuser("ana"))
    return browser


def test_the_admin_lists_and_finds(broker: Broker, admin: Client) -> None:
    give_up(delivery(create("ana"), message_id="1"), delivery(b"x", message_id="2"))

    def found(query: str) -> int:
        page = admin.get(f"/admin/messaging/deadletter/?{query}")
        return page.context["cl"].result_count

    assert found("") == 2
    assert found("q=Ya+existe") == 2
    assert found(f"q={letters(message_id='1')[0].pk[:12]}") == 1
    assert found("kind=poison") == 0
    assert found("event_type=user.create&queue=users_queue&status=waiting") == 1


def post(client: Client, letter: DeadLetter, **fields: str) -> Any:
    """Send the form of a letter's page."""
    path = f"/admin/messaging/deadletter/{letter.pk}/change/"
    return client.post(path, fields, follow=True)


def shown_body(client: Client, letter: DeadLetter) -> str:
    """Give the body that the page offers for correction, as a browser sends it."""
    page = client.get(f"/admin/messaging/deadletter/{letter.pk}/change/")
    initial = page.context["adminform"].form["replay_body"].value()
    return initial.replace("\n", "\r\n")


def test_the_admin_sends_again_and_discards(broker: Broker, admin: Client) -> None:
    give_up(*(delivery(b"%d" % n, message_id=f"{n}") for n in range(4)))
    one, two, three, four = letters()
    path = "/admin/messaging/deadletter/"
    for action, letter in (("requeue", one), ("discard", two)):
        data = {"action": action, "_selected_action": [letter.pk]}
        assert admin.post(path, data, follow=True).status_code == 200
    post(admin, three, replay_body=shown_body(admin, three), _save="1")
    post(admin, four, replay_body="nonsense", _discard="1")
    relay()

    assert [letter.status for letter in letters()] == [
        "requeued",
        "discarded",
        "requeued",
        "discarded",
    ]
    assert {letter.settled_by for letter in letters()} == {"admin ana"}
    assert [body for _, body in taken(broker, PARTITION, 2)] == [b"0", b"2"]
    # What is settled is only looked at.
    assert post(admin, one, _save="1").status_code == 403


def test_the_admin_corrects_a_body(broker: Broker, admin: Client) -> None:
    original = json.dumps(create("ana", email="bad")).encode()
    give_up(delivery(original, message_id="1"), delivery(original, message_id="2"))
    first, second = letters()
    body = shown_body(admin, first)

    refused = post(admin, first, replay_body=body.replace("bad", "worse"), _save="1")
    assert b"email" in refused.content
    assert letters()[0].status == "waiting"
    post(admin, first, replay_body=body.replace('"bad"', '"a@example.com"'), _save="1")
    post(admin, second, replay_body=shown_body(admin, second), _save="1")
    relay()

    (_, corrected), (_, untouched) = taken(broker, PARTITION, 2)
    assert json.loads(corrected) == create("ana", email="a@example.com")
    # What nobody has touched goes out byte for byte.
    assert untouched == original


def test_the_admin_corrects_a_compressed_body(broker: Broker, admin: Client) -> None:
    original = gzip.compress(json.dumps(create("ana", email="bad")).encode())
    compressed = {"content_encoding": "gzip"}
    give_up(
        delivery(original, message_id="1", **compressed),
        delivery(original, message_id="2", **compressed),
    )
    first, second = letters()
    body = shown_body(admin, first)

    post(admin, first, replay_body=body.replace('"bad"', '"a@example.com"'), _save="1")
    post(admin, second, replay_body=shown_body(admin, second), _save="1")
    relay()

    (one, corrected), (two, untouched) = taken(broker, PARTITION, 2)
    assert json.loads(corrected) == create("ana", email="a@example.com")
    assert one.content_encoding is None
    assert (untouched, two.content_encoding) == (original, "gzip")


def test_only_those_who_may_change_letters_settle_them(
    broker: Broker, browser: Client, permissions: QuerySet[Permission]
) -> None:
    viewer = get_user_model().objects.create_user("eva", is_staff=True)
    viewer.user_permissions.add(permissions.get(codename="view_deadletter"))
    browser.force_login(viewer)
    give_up(delivery(b"1"))
    [letter] = letters()

    page = browser.get(f"/admin/messaging/deadletter/{letter.pk}/change/")
    assert page.status_code == 200
    assert b"replay_body" not in page.content
    assert post(browser, letter, _save="1").status_code == 403
    data = {"action": "discard", "_selected_action": [letter.pk]}
    browser.post("/admin/messaging/deadletter/", data)
    assert letters()[0].status == "waiting"
