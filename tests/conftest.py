"""Fixtures: real servers, real processes, and a wait with a reason."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pika
import pytest
import requests
from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.models import Model
from django.db.models.signals import post_migrate
from django.dispatch import receiver

from messaging.amqp.client import declare
from messaging.amqp.publisher import publisher
from messaging.lab.processes import free_port
from messaging.models.lease import Lease, Worker
from messaging.registry import consumer_name, handlers
from tests import private_servers

logger = logging.getLogger(__name__)

BASE = Path(__file__).resolve().parent.parent
QUEUES = tuple(
    f"{name}_queue{suffix}"
    for name in ("users", "reports", "notifications", "report_files")
    for suffix in ("", ".dead")
)


def eventually(condition: Callable[[], Any], reason: str, timeout: float = 10.0) -> Any:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + timeout
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"Not within {timeout} s: {reason}")
        time.sleep(0.02)


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
    """Have the servers run before pytest-django makes the test databases."""


class Broker:
    """The broker as a plain AMQP client sees it, which knows nothing of the project."""

    def __init__(self, url: str = "") -> None:
        self.url = url or settings.MESSAGING["URL"]

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Give a channel of a connection of its own."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def send(
        self, queue: str, *bodies: dict[str, Any] | bytes, **properties: Any
    ) -> None:
        """Publish bodies as such a client would: nothing declared, nothing else set."""
        with self.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(
                    "",
                    queue,
                    body if isinstance(body, bytes) else json.dumps(body).encode(),
                    pika.BasicProperties(**properties) if properties else None,
                )

    def count(self, queue: str) -> int:
        """Give how many messages wait in a queue."""
        with self.channel() as channel:
            return channel.queue_declare(queue, passive=True).method.message_count

    def take(self, queue: str) -> tuple[pika.BasicProperties, bytes]:
        """Take the first message out of a queue."""
        with self.channel() as channel:
            _, properties, body = eventually(
                lambda: (got := channel.basic_get(queue, auto_ack=True))[0] and got,
                f"a message in {queue}",
            )
        return properties, body

    def purge(self) -> None:
        """Empty all queues."""
        with self.channel() as channel:
            for queue in QUEUES:
                channel.queue_purge(queue)


def virtual_host(name: str) -> str:
    """Make a virtual host, where other tests' processes do not listen; give its URL."""
    server = private_servers.rabbitmq
    for command in (
        ["add_vhost", name],
        ["set_permissions", "-p", name, "guest", ".*", ".*", ".*"],
    ):
        subprocess.run(
            [server.program("rabbitmqctl"), "-n", server.node, *command],
            env=server.environment,
            check=True,
            capture_output=True,
        )
    return f"{server.url}{name}"


#: Seconds in which RabbitMQ 3.10 may lose a new quorum queue when it is killed.
NEW = 2.0


@pytest.fixture(scope="session")
def declared(servers: SimpleNamespace, django_db_setup: None) -> Broker:
    """The broker with all queues."""
    declare()
    time.sleep(NEW)
    return Broker()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let whoever uses the broker use both databases, really committed."""
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(
                pytest.mark.django_db(transaction=True, databases="__all__")
            )


@pytest.fixture
def broker(declared: Broker, transactional_db: None) -> Iterator[Broker]:
    """The broker with empty queues, beside empty databases."""
    declared.purge()
    yield declared
    declared.purge()
    # Consumers may have work in hand; to empty tables below them would be a deadlock.
    eventually(is_idle, "consumers are idle", 30)
    living = Worker.objects.living()
    _held[:] = [*living, *Lease.objects.filter(worker__in=[one.pk for one in living])]


#: Who held what before the databases were emptied.
_held: list[Model] = []


@receiver(post_migrate, dispatch_uid="tests.keep_leases")
def keep_leases(sender: AppConfig, using: str, **_: Any) -> None:
    """
    Leave consumers what they hold when the databases are emptied.

    They would else lose it, and have what is in their hands delivered to the next test.
    """
    if sender.label == "messaging" and using == "default":
        for row in _held:
            type(row)._default_manager.bulk_create([row], ignore_conflicts=True)
        _held.clear()


def is_idle() -> bool:
    """Whether nobody is in the middle of a transaction."""
    running = transactions()
    if running:
        logger.debug("Transactions: %s", running)
        # InnoDB does not bring the table up to date for whoever has read it within
        # 0.1 s: asked more often, it shows for ever what was once running.
        time.sleep(0.15)
    return not running


def transactions() -> list[Any]:
    """Give the transactions that somebody is in the middle of."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT * FROM information_schema.innodb_trx")
        return list(cursor.fetchall())


