"""Servers that are named for the tests are neither stopped nor used by mistake."""

from __future__ import annotations

import pytest

from tests.support.named_servers import (
    SKIPPED,
    NamedMariaDB,
    NamedMongoDB,
    NamedRabbitMQ,
    NamedServer,
    with_path,
)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (NamedRabbitMQ, "http://broker.example.com/"),
        (NamedRabbitMQ, "amqp://a:b@mq-1/,amqp://a:b@mq-2/"),
        (NamedMariaDB, "sqlite://:memory:"),
        (NamedMongoDB, "mongodb://mongo-1,mongo-2/reports"),
        (NamedMongoDB, "mongodb:///reports"),
    ],
)
def test_a_url_names_one_server(kind: type[NamedServer], url: str) -> None:
    with pytest.raises(
        pytest.UsageError, match=f"{kind.variable} must name one server"
    ):
        kind(url)


def test_the_broker_is_used_in_a_virtual_host_of_its_own() -> None:
    server = NamedRabbitMQ("amqps://u:p%40ss@mq.example.com/live?heartbeat=7")

    expected = "amqps://u:p%40ss@mq.example.com:5672/test_messaging?heartbeat=7"
    assert server.url == expected


def test_a_database_beside_another_keeps_the_options_of_its_server() -> None:
    url = "mongodb://u:p@mongo:1/reports?authSource=admin"

    assert with_path(url, "other") == "mongodb://u:p@mongo:1/other?authSource=admin"


@pytest.mark.parametrize("order", ["kill", "pause", "stop", "resume", "control"])
def test_a_test_that_would_stop_it_is_skipped(order: str) -> None:
    server = NamedMariaDB("mysql://u:p@127.0.0.1:3306/live")

    with pytest.raises(pytest.skip.Exception, match=SKIPPED):
        getattr(server, order)


@pytest.mark.parametrize(
    ("url", "has_proxy"),
    [
        ("amqp://u:p@127.0.0.1:5/", True),
        ("amqp://u:p@mq.example.com:5/", False),
        # Its certificate is not that of a proxy.
        ("amqps://u:p@127.0.0.1:5/", False),
    ],
)
def test_a_proxy_is_put_before_a_server_of_this_machine_only(
    url: str, has_proxy: bool
) -> None:
    server = NamedRabbitMQ(url)

    if has_proxy:
        assert server.url_at(9) == "amqp://u:p@127.0.0.1:9/test_messaging"
    else:
        with pytest.raises(pytest.skip.Exception):
            server.url_at(9)
