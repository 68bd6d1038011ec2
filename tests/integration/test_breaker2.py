"""A fault in the second state of the consumer core."""

from __future__ import annotations

import pytest

from messaging.consumer.context import Context, State
from messaging.models import Parked
from tests.support.trials import QUEUE, applied, delivery, process, trial

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.usefixtures("queue"),
]


def test_a_message_blocks_its_key_beyond_a_transaction_that_a_handler_has_ended() -> None:
    process(
        Context(delivery(trial(99, "K", "asks for another try"))),
        Context(delivery(trial(1, "K", "raises"))),
        Context(delivery(trial(97, "L", "asks for another try"))),
        Context(delivery(trial(2, "L", "commits through the driver"))),
        Context(delivery(trial(3, "K"))),
    )
    Parked.objects.exclude(attempts=0).delete()
    contexts = [Context(r.delivery(QUEUE), r) for r in Parked.objects.order_by("id")]
    assert [c.message.number for c in contexts if c.message] == [1, 2, 3]
    process(*contexts, is_parked=True)
    assert [c.state for c in contexts] == [State.RETRY, State.FAILED, State.BLOCKED]
    assert applied() == [2]
