"""No decoder and no reader of headers fails otherwise than it says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.http import QueryDict
from django.test import RequestFactory
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from messaging.bodies import decoded as decompressed
from messaging.envelope import Envelope
from messaging.exceptions import InvalidMessage
from messaging.http.query import query_errors
from messaging.registry import handlers
from messaging.rest_framework.headers import read_headers
from messaging.traces.trace_context import trace_of
from reports.filters import ReportFilter
from tests.support.fuzzing import (
    CALLS,
    QUEUES,
    REPLIES,
    Fuzzer,
    answered,
    as_read,
    called,
    decoded,
    delivered,
    reacting,
    read_everything,
)
from users.filters import UserFilter

some = settings(
    max_examples=150,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
#: Texts that AMQP carries, which need not be UTF-8.
short = st.binary(max_size=255).map(as_read) | st.text(max_size=60)
#: Values of header tables.
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | short
    | st.binary(max_size=20) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(short, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
envelopes = st.builds(
    delivered,
    st.binary(max_size=200) | st.integers().map(lambda seed: Fuzzer(seed).body()),
    exchange=short,
    routing_key=short,
    message_id=st.none() | short,
    type=st.none() | short,
    content_type=st.none() | short,
    content_encoding=st.none() | short | st.sampled_from(["gzip", "deflate"]),
    correlation_id=st.none() | short,
    reply_to=st.none() | short,
    headers=st.dictionaries(short, values, max_size=4),
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Log nothing about headers that cannot be sent; know all queues."""
    logging.disable(logging.CRITICAL)
    with reacting():
        yield
    logging.disable(logging.NOTSET)


def test_the_decoders_of_all_queues_are_fuzzed() -> None:
    assert handlers.keys() == set(QUEUES)


@pytest.mark.parametrize("queue", QUEUES)
@some
@given(envelope=envelopes)
def test_any_message_is_decoded_or_refused(queue: str, envelope: Envelope) -> None:
    decoded(queue, envelope)


@pytest.mark.parametrize("queue", QUEUES)
def test_each_of_many_damaged_messages_is_decoded_or_refused(queue: str) -> None:
    taken = [decoded(queue, envelope) for envelope in Fuzzer(1).envelopes(1_000)]

    # They are neither all valid nor all nonsense.
    assert 10 < sum(one is None for one in taken) < 1_000


@some
@given(envelopes)
def test_any_properties_and_headers_can_be_read(envelope: Envelope) -> None:
    read_everything("users_queue", envelope)


def test_the_properties_of_many_damaged_messages_can_be_read() -> None:
    for envelope in Fuzzer(2).envelopes(200):
        read_everything("reports_queue", envelope)


def test_each_of_many_damaged_calls_is_answered() -> None:
    results = [called(envelope) for envelope in Fuzzer(3, CALLS).envelopes(1_000)]

    assert 10 < sum(results) < 1_000


def test_each_of_many_damaged_replies_is_a_result_or_an_error() -> None:
    results = [answered(envelope) for envelope in Fuzzer(4, REPLIES).envelopes(1_000)]

    assert 10 < sum(results) < 1_000


@some
@given(st.binary(max_size=500), st.sampled_from(["gzip", "deflate", "br", "\ud800"]))
def test_any_body_is_decompressed_or_refused(body: bytes, encoding: str) -> None:
    with suppress(InvalidMessage):
        decompressed(body, encoding)


#: What a server passes on of a header: bytes as characters.
header = st.binary(max_size=300).map(lambda given: given.decode("latin-1"))


@some
@given(header, header, header, header, header)
def test_any_header_of_a_write_is_read_or_refused(
    key: str, condition: str, prefer: str, parent: str, state: str
) -> None:
    request = RequestFactory().put(
        "/users/1/",
        HTTP_IDEMPOTENCY_KEY=key,
        HTTP_IF_MATCH=condition,
        HTTP_PREFER=prefer,
        HTTP_TRACEPARENT=parent,
        HTTP_TRACESTATE=state,
    )
    with suppress(ValidationError):
        assert 0 <= read_headers(Request(request)).wait <= 10


@some
@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate"]), values))
def test_any_header_of_a_trace_is_read(headers: dict[str, Any]) -> None:
    assert trace_of(headers).keys() <= {"traceparent", "tracestate"}


@pytest.mark.parametrize("filters", [UserFilter, ReportFilter])
@some
@given(data=st.data())
def test_any_query_parameter_is_understood_or_refused(filters: Any, data: Any) -> None:
    names = st.sampled_from([*filters.base_filters, "search"]) | st.text(max_size=20)
    texts = st.text(max_size=50) | st.sampled_from(
        ["1e400", "-inf", "٣", "9" * 5000, "0x1", "\0", "\ud800", "2024-01-01T00:00"]
    )
    given_ = data.draw(st.dictionaries(names, texts, max_size=4))
    query = QueryDict(mutable=True)
    query.update(given_)

    request = RequestFactory().get("/")
    request.GET = query
    errors = query_errors(request, list(filters.base_filters))
    found = filters(query, queryset=filters.Meta.model.objects.all())

    assert errors.keys() <= {name[:100] for name in given_} or errors
    if found.is_valid():
        str(found.qs.query)
    else:
        assert found.errors
