"""
The private servers of the tests, on free ports, with data that are deleted.

Loaded as a plugin before Django's settings, which read these addresses. The fixture
`servers` starts them, once, when the first test needs them.
"""

import os
import shutil
import tempfile
from pathlib import Path

from messaging.lab.processes import free_port
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ

DIRECTORY = Path(tempfile.mkdtemp(prefix="messaging-tests-"))

rabbitmq = RabbitMQ(DIRECTORY / "rabbitmq", free_port())
mariadb = MariaDB(DIRECTORY / "mariadb", free_port())
mongodb = MongoDB(DIRECTORY / "mongodb")

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


def pytest_unconfigure() -> None:
    """Stop the servers and delete their data."""
    for server in (rabbitmq, mariadb, mongodb):
        server.stop()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
