"""JSON over HTTP, forms and the queue accept the same messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from django.http import QueryDict
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import APIException, ParseError, ValidationError

from messaging import InvalidMessage, Message
from messaging.message import decode
from messaging.rest_framework.parsers import StrictJSONParser
from messaging.rest_framework.serializers import MessageSerializer
from tests.support.request_bodies import ADDRESSES, forms, objects, values


@dataclass
class View:
    """The attributes of a view that serializers use."""

    kwargs: dict[str, str]


@dataclass
class Headers:
    """The request headers that serializers use."""

    new_id: str = "7d793037-a076-4c1f-8a3b-2f1d0a5c9e11"


CLASSES: tuple[type[Message], ...] = tuple(s.Meta.message for s in ADDRESSES)

serializers = st.sampled_from(list(ADDRESSES))
many = settings(max_examples=150, deadline=None, database=None)


def through_http(serializer: type[MessageSerializer], data: Any) -> Message | None:
    """Return the message that a serializer makes of parsed data, or None if invalid."""
    context = {"view": View(ADDRESSES[serializer]), "headers": Headers()}
    form = serializer(data=data, context=context)
    return form.validated_data if form.is_valid() else None


def parsed(body: bytes) -> Any:
    """Return the parsed JSON of a request; raises `APIException`."""
    return StrictJSONParser().parse(BytesIO(body))


def through_queue(body: bytes) -> Message | None:
    """Return the message that a consumer makes of a body, or None if invalid."""
    try:
        return decode(body, CLASSES)
    except InvalidMessage:
        return None


@many
@given(serializers, objects)
def test_json_is_accepted_over_http_exactly_if_it_is_accepted_from_the_queue(
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
def test_json_accepted_over_http_is_decoded_unchanged(
    serializer: type[MessageSerializer], fields: dict[str, Any]
) -> None:
    message = through_http(serializer, fields)

    if message is not None:
        arrived = through_queue(message.encode())
        assert arrived is not None
        assert arrived.model_dump() == message.model_dump()


@many
@given(serializers, forms)
def test_a_form_accepted_over_http_is_decoded_unchanged(
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
def test_no_body_raises_an_unexpected_error(body: bytes) -> None:
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
