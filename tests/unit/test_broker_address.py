"""The broker's address is shown as the connection uses it, without credentials."""

from __future__ import annotations

from typing import Any

import pytest

from messaging.amqp.addresses import broker_address, in_order


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://me:secret@broker.example.com/shop", "broker.example.com:5672/shop"),
        ("amqps://me:secret@broker.example.com", "broker.example.com:5671/"),
        ("amqps://broker.example.com:443/", "broker.example.com:443/"),
        ("amqp://[::1]/", "[::1]:5672/"),
        ("amqp:///shop", "localhost:5672/shop"),
    ],
)
def test_the_address_is_that_of_the_connection(
    url: str, shown: str, settings: Any
) -> None:
    settings.MESSAGING = {"URL": url}

    used = in_order()[0].parameters("test")

    assert broker_address() == shown
    host = f"[{used.host}]" if ":" in used.host else used.host
    assert shown.startswith(f"{host}:{used.port}/")
