"""
Tests without a broker: an in-memory one that behaves as RabbitMQ does.

    def test_an_order_is_placed(memory_broker, db):
        publish(OrderPlace(reference="A-1"))
        memory_broker.settle()
        assert Order.objects.get().reference == "A-1"

With pytest, `memory_broker` is a fixture; elsewhere it is a context manager:

    with memory_broker() as broker:
        ...
"""

from collections.abc import Iterator
from contextlib import contextmanager

from messaging.amqp.publisher import publisher
from messaging.rpc.client import replies

from .broker import Envelopes, MemoryBroker
from .consumers import StillWaiting

__all__ = ["Envelopes", "MemoryBroker", "StillWaiting", "memory_broker"]


@contextmanager
def memory_broker() -> Iterator[MemoryBroker]:
    """Replace the broker by one in memory, for publishing and for calls."""
    broker = MemoryBroker()
    with publisher.replaced_by(broker.publisher), replies.replaced_by(broker.replies):
        yield broker
