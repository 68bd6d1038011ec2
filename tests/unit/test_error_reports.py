"""Django's page and mail about an error show no secret, wherever it stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as project_settings
from django.core import mail
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from django.utils.log import AdminEmailHandler

#: Every one of them is a secret.
SECRETS = {
    "mongodb": "m0ngo-secret",
    "broker": "br0ker-secret",
    "mysql": "mysq1-secret",
    "smtp": "smtp-s3cret",
    "key": "k3y-secret-" * 5,
    "short": "pw4",
    "bearer": "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
    "cookie": "c00kie-secret",
    "form": "f0rm-secret",
    "json": "js0n-secret",
    "query": "qu3ry-secret",
    "header": "h3ader-secret",
}


class Connection:
    """An object that shows its address."""

    def __repr__(self) -> str:
        return f"<Connection amqp://me:{SECRETS['short']}@mq.example.com/>"


def failing(request: HttpRequest) -> HttpResponse:
    """Fail with secrets in variables, in the text and in the text of the cause."""
    url = f"mongodb://me:{SECRETS['mongodb']}@db.example.com/reports"
    found = [Connection(), {"nested": [{"passwd": SECRETS["short"], "url": url}]}]
    parameters = {"host": "h", "password": SECRETS["short"]}
    long = f"{'x ' * 1995}amqp://me:{SECRETS['short']}{'y' * 5000}@mq.example.com/"
    body = request.body
    token = SECRETS["bearer"]
    text = f"{url} {token} {len(found)} {len(parameters)} {len(long)} {len(body)}"
    try:
        raise ValueError(f"cause {text} password={SECRETS['query']}")
    except ValueError as cause:
        error = RuntimeError(f"error {text}")
        error.add_note(f"note {url}")
        raise error from cause


urlpatterns = [path("fail/", failing)]


@pytest.fixture
def _project(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with secrets, and an address that fails."""
    settings.ROOT_URLCONF, settings.MIDDLEWARE = __name__, []
    settings.SECRET_KEY = SECRETS["key"]
    settings.MONGODB_URL = f"mongodb://me:{SECRETS['mongodb']}@db.example.com/reports"
    settings.MESSAGING = {"URL": f"amqp://me:{SECRETS['broker']}@mq.example.com/"}
    settings.OF_MESSAGING = settings.MESSAGING
    settings.EMAIL_HOST_PASSWORD = SECRETS["smtp"]
    settings.EMAIL_URL = f"smtp://me:{SECRETS['smtp']}@mail.example.com"
    databases = settings.DATABASES
    monkeypatch.setitem(databases["default"], "PASSWORD", SECRETS["mysql"])
    monkeypatch.setitem(databases["reports"], "HOST", settings.MONGODB_URL)


@pytest.fixture
def as_page(_project: None, settings: Any) -> Callable[..., str]:
    """Return a function that sends a request, and returns the page about the error."""
    settings.DEBUG = True

    def report(accept: str = "text/html", **request: Any) -> str:
        answer = send(accept, **request)
        assert answer.status_code == 500
        return unescape(answer.content.decode())

    return report


@pytest.fixture
def as_mail(_project: None, settings: Any) -> Iterator[Callable[..., str]]:
    """Return a function that sends a request, and returns the mail about the error."""
    settings.ADMINS = [("", "ops@example.com")]
    handler, logger = AdminEmailHandler(include_html=True), logging.getLogger("django")
    logger.addHandler(handler)

    def report(accept: str = "text/html", **request: Any) -> str:
        send(accept, **request)
        (sent,) = mail.outbox
        pages = [str(content) for content, _ in sent.alternatives]
        return unescape("\n".join([sent.subject, sent.body, *pages]))

    yield report
    logger.removeHandler(handler)


def send(accept: str, **request: Any) -> Any:
    """Send a request with secrets in its parts."""
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = client.cookies["other"] = SECRETS["cookie"]
    query = f"?access_token={SECRETS['query']}&q=amqp://me:{SECRETS['short']}@h/"
    headers = {
        "Accept": accept,
        "Authorization": f"Bearer {SECRETS['bearer']}",
        "X-Api-Key": SECRETS["header"],
        "Proxy-Authorization": f"Basic {SECRETS['header']}",
        "Referer": f"https://example.com/?token={SECRETS['query']}",
    }
    return client.post(f"/fail/{query}", headers=headers, **request)


@pytest.fixture(params=["as_page", "as_mail"])
def report(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Return the function of one of the two reports."""
    found: Callable[..., str] = request.getfixturevalue(request.param)
    return found


FORM = {"data": {"nombre": SECRETS["form"], "password": SECRETS["form"]}}
JSON = {"data": {"nombre": SECRETS["json"]}, "content_type": "application/json"}


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
@pytest.mark.parametrize("request_", [FORM, JSON], ids=["form", "JSON"])
def test_no_secret_is_in_a_report(
    report: Callable[..., str], request_: dict[str, Any], accept: str
) -> None:
    text = report(accept, **request_)

    assert "RuntimeError" in text
    assert "db.example.com" in text  # what helps is still there
    assert "tests/unit/test_error_reports.py" in text
    found = {name for name, secret in SECRETS.items() if secret in text}
    assert found - {"short"} == set()
    # The source code in the page has the word.
    assert f":{SECRETS['short']}" not in text
    assert f"'{SECRETS['short']}'" not in text


def test_the_settings_of_the_project_hide_every_secret(
    as_page: Callable[..., str],
) -> None:
    text = as_page()

    for name in ("MONGODB_URL", "MESSAGING", "DATABASES", "SECRET_KEY"):
        assert name in text
    assert "mongodb://db.example.com/reports" in text
    assert "amqp://mq.example.com/" in text


def test_what_cannot_be_shown_does_not_hide_the_error(
    as_page: Callable[..., str], settings: Any
) -> None:
    settings.ODD = SimpleNamespace(broken=Broken())
    settings.BROKEN = Broken()

    assert "RuntimeError" in as_page()


class Broken:
    """An object without a representation."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_the_reports_are_those_of_the_project() -> None:
    assert project_settings.DEFAULT_EXCEPTION_REPORTER == "project.error_reports.Report"
