"""
The private servers of a run, and the databases and virtual hosts in them.

Imported before Django's settings are read: they name these servers, with DEBUG off and
tokens required, as in production.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import MySQLdb
import pika

from messaging.lab import servers as lab
from messaging.lab.processes import find_program, free_port

BASE = Path(__file__).resolve().parent.parent.parent
DIRECTORY = Path(tempfile.mkdtemp(prefix="messaging-benchmarks-"))
atexit.register(shutil.rmtree, DIRECTORY, ignore_errors=True)
#: The public queue whose messages are applied.
QUEUE = "users_queue"
#: Share of the memory above which the broker blocks publishers: its default.
WATERMARK = "0.4"

rabbitmq = lab.RabbitMQ(DIRECTORY / "rabbitmq", free_port())
mariadb = lab.MariaDB(DIRECTORY / "mariadb", free_port())
mongodb = lab.MongoDB(DIRECTORY / "mongodb")

for name in ("MESSAGING", "THROTTLE", "CONFIRM_TIMEOUT", "BEHIND_PROXY"):
    os.environ.pop(name, None)
os.environ.update(
    RABBITMQ_URL=rabbitmq.url,
    DATABASE_URL=mariadb.url,
    MONGODB_URL=mongodb.url,
    MONGODB_ENGINE=mongodb.engine,
    EMAIL_URL=f"filemail:///{DIRECTORY}/mail",
    MEDIA_ROOT=f"{DIRECTORY}/media",
    DEBUG="0",
    OPEN_ACCESS="0",
    ALLOWED_HOSTS="localhost,127.0.0.1",
    HTTPS="0",  # a proxy's work, which none of the contestants has
    SECRET_KEY="a key for benchmarks that is long enough for HMAC-SHA256",
    IDEMPOTENCY_KEY="another key for benchmarks that is long enough for it",
    DJANGO_SETTINGS_MODULE="project.settings",
    PYTHONUNBUFFERED="1",
)

import django

django.setup()

from django.conf import settings
from django.test import override_settings

#: A document store for load; the embedded one is only for trying and testing.
HAS_MONGODB = find_program("mongod") is not None


def start(buffer_pool: str) -> None:
    """Start the servers."""
    mariadb.buffer_pool = buffer_pool
    wanted = [rabbitmq, mariadb, *([mongodb] if HAS_MONGODB else [])]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.start(), wanted))
    rabbitmq.control("set_vm_memory_high_watermark", WATERMARK)


def versions() -> str:
    """Return the versions of the servers, and the memory of the database."""
    connection = connect()
    text, pool = query(connection, "SELECT VERSION(), @@innodb_buffer_pool_size")[0]
    connection.close()
    opened = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    broker = opened._impl.server_properties["version"]
    opened.close()
    database = text if "MariaDB" in text else f"MySQL {text}"
    return f"RabbitMQ {broker}, {database}, buffer pool of {pool // 2**20} MB"


def stop() -> None:
    """Stop the servers."""
    for server in (rabbitmq, mariadb, mongodb):
        server.stop()


def connect(database: str = "") -> Any:
    """Return a connection to MariaDB that commits each statement."""
    return MySQLdb.connect(
        host="127.0.0.1",
        port=mariadb.port,
        user="root",
        password=mariadb.password,
        database=database,
        charset="utf8mb4",
        autocommit=True,
    )


def query(connection: Any, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    cursor = connection.cursor()
    cursor.execute(sql, values or None)
    rows = list(cursor.fetchall())
    cursor.close()
    return rows


def create_database(name: str) -> None:
    """Create an empty database."""
    connection = connect()
    query(connection, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    connection.close()


class Installation:
    """This project with a database and a virtual host of its own."""

    def __init__(
        self,
        database: str = "messaging",
        partitions: int = 1,
        host: str = "",
        **others: Any,
    ) -> None:
        self.database = database
        self.host = host
        self._is_prepared = False
        self.messaging = others | {"QUEUES": {QUEUE: {"PARTITIONS": partitions}}}

    @property
    def url(self) -> str:
        """The address of its virtual host."""
        return f"{rabbitmq.url}{self.host}"

    @property
    def environment(self) -> dict[str, str]:
        """What its programs are started with."""
        return os.environ | {
            "DATABASE_URL": f"{mariadb.url.rpartition('/')[0]}/{self.database}",
            "RABBITMQ_URL": self.url,
            "MESSAGING": json.dumps(self.messaging),
        }

    def prepare(self) -> None:
        """Create the database with its tables, and the queues, the first time."""
        if self._is_prepared:
            return
        if self.database != "messaging":
            create_database(self.database)
        if self.host:
            rabbitmq.control("add_vhost", self.host)
            rabbitmq.control(
                "set_permissions", "-p", self.host, "guest", ".*", ".*", ".*"
            )
        for command in ("migrate --verbosity 0 --database default", "topology apply"):
            self.manage(command)
        self._is_prepared = True

    def manage(self, command: str) -> None:
        """Run a command of `manage.py`."""
        subprocess.run(
            [sys.executable, "manage.py", *command.split()],
            cwd=BASE,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Let this process build messages with its partitions."""
        own = self.messaging | {"URL": self.url}
        with override_settings(MESSAGING=settings.MESSAGING | own):
            yield


#: As `make run` sets it up.
ordinary = Installation()
