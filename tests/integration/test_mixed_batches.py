"""A batch of messages of many types leaves what they leave one by one."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from messaging import Message, handles, touches
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context
from messaging.consumer.grouping import groups
from messaging.envelope import (
    IDEMPOTENCY_KEY,
    IF_VERSION,
    PARTITIONS,
    Delivery,
    Envelope,
)
from messaging.models import (
    DeadLetter,
    IdempotencyKey,
    Inbox,
    Lease,
    Outbox,
    Parked,
)
from messaging.registry import handlers, touching
from reports.models import DailyCount, Report, ReportLedger
from tests.support import trials
from tests.support.trials import HANDLER_FAULTS, QUEUE, Other, Trial, trial
from users.models import User, UserLedger
from users.signals import users_changed

# A consumer would retry what these tests park.
pytestmark = pytest.mark.usefixtures("no_consumers")

Body = dict[str, Any]
UNKNOWN_ID = 10**12


def delivery(queue: str, number: int, body: Body) -> Delivery:
    """Return a message with the headers and the number for its id that `body` names."""
    fields = dict(body)
    names = {IF_VERSION, IDEMPOTENCY_KEY} & fields.keys()
    headers = {name: fields.pop(name) for name in names}
    message_id = f"m{fields.pop('number', number)}"
    content = json.dumps(fields).encode()
    envelope = Envelope(
        content, queue, exchange=PARTITIONS, message_id=message_id, headers=headers
    )
    return Delivery(envelope, queue, number)


def apply(queue: str, bodies: list[Body], size: int, first: int = 0) -> None:
    """Apply messages in batches of `size`."""
    processor = Processor(HeldLease(queue, f"{queue}.0"))
    found = [delivery(queue, first + n, body) for n, body in enumerate(bodies)]
    for start in range(0, len(found), size):
        some = found[start : start + size]
        processor.process(Batch([Context(one) for one in some]))


def clear() -> None:
    """Delete everything, and begin with the first ids again."""
    models = (User, UserLedger, ReportLedger, Inbox, Outbox, Parked, DeadLetter)
    for model in (*models, IdempotencyKey, DailyCount):
        model.objects.all().delete()
    connections["reports"].get_collection(Report._meta.db_table).delete_many({})
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {User._meta.db_table} AUTO_INCREMENT = 1")


class Names(dict[int, str]):
    """Names of users: the e-mail with which they were created, and how many had it."""

    def __init__(self, events: list[Body]) -> None:
        created = [one for one in events if one["event_type"] == "user.created"]
        number: Counter[str] = Counter()
        for event in sorted(created, key=lambda one: one["user_id"]):
            number[event["email"]] += 1
            self[event["user_id"]] = f"{event['email']} {number[event['email']]}"

    def __missing__(self, key: int) -> str:
        return f"unknown {key}"


def entities(events: list[Body], names: Names) -> dict[str, list[Body]]:
    """Return the events of each entity, in their order, without ids."""
    found = defaultdict(list)
    for event in events:
        name = event.get("id_reporte") or names[event["user_id"]]
        fields = {key: value for key, value in event.items() if key != "user_id"}
        if "id_usuario" in fields:
            fields["id_usuario"] = names[fields["id_usuario"]]
        found[name].append(fields)
    return dict(found)


def snapshot() -> dict[str, Any]:
    """Return everything that messages have left, without ids and times of their own."""
    events = [json.loads(bytes(row.body)) for row in Outbox.objects.order_by("id")]
    names = Names(events)

    def reference(row: Inbox) -> str:
        known = row.reference.isdigit()
        return names[int(row.reference)] if known else row.reference

    return {
        "users": {
            names[row["user_id"]]: {**row, "user_id": 0}
            for row in User.objects.values()
        },
        "ledger": {
            names[row.user_id]: (row.version, row.deleted)
            for row in UserLedger.objects.all()
        },
        "reports": {
            row["id_reporte"]: row | {"changed_at": None}  # the time of the test
            for row in ReportLedger.objects.values()
        },
        "documents": {
            row["id_reporte"]: {**row, "deleted_at": None}
            for row in Report.with_tombstones.values()
        },
        "events": entities(events, names),
        "inbox": {
            row.pk: (row.event_type, row.key, row.status, row.code, reference(row))
            for row in Inbox.objects.all()
        },
        "dead letters": {
            row.message_id: (row.kind, row.reason) for row in DeadLetter.objects.all()
        },
        "parked": [
            (row.message_id, row.key, row.attempts, row.due_at is None)
            for row in Parked.objects.order_by("key", "id")
        ],
    }


EMAILS = [f"user{n}@example.com" for n in range(9)]
MOMENT = "2026-01-02T03:04:05Z"


def create(email: str) -> Body:
    names = {"nombre": "Ana", "apellido": "Díaz", "fecha_creacion": MOMENT}
    return {"event_type": "user.create", "email": email, **names}


def properties(rng: random.Random, number: int) -> Body:
    """Return what some messages have besides their fields."""
    found: Body = {}
    if rng.random() < 0.25:
        found[IF_VERSION] = rng.randrange(1, 4)
    if rng.random() < 0.1:
        found[IDEMPOTENCY_KEY] = f"key {rng.randrange(3)}"
    if rng.random() < 0.1:  # perhaps the id of an earlier message
        found["number"] = 100 + rng.randrange(number + 1)
    return found


def user_stream(rng: random.Random, count: int) -> Iterator[Body]:
    """Yield commands about few users, so that many of them meet."""
    for number in range(count):
        user_id = rng.choice([1, 2, 3, 4, 5, 6, UNKNOWN_ID])
        others = properties(rng, number)
        roll = rng.random()
        if roll < 0.35:
            yield create(rng.choice(EMAILS).replace("u", rng.choice(["u", "U", " u"])))
        elif roll < 0.55:
            text = {"user_id": user_id, "biografia": f"{number}"}
            yield {"event_type": "user.update", **text, **others}
        elif roll < 0.75:
            email = {"user_id": user_id, "email": rng.choice(EMAILS)}
            yield {"event_type": "user.update", **email, **others}
        elif roll < 0.95:
            yield {"event_type": "user.delete", "user_id": user_id, **others}
        else:
            yield {"event_type": "user.update", "user_id": user_id, "email": "none"}


def report_stream(rng: random.Random, count: int) -> Iterator[Body]:
    """Yield commands about few reports of few authors."""
    for number in range(count):
        report = {"id_reporte": f"r{rng.randrange(6)}"}
        others = properties(rng, number)
        author = rng.choice([1, 2, 3, UNKNOWN_ID])
        roll = rng.random()
        if roll < 0.4:
            report |= {"tipo_reporte": 1, "descripcion": "x", "fecha_creacion": MOMENT}
            yield {"event_type": "report.create", "id_usuario": author, **report}
        elif roll < 0.8:
            report |= {"visibilidad": rng.randrange(9) / 2}
            penalty = {"penalize_author": True} if rng.random() < 0.5 else {}
            report |= penalty | others
            yield {"event_type": "report.update_visibility", **report}
        else:
            yield {"event_type": "report.delete", **report, **others}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("queue", "stream"),
    [("users_queue", user_stream), ("reports_queue", report_stream)],
    ids=["users", "reports"],
)
def test_a_mixed_batch_leaves_what_its_messages_leave_one_by_one(
    queue: str, stream: Callable[..., Iterator[Body]], seed: int, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"BREAKER": None}
    bodies = list(stream(random.Random(seed), 70))
    found = []
    for size in (len(bodies), 1):
        clear()
        apply("users_queue", [create(email) for email in EMAILS[:6]], 6)
        apply("users_queue", [{"event_type": "user.delete", "user_id": 6}], 1, 6)
        apply(queue, bodies, size, 100)
        found.append(snapshot())

    for table, expected in found[1].items():
        assert found[0][table] == expected, table
    assert len(found[0]["dead letters"]) > 5
    assert len(found[0]["events"]) > 5


def update(user_id: int, **changes: Any) -> Body:
    return {"event_type": "user.update", "user_id": user_id, **changes}


def delete(user_id: int) -> Body:
    return {"event_type": "user.delete", "user_id": user_id}


def about(id_reporte: str, action: str, **fields: Any) -> Body:
    if action == "create":
        fields |= {"tipo_reporte": 1, "descripcion": "x", "fecha_creacion": MOMENT}
    return {"event_type": f"report.{action}", "id_reporte": id_reporte, **fields}


#: Streams after which something depends on what an earlier message has not done.
DEPENDENT: dict[str, tuple[str, list[Body]]] = {
    # The author may still come, so that the id is not taken.
    "a report of an unknown author, and another with its id": (
        "reports_queue",
        [
            about("r1", "create", id_usuario=UNKNOWN_ID),
            about("r1", "create", id_usuario=1),
            about("r1", "create", id_usuario=2),
        ],
    ),
    "a delete of a version that has passed, and one of any version": (
        "reports_queue",
        [
            about("r1", "create", id_usuario=1),
            about("r1", "delete", if_version=7),
            about("r1", "delete"),
            about("r1", "delete"),
        ],
    ),
    # User 7 is created first, and its e-mail taken by user 1 only once it is free.
    "an e-mail of a user to come": (
        "users_queue",
        [
            create("new@example.com"),
            update(1, email="new@example.com"),
            delete(2),
            create(EMAILS[1]),
            update(7, email="other@example.com"),
            update(1, email="new@example.com"),
        ],
    ),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_what_was_not_done_has_no_effect_on_what_comes_later(name: str) -> None:
    queue, bodies = DEPENDENT[name]
    found = []
    for size in (len(bodies), 1):
        clear()
        apply("users_queue", [create(email) for email in EMAILS[:6]], 6)
        apply(queue, bodies, size, 100)
        found.append(snapshot())

    assert found[0] == found[1]


def test_a_version_that_exists_already_is_no_conflict_of_e_mails() -> None:
    apply("users_queue", [create("a@example.com")], 1)
    following = User.objects.get().pk + 1
    # The table of users was restored, and that of their versions was not.
    UserLedger.objects.bulk_create(UserLedger(user_id=following + n) for n in range(9))

    apply("users_queue", [create("b@example.com")], 1, 1)

    assert not DeadLetter.objects.exists()
    assert "Duplicate entry" in Parked.objects.get().error


#: Pairs of commands; the second one is refused only if the first one has an effect.
REFUSED_BY_THE_FIRST = [
    [create("new@example.com") | {"nombre": "bad"}, create("new@example.com")],
    [update(1, nombre="bad"), update(1, nombre="Eva", if_version=1)],
    [update(1, nombre="bad", email="a@b.co"), update(2, email="a@b.co")],
]


@pytest.mark.parametrize("bodies", REFUSED_BY_THE_FIRST, ids=range(3))
def test_nothing_is_refused_for_a_message_that_fails(
    bodies: list[Body], settings: Any
) -> None:
    def refuse(events: list[Any], **_: Any) -> None:
        if any(getattr(event, "nombre", "") == "bad" for event in events):
            raise ValueError("bad")

    settings.MESSAGING = settings.MESSAGING | {"MAX_ATTEMPTS": 1}
    found = []
    users_changed.connect(refuse)
    try:
        for size in (2, 1):
            clear()
            apply("users_queue", [create(email) for email in EMAILS[:6]], 6)
            apply("users_queue", bodies, size, 100)
            found.append(snapshot())
    finally:
        users_changed.disconnect(refuse)

    assert found[0] == found[1]
    assert list(found[0]["dead letters"]) == ["m100"]


@pytest.mark.parametrize(
    "wrong", [lambda _: {}["x"], lambda _: [], lambda ms: [1 for _ in ms]]
)
@pytest.mark.usefixtures("queue")
def test_a_function_of_touches_that_fails_is_logged_and_changes_no_order(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    touches(QUEUE)(wrong)
    try:
        trials.process(*(Context(trials.delivery(trial(n))) for n in range(20)))
    finally:
        del touching[QUEUE]

    assert trials.applied() == list(range(20))
    assert f"The function of touches() for {QUEUE} has failed" in caplog.text


def test_an_id_that_may_be_given_to_a_new_user_is_waited_for() -> None:
    apply("users_queue", [create("a@example.com")], 1)
    second = User.objects.get().pk + 2
    update = {"event_type": "user.update", "user_id": second, "biografia": "x"}
    stream = [create("b@example.com"), update, create("c@example.com"), update]

    apply("users_queue", stream, 4, 1)

    assert DeadLetter.objects.get().message_id == "m2"
    assert User.objects.get(pk=second).biografia == "x"


def statements(queue: str, bodies: list[Body], first: int = 0) -> list[str]:
    """Return the statements of one batch, but for those that begin and end it."""
    name = f"{queue}.0"
    Lease.objects.get_or_create(name=name, queue=queue, worker="w", epoch=1)
    processor = Processor(HeldLease(queue, name, "w", 1))
    processor.lease.has_parked = False
    found = []

    def collect(execute: Any, sql: str, *rest: Any) -> Any:
        found.append(sql)
        return execute(sql, *rest)

    def process(one: list[Delivery]) -> None:
        processor.process(Batch([Context(delivery) for delivery in one]))

    # The first batch asks what the process remembers.
    process([delivery(queue, first, create(f"first-{first}@example.com"))])
    with connection.execute_wrapper(collect):
        process([delivery(queue, first + n, body) for n, body in enumerate(bodies, 1)])
    return found


def test_the_number_of_statements_does_not_depend_on_the_size_of_a_batch() -> None:
    counts = []
    for number, size in enumerate((20, 250)):
        emails = [f"{number}-{n}@example.com" for n in range(size)]
        apply("users_queue", [create(email) for email in emails], size, 1000 * number)
        ids = User.objects.filter(email__in=emails).values_list("pk", flat=True)
        bodies: list[Body] = [create(f"new-{email}") for email in emails]
        bodies += [
            {"event_type": "user.update", "user_id": pk, "biografia": "x"}
            for pk in ids[: size // 2]
        ]
        bodies += [
            {"event_type": "user.delete", "user_id": pk} for pk in ids[size // 2 :]
        ]
        random.Random(1).shuffle(bodies)
        counts.append(len(statements("users_queue", bodies, 5000 * (number + 1))))

    assert counts[0] == counts[1] <= 23


def test_a_message_alone_takes_six_statements() -> None:
    taken = statements("users_queue", [create("a@example.com")])

    assert len(taken) == 6, taken


def test_a_lone_message_that_fails_leaves_nothing_but_its_dead_letter() -> None:
    apply("users_queue", [create("a@example.com"), create("A@example.com")], 1)

    letter = DeadLetter.objects.get()
    assert (letter.kind, letter.message_id) == ("rejected", "m1")
    assert Inbox.objects.filter(status="failed").get().code == "conflict"
    assert (User.objects.count(), UserLedger.objects.count()) == (1, 1)
    assert Outbox.objects.count() == 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("queue")
def test_messages_that_fail_hold_back_their_key_in_whatever_run_they_are(
    seed: int,
) -> None:
    touches(QUEUE)(lambda messages: [set() for _ in messages])
    rng = random.Random(seed)
    faults = ["raises", "rejects", "asks for another try", "closes its connection"]
    assert set(faults) <= HANDLER_FAULTS.keys()
    bodies = []
    for number in range(40):
        fault = rng.choice(faults) if rng.random() < 0.15 else ""
        bodies.append(trial(number, f"name {rng.randrange(8)}", fault))
    keys = {body["number"]: body["name"] for body in bodies}
    found = []
    try:
        for size in (len(bodies), 1):
            clear()
            trials.stored.clear()
            for start in range(0, len(bodies), size):
                some = enumerate(bodies[start : start + size], start)
                trials.process(*(Context(delivery(QUEUE, *one)) for one in some))
            trials.retry()
            order = defaultdict(list)
            for number in trials.applied():
                order[keys[number]].append(number)
            letters = {row.message_id: row.kind for row in DeadLetter.objects.all()}
            found.append((dict(order), letters, sorted(trials.stored)))
    finally:
        del touching[QUEUE]

    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(20))
def test_messages_that_share_something_stay_in_their_order(seed: int) -> None:
    rng = random.Random(seed)
    shared = {
        n: {rng.choice("abcdef") for _ in range(rng.randrange(3))} for n in range(60)
    }
    for message in (Trial, Other):
        handles(message)(print)

    def touched(messages: list[Message]) -> list[set[str]]:
        return [shared[message.number] for message in messages]  # type: ignore[attr-defined]

    touches(QUEUE)(touched)
    try:
        contexts = [
            Context(trials.delivery(trial(n, name=f"name {rng.randrange(30)}")))
            for n in range(60)
        ]
        for context in contexts:
            context.decode()
        with transaction.atomic():
            found = groups(HeldLease(QUEUE), contexts)
    finally:
        del handlers[QUEUE], touching[QUEUE]

    places = {id(c): (n, m) for n, run in enumerate(found) for m, c in enumerate(run)}
    assert len(places) == len(contexts)
    assert all(len({c.event_type for c in run}) == 1 for run in found)
    for later, context in enumerate(contexts):
        for earlier, other in enumerate(contexts[:later]):
            if context.key == other.key or shared[later] & shared[earlier]:
                assert places[id(other)] < places[id(context)]
