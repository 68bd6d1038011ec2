"""
Servers that `RABBITMQ_URL`, `DATABASE_URL` and `MONGODB_URL` name.

The tests use a virtual host and databases of their own there, which must not exist, and
remove them afterwards. A test that would stop such a server, or command it, is skipped.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

#: Of the virtual host and the databases; Django puts the same before its databases.
PREFIX = "test_"
#: Why tests are skipped, before the name of the variable.
SKIPPED = "It stops or commands a server, and this one is named by"
#: Names of this machine, where a test can put a proxy before a server.
HERE = ("127.0.0.1", "localhost")
#: Seconds.
TIMEOUT = 10


def with_path(url: str, name: str) -> str:
    """Return a URL that names another database, or virtual host, of its server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


class NamedServer:
    """
    A server that the tests have not started and do not stop.

    Whatever else a test asks of it, as to a private server, skips the test.
    """

    variable: ClassVar[str]
    #: The port where a URL has none.
    usual_port: ClassVar[int]
    schemes: ClassVar[tuple[str, ...]]

    def __init__(self, url: str) -> None:
        found = urlsplit(url)
        if found.scheme not in self.schemes or "," in url or not found.hostname:
            schemes = " or ".join(f"{one}://" for one in self.schemes)
            problem = (
                f"{self.variable} must name one server for the tests, by {schemes}."
            )
            raise pytest.UsageError(problem)
        own, _, _ = found.netloc.rpartition("@")
        self._host = found.hostname
        self._port = found.port or self.usual_port
        place = f"{found.hostname}:{self._port}"
        self._user = unquote(found.username or "")
        self.password = unquote(found.password or "")
        self.url = found._replace(netloc=f"{own}@{place}" if own else place).geturl()
        options = found.query.lower()
        self._has_tls = found.scheme == "amqps" or "ssl_" in options or "tls" in options
        #: Whether the tests have begun to use it.
        self._is_used = False

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.skip(f"{SKIPPED} {self.variable}.")

    @property
    def port(self) -> int:
        """Its port, for tests that put a proxy before it."""
        if self._host not in HERE or self._has_tls:
            pytest.skip(f"A proxy cannot be put before {self.variable}.")
        return self._port

    @property
    def address(self) -> int:
        """The same."""
        return self.port

    def url_at(self, port: int) -> str:
        """Return its URL for clients that come by a proxy."""
        return self.url.replace(f"{self._host}:{self.port}", f"127.0.0.1:{port}")

    def start(self) -> None:
        """End the run if what the tests use exists there; make it otherwise."""
        if self._is_used:
            return
        for name in self.existing():
            self._refuse(
                f"names a server that has {name} already: remove it if a run of the "
                "tests was killed, or name another server"
            )
        self._is_used = True

    def existing(self) -> list[str]:
        """Return what the tests would use, as far as it exists."""
        raise NotImplementedError

    def leave(self) -> None:
        """Remove what the tests have made and Django does not remove."""

    def _refuse(self, problem: str) -> NoReturn:
        pytest.exit(f"{self.variable} {problem}.", pytest.ExitCode.USAGE_ERROR)


