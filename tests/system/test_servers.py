"""Private servers: what survives a kill, and what a killed run leaves behind."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import MySQLdb
import pika
import psutil
import pymongo
import pytest

from messaging.lab import processes
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ, Server, ServerError
from tests.support import BASE
from tests.support.broker import NEW_QUEUE

#: Starting and killing servers takes seconds each time.
pytestmark = pytest.mark.slow

#: Starts a server, then waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from messaging.lab import servers
server = getattr(servers, sys.argv[1])(Path(sys.argv[2]))
server.start()
print(server.url, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def mongodb(tmp_path: Path) -> Iterator[MongoDB]:
    with MongoDB(tmp_path) as server:
        yield server


def family(server: Server) -> list[psutil.Process]:
    """The server's processes and all their descendants."""
    parents = [psutil.Process(process.pid) for process in server._processes]
    children = (parent.children(recursive=True) for parent in parents)
    return [*parents, *chain.from_iterable(children)]


def connect(server: MariaDB) -> "MySQLdb.Connection":
    return MySQLdb.connect(
        host="127.0.0.1",
        port=server.port,
        user="root",
        password=server.password,
        database="messaging",
    )


@pytest.mark.slow
def test_messages_survive_a_killed_broker(rabbitmq: RabbitMQ) -> None:
    rabbitmq.start()
    url, parts = rabbitmq.url, family(rabbitmq)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "kept.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    channel.queue_declare("kept", durable=True, arguments=arguments)
    channel.basic_publish("", "kept", b"hello", pika.BasicProperties(delivery_mode=2))

    connection.close()
    time.sleep(NEW_QUEUE)
    rabbitmq.kill()
    assert not any(processes.lives(part) for part in parts)
    rabbitmq.start()

    assert rabbitmq.url == url
    connection = pika.BlockingConnection(pika.URLParameters(url))
    body = connection.channel().basic_get("kept", auto_ack=True)[2]
    assert body == b"hello"
    connection.close()


def test_servers_listen_on_the_loopback_interface_only(
    rabbitmq: RabbitMQ, mariadb: MariaDB, mongodb: MongoDB
) -> None:
    rabbitmq.start()
    mariadb.start()
    parts = [*family(rabbitmq), *family(mariadb), *family(mongodb)]
    addresses = {
        socket_.laddr.ip
        for part in parts
        for socket_ in part.net_connections("inet")
        if socket_.status == psutil.CONN_LISTEN
    }

    assert addresses <= {"127.0.0.1", "::1"}


def test_a_stopped_broker_leaves_no_process(rabbitmq: RabbitMQ) -> None:
    rabbitmq.start()
    parts = family(rabbitmq)
    assert "epmd" in {part.name() for part in parts}

    rabbitmq.stop()
    rabbitmq.stop()

    assert not any(processes.lives(part) for part in parts)


def test_committed_rows_survive_a_killed_mariadb(mariadb: MariaDB) -> None:
    mariadb.start()
    url = mariadb.url
    with closing(connect(mariadb)) as connection:
        connection.query("CREATE TABLE kept (word VARCHAR(10))")
        connection.query("INSERT INTO kept VALUES ('año 💾')")
        connection.commit()

    mariadb.kill()
    mariadb.start()

    assert mariadb.url == url
    with closing(connect(mariadb)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*), @@character_set_database FROM kept")
        assert cursor.fetchone() == (1, "utf8mb4")


def test_a_half_initialised_mariadb_is_initialised_again(
    mariadb: MariaDB, tmp_path: Path
) -> None:
    (tmp_path / "data.new" / "mysql").mkdir(parents=True)

    with MariaDB(tmp_path) as server:
        connect(server).close()

    assert not (tmp_path / "data.new").exists()


def test_documents_survive_a_killed_mongodb(mongodb: MongoDB) -> None:
    url = mongodb.url
    with pymongo.MongoClient(url) as client:
        client.reports.kept.insert_one({"_id": 1})

    mongodb.kill()
    mongodb.start()

    assert mongodb.url == url
    with pymongo.MongoClient(url) as client:
        assert client.reports.kept.count_documents({}) == 1


def test_a_paused_server_answers_after_it_is_resumed(mongodb: MongoDB) -> None:
    mongodb.pause()
    with pytest.raises(pymongo.errors.ServerSelectionTimeoutError):
        mongodb.ping()

    mongodb.resume()
    mongodb.ping()


def test_the_port_is_remembered_unless_it_is_taken(tmp_path: Path) -> None:
    with MariaDB(tmp_path) as first:
        pass
    with MariaDB(tmp_path) as second:
        assert second.port == first.port

    with socket.create_server(("127.0.0.1", first.port)), MariaDB(tmp_path) as third:
        assert third.port != first.port


def test_a_given_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} is taken"):
            MariaDB(tmp_path, port).start()


@pytest.mark.parametrize(
    "kind", [MariaDB, MongoDB, pytest.param(RabbitMQ, marks=pytest.mark.slow)]
)
def test_the_server_of_a_killed_run_is_ended(
    kind: type[Server], tmp_path: Path
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, kind.__name__, str(tmp_path)],
        cwd=BASE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout
    url = owner.stdout.readline().decode().strip()
    left = psutil.Process(owner.pid).children(recursive=True)
    with pytest.raises(ServerError, match=f"in use by process {owner.pid}"):
        kind(tmp_path).start()

    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert all(processes.lives(process) for process in left)

    with kind(tmp_path) as server:
        assert server.url == url
        assert not any(processes.lives(process) for process in left)


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PROGRAM_PATH", str(tmp_path))

    with pytest.raises(ServerError, match="apt-get install rabbitmq-server"):
        RabbitMQ(tmp_path).start()
    with pytest.raises(ServerError, match="apt-get install mariadb-server"):
        MariaDB(tmp_path).start()


def test_a_server_that_cannot_start_shows_its_log(mariadb: MariaDB) -> None:
    mariadb.stop()
    broken = mariadb.data / "ibdata1"
    kept = broken.read_bytes()
    broken.write_bytes(b"nonsense")

    with pytest.raises(ServerError, match=r"(?s)ended with exit code.*ibdata1"):
        mariadb.start()

    broken.write_bytes(kept)
