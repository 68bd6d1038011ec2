"""Declaring listeners: mistakes raise errors, and keys are determined."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel

from messaging import Event, InvalidMessage, direct, fanout, headers, listens, topic
from messaging.amqp.publisher import ordering_key
from messaging.envelope import Envelope
from messaging.received import received_as
from messaging.registry import bindings, handlers, sources
from messaging.topology import Queue, consumed_names, needed_by
from tests.support.mistakes import raising
from users.events import UserCreated, UserDeleted


class Body(BaseModel):
    """A body that may have a fault."""

    fault: Annotated[str, raising({"key": KeyError, "attribute": AttributeError})]


@pytest.mark.parametrize(
    ("fault", "name"), [("key", "KeyError"), ("attribute", "AttributeError")]
)
def test_whatever_the_validator_of_a_body_raises_is_a_fault_of_the_message(
    fault: str, name: str
) -> None:
    reader = received_as(Body)
    assert reader.decode(b'{"fault": "none"}').body == Body(fault="none")

    with pytest.raises(InvalidMessage, match=name):
        reader.decode(b'{"fault": "%s"}' % fault.encode())


class TestMistakes:
    """Errors that are raised when a listener is declared."""

    @pytest.mark.parametrize("wanted", [[], ["nature"], [str]], ids=repr)
    def test_a_listener_needs_events_sources_or_a_body(self, wanted: Any) -> None:
        with pytest.raises(ImproperlyConfigured, match="What does mistakes"):
            listens("mistakes", *wanted)

    def test_events_and_exchanges_need_queues_of_their_own(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="queue of their own"):
            listens("mistakes", UserCreated, fanout("x"))
        with pytest.raises(ImproperlyConfigured, match="queue of their own"):
            listens("mistakes", UserCreated, body=dict)

    @pytest.mark.parametrize("first", [UserCreated, topic("x", "#")], ids=repr)
    def test_a_handler_of_any_body_is_the_only_one_of_its_queue(
        self, first: type[Event] | Any
    ) -> None:
        try:
            listens("mistakes", first)(print)
            with pytest.raises(ImproperlyConfigured, match="queue of its own"):
                listens("mistakes", topic("y", "#"))(print)
        finally:
            for registered in (handlers, bindings, sources):
                registered.pop("mistakes", None)

    def test_a_queue_of_commands_cannot_take_any_body(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="queue of its own"):
            listens("users_queue", fanout("x"))(print)

        assert "users_queue" not in sources

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: topic("x"), "at least one routing key"),
            (lambda: direct("x"), "at least one routing key"),
            (lambda: fanout(""), "default exchange"),
            (lambda: headers("x", {"a": 1}, match="none"), "match is one of"),
        ],
        ids=["topic", "direct", "fanout", "headers"],
    )
    def test_an_incomplete_source_is_refused(self, make: Any, expected: str) -> None:
        with pytest.raises(ValueError, match=expected):
            make()


def test_one_function_may_listen_to_several_events() -> None:
    try:
        listens("several", UserCreated, UserDeleted)(print)

        assert bindings["several"] == ["user.created", "user.deleted"]
        assert set(handlers["several"]) == {"user.created", "user.deleted"}
    finally:
        handlers.pop("several")
        bindings.pop("several")


def test_a_listener_of_a_queue_alone_needs_no_exchange() -> None:
    try:
        listens("straight", body=str)(print)

        assert sources["straight"] == ()
        declared = [
            item.name
            for name in consumed_names("straight")
            for item in needed_by("straight", name)
            if isinstance(item, Queue)
        ]
        assert declared == ["straight", "straight.dead", "straight.0"]
    finally:
        handlers.pop("straight")
        sources.pop("straight")


@pytest.mark.parametrize(
    ("properties", "key", "expected"),
    [
        # What the listener says wins over what the sender says.
        ({"headers": {"partition_key": "theirs"}}, lambda got: got.body["n"], "7"),
        ({"headers": {"partition_key": "theirs"}}, None, "theirs"),
        # Zero is a key.
        ({"headers": {"partition_key": "theirs"}}, lambda got: 0, "0"),
        ({"headers": {"partition_key": 0}}, None, "0"),
        # None is not, and says nothing about the order.
        ({"headers": {"partition_key": "theirs"}}, lambda got: None, "theirs"),
        ({"message_id": "id"}, lambda got: None, "id"),
        ({"message_id": "id", "headers": {"partition_key": None}}, None, "id"),
        ({"message_id": "id", "headers": {"partition_key": ""}}, None, "id"),
        # Without either, nothing waits for it.
        ({"message_id": "id"}, None, "id"),
        # As every database can keep it.
        ({"headers": {"partition_key": "a\0\udcff"}}, None, "a\\x00\\udcff"),
    ],
)
def test_the_partition_key_of_a_message_of_another_program(
    properties: Any, key: Any, expected: str
) -> None:
    envelope = Envelope(b'{"n": 7}', "key", **({"message_id": None} | properties))

    message = received_as(dict, key).decode(envelope.body, envelope)

    assert message.partition_key == expected


def test_a_message_without_the_key_of_its_listener_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="KeyError"):
        received_as(dict, lambda got: got.body["n"]).decode(b"{}")


@pytest.mark.parametrize("key", [None, lambda got: None, lambda got: got.body["n"]])
def test_messages_of_other_programs_without_a_key_are_independent(key: Any) -> None:
    bodies = (b'{"n": null, "text": "a"}', b'{"n": null, "text": "b"}')

    first, second = (received_as(dict, key).decode(body) for body in bodies)

    assert first.partition_key != second.partition_key


def test_a_key_of_zero_keeps_the_order_of_publishing() -> None:
    zero, other = (Envelope(b"", "q", headers={"partition_key": n}) for n in (0, 1))

    assert (zero.key, other.key) == ("0", "1")
    assert ordering_key(zero) == "0"