class NamedRabbitMQ(NamedServer):
    """
    A broker with the management plugin, whose user is an administrator.

    The plugin is at port 15672 of the same host, or at `RABBITMQ_MANAGEMENT_URL`.
    """

    variable = "RABBITMQ_URL"
    usual_port = 5672
    schemes = ("amqp", "amqps")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        given = os.environ.get("RABBITMQ_MANAGEMENT_URL")
        self._management = (given or f"http://{self._host}:15672").rstrip("/")
        #: The virtual host of the tests.
        self.scratch = f"{PREFIX}messaging"
        self.url = with_path(self.url, self.scratch)
        #: Removes one thing each.
        self._removals: list[Callable[[], object]] = []

    def existing(self) -> list[str]:
        """Return the virtual host, if it exists."""
        try:
            names = [one["name"] for one in self._ask("GET", "vhosts")]
        except OSError as error:
            self._refuse(
                "needs the user of an administrator, and the management plugin at "
                f"{self._management} (RABBITMQ_MANAGEMENT_URL): {error}"
            )
        return [f"the virtual host {self.scratch}"] if self.scratch in names else []

    def start(self) -> None:
        """Make the virtual host, or end the run if it exists."""
        if not self._is_used:
            super().start()
            self._make_host(self.scratch)

    def virtual_host(self, name: str) -> str:
        """Make a virtual host; return its URL."""
        name = f"{self.scratch}-{name}"
        self._make_host(name)
        return with_path(self.url, name)

    def user(self, name: str, patterns: list[str], topics: str) -> str:
        """Make a user with permissions in the tests' virtual host; return its URL."""
        path, host = f"users/{quote(name, '')}", quote(self.scratch, "")
        kinds = ("configure", "write", "read")
        self._ask("PUT", path, {"password": "guest", "tags": ""})
        self._removals.append(lambda: self._ask("DELETE", path))
        granted = dict(zip(kinds, patterns, strict=True))
        self._ask("PUT", f"permissions/{host}/{quote(name, '')}", granted)
        topic = {"exchange": "amq.topic", "write": topics, "read": ".*"}
        self._ask("PUT", f"topic-permissions/{host}/{quote(name, '')}", topic)
        place = urlsplit(self.url)
        netloc = f"{quote(name, '')}:guest@{self._host}:{self._port}"
        return place._replace(netloc=netloc).geturl()

    def leave(self) -> None:
        """Remove the virtual hosts and the users."""
        for remove in reversed(self._removals):
            remove()
        self._removals.clear()

    def _make_host(self, name: str) -> None:
        path = f"vhosts/{quote(name, '')}"
        self._ask("PUT", path, {})
        self._removals.append(lambda: self._ask("DELETE", path))
        every = dict.fromkeys(("configure", "write", "read"), ".*")
        user = quote(self._user, "")
        self._ask("PUT", f"permissions/{quote(name, '')}/{user}", every)

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._management}/api/{path}", data, method=method)
        login = b64encode(f"{self._user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read() or "null")


class NamedMariaDB(NamedServer):
    """A server of MariaDB or MySQL, where Django makes the database of the tests."""

    variable = "DATABASE_URL"
    usual_port = 3306
    schemes = ("mysql",)

    def existing(self) -> list[str]:
        """Return the database of the tests, if it exists."""
        from django.db import connections

        # Neither the database of the URL nor that of the tests exists for certain.
        connection = connections["default"]
        parameters = connection.get_connection_params()
        name = f"{PREFIX}{parameters.pop('database')}"
        try:
            session = connection.get_new_connection(parameters)
        except connection.Database.Error as error:
            self._refuse(f"names a server that refuses: {error}")
        with session, session.cursor() as cursor:
            found = cursor.execute("SHOW DATABASES LIKE %s", [name.replace("_", r"\_")])
        return [f"the database {name}"] if found else []


class NamedMongoDB(NamedServer):
    """A MongoDB, or what speaks its protocol."""

    variable = "MONGODB_URL"
    usual_port = 27017
    schemes = ("mongodb",)
    #: The Django database engine for this server.
    engine = os.environ.get("MONGODB_ENGINE") or "django_mongodb_backend"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._name = f"{PREFIX}{urlsplit(url).path.strip('/') or 'reports'}"

    def existing(self) -> list[str]:
        """Return the database of the tests, if it has collections."""
        import pymongo

        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.url, serverSelectionTimeoutMS=3000) as client:
            try:
                found = client[self._name].list_collection_names()
            except pymongo.errors.PyMongoError as error:
                self._refuse(f"names a server that refuses: {error}")
        return [f"the database {self._name}"] if found else []

    def leave(self) -> None:
        """Drop the database, which Django only empties."""
        import pymongo

        client: pymongo.MongoClient[dict[str, Any]]
        if self._is_used:
            with pymongo.MongoClient(self.url, serverSelectionTimeoutMS=3000) as client:
                client.drop_database(self._name)
            self._is_used = False
