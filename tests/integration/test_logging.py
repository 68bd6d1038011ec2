"""In production each event leaves one line, with ids and without personal data."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import requests
from django.contrib.auth.models import User as Account

from messaging.models import DeadLetter
from messaging.operations import message_of
from tests.support.broker import Broker, virtual_host
from tests.support.log_lines import (
    ADDRESS,
    ADDRESSES,
    BODY,
    OTHERS,
    PLAIN,
    SITE,
    Log,
    is_clean,
    token,
)
from tests.support.processes import API, Processes, SharedConsumers, start_api
from tests.support.traced import PARENT
from tests.support.waiting import eventually


class Site(NamedTuple):
    """The project in production, and its logs."""

    api: API
    broker: Broker
    #: Of the API, and of the consumers.
    front: Log
    back: Log


@pytest.fixture(scope="module")
def running(
    declared: Broker,
    shared_consumers: SharedConsumers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The API and all consumers, in a virtual host of their own."""
    shared_consumers.stop()  # they would share the leases
    folder = tmp_path_factory.mktemp("logs")
    url = virtual_host("logging")
    api, consumers = Processes(folder / "front.log"), Processes(folder / "back.log")
    for one in (api, consumers):
        one.environment |= SITE | {"RABBITMQ_URL": url}
    consumers.output("topology", "apply")
    with Broker(url).channel() as channel:
        channel.queue_declare("logged_heard", durable=True)
    consumers.manage("run_consumer", "users", "logged", "logged_events")
    consumers.manage("relay_outbox")
    consumers.manage("serve", "logged_echo")
    yield Site(
        start_api(api), Broker(url), Log(folder / "front.log"), Log(folder / "back.log")
    )
    api.kill_all()
    consumers.kill_all()


@pytest.fixture
def site(broker: Broker, running: Site) -> Site:
    """The project, with empty databases, and what it logs from now on."""
    running.api.session = requests.Session()
    running.front.skip()
    running.back.skip()
    return running


def test_a_view_that_fails_leaves_its_traceback_and_the_id_of_its_answer(
    site: Site,
) -> None:
    answer = site.api.get(f"/broken/{quote(ADDRESS)}/?other={quote(OTHERS[0])}")

    line = site.front.one()
    assert answer.status_code == 500
    assert answer.json() == {
        "code": "error",
        "detail": "Error interno. El fallo ha quedado registrado.",
    }
    assert (line["level"], line["logger"]) == ("ERROR", "django.request")
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert "LookupError: No mailbox [address]" in line["traceback"]
    assert "in broken" in line["traceback"]
    assert (line["method"], line["status_code"]) == ("GET", 500)
    assert line["duration"] > 0
    assert line["time"].endswith("Z")
    assert is_clean(site.front)


def test_the_id_of_a_request_comes_from_a_proxy_if_it_is_one(site: Site) -> None:
    path = "/broken/x/?other=y"
    ids = ["3f2c-1.a_b", "", "ana@example.com", "x" * 65, "a\tb", "ñ"]
    for one in ids:
        headers = {"X-Request-ID": one.encode().decode("latin-1")}
        site.api.get(path, headers=headers)

    found = [line["request_id"] for line in site.front.new()]
    assert found[0] == ids[0]
    assert all(uuid.UUID(one) for one in found[1:])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_foreign_host_leaves_one_line_without_a_traceback(
    site: Site, method: str
) -> None:
    host = f"{method}.evil\x85.example"  # the first of its name

    for _ in range(2):
        site.front.skip()
        answer = site.api(
            method, "/users/", json=BODY, headers={"Host": host} | token()
        )

        line = site.front.one()
        assert answer.status_code == 400
        assert line["logger"] == "django.security.DisallowedHost"
        assert f"{method}.evil\\u0085.example" in line["message"]
        assert "traceback" not in line
        assert line["request_id"]


def test_each_wrong_password_leaves_one_line(site: Site) -> None:
    Account.objects.create_superuser(PLAIN, password="una contraseña larga")
    api = site.api
    form = api.get("/admin/login/")
    forged = {
        "csrfmiddlewaretoken": form.cookies["csrftoken"],
        "username": PLAIN,
        "password": "falsa",
    }

    for _ in range(2):
        given = {"username": PLAIN, "password": "falsa"}
        assert api.post("/token/", given).status_code == 401
    assert api("POST", "/admin/login/", data=forged).status_code == 200

    eventually(lambda: len(site.front.new()) >= 3, "three lines")
    lines = site.front.new()
    assert [(one["level"], one["message"]) for one in lines] == [
        ("WARNING", "A login failed")
    ] * 3
    assert [one["path"] for one in lines] == ["/token/"] * 2 + ["/admin/login/"]
    assert "falsa" not in site.front.text
    assert is_clean(site.front)


