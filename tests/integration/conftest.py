"""Fixtures of the tests that talk to real servers in this process."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Account
from django.db import connection, connections
from django.db.models import QuerySet
from django.test import Client

from messaging import handles, projects, serves
from messaging.registry import handlers, projections
from messaging.rpc.client import replies
from messaging.rpc.functions import served
from messaging.rpc.server import Server
from tests.support.broker import Broker, virtual_host
from tests.support.processes import API, Processes, start_api
from tests.support.trials import (
    QUEUE,
    Other,
    Trial,
    budget,
    run_trial,
    run_trials,
    store_trials,
    stored,
)


@pytest.fixture(params=["one by one", "in batches"])
def queue(request: pytest.FixtureRequest, settings: Any) -> Iterator[None]:
    """The queue of trials, with handlers that take single messages, or lists."""
    settings.MESSAGING = settings.MESSAGING | {
        "MAX_ATTEMPTS": 3,
        "ATTEMPTS_OF": {},
        "BREAKER": None,
        "RETRY_PAUSE": [0.01, 0.02],
    }
    in_batches = request.param == "in batches"
    for message in (Trial, Other):
        handles(message, batch=in_batches)(run_trials if in_batches else run_trial)
    projects(QUEUE)(store_trials)
    stored.clear()
    budget.clear()
    yield
    del handlers[QUEUE], projections[QUEUE]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS trial")


@pytest.fixture(scope="session")
def closed_api(declared: Broker) -> Iterator[API]:
    """The API as in production, but without TLS and without consumers."""
    processes = Processes()
    processes.environment["RABBITMQ_URL"] = virtual_host("access")
    processes.output("topology", "apply")
    api = start_api(processes, OPEN_ACCESS="0")
    # The database ends sessions that were idle meanwhile.
    connections.close_all()
    yield api
    processes.kill_all()


@pytest.fixture
def closed(broker: Broker, closed_api: API) -> API:
    """The same without a session, with empty queues and databases."""
    closed_api.session = requests.Session()
    return closed_api


@pytest.fixture
def permissions(broker: Broker) -> QuerySet[Permission]:
    """All permissions, which the tests do not create otherwise."""
    for app in apps.get_app_configs():
        create_permissions(app, verbosity=0)
    return Permission.objects.all()


@pytest.fixture
def serve(servers: SimpleNamespace) -> Iterator[Callable[..., str]]:
    """Return a function that serves one under a new name, and returns the name."""
    running: list[tuple[Server, threading.Thread]] = []

    def start(name: str = "", **options: Any) -> str:
        name = name or f"served-{uuid.uuid4()}"

        @serves(name, **options)
        def whoami() -> str:
            return name

        server = Server(served[name], threads=1)
        thread = threading.Thread(target=server.run)
        running.append((server, thread))
        server.connection.start()
        thread.start()
        return name

    yield start
    for server, thread in running:
        server.stop()
        thread.join()
        server.connection.close()
    for server, _ in running:
        served.pop(server.connection.name.removeprefix("server-"))
    replies.close()


@pytest.fixture
def uncollected(settings: Any) -> None:
    """Take nothing from whitenoise, which misses the files that a deployment has."""
    settings.MIDDLEWARE = [m for m in settings.MIDDLEWARE if "whitenoise" not in m]


@pytest.fixture
def login(
    client: Client, permissions: QuerySet[Permission], uncollected: None
) -> Callable[..., Client]:
    """Return a function that logs in an account with permissions of `messaging`."""

    def log_in(*codenames: str) -> Client:
        account = Account.objects.create_user("mira", is_staff=True)
        own = permissions.filter(content_type__app_label="messaging")
        account.user_permissions.set(own.filter(codename__in=codenames))
        client.force_login(account)
        return client

    return log_in
