"""The servers of these tests, where no other ones are named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import private_servers


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Start RabbitMQ and MariaDB before pytest-django creates the test database."""
    with ThreadPoolExecutor() as pool:
        servers = (private_servers.rabbitmq, private_servers.mariadb)
        list(pool.map(lambda server: server.start(), servers))