@pytest.mark.parametrize("way", ["POST /users/", "GET /users/", "PATCH /users/1/"])
def test_a_forged_token_leaves_one_line(site: Site, way: str) -> None:
    method, path = way.split()
    forged = token()["Authorization"][:-3] + "abc"
    answer = site.api(method, path, json=BODY, headers={"Authorization": forged})

    line = site.front.one()
    assert answer.status_code == 401
    assert line["level"] == "WARNING"
    assert line["message"].startswith("A token was refused: InvalidToken: ")
    assert line["path"] == path
    assert forged.split()[1] not in site.front.text


def test_a_request_without_a_token_is_no_event(site: Site) -> None:
    assert site.api.post("/users/", BODY).status_code == 401
    assert site.api.get("/nada/").status_code == 404
    assert site.api.post("/users/", {}, headers=token()).status_code == 400

    assert site.front.new() == []


def test_a_dead_lettered_message_leaves_one_line_with_its_ids(site: Site) -> None:
    answers = [site.api.post("/users/", BODY, headers=token()) for _ in range(2)]

    line = site.back.one()
    operation = answers[1].headers["Location"].split("/")[-2]
    assert (line["level"], line.get("message_id")) == (
        "ERROR",
        message_of(operation),
    ), line
    assert line["message"] == (
        f"Message {message_of(operation)} of users_queue is a dead letter (rejected): "
        "Ya existe un usuario con ese e-mail."
    )
    assert line["correlation_id"] == message_of(operation)
    assert line["event_type"] == "user.create"
    assert (line["queue"], line["attempt"]) == ("users_queue", 1)
    assert "traceback" not in line
    outcome = site.api.get(f"/operations/{operation}/")
    assert outcome.json()["status"] == "failed"
    assert outcome.headers["X-Correlation-ID"] == line["correlation_id"]
    assert DeadLetter.objects.get().message_id == line["message_id"]
    assert is_clean(site.back)


@pytest.mark.parametrize(
    ("way", "text", "exception"),
    [
        ("raise", "No mailbox [address]", "LookupError"),
        ("duplicate", "Duplicate entry '[hidden]' for key", "IntegrityError"),
        ("secrets", "[hidden] amqp://127.0.0.1:", "LookupError"),
    ],
)
def test_a_failing_handler_leaves_a_line_for_each_attempt(
    site: Site, way: str, text: str, exception: str
) -> None:
    for address in ADDRESSES[: 1 if way == "duplicate" else None]:
        site.back.skip()
        body = {"event_type": "logged.fail", "way": way, "address": address}
        mine = str(uuid.uuid4())
        site.broker.send("logged_queue", body, message_id=mine)

        first, last = site.back.failures(mine)
        assert first["message"].startswith(f"Attempt 1 of message {mine} failed")
        assert (first["attempt"], last["attempt"]) == (1, 2)
        assert (first["level"], last["level"]) == ("WARNING", "ERROR")
        assert "is a dead letter (exhausted)" in last["message"]
        for line in (first, last):
            assert text in line["message"]
            assert f"{exception}: " in line["traceback"]
            assert "in fail" in line["traceback"]
            assert line["queue"] == "logged_queue"
    assert is_clean(site.back)


def test_what_cannot_be_decoded_leaves_one_line(site: Site) -> None:
    site.broker.send("logged_queue", f'{{"{PLAIN}": "\x1b[2J'.encode(), type="a\nb")

    line = site.back.one()
    assert line["level"] == "ERROR"
    assert line["event_type"] in ("a\nb", "")
    assert "\x1b" not in site.back.text
    assert is_clean(site.back)


def test_the_lines_of_a_chain_of_messages_share_correlation_id_and_trace(
    site: Site,
) -> None:
    mine, headers = str(uuid.uuid4()), {"traceparent": PARENT}
    body = {"event_type": "logged.fail", "way": "work", "address": ADDRESS}
    site.broker.send("logged_queue", body, message_id=mine, headers=headers)

    def own() -> list[dict[str, Any]]:
        return [one for one in site.back.new() if one["logger"] == "project.logged"]

    first, second, third = eventually(lambda: len(own()) > 2 and own(), "a chain", 20)
    assert first["message"] == "Nobody is at [address]"
    assert first["message_id"] == first["correlation_id"] == mine
    assert second["message"] == "Nobody was at [address]"
    assert second["queue"] == "logged_events_queue"
    assert second["message_id"] != mine
    assert second["correlation_id"] == mine
    assert third["message"] == "Calling for [address]"
    assert (third["event_type"], third["correlation_id"]) == ("call", mine)
    assert {one["trace_id"] for one in (first, second, third)} == {PARENT.split("-")[1]}
    properties, _ = site.broker.take("logged_heard")
    assert properties.headers == headers | {"correlation-id": mine}
    assert is_clean(site.back)
