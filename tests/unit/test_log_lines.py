"""Log lines have no addresses, secrets or control characters, and do not repeat."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from messaging.envelope import Delivery, Envelope
from messaging.logs import repetition
from messaging.logs.console import ConsoleFormatter
from messaging.logs.context import (
    AddContext,
    Handling,
    fields_of_all,
    rehearsal,
    working_on,
)
from messaging.logs.django_lines import OneLineEach
from messaging.logs.json_lines import JSONFormatter
from messaging.logs.repetition import RepeatingLogger
from messaging.masking import LONGEST, masked

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MESSAGE = Delivery(
    Envelope(b"{}", "", message_id="m", type="t", headers={"traceparent": TRACE}),
    "q",
    tag=1,
    attempts=2,
)
ADDRESSES = [
    "ana@example.com",
    "Ana.Ruiz+x@sub.example.co.uk",
    "ñandú@exámple.com",
    "a@b",
    "_@-",
    '"ana ruiz"@example.com',
    "ana%b@example.com",
    "ana@[192.0.2.1]",
    "x" * 64 + "@example.com",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "to {}.",
        "<{}>",
        "'{}'",
        "email:{}",
        "user=({},)",
        "mailto:{}?subject=x",
        "{{'{}': (550, b'no')}}",
        'File "x.py", line 1\n    mail("{}")\n',
        "Duplicate entry '{}' for key 'users.email'",
        "Duplicate entry '{}-x' for key 'users.email'\")",
        "DETAIL:  Key (email)=({}) already exists.",
        "Failing row contains (1, Ana, {}, null).",
        'dup key: {{ email: "{}" }}',
        "'op': {{'descripcion': 'Ana', '_id': '{}'}}",
        "input_value={{'email': '{}'}}, input_type=dict]",
    ],
)
@pytest.mark.parametrize("write", [str, quote, lambda a: quote(quote(a)), repr])
def test_addresses_are_masked(line: str, address: str, write: Any) -> None:
    written = write(address)
    local = written.rpartition("@" if "@" in written else "%40")[0].rpartition('"')[2]

    text = masked(line.format(written), lines=True)

    assert written not in text
    assert len(local) < 3 or local not in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("3 messages of users_queue.0 are settled", None),
        ("@handles(UserCreate, batch=True)", None),
        ("a @ b", None),
        (
            "Duplicate entry 'Ruiz' for key 'name'",
            "Duplicate entry '[hidden]' for key 'name'",
        ),
        ("amqp://ana:s3cret@broker:5672/x", "amqp://broker:5672/x"),
        ("mongodb://u:p%40ss@a:1,b:2/x?y=1", "mongodb://a:1,b:2/x?y=1"),
        ("mysql://u:a@b@host/x", "mysql://host/x"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.x-_1", "Bearer [hidden]"),
        ("a\x1b[2Jb\rc\nd\x85e\u2028f\u202eg\ud800h", None),
        ("a\tb\0", "a\\tb\\u0000"),
    ],
)
def test_other_text_stays_except_for_secrets(given: str, shown: str | None) -> None:
    text = masked(given)

    assert text.isprintable()
    if given.isprintable():
        assert text == (shown or given)
    text.encode()  # no lone surrogate


def test_passwords_and_the_secret_key_are_hidden(settings: Any) -> None:
    settings.SECRET_KEY = "a-key-of-this-test"
    settings.MESSAGING = settings.MESSAGING | {"URL": "amqp://ana:correct%20horse@h/"}

    text = masked("a-key-of-this-test, correct%20horse or correct horse")

    assert text == "[hidden], [hidden] or [hidden]"


@pytest.mark.parametrize(
    "piece", ["a", "@", "a@", "Duplicate entry '", "Key (", "%40", "'", "://", "eyJ-."]
)
def test_a_hostile_text_takes_no_time(piece: str) -> None:
    started = time.process_time()
    text = masked(piece * (2 * LONGEST // len(piece)))

    assert time.process_time() - started < 1
    assert len(text) <= LONGEST + len(" ... ")


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """The records of the logger `lines`, as a handler of a project gets them."""
    found: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Handler()
    handler.addFilter(AddContext())
    handler.addFilter(OneLineEach())
    logger = logging.getLogger("lines")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    repetition.repetitions.forget()
    yield found
    logger.removeHandler(handler)


def test_a_line_has_the_fields_of_what_is_worked_on(lines: Any) -> None:
    logger = logging.getLogger("lines")
    with working_on(Handling([MESSAGE])):
        logger.info("one", extra={"attempt": 7, "request": object()})
    with working_on(Handling([MESSAGE, MESSAGE])):
        logger.info("two")
    with working_on(Handling([MESSAGE])), rehearsal():
        logger.info("none")
    logger.info("three")

    one, two, three = (json.loads(JSONFormatter().format(line)) for line in lines)
    assert one.pop("duration") >= 0
    assert one.pop("time") <= two.pop("time")
    assert one == {
        "level": "INFO",
        "logger": "lines",
        "message": "one",
        "message_id": "m",
        "correlation_id": "m",
        "event_type": "t",
        "queue": "q",
        "attempt": 7,  # its own
        "trace_id": TRACE.split("-")[1],
    }
    assert (two["queue"], two["messages"]) == ("q", 2)
    assert "message_id" not in two
    assert three.keys() == {"time", "level", "logger", "message"}
    assert fields_of_all([]) == {"messages": 0}


def test_the_formats_hold_whatever_a_line_has(lines: Any) -> None:
    odd = {
        "bytes": b"ana@example.com\xff",
        "list": ["ana@example.com", {"ana@example.com": {1}}],
        "number": 1.5,
        "endless": float("inf"),
        "none": None,
        "error": ValueError("ana@example.com"),
        "text": "a\nb=c",
    }
    try:
        raise LookupError("ana@example.com\n2026-01-01T00:00:00.000Z INFO forged: x")
    except LookupError:
        logging.getLogger("lines").exception("%s", "a\nb", extra=odd)

    (record,) = lines
    made = json.loads(JSONFormatter().format(record))
    text = ConsoleFormatter().format(record)
    assert made["list"] == ["[address]", {"[address]": [1]}]
    assert (made["number"], made["endless"], made["none"]) == (1.5, "inf", None)
    assert made["traceback"].startswith("Traceback (most recent call last):\n")
    assert "ana" not in json.dumps(made)
    assert "ana" not in text
    first, *rest = text.split("\n")
    assert "ERROR    lines: a\\nb bytes=[address]" in first
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize(
    ("logger", "status", "has_traceback", "kept"),
    [
        ("django.request", 404, False, []),
        ("django.request", 400, False, []),
        ("django.request", 503, False, []),
        ("django.request", 500, False, [False]),
        ("django.request", 500, True, [True]),
        ("django.security.DisallowedHost", 400, True, [False]),
        ("django.security.csrf", 403, False, [False]),
        ("messaging", None, True, [True]),
    ],
)
def test_what_django_logs_about_a_request_is_one_line(
    logger: str, status: int, has_traceback: bool, kept: list[bool]
) -> None:
    record = logging.makeLogRecord({"name": logger})
    if status:
        record.status_code = status
    if has_traceback:
        record.exc_info = (ValueError, ValueError("x"), None)

    found = [bool(record.exc_info)] if OneLineEach().filter(record) else []
    assert found == kept


def test_a_line_that_repeats_is_written_once_a_minute_with_a_count(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = RepeatingLogger("lines")
    for number in range(5):
        logger.warning("%s is away: %d", "it", number, about="it")
        logger.warning("%s is away: %d", "other", number, about="other")
        logger.error("%s is back", "it")
    assert [one.getMessage() for one in lines] == [
        "it is away: 0",
        "other is away: 0",
        "it is back",
    ]

    monkeypatch.setattr(repetition, "PAUSE", -1.0)  # the minute is over
    logger.warning("%s is away: %d", "it", 5, about="it", exc_info=True)
    message = lines[-1].getMessage()
    assert message.startswith("it is away: 5 (4 more times since ")
    assert message.endswith(" UTC)")
    assert (lines[-1].funcName, lines[-1].module) == (
        sys._getframe().f_code.co_name,
        __name__.rpartition(".")[2],
    )

    logger.warning("%s is away: %d", "it", 6, about="it")
    assert lines[-1].getMessage() == "it is away: 6"


def test_what_repeats_takes_no_memory_without_end() -> None:
    logger = RepeatingLogger("lines")
    for number in range(3 * repetition.MOST):
        logger.error("%d", number, about=number)

    assert len(repetition.repetitions._lines) <= repetition.MOST
