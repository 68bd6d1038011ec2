"""Fixtures for all tests: real servers and real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import AppConfig
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connection, connections
from django.db.models import Model
from django.db.models.signals import post_migrate
from django.dispatch import receiver

from messaging.amqp.client import declare
from messaging.amqp.publisher import publisher
from messaging.logs import repetition
from messaging.logs.repetition import repetitions
from messaging.models.lease import Lease, Worker
from messaging.monitoring.minutes import flusher
from tests.support import private_servers
from tests.support.broker import NEW_QUEUE, Broker
from tests.support.named_servers import NamedServer
from tests.support.processes import (
    API,
    Processes,
    SharedConsumers,
    start_api,
)
from tests.support.transactions import is_idle
from tests.support.waiting import eventually

#: Tests of a project with settings of its own: `pytest tests/shop` runs them.
collect_ignore = ["shop"]

#: Accounts of tests need no protection against guessing, which takes a quarter second.
PBKDF2PasswordHasher.iterations = 1


@pytest.fixture(scope="session")
def servers() -> SimpleNamespace:
    """RabbitMQ, MariaDB and MongoDB, running."""
    three = SimpleNamespace(
        rabbitmq=private_servers.rabbitmq,
        mariadb=private_servers.mariadb,
        mongodb=private_servers.mongodb,
    )
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.start(), vars(three).values()))
    return three


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: SimpleNamespace) -> None:
    """Start the servers before pytest-django creates the test databases."""


@pytest.fixture(scope="session")
def declared(
    servers: SimpleNamespace, django_db_setup: None, django_db_blocker: Any
) -> Iterator[Broker]:
    """The broker, with all queues declared."""
    declare()
    time.sleep(NEW_QUEUE)
    # It would take more time than emptying the databases, which calls it for each test.
    for name in ("django.contrib.auth.management.create_permissions", "project.groups"):
        post_migrate.disconnect(dispatch_uid=name)
    yield Broker()
    # It would look for its database, which is dropped next.
    with django_db_blocker.unblock():
        flusher.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that use the broker both databases, without a transaction."""
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(
                pytest.mark.django_db(transaction=True, databases="__all__")
            )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Let a test begin with a living session, however long its fixtures took."""
    close_ended_session()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Empty the tables in a living session, however long the test took."""
    close_ended_session()


def close_ended_session() -> None:
    """Close a connection whose session the server has ended for being idle."""
    is_open = connection.connection is not None and not connection.in_atomic_block
    if is_open and not connection.is_usable():
        connection.close()


@pytest.fixture
def broker(declared: Broker, transactional_db: None) -> Iterator[Broker]:
    """The broker with empty queues, and empty databases."""
    declared.purge()
    yield declared
    declared.purge()
    # Emptying tables beside consumers that are at work would be a deadlock.
    eventually(is_idle, "consumers are idle", 30)
    living = Worker.objects.living()
    _held[:] = [*living, *Lease.objects.filter(worker__in=[one.pk for one in living])]


#: Workers and leases from before the databases were emptied.
_held: list[Model] = []


@receiver(post_migrate, dispatch_uid="tests.keep_leases")
def keep_leases(sender: AppConfig, using: str, **_: Any) -> None:
    """
    Keep the leases of running consumers when the databases are emptied.

    Without them, consumers would release their messages to the next test.
    """
    if sender.label == "messaging" and using == "default":
        for row in _held:
            type(row)._default_manager.bulk_create([row], ignore_conflicts=True)
        _held.clear()


@pytest.fixture
def processes(broker: Broker) -> Iterator[Processes]:
    """Programs that are killed after the test."""
    started = Processes()
    yield started
    started.kill_all()


@pytest.fixture(scope="session")
def shared_processes(declared: Broker) -> Iterator[Processes]:
    """Programs that several tests use."""
    started = Processes()
    yield started
    started.kill_all()


@pytest.fixture(scope="session")
def shared_consumers(shared_processes: Processes) -> SharedConsumers:
    """All consumers, started when they are first needed."""
    return SharedConsumers(shared_processes)


@pytest.fixture
def consumers(broker: Broker, shared_consumers: SharedConsumers) -> None:
    """Running consumers, with empty queues and databases."""
    shared_consumers.start()


@pytest.fixture
def no_consumers(broker: Broker, shared_consumers: SharedConsumers) -> None:
    """Empty queues and databases, without any consumer."""
    shared_consumers.stop()
    # They have registered again since the databases were emptied.
    Lease.objects.all().delete()


@pytest.fixture(scope="session")
def running_api(shared_processes: Processes) -> API:
    """The API, in a process that lives for the whole session."""
    return start_api(shared_processes)


@pytest.fixture
def api(broker: Broker, running_api: API) -> API:
    """The API, with empty queues and databases."""
    return running_api


@pytest.fixture
def outage(servers: SimpleNamespace, broker: Broker) -> Iterator[SimpleNamespace]:
    """Servers that the test may stop; they are started again afterwards."""
    yield servers
    for server in vars(servers).values():
        if not isinstance(server, NamedServer):
            server.resume()
            server.start()
    connections.close_all()


@pytest.fixture(autouse=True)
def _lines_are_news() -> None:
    """Forget which lines were logged by the tests before."""
    repetitions.forget()


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out no line that repeats."""
    monkeypatch.setattr(repetition, "PAUSE", 0.0)


@pytest.fixture(scope="session", autouse=True)
def _close_publisher() -> Iterator[None]:
    """Stop the I/O thread of this process before the broker."""
    yield
    publisher.close()
