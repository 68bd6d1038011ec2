"""One definition, three ways in: JSON over HTTP, forms, and the queue agree on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from django.http import QueryDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import APIException, ParseError, ValidationError

from messaging import InvalidMessage, Message
from messaging.message import decode
from messaging.rest_framework.parsers import StrictJSONParser
from messaging.rest_framework.serializers import MessageSerializer
from reports.serializers import (
    ReportCreateSerializer,
    ReportDeleteSerializer,
    ReportVisibilitySerializer,
)
from tests.support.processes import API, Processes, start_api
from users.serializers import (
    UserCreateSerializer,
    UserDeleteSerializer,
    UserUpdateSerializer,
)


@dataclass
class View:
    """What a serializer asks its view for."""

    kwargs: dict[str, str]


@dataclass
class Headers:
    """What a serializer asks the headers of its request for."""

    new_id: str = "7d793037-a076-4c1f-8a3b-2f1d0a5c9e11"


#: What the address says, by serializer.
ADDRESSES: dict[type[MessageSerializer], dict[str, str]] = {
    UserCreateSerializer: {},
    UserUpdateSerializer: {"pk": "1"},
    UserDeleteSerializer: {"pk": "1"},
    ReportCreateSerializer: {},
    ReportVisibilitySerializer: {"pk": "un-reporte"},
    ReportDeleteSerializer: {"pk": "un-reporte"},
}
CLASSES: tuple[type[Message], ...] = tuple(s.Meta.message for s in ADDRESSES)
FIELDS = sorted({field for s in ADDRESSES for field in s.Meta.fields})

texts = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [
            "",
            " ",
            "ana@example.com",
            " ANA@example.com ",
            "a" * 101,
            "a" * 255,
            "b" * 5001,
            "https://example.com/a.png",
            "http://[::1]/",
            "ftp://example.com",
            "1990-01-01",
            "1990-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999-23:59",
            "2024-02-30",
            "1",
            "1.5",
            "1e3",
            "nan",
            "true",
            "\x00",
            "\x1f",
            "\u2028",
            "٣",
        ]
    ),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 5, 1000, 2**31 - 1, 2**31, 2**63 - 1, 2**63]),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "nombre": st.just("Ana"),
    "apellido": st.just("Ruiz"),
    "email": st.just("ana@example.com"),
    "id_usuario": st.integers(1, 2**63 - 1),
    "tipo_reporte": st.integers(0, 2**31 - 1),
    "descripcion": st.text(min_size=1, max_size=50),
    "visibilidad": st.floats(0, 1000) | st.integers(0, 1000),
}
#: Objects that are mostly right, so that the odd value is what decides.
objects = st.fixed_dictionaries(
    {name: st.one_of(strategy, strategy, values) for name, strategy in GOOD.items()},
    optional={name: values for name in [*FIELDS, "otro"] if name not in GOOD},
)
forms = st.dictionaries(st.sampled_from(FIELDS), texts) | st.fixed_dictionaries(
    {name: strategy.map(str) for name, strategy in GOOD.items()},
    optional={name: texts for name in FIELDS if name not in GOOD},
)
serializers = st.sampled_from(list(ADDRESSES))
many = settings(max_examples=150, deadline=None, database=None)


def through_http(serializer: type[MessageSerializer], data: Any) -> Message | None:
    """Give the message that a serializer makes of parsed data; None if it refuses."""
    context = {"view": View(ADDRESSES[serializer]), "headers": Headers()}
    form = serializer(data=data, context=context)
    return form.validated_data if form.is_valid() else None


def parsed(body: bytes) -> Any:
    """Give what the JSON of a request says; raises `APIException`."""
    return StrictJSONParser().parse(BytesIO(body))


def through_queue(body: bytes) -> Message | None:
    """Give the message that a consumer makes of a body; None if it refuses."""
    try:
        return decode(body, CLASSES)
    except InvalidMessage:
        return None


@many
@given(serializers, objects)
def test_json_is_taken_over_http_exactly_if_it_is_taken_from_the_queue(
    serializer: type[MessageSerializer], fields: dict[str, Any]
) -> None:
    mine = {k: v for k, v in fields.items() if k in serializer.Meta.fields}
    address = ADDRESSES[serializer].get("pk")
    event: dict[str, Any] = {
        "event_type": serializer.Meta.message.model_fields["event_type"].default
    }
    if address:
        event |= {"user_id": 1} if address == "1" else {"id_reporte": address}
    try:
        over_http = through_http(serializer, parsed(json.dumps(mine).encode()))
    except APIException:
        over_http = None
    over_queue = through_queue(json.dumps(mine | event).encode())

    assert (over_http is None) == (over_queue is None)
    if over_http and over_queue:
        names = over_queue.model_fields_set
        made = over_http.model_dump(include=names)
        assert made == over_queue.model_dump(include=names)


@many
@given(serializers, objects)
def test_what_http_accepts_arrives_unchanged(
    serializer: type[MessageSerializer], fields: dict[str, Any]
) -> None:
    message = through_http(serializer, fields)

    if message is not None:
        arrived = through_queue(message.encode())
        assert arrived is not None
        assert arrived.model_dump() == message.model_dump()


@many
@given(serializers, forms)
def test_what_a_form_is_accepted_with_arrives_unchanged(
    serializer: type[MessageSerializer], fields: dict[str, str]
) -> None:
    form = QueryDict(mutable=True)
    form.update(fields)
    message = through_http(serializer, form)

    if message is not None:
        arrived = through_queue(message.encode())
        assert arrived is not None
        assert arrived.model_dump() == message.model_dump()


@many
@given(st.one_of(st.binary(max_size=200), values.map(lambda v: json.dumps(v).encode())))
def test_no_body_is_more_than_refused(body: bytes) -> None:
    try:
        data = parsed(body)
    except ParseError:  # which is answered with 400
        data = None
    for serializer in ADDRESSES:
        try:
            through_http(serializer, data)
        except ValidationError as error:
            pytest.fail(f"raised in place of an answer: {error}")
    through_queue(body)


@pytest.fixture(scope="module")
def brokerless_api(declared: object) -> Any:
    """An API that answers 503 to whatever it would have queued."""
    processes = Processes()
    yield start_api(
        processes,
        RABBITMQ_URL="amqp://guest:guest@127.0.0.1:1/",
        CONFIRM_TIMEOUT="0",
    )
    processes.kill_all()


@settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(
        [
            ("POST", "/users/"),
            ("PUT", "/users/1/"),
            ("DELETE", "/users/1/"),
            ("POST", "/reports/"),
            ("PATCH", "/reports/un-reporte/"),
        ]
    ),
    st.one_of(
        objects.map(lambda v: json.dumps(v).encode()),
        values.map(lambda v: json.dumps(v).encode()),
        st.binary(max_size=200),
    ),
)
def test_any_body_is_accepted_or_refused_and_never_an_error(
    brokerless_api: API, endpoint: tuple[str, str], body: bytes
) -> None:
    answer = brokerless_api(
        *endpoint, data=body, headers={"Content-Type": "application/json"}
    )

    # 503 is what acceptance comes to without a broker.
    assert answer.status_code in (400, 503)
    assert answer.headers["Content-Type"] == "application/json"
