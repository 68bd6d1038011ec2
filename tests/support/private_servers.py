"""
The servers of the tests: private ones, on free ports, with data that are deleted.

Loaded as a plugin before Django's settings, which read these addresses. The fixture
`servers` starts them, once, when the first test needs them. Where `RABBITMQ_URL`,
`DATABASE_URL` or `MONGODB_URL` name a server, it is used in their place; `.env` does
not count.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from messaging.lab.processes import free_port
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ

from .named_servers import (
    SKIPPED,
    NamedMariaDB,
    NamedMongoDB,
    NamedRabbitMQ,
    NamedServer,
)

DIRECTORY = Path(tempfile.mkdtemp(prefix="messaging-tests-"))


def chosen(named: type[NamedServer], private: Any) -> Any:
    """Return the server that a variable names, or else a private one."""
    url = os.environ.get(named.variable)
    return named(url) if url else private


rabbitmq = chosen(NamedRabbitMQ, RabbitMQ(DIRECTORY / "rabbitmq", free_port()))
mariadb = chosen(NamedMariaDB, MariaDB(DIRECTORY / "mariadb", free_port()))
mongodb = chosen(NamedMongoDB, MongoDB(DIRECTORY / "mongodb"))
EVERY = (rabbitmq, mariadb, mongodb)

os.environ.update(
    RABBITMQ_URL=rabbitmq.url,
    DATABASE_URL=mariadb.url,
    MONGODB_URL=mongodb.url,
    MONGODB_ENGINE=mongodb.engine,
    EMAIL_URL=f"filemail:///{DIRECTORY}/mail",
    MEDIA_ROOT=f"{DIRECTORY}/media",
    DEBUG="1",
    OPEN_ACCESS="1",
    ALLOWED_HOSTS="localhost,127.0.0.1,[::1]",
    SECRET_KEY="a key for tests that is long enough for HMAC-SHA256",
    IDEMPOTENCY_KEY="another key for tests that is long enough for HMAC-SHA256",
    LOGIN_THROTTLE="",
)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests were skipped because a server is a named one."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(SKIPPED in str(one.longrepr) for one in skipped)
    if count:
        terminalreporter.write_line(
            f"{count} tests were skipped that stop or command a server: such tests "
            "need private ones."
        )


def pytest_unconfigure() -> None:
    """Stop the servers and delete their data."""
    for server in EVERY:
        if isinstance(server, NamedServer):
            server.leave()
        else:
            server.stop()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