class Processes:
    """Programs of the project, run against the test databases."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "DATABASE_URL": database_url(),
            "MONGODB_URL": f"{private_servers.mongodb.url.rpartition('/')[0]}/"
            f"{connections['reports'].settings_dict['NAME']}",
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a Python program."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=BASE,
            env=self.environment | environment,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def manage(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command of `manage.py`."""
        return self.start("manage.py", *command, **environment)

    def output(self, *command: str) -> str:
        """Run a command of `manage.py` and give what it prints."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=BASE,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def stop(
        self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM
    ) -> int:
        """Send a signal and give the exit code."""
        process.send_signal(number)
        return process.wait(15)

    def kill_all(self) -> None:
        """Leave nothing running, not even workers that outlive their supervisor."""
        for process in self._running:
            with suppress(ProcessLookupError):
                # The group: a web server has children that do the work.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def database_url() -> str:
    """Give the address of the test database in MariaDB."""
    name = connections["default"].settings_dict["NAME"]
    return f"{private_servers.mariadb.url.rpartition('/')[0]}/{name}"


@pytest.fixture
def processes(broker: Broker) -> Iterator[Processes]:
    """Programs that end with the test."""
    started = Processes()
    yield started
    started.kill_all()


@pytest.fixture(scope="session")
def shared_processes(declared: Broker) -> Iterator[Processes]:
    """Programs that many tests use one after the other."""
    started = Processes()
    yield started
    started.kill_all()


class SharedConsumers:
    """
    Consumers of commands and events, in a process that lives until a test wants the
    queues alone.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have them run; one that has died fails the test that finds out."""
        if self._process is None:
            # Not the archive: tests look into the queues of dead letters.
            names = [consumer_name(queue) for queue in handlers]
            self._process = self._processes.manage("run_consumer", *names)
        assert self._process.poll() is None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have them hold the queues and do nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Leave the queues to others."""
        if self._process is not None:
            assert self._processes.stop(self._process) == 0
            self._process = None


@pytest.fixture(scope="session")
def shared_consumers(shared_processes: Processes) -> SharedConsumers:
    """All consumers, started when they are first needed."""
    return SharedConsumers(shared_processes)


@pytest.fixture
def consumers(broker: Broker, shared_consumers: SharedConsumers) -> None:
    """All consumers, beside empty queues and databases."""
    shared_consumers.start()


@pytest.fixture
def no_consumers(broker: Broker, shared_consumers: SharedConsumers) -> None:
    """Nobody else at the queues, which are empty, beside empty databases."""
    shared_consumers.stop()
    # They have enrolled anew since the databases were emptied.
    Lease.objects.all().delete()


class API:
    """The project over HTTP, served by the program that serves it for everybody."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request."""
        return self.session.request(method, self.url + path, timeout=20, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Read."""
        return self("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """Create."""
        return self("POST", path, json=body, **options)

    def patch(self, path: str, body: Any, **options: Any) -> requests.Response:
        """Change."""
        return self("PATCH", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        """Remove."""
        return self("DELETE", path, **options)


def start_api(processes: Processes, **environment: str) -> API:
    """Serve the project on a free port."""
    port = free_port()
    processes.start(
        "-m", "granian", "project.wsgi:application",
        "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
        "--blocking-threads", "16", "--log-level", "error",
        **environment,
    )  # fmt: skip
    api = API(port)

    def answers() -> bool:
        try:
            return api.get("/health/live").ok
        except requests.ConnectionError:
            return False

    eventually(answers, "the API answers", 20)
    return api


@pytest.fixture(scope="session")
def running_api(shared_processes: Processes) -> API:
    """The API, in a process that lives as long as the tests."""
    return start_api(shared_processes)


@pytest.fixture
def api(broker: Broker, running_api: API) -> API:
    """The API, beside empty queues and databases."""
    return running_api


@pytest.fixture(scope="session", autouse=True)
def _close_publisher() -> Iterator[None]:
    """End the I/O thread of this process before the broker goes."""
    yield
    publisher.close()
