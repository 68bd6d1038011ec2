"""What the broker's refusals say about a queue that another program declared."""

from __future__ import annotations

import pytest

from messaging.amqp.public_queue import Declaration

REFUSAL = (
    "PRECONDITION_FAILED - inequivalent arg '{}' for queue 'q' in vhost '/': "
    "received {} but current is {}"
)


@pytest.mark.parametrize(
    ("refusal", "attribute", "expected"),
    [
        (("durable", "'true'", "'false'"), "durable", False),
        (("auto_delete", "'false'", "'true'"), "auto_delete", True),
        (
            ("x-queue-type", "none", "the value 'stream' of type 'longstr'"),
            "arguments",
            {"x-queue-type": "stream"},
        ),
        # So RabbitMQ 4 says it.
        (
            ("x-queue-type", "'classic'", "'quorum'"),
            "arguments",
            {"x-queue-type": "quorum"},
        ),
        (
            ("x-message-ttl", "none", "the value '60000' of type 'signedint'"),
            "arguments",
            {"x-message-ttl": 60000},
        ),
        (
            ("x-single-active-consumer", "none", "the value 'true' of type 'bool'"),
            "arguments",
            {"x-single-active-consumer": True},
        ),
        (
            (
                "x-dead-letter-routing-key",
                "none",
                "the value 'it's of type 'x'' of type 'longstr'",
            ),
            "arguments",
            {"x-dead-letter-routing-key": "it's of type 'x'"},
        ),
    ],
)
def test_a_refusal_names_a_difference(
    refusal: tuple[str, str, str], attribute: str, expected: object
) -> None:
    declaration = Declaration("q")

    assert declaration.learn(REFUSAL.format(*refusal))

    assert getattr(declaration, attribute) == expected
    assert not declaration.learn(REFUSAL.format(*refusal))


def test_what_cannot_be_understood_is_nothing_new() -> None:
    assert not Declaration("q").learn("PRECONDITION_FAILED - no idea")
    table = REFUSAL.format("x-odd", "none", "the value [{<<1>>}] of type 'table'")
    assert not Declaration("q").learn(table)
