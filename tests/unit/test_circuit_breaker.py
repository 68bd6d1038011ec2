"""The circuit breaker slows down while most messages fail, and never stops."""

from __future__ import annotations

import pytest

from messaging.consumer.circuit_breaker import WINDOW, CircuitBreaker, CircuitOpen


def test_an_open_circuit_is_closed_by_one_success() -> None:
    circuit = CircuitBreaker("users_queue")

    def see(*outcomes: bool | None) -> None:
        circuit.check(outcomes)
        circuit.count(outcomes)

    see(*[True] * WINDOW)
    see(*[False] * (WINDOW // 2))
    assert not circuit.is_open

    with pytest.raises(CircuitOpen):
        see(False)
    see(False)
    assert circuit.pause() > 0
    see(None)  # parked again
    assert circuit.pause() > 0
    see()  # known from an earlier delivery
    assert circuit.pause() == 0
    assert circuit.is_open

    see(True)
    see()
    assert not circuit.is_open


def test_a_batch_that_is_tried_again_counts_once() -> None:
    circuit = CircuitBreaker("users_queue")
    for _ in range(WINDOW):
        circuit.check([False] * (WINDOW // 2))
    circuit.count([False] * (WINDOW // 2))

    circuit.check([True] * (WINDOW // 2))
    assert not circuit.is_open
