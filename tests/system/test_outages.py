"""Servers that are away, full or frozen: nothing is lost, no process restarts."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
from django.db import connections

from messaging.cluster.waiting import HOLD
from messaging.conf import settings
from messaging.models import Outbox, Parked
from messaging.models.lease import Lease
from reports.models import Report
from tests.support.broker import Broker
from tests.support.letters import dead_letters
from tests.support.messages import (
    ANN,
    PERSON,
    creation,
    handle,
    names_told,
    penalty,
    update,
)
from tests.support.processes import API, Processes, SharedConsumers
from tests.support.waiting import eventually, stored
from users.models import User

#: Seconds in which a consumer tries again, more than once, what waits for MongoDB.
MORE_TRIES = 1.0
#: Seconds for which a database is frozen: longer than any timeout of a driver.
FROZEN = 18.0


def in_turn(write: Callable[[int], requests.Response], count: int) -> None:
    """Write to so many entities concurrently."""
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(write, range(count)):
            assert answer.status_code == 202, answer.text


def test_a_thousand_writes_wait_for_consumers_and_are_applied_in_order(
    api: API, broker: Broker, no_consumers: None, shared_consumers: SharedConsumers
) -> None:
    handle(ANN)
    Outbox.objects.all().delete()
    author = User.objects.get()
    ids = [str(uuid.uuid4()) for _ in range(20)]

    def post(_: int) -> requests.Response:
        answer = api.post(
            "/reports/",
            {"id_usuario": author.pk, "tipo_reporte": 1, "descripcion": "Bache"},
        )
        ids.append(answer.json()["id_reporte"])
        return answer

    def write_one_report(_: int) -> requests.Response:
        answer = post(_)
        path = f"/reports/{answer.json()['id_reporte']}/"
        for value in range(1, 49):
            answer = api.patch(path, {"visibilidad": value})
            assert answer.status_code == 202
        return answer

    ids.clear()
    in_turn(write_one_report, 20)
    # What waits is as it was: nothing is stored before there are consumers.
    assert not Report.objects.exists()
    in_turn(lambda n: api.delete(f"/reports/{ids[n]}/"), 10)
    in_turn(lambda n: api.patch(f"/users/{author.pk}/", {"nombre": f"Ann {n}"}), 10)

    shared_consumers.start()

    eventually(
        lambda: Outbox.objects.filter(type="report.deleted").count() == 10,
        "the last writes are applied",
        30,
    )
    eventually(lambda: broker.count("users_queue.0") == 0, "an empty queue")
    versions: dict[str, list[int]] = {}
    for row in Outbox.objects.filter(type__startswith="report.").order_by("id"):
        body = json.loads(bytes(row.body))
        versions.setdefault(body["id_reporte"], []).append(body["version"])
        if row.type == "report.visibility_updated":
            assert body["visibilidad"] == body["version"] - 1
    assert sorted(map(len, versions.values())) == [49] * 10 + [50] * 10
    assert all(found == sorted(found) for found in versions.values())
    assert set(Report.objects.values_list("pk", "visibilidad")) == {
        (id_reporte, 48.0) for id_reporte in ids[10:]
    }
    eventually(
        lambda: User.objects.get().numero_reportes == 20, "each report counts once"
    )
    assert not dead_letters()


def test_writes_are_accepted_while_both_databases_are_away_and_applied_later(
    api: API, broker: Broker, consumers: None, outage: SimpleNamespace
) -> None:
    handle(ANN)
    author = User.objects.get()
    outage.mariadb.kill()
    outage.mongodb.kill()

    assert api.post("/users/", PERSON).status_code == 202
    report = {"id_usuario": author.pk, "tipo_reporte": 1, "descripcion": "Bache"}
    answer = api.post("/reports/", report)
    assert answer.status_code == 202
    path = f"/reports/{answer.json()['id_reporte']}/"
    assert api.patch(path, {"visibilidad": 3}).status_code == 202
    assert api.get("/health/ready").json()["status"] == "degraded"
    operation = api.get(urlsplit(answer.headers["Location"]).path)
    assert (operation.status_code, operation.headers["Retry-After"]) == (503, "5")
    outage.mariadb.start()
    outage.mongodb.start()

    eventually(
        stored(lambda: User.objects.filter(email=PERSON["email"]).exists()), "a row", 20
    )
    eventually(
        stored(lambda: Report.objects.filter(visibilidad=3).exists()), "a document", 20
    )
    author.refresh_from_db()
    assert author.numero_reportes == 1


def test_readiness_is_reported_while_a_database_is_frozen(
    api: API, no_consumers: None, outage: SimpleNamespace
) -> None:
    outage.mariadb.pause()

    for _ in range(3):
        answer = api.get("/health/ready")
        assert answer.elapsed < timedelta(seconds=2)
        assert answer.status_code == 200
        assert answer.json()["degraded"] == ["default"]
    assert api.post("/users/", PERSON).status_code == 202


def test_a_message_without_an_id_is_applied_once_while_mongodb_is_away(
    broker: Broker, consumers: None, outage: SimpleNamespace
) -> None:
    handle(ANN)
    author = User.objects.get()
    handle(creation(author))
    nameless = {
        "event_type": "report.create",
        "id_usuario": author.pk,
        "tipo_reporte": 2,
        "descripcion": "Farola",
    }
    outage.mongodb.kill()

    broker.send(
        "reports_queue", nameless, penalty(creation(author).id_reporte).encode()
    )
    eventually(
        lambda: User.objects.filter(numero_reportes=2).exists(), "a commit in MySQL"
    )
    time.sleep(MORE_TRIES)
    outage.mongodb.start()

    eventually(
        stored(lambda: Report.objects.filter(descripcion="Farola").exists()),
        "the document",
        20,
    )
    eventually(
        lambda: User.objects.filter(calificacion__lt=5).exists(), "the penalty", 20
    )
    eventually(lambda: broker.count("reports_queue.0") == 0, "an empty queue")
    author.refresh_from_db()
    assert author.numero_reportes == 2
    assert author.calificacion == 4.5
    assert Report.objects.count() == 2
    assert not dead_letters()


@pytest.mark.slow
def test_messages_go_back_to_their_queue_while_a_database_is_away_for_long(
    broker: Broker,
    no_consumers: None,
    user: User,
    processes: Processes,
    outage: SimpleNamespace,
) -> None:
    processes.manage("run_consumer", "users")
    held = Lease.objects.exclude(worker="")
    eventually(lambda: held.count() == 2, "the consumer has its leases")
    outage.mariadb.kill()
    bodies = [update(user, f"Ann {number}") for number in range(50)]
    broker.send("users_queue", *bodies[:25])
    broker.send("users_queue.0", *bodies[25:])

    def counts() -> list[int]:
        return [broker.count(name) for name in ("users_queue", "users_queue.0")]

    eventually(lambda: counts() == [0, 0], "all are delivered")
    # The ingress needs no database to forward its messages. What waits is returned when
    # the next attempt fails.
    longest = HOLD + settings.BACKOFF[1]
    eventually(lambda: counts() == [0, 50], "all are returned", longest + 15)
    outage.mariadb.start()

    eventually(stored(lambda: len(names_told()) == 51), "each is applied", 30)
    eventually(lambda: counts() == [0, 0], "empty queues")
    assert not Parked.objects.exists()
    assert not dead_letters()


@pytest.mark.slow
def test_writes_are_refused_in_time_while_the_broker_is_away_and_then_accepted(
    api: API, broker: Broker, consumers: None, outage: SimpleNamespace
) -> None:
    outage.rabbitmq.kill()

    started = time.monotonic()
    answer = api.post("/users/", PERSON)

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert time.monotonic() - started < 10
    assert api.get("/health/ready").status_code == 503
    outage.rabbitmq.start()
    eventually(
        lambda: api.post("/users/", PERSON | {"email": "c@example.com"}).ok,
        "writes are accepted",
        30,
    )
    eventually(lambda: User.objects.filter(email="c@example.com").exists(), "a row", 30)


@pytest.mark.slow
def test_a_disk_alarm_refuses_writes_and_loses_none_of_the_accepted(
    api: API, broker: Broker, consumers: None, outage: SimpleNamespace
) -> None:
    accepted = []

    def write(number: int) -> int:
        email = f"u{number}@example.com"
        answer = api.post("/users/", PERSON | {"email": email})
        if answer.status_code == 202:
            accepted.append(email)
        return answer.status_code

    assert write(0) == 202
    outage.rabbitmq.control("set_disk_free_limit", "900000GB")
    numbers = iter(range(1, 1000))
    eventually(lambda: write(next(numbers)) == 503, "a refusal", 20)
    assert write(next(numbers)) == 503
    problem = api.get("/health/ready").json()["broker"]
    assert "low on disk" in problem
    outage.rabbitmq.control("set_disk_free_limit", "50MB")
    eventually(lambda: write(next(numbers)) == 202, "writes are accepted", 20)

    def applied() -> bool:
        found = set(User.objects.values_list("email", flat=True))
        return found.issuperset(accepted)

    eventually(applied, "all that was accepted is applied")


@pytest.mark.slow
def test_a_frozen_broker_refuses_writes_and_then_goes_on(
    api: API, broker: Broker, consumers: None, outage: SimpleNamespace
) -> None:
    assert api.post("/users/", PERSON).status_code == 202
    outage.rabbitmq.pause()
    assert api.post("/users/", PERSON | {"email": "d@example.com"}).status_code == 503

    outage.rabbitmq.resume()

    eventually(
        lambda: api.post("/users/", PERSON | {"email": "e@example.com"}).ok,
        "writes are accepted",
        30,
    )
    eventually(lambda: User.objects.filter(email="e@example.com").exists(), "a row", 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mariadb", "mongodb"])
def test_a_frozen_database_delays_what_is_applied_once(
    broker: Broker, consumers: None, outage: SimpleNamespace, name: str
) -> None:
    handle(ANN)
    author = User.objects.get()
    server = getattr(outage, name)
    server.pause()
    broker.send(
        "reports_queue",
        creation(author).encode(),
        message_id=str(uuid.uuid4()),
    )
    time.sleep(FROZEN)
    server.resume()

    eventually(stored(Report.objects.exists), "a document", 30)
    eventually(lambda: broker.count("reports_queue.0") == 0, "an empty queue")
    author.refresh_from_db()
    assert author.numero_reportes == 1


def test_a_consumer_whose_database_connection_was_cut_goes_on(
    broker: Broker, consumers: None, outage: SimpleNamespace
) -> None:
    def threads() -> list[int]:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist"
                " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
            return [row[0] for row in cursor.fetchall()]

    handle(ANN)
    broker.send("users_queue", {"event_type": "user.create", **PERSON})
    eventually(lambda: User.objects.count() == 2, "a row")
    assert threads()
    with connections["default"].cursor() as cursor:
        for thread in threads():
            cursor.execute("KILL %s", [thread])

    broker.send(
        "users_queue",
        {"event_type": "user.create", **PERSON, "email": "f@example.com"},
    )

    eventually(lambda: User.objects.count() == 3, "another row")


def test_a_message_outlasts_a_missing_table(broker: Broker, consumers: None) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("RENAME TABLE users_userledger TO mislaid")
    try:
        broker.send("users_queue", {"event_type": "user.create", **PERSON})
        # The server answers, so that after three tries the message is at fault.
        eventually(Parked.objects.exists, "it is tried again later", 20)
        assert not dead_letters()
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("RENAME TABLE mislaid TO users_userledger")

    eventually(User.objects.exists, "a row", 20)
    eventually(lambda: not Parked.objects.exists(), "nothing is parked")
