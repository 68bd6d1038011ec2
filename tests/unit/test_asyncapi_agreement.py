"""The schemas of the AsyncAPI document and the decoder accept the same bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from messaging import InvalidMessage, Message
from messaging.asyncapi.document import document
from messaging.message import decode
from messaging.registry import handlers, messages_of
from tests.support.request_bodies import objects

QUEUES = ("users_queue", "reports_queue")
SCHEMAS: dict[str, dict[str, Any]] = {
    name: message["payload"]
    for queue in QUEUES
    for name, message in document()["channels"][queue]["messages"].items()
}
VALIDATORS = {name: Draft7Validator(schema) for name, schema in SCHEMAS.items()}
#: What the document says that a schema does not: e-mail addresses, URLs, times that do
#: not exist or are in the future, and what depends on several fields.
EXCEPTIONS = {"email", "url_foto_perfil", "fecha_nacimiento", "fecha_creacion", ""}

#: The pattern of texts without NUL, which has none of its own.
NO_NUL = r"^[^\x00]*\Z"

types = st.sampled_from(sorted(SCHEMAS))
many = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def decoded(body: dict[str, Any]) -> Message:
    """Return the message that a consumer makes of a body; raises `InvalidMessage`."""
    (queue,) = (q for q in QUEUES if body["event_type"] in handlers[q])
    return decode(json.dumps(body).encode(), messages_of(queue))


def problems(body: dict[str, Any]) -> set[str]:
    """Return the fields that the decoder refuses, of those that schemas describe."""
    try:
        decoded(body)
    except InvalidMessage as error:
        return error.errors.keys() - EXCEPTIONS
    return set()


def is_described(body: dict[str, Any]) -> bool:
    """Return whether a body matches the schema of its type."""
    return VALIDATORS[body["event_type"]].is_valid(body)


def described(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return the values that a schema of this project describes."""
    if "anyOf" in schema:
        return st.one_of(map(described, schema["anyOf"]))
    if "const" in schema:
        return st.just(schema["const"])
    low, high = schema.get("minimum"), schema.get("maximum")
    match schema["type"]:
        case "string":
            return texts(schema)
        case "integer":
            return st.integers(low, high)
        case "number":
            return st.floats(low, high) | st.integers(low, high)
        case "boolean":
            return st.booleans()
        case "object":
            needed = schema["required"]
            fields = {n: described(one) for n, one in schema["properties"].items()}
            optional = {n: one for n, one in fields.items() if n not in needed}
            return st.fixed_dictionaries(
                {n: fields[n] for n in needed}, optional=optional
            )
    return st.none()


def texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Return the texts that a schema describes."""
    # In Python, unlike JavaScript, `$` matches before a last line feed as well.
    pattern = schema.get("pattern", "").replace("$", r"\Z")
    length = {
        "min_size": schema.get("minLength", 0),
        "max_size": schema.get("maxLength"),
    }
    found = st.from_regex(pattern) if pattern else st.nothing()
    if "format" in schema:
        found |= st.sampled_from(["ana@example.com", "https://example.com/a.png"])
    if pattern in ("", NO_NUL):
        found |= st.text(**length) | st.text(" \u0085\u2003a", **length)
    return found.filter(Draft7Validator(schema).is_valid)


@many
@given(types.flatmap(lambda event_type: described(SCHEMAS[event_type])))
def test_what_a_schema_describes_is_accepted(body: dict[str, Any]) -> None:
    assert is_described(body)
    assert problems(body) == set()


@many
@given(types, objects)
def test_any_body_is_described_if_and_only_if_it_is_accepted(
    event_type: str, fields: dict[str, Any]
) -> None:
    body = {"user_id": 1, "id_reporte": "a"} | fields | {"event_type": event_type}

    try:
        message = decoded(body)
    except InvalidMessage as error:
        if error.errors.keys() - EXCEPTIONS:
            assert not is_described(body)
    else:
        # Texts are trimmed, and times in UTC.
        assert is_described(json.loads(message.encode()))


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        # Absent, null, and unknown.
        ({}, True),
        ({"biografia": None}, True),
        ({"telefono": 1}, True),
        # Numbers are no texts, and texts no numbers.
        ({"nombre": 1}, False),
        ({"numero_reportes": "1"}, False),
        ({"numero_reportes": True}, False),
        ({"calificacion": 4}, True),
        ({"calificacion": "4.5"}, False),
        ({"calificacion": 5.1}, False),
        # Nothing but spaces.
        ({"nombre": " \u2003\u0085"}, False),
        ({"nombre": "\x00"}, False),
        ({"nombre": "a" * 100}, True),
        ({"nombre": "a" * 101}, False),
        # Times.
        ({"fecha_creacion": "1990-01-01"}, True),
        ({"fecha_creacion": "1990-01-01T00:00:00"}, True),
        ({"fecha_creacion": "1990-01-01 00:00:00.5+02:00"}, True),
        ({"fecha_creacion": "1990-13-01T00:00:00"}, False),
        ({"fecha_creacion": "0999-01-01T00:00:00"}, False),
        ({"fecha_creacion": 0}, False),
    ],
)
def test_schema_and_decoder_agree(changes: dict[str, Any], accepted: bool) -> None:
    required = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
    body = {"event_type": "user.create", **required, **changes}

    assert is_described(body) is accepted
    try:
        decoded(body)
    except InvalidMessage:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        # No address, although it looks like one to most validators.
        ({"email": "ana@example"}, "email"),
        ({"url_foto_perfil": "ftp://example.com"}, "url_foto_perfil"),
        # A day that does not exist, and one that has not come.
        ({"fecha_nacimiento": "1990-02-30"}, "fecha_nacimiento"),
        ({"fecha_nacimiento": "9000-01-01"}, "fecha_nacimiento"),
        # JSON schema takes it for an integer.
        ({"numero_reportes": 1.0}, "numero_reportes"),
        # Nothing to change.
        ({"event_type": "user.update", "nombre": None}, ""),
    ],
)
def test_less_is_accepted_than_a_schema_describes(
    changes: dict[str, Any], field: str
) -> None:
    required = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
    if "event_type" in changes:
        required = {}
    body = {"event_type": "user.create", "user_id": 1, **required, **changes}

    assert is_described(body)
    with pytest.raises(InvalidMessage) as refused:
        decoded(body)
    assert list(refused.value.errors) == [field]


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        # Longer than the schema says, but not once it is trimmed.
        ({"nombre": " " * 100 + "Ana"}, False),
        # Another form of ISO 8601.
        ({"fecha_creacion": "19900101T000000Z"}, False),
    ],
)
def test_more_is_accepted_than_a_schema_describes(
    changes: dict[str, Any], described: bool
) -> None:
    required = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
    body = {"event_type": "user.create", **required, **changes}

    assert is_described(body) is described
    assert is_described(json.loads(decoded(body).encode()))
