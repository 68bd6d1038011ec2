"""Declaring listeners: mistakes raise errors, and keys are determined."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from messaging import Event, InvalidMessage, direct, fanout, headers, listens, topic
from messaging.message import Envelope
from messaging.received import received_as
from messaging.registry import bindings, handlers, sources
from messaging.topology import needed_by
from users.events import UserCreated, UserDeleted


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
        declared = [item.name for item in needed_by("straight")]
        assert declared == ["straight.dead", "straight"]
    finally:
        handlers.pop("straight")
        sources.pop("straight")


@pytest.mark.parametrize(
    ("properties", "key", "expected"),
    [
        # What the listener says wins over what the sender says.
        ({"headers": {"partition_key": "theirs"}}, lambda got: got.body["n"], "7"),
        ({"headers": {"partition_key": "theirs"}}, None, "theirs"),
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
