"""Where messages are sent: the broker, queues and exchanges."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from messaging.amqp.addresses import Address
from messaging.conf import settings
from messaging.sources import Exchange

from .messages import binding


def servers() -> dict[str, Any]:
    """Return the nodes of the broker by name, without credentials."""
    return {
        f"broker{number}" if number > 1 else "broker": _server(Address(url))
        for number, url in enumerate(settings.urls, 1)
    }


def _server(address: Address) -> dict[str, Any]:
    host, _, path = str(address).partition("/")
    return {
        "host": host,
        "pathname": f"/{path}",
        "protocol": urlsplit(address.url).scheme,
        "protocolVersion": "0.9.1",
        "description": "RabbitMQ.",
        "security": [ref("components", "securitySchemes", "user")],
    }


def events_exchange() -> Exchange:
    """Return the exchange to which events are published."""
    return Exchange(settings.EVENTS_EXCHANGE, "topic")


def queue_channel(name: str, *, durable: bool = True) -> dict[str, Any]:
    """Return a channel that is a queue."""
    queue = {
        "name": name,
        "durable": durable,
        "exclusive": False,
        "autoDelete": False,
        "vhost": settings.virtual_host,
    }
    return {"address": name, "bindings": binding(**{"is": "queue", "queue": queue})}


def exchange_channel(exchange: Exchange, key: str) -> dict[str, Any]:
    """Return a channel that is a routing key of an exchange."""
    found = {
        "name": exchange.name,
        "type": exchange.type,
        "durable": exchange.durable,
        "autoDelete": False,
        "vhost": settings.virtual_host,
    }
    members = {"is": "routingKey", "exchange": found}
    return {"address": key, "bindings": binding(**members)}


def ref(*path: str) -> dict[str, str]:
    """Return a reference to a part of the document."""
    return {"$ref": "#/" + "/".join(path)}
