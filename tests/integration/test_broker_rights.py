"""What each user of the broker may do, and what is believed of whom."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from django.test import Client
from pika.exceptions import ChannelClosedByBroker

from messaging import call, topology
from messaging.amqp.client import connect
from messaging.amqp.publisher import Publisher, publisher
from messaging.cluster.grants import grants
from messaging.dead_letters.archive import collect
from messaging.envelope import PARTITIONS, Delivery, Envelope, inbox_id
from messaging.models import DeadLetter, IdempotencyKey, Inbox, Outbox
from messaging.models.parked import Parked, properties_of
from messaging.rpc.client import Replies, replies
from tests.support.broker import Broker, restricted_user
from tests.support.letters import dead_letters_of
from tests.support.messages import ANN, delivery, process
from tests.support.processes import Processes
from tests.support.rpc_servers import is_served
from tests.support.waiting import eventually
from users.models import User

Act = Callable[[Any], Any]
QUEUE = "users_queue"
BODY = json.loads(ANN.encode())


@cache
def user_of(role: str) -> str:
    """Create a user with what a role needs and no more; return its URL."""
    grant = next(one for one in grants() if one.role == role)
    patterns = {
        name: getattr(grant, name).replace("\\", "\\\\")
        for name in ("configure", "write", "read")
    }
    return restricted_user(**patterns)


def may(url: str, act: Act) -> bool:
    """Return whether a user may do something; fails if it goes wrong otherwise."""
    with Broker(url).channel() as channel:
        channel.confirm_delivery()
        try:
            act(channel)
        except ChannelClosedByBroker as error:
            if error.reply_code != 403:
                raise
            return False
        return True


def send(exchange: str, key: str = "") -> Act:
    """Publish what no consumer is there to handle."""
    return lambda channel: channel.basic_publish(exchange, key, b"{}")


def take(queue: str) -> Act:
    """Consume a queue."""
    return lambda channel: channel.basic_consume(queue, lambda *_: None)


def make(item: Any) -> Act:
    """Declare something."""
    return partial(topology.declare, item=item)


def own(queue: str) -> Act:
    """Declare an exclusive queue, and consume it."""

    def act(channel: Any) -> None:
        channel.queue_declare(queue, exclusive=True)
        take(queue)(channel)

    return act


def acts() -> dict[str, Act]:
    """Return what the roles differ in."""
    return {
        "order commands": send(PARTITIONS, "users_queue.0"),
        "publish events": send("events", "user.created"),
        "send to users": send("users_queue.public"),
        "send to reports": send("reports_queue.public", "any"),
        "send to any queue": send("", "users_queue"),
        "put into a partition": send("", "users_queue.0"),
        "put a dead letter": send("", "users_queue.dead"),
        "send hints": send(PARTITIONS, "messaging.outbox"),
        "take messages": take("users_queue"),
        "take commands": take("users_queue.0"),
        "take dead letters": take("users_queue.dead"),
        "receive replies": own(f"replies.{uuid.uuid4()}"),
        "declare other queues": own(f"other-{uuid.uuid4()}"),
        "declare partitions": make(topology.work_queue("users_queue", "users_queue.0")),
        "declare the exchange": make(topology.Exchange(PARTITIONS, "direct")),
        "declare other exchanges": make(topology.Exchange("other", "fanout")),
        "divert events": make(topology.Binding("users_queue.0", "events", "user.x")),
        "count messages": make(topology.Queue("users_queue", is_public=True)),
    }


DECLARES = {"declare partitions", "declare the exchange", "divert events"}
TAKES = {"take messages", "take commands", "take dead letters"}
#: What the broker lets everybody do who may connect.
ALWAYS = {"count messages"}
ANY_QUEUE = {"send to any queue", "put into a partition", "put a dead letter"}
ROLES = {
    "topology": {"order commands", "send hints"} | DECLARES | TAKES,
    "api": {"order commands", "send hints", "receive replies"},
    "consumer": {"order commands", "send hints"} | ANY_QUEUE | DECLARES | TAKES,
    "relay": {
        "order commands",
        "publish events",
        "send hints",
        "declare the exchange",
    },
    "caller": {"receive replies"} | ANY_QUEUE,
    "server": ANY_QUEUE,
    "operator": {"order commands", "send hints", "take dead letters"},
    "sender to users_queue": {"send to users"},
    "reader": set(),
}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_its_work_and_nothing_else(
    broker: Broker, no_consumers: None, role: str
) -> None:
    url = user_of(role)

    allowed = {name for name, act in acts().items() if may(url, act)}

    assert allowed == ROLES[role] | ALWAYS


def test_every_role_is_tested() -> None:
    senders = {f"sender to {queue}" for queue in topology.handlers}

    assert {one.role for one in grants()} - senders == ROLES.keys() - senders


@contextmanager
def acting_as(settings: Any, role: str) -> Iterator[None]:
    """Publish and receive replies in this process as the user of a role."""
    settings.MESSAGING = settings.MESSAGING | {"URL": user_of(role)}
    one, answers = Publisher(role), Replies().connect()
    try:
        with publisher.replaced_by(one), replies.replaced_by(answers):
            yield
    finally:
        answers.close()
        one.close()


def test_the_project_runs_with_the_least_permissions(
    broker: Broker, no_consumers: None, processes: Processes, settings: Any
) -> None:
    """A write with its outcome, its event, and a message of another program."""
    for role, command in (
        ("consumer", ("run_consumer", "--all")),
        ("relay", ("relay_outbox",)),
    ):
        processes.manage(*command, RABBITMQ_URL=user_of(role))
    with acting_as(settings, "api"):
        answer = Client().post(
            "/users/",
            {name: value for name, value in BODY.items() if name != "event_type"},
            content_type="application/json",
            headers={"Prefer": "wait=10"},
        )
        assert answer.status_code == 201, answer.content

    sender = Broker(user_of("sender to users_queue"))
    sender.send("", BODY | {"email": "b@example.com"}, exchange="users_queue.public")

    eventually(lambda: User.objects.count() == 2, "both exist", 20)
    eventually(lambda: not Outbox.objects.exists(), "the events are published")
    assert not DeadLetter.objects.exists()


def test_calls_work_with_the_least_permissions(
    broker: Broker, settings: Any, serve: Callable[..., str]
) -> None:
    name = serve()  # as another user: its queue exists
    user_of.cache_clear()  # the pattern has its name
    eventually(lambda: is_served(name), "it is served")
    server = user_of("server")
    assert may(server, take(name))
    assert may(
        server,
        make(
            topology.Queue(
                name,
                {"x-queue-type": "quorum", "x-overflow": topology.REJECT}
                | topology.limits(name),
            )
        ),
    )

    with acting_as(settings, "caller"):
        assert eventually(lambda: is_served(name), "it is called")


def test_an_overview_needs_no_permission_at_all(
    broker: Broker, processes: Processes
) -> None:
    processes.environment |= {"RABBITMQ_URL": user_of("reader")}

    shown = json.loads(processes.output("top", "--json"))

    assert shown["no_answer"] == []
    assert "users_queue" in {one["name"] for one in shown["queues"]}


def test_operators_commands_work_with_the_least_permissions(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    """The letter is taken from its queue, and sent again by the relay."""
    broker.send("users_queue.0", ANN.encode(), message_id="1", expiration="1")
    eventually(lambda: broker.count("users_queue.dead") == 1, "it has expired", 20)
    processes.environment |= {"RABBITMQ_URL": user_of("operator")}

    listed = json.loads(processes.output("dead_letters", "list", "--json"))

    assert [one["where"] for one in listed] == ["queue"]
    processes.output("dead_letters", "requeue", "--all")
    assert DeadLetter.objects.get().status == "requeued"
    assert Outbox.objects.count() == 1  # a relay publishes it
    assert json.loads(processes.output("replay_jobs", "list", "--json")) == []
    processes.manage("relay_outbox", RABBITMQ_URL=user_of("relay"))
    processes.manage("run_consumer", "users", RABBITMQ_URL=user_of("consumer"))
    eventually(User.objects.exists, "it is applied", 20)
    erased = processes.output("erase_person", ANN.email, "--yes", check=False)
    assert "Out of reach:" in erased
    assert not User.objects.exists()


def test_the_command_prints_the_patterns(processes: Processes, broker: Broker) -> None:
    printed = json.loads(processes.output("topology", "permissions", "--json"))

    assert {one["role"] for one in printed} >= ROLES.keys()
    [api] = [one for one in printed if one["role"] == "api"]
    assert (api["configure"], api["write"]) == (
        r"^replies\..+$",
        r"^(messaging\.partitions)$",
    )
    text = processes.output("topology", "permissions")
    assert "sender to users_queue: " in text
    assert r"  write     '^(users_queue\.public)$'" in text


FORGED = {
    "replays": 7,
    "if_version": 99,
    "idempotency-key": "of somebody else",
    "assigned-id": "mine",
    "origin-user-id": "admin",
    "origin-exchange": "internal",
    "messaging-sent-at": 1,
}


@pytest.mark.parametrize(
    ("exchange", "key"),
    [("users_queue.public", ""), ("", "users_queue"), ("", "users_queue.0")],
)
def test_headers_of_ours_are_not_believed_of_others(
    broker: Broker, consumers: None, exchange: str, key: str
) -> None:
    message_id = str(uuid.uuid4())
    broker.send(
        key, BODY, exchange=exchange, message_id=message_id, headers=dict(FORGED)
    )

    pk = inbox_id("users_queue", message_id)
    row = eventually(lambda: Inbox.objects.filter(pk=pk).first(), "it is handled")

    assert (row.status, row.replays) == ("done", 0)
    assert row.sent_ms != 1
    assert not IdempotencyKey.objects.exists()


def forged_death(queue: str = "users_queue.0") -> dict[str, Any]:
    """Return headers as the broker sets them on what came by our exchange."""
    death = {
        "count": 1,
        "exchange": PARTITIONS,
        "queue": queue,
        "reason": "delivery_limit",
        "routing-keys": [queue],
    }
    return FORGED | {"x-death": [death], "x-first-death-exchange": PARTITIONS}


def test_a_forged_dead_letter_affects_no_message_that_was_accepted(
    broker: Broker, no_consumers: None
) -> None:
    """Anybody who may publish to the default exchange can put one there."""
    accepted = delivery(ANN, str(uuid.uuid4()))
    broker.send(
        "users_queue.dead",
        BODY,
        message_id=accepted.message_id,
        headers=forged_death(),
    )
    eventually(lambda: broker.count("users_queue.dead") == 1, "it is there")

    assert collect("users_queue") == 1

    letter = DeadLetter.objects.get()
    assert (letter.kind, letter.replays) == ("rejected", 0)
    assert "Another program" in letter.reason
    assert not FORGED.keys() & letter.original_properties["headers"].keys()
    assert not Inbox.objects.exists()
    process("users_queue", [accepted])
    assert Inbox.objects.get().status == "done"
    assert User.objects.count() == 1


def test_a_dead_letter_of_the_broker_is_believed(
    broker: Broker, no_consumers: None
) -> None:
    message_id = str(uuid.uuid4())
    broker.send(
        "users_queue.0",
        BODY,
        exchange=PARTITIONS,
        message_id=message_id,
        expiration="1",
        headers={"replays": 3, "if_version": 2, "origin-user-id": "eva"},
    )
    eventually(lambda: broker.count("users_queue.dead") == 1, "it has expired")

    assert collect("users_queue") == 1

    letter = DeadLetter.objects.get()
    assert (letter.kind, letter.replays, letter.message_id) == (
        "expired",
        3,
        message_id,
    )
    # Of whom it came is not believed: old brokers add to a forged `x-death`.
    assert letter.original_properties["headers"] == {"if_version": 2}
    assert Inbox.objects.get().status == "failed"


@pytest.mark.parametrize("queue", ["users_queue", "users_queue.0", "users_queue.dead"])
def test_an_outcome_is_no_message_to_our_own_queues(
    broker: Broker, no_consumers: None, queue: str
) -> None:
    """A client names the queue, and we have the rights that it lacks."""
    envelope = Envelope(ANN.encode(), "users_queue.0", PARTITIONS, reply_to=queue)

    process("users_queue", [Delivery(envelope, "users_queue", 1)])

    assert Inbox.objects.get().status == "done"
    assert broker.count(queue) == 0


@pytest.mark.parametrize("queue", ["users_queue", "users_queue.0", "users_queue.dead"])
def test_a_result_is_no_message_to_our_own_queues(
    broker: Broker, no_consumers: None, serve: Callable[..., str], queue: str
) -> None:
    """What a function echoes would be a command."""
    name = serve()
    eventually(lambda: is_served(name), "it is served")

    broker.send(name, b"", reply_to=queue, correlation_id="1")

    assert call(name) == name  # its only thread is done with the other call
    assert broker.count(queue) == 0


def test_a_reply_is_believed_by_an_unguessable_id_alone(
    broker: Broker, serve: Callable[..., str]
) -> None:
    """Who knows the queue of replies cannot answer calls."""
    name = serve()
    eventually(lambda: is_served(name), "it is served")
    address = replies().address
    before = sum(replies().dropped.values())

    for guess in ("", "1", name, str(uuid.uuid4()), "x" * 255, None):
        broker.send(address, b'"forged"', correlation_id=guess, type="result")

    assert call(name) == name
    assert sum(replies().dropped.values()) == before + 6


def test_a_handler_learns_which_user_of_the_broker_sent_a_message(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    """The broker checks `user_id`; the header that keeps it is ours."""
    processes.manage("run_consumer", "users")
    body = BODY | {"email": "no address"}
    for properties in (
        {"user_id": "guest"},
        {"headers": {"origin-user-id": "admin"}},
    ):
        broker.send("users_queue", body, message_id=str(properties), **properties)

    kept = [one.original_properties["headers"] for one in dead_letters_of(QUEUE, 2)]
    assert [headers.get("origin-user-id") for headers in kept] == ["guest", None]
    with pytest.raises(ChannelClosedByBroker, match="user_id"):
        broker.send("users_queue", body, user_id="admin")


def test_the_sender_is_known_on_every_way() -> None:
    direct = Delivery(Envelope(b"", "q", user_id="eva"), "users_queue", 1)
    forwarded = Envelope(b"", "q", PARTITIONS, headers={"origin-user-id": "eva"})
    forged = Envelope(b"", "q", headers={"origin-user-id": "eva"})

    assert direct.sender == "eva"
    assert Delivery(forwarded, "users_queue", 1).sender == "eva"
    assert Delivery(forged, "users_queue", 1).sender is None
    row = Parked(properties=properties_of(direct), body=b"", partition="q", attempts=0)
    assert row.delivery("users_queue").sender == "eva"


def test_queues_of_an_earlier_version_are_used_as_they_are(
    broker: Broker, no_consumers: None, settings: Any, servers: SimpleNamespace
) -> None:
    """They dead-letter through the default exchange, and have no limit."""
    name = f"former-{uuid.uuid4()}"
    wanted = topology.work_queue("users_queue", name)
    former = {
        **{n: v for n, v in wanted.arguments.items() if n != "x-max-length-bytes"},
        "x-dead-letter-exchange": "",
    }
    other = wanted.arguments | {"x-single-active-consumer": False}
    with connect("test") as client, broker.channel() as channel:
        channel.queue_declare(name, durable=True, arguments=former)
        client.declare(wanted)  # raises nothing
        assert "x-dead-letter-exchange" in str(client.difference(wanted))
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, arguments=other)
        with pytest.raises(Exception, match="x-single-active-consumer"):
            client.declare(wanted)
        channel.queue_delete(name)
        assert client.difference(wanted) is None  # it is made anew
        channel.queue_delete(name)


def test_a_consumer_takes_from_a_queue_of_an_earlier_version(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    wanted = topology.work_queue("users_queue", "users_queue.0")
    former = {
        **{n: v for n, v in wanted.arguments.items() if n != "x-max-length-bytes"},
        "x-dead-letter-exchange": "",
    }
    with broker.channel() as channel:
        channel.queue_delete("users_queue.0")
        channel.queue_declare("users_queue.0", durable=True, arguments=former)
        try:
            processes.manage("run_consumer", "users")
            eventually(
                lambda: channel.queue_bind("users_queue.0", "events", "x") and True,
                "it is there",
            )
            channel.confirm_delivery()
            channel.basic_publish(
                "", "users_queue.0", ANN.encode(), pika.BasicProperties(message_id="1")
            )
            eventually(lambda: User.objects.exists(), "it is handled", 20)
        finally:
            processes.kill_all()
            channel.queue_delete("users_queue.0")
            for item in topology.needed_by("users_queue", "users_queue.0"):
                topology.declare(channel, item)
