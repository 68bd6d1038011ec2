"""The front serves the viewsets of any project as Django does, or leaves them to it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler

from messaging.rest_framework.bridge import Body, Bridge, environ_of
from messaging.rest_framework.front import Front
from tests.support.asgi import Answer, Application, ask
from tests.support.broker import Broker
from tests.support.odd_viewsets import QUEUE, Counting

OPERATION = re.compile(r"[0-9a-f]{32}\.[\w.-]+")
TEXT = {"text": "Hola"}

Headers = dict[str, str]
ANA, EVE = {"x_client": "ana"}, {"x_client": "eve"}
#: For clients that a viewset may treat differently.
CLIENTS = (ANA, EVE, ANA)


class Recorder:
    """Django, which counts the requests that reach it."""

    def __init__(self) -> None:
        self.count = 0
        self._django = WSGIHandler()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.count += 1
        return self._django(environ, start_response)


class Result(NamedTuple):
    """What requests led to."""

    answers: list[tuple[int, dict[str, str], bytes]]
    messages: list[Any]
    counted: list[str]


def django_alone() -> Application:
    """Return Django without the front."""
    bridge = Bridge(WSGIHandler(), 4)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        with Body(receive, asyncio.get_running_loop()) as body:
            await bridge(environ_of(scope), body, send)

    return application


@pytest.fixture
def notes(broker: Broker, settings: Any) -> Iterator[Any]:
    """A channel to the queue of another project, whose URLs are in force."""
    settings.ROOT_URLCONF = "tests.support.odd_viewsets"
    settings.ALLOWED_HOSTS = ["*"]
    with broker.channel() as channel:
        channel.queue_declare(QUEUE, durable=True)
        yield channel
        channel.queue_delete(QUEUE)


def results(application: Any, notes: Any, *requests: tuple[str, Headers]) -> Result:
    """Send requests one after the other; return what they led to."""
    cache.clear()
    Counting.counted.clear()

    async def main() -> list[Answer]:
        answers = [await ask(application, line, TEXT, **h) for line, h in requests]
        if isinstance(application, Front):
            await application.end()
        return answers

    answers = [
        (
            one.status,
            {
                name: OPERATION.sub("", value)
                for name, value in one.headers.items()
                if name.lower() != "x-request-id"
            },
            one.body,
        )
        for one in asyncio.run(main())
    ]
    messages = []
    while (got := notes.basic_get(QUEUE, auto_ack=True))[0]:
        headers = sorted(got[1].headers.items())
        messages.append((json.loads(got[2]), headers))
    return Result(answers, messages, list(Counting.counted))


@pytest.mark.parametrize(
    ("line", "by_django"),
    [
        ("POST /notes/", False),
        ("POST /marking/", False),
        ("POST /marked/", False),
        ("POST /in-sessions/", False),
        ("POST /given/", False),
        ("PUT /books/1/notes/2/", False),
        ("PUT /notes/%2541/", False),
        ("PUT /notes/a%20b/", False),
        # What is not ASCII is decoded in more than one way.
        ("PUT /notes/%C3%A1/", True),
        ("PUT /notes/%E1/", True),
        ("POST /finalizing/", True),
        ("POST /headers/", True),
        ("POST /locating/", True),
        ("POST /negotiating/", True),
        ("POST /rendering/", True),
        ("POST /by-client/", True),
        ("POST /by-property/", True),
        ("POST /asking/", True),
        ("POST /creating/", True),
        ("POST /v1/notes/", True),
        ("POST /v2/1/", True),
        ("POST /login/", True),
        ("POST /never-cached/", True),
        ("POST /guarded/", True),
        ("PUT /groups/one/", True),
        ("POST /suffix/json/", True),
        ("POST /capitals/", True),
        ("POST /read-only/", True),
    ],
)
def test_clients_get_the_same_answers_of_each_viewset(
    line: str, by_django: bool, notes: Any
) -> None:
    requests = [(line, client) for client in CLIENTS]
    django = Recorder()

    found = results(Front(django), notes, *requests)

    assert found == results(django_alone(), notes, *requests)
    assert django.count == (len(requests) if by_django else 0)


@pytest.mark.parametrize(
    "requests",
    [
        # One viewset in several places.
        [("POST /plain/", {}), ("POST /capitals/", {}), ("POST /read-only/", {})],
        [("POST /plain/", {}), ("POST /v2/1/", {}), ("POST /plain/", {})],
        [("POST /plain/", {}), ("POST /marked/", {}), ("POST /both/", {})],
        # Permissions that differ between clients, and that change the request.
        [("POST /permitted/", client) for client in CLIENTS],
        [("PUT /changed/a/", {})] * 3,
        # More requests than the limits allow.
        [("POST /throttled/", ANA)] * 5,
        # A header that is empty is not one that is missing.
        [("POST /plain/", {}), ("POST /plain/", {"accept": ""})],
        [("POST /plain/", {"host": "a.example"}), ("POST /plain/", {"host": ""})],
        [("POST /plain/", {"host": "-operation-.example"})],
        [("POST /plain/", {"x_forwarded_host": "b.example"}), ("POST /plain/", {})],
    ],
)
def test_one_request_changes_nothing_for_the_next(
    requests: list[tuple[str, Headers]], notes: Any
) -> None:
    found = results(Front(WSGIHandler()), notes, *requests)

    assert found == results(django_alone(), notes, *requests)


def test_paths_that_need_no_tls_do_not_free_others_of_it(
    notes: Any, settings: Any
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = [r"^notes/free/$", r"^without-tls/$"]
    requests: list[tuple[str, Headers]] = [
        ("PUT /notes/free/", {}),
        ("PUT /notes/other/", {}),
        ("POST /without-tls/", {}),
        ("POST /plain/", {}),
    ]

    found = results(Front(WSGIHandler()), notes, *requests)

    assert [status for status, *_ in found.answers] == [202, 301, 202, 301]
    assert found == results(django_alone(), notes, *requests)


def test_a_client_that_is_not_allowed_is_refused_after_others(
    notes: Any, settings: Any
) -> None:
    settings.DISALLOWED_USER_AGENTS = [re.compile("Robot")]
    requests = [("POST /plain/", {"user_agent": name}) for name in ("A", "Robot", "A")]

    found = results(Front(WSGIHandler()), notes, *requests)

    assert [status for status, *_ in found.answers] == [202, 403, 202]


def test_settings_that_a_test_overrides_take_effect(notes: Any, settings: Any) -> None:
    front = Front(WSGIHandler())

    async def statuses() -> list[int]:
        found = []
        for hosts in (["localhost"], [], ["localhost"]):
            settings.ALLOWED_HOSTS = hosts
            settings.DEBUG = False
            found.append((await ask(front, "POST /plain/", TEXT)).status)
        settings.ROOT_URLCONF = "project.urls"
        found.append((await ask(front, "POST /plain/", TEXT)).status)
        await front.end()
        return found

    assert asyncio.run(statuses()) == [202, 400, 202, 404]


def test_clients_cannot_fill_the_memory_with_hosts_and_kinds_of_answers(
    notes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.rest_framework.samples.MOST_SAMPLES", 3)
    front = Front(WSGIHandler())
    requests = [
        ("POST /plain/", {"host": f"h{i % 5}.example", "accept": f"*/*; q=0.{i % 7}"})
        for i in range(20)
    ]
    requests.append(("POST /plain/", {"accept": "*/*" + " " * 1000}))

    found = results(front, notes, *requests)

    assert found == results(django_alone(), notes, *requests)
    assert len(front._samples._known) <= 3


def test_a_front_serves_several_event_loops(notes: Any) -> None:
    front = Front(WSGIHandler())

    async def create() -> int:
        answer = await ask(front, "POST /notes/", TEXT)
        await front.end()
        return answer.status

    assert [asyncio.run(create()) for _ in range(3)] == [202] * 3
