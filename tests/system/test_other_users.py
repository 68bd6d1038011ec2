"""Private servers are closed to the other users of the machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import MySQLdb
import pika
import pymongo
import pytest
import requests
from pika.exceptions import AMQPConnectionError

from messaging.lab.mongodb import LONGEST_SOCKET, is_private
from messaging.lab.processes import free_port
from messaging.lab.server import own_secret
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ, Server

pytestmark = pytest.mark.slow

#: Runs a program as nobody; only root can.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
#: Prints which of the paths that it reads a stranger may open or connect to.
OPEN = """
import socket, stat, sys, os
for path in sys.stdin.read().splitlines():
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        continue
    print(path)
"""
PING = """
io:format("~p", [net_adm:ping(list_to_atom(os:getenv("NODE")))]), halt().
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="messaging-tests-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def rabbitmq(folder: Path) -> Iterator[RabbitMQ]:
    with RabbitMQ(folder / "rabbitmq", management=True) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb(folder: Path) -> Iterator[MariaDB]:
    with MariaDB(folder / "mariadb") as server:
        yield server


@pytest.fixture(scope="module")
def mongodb(folder: Path) -> Iterator[MongoDB]:
    with MongoDB(folder / "mongodb") as server:
        yield server


def as_nobody(*command: str, text: str = "", **environment: str) -> str:
    """Run a program as a stranger; return its output."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    done = subprocess.run(
        [*NOBODY, *command],
        input=text,
        env={"PATH": os.environ["PATH"], "HOME": "/tmp"} | environment,
        cwd="/tmp",
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def log_in(server: MariaDB, user: str, password: str = "") -> "MySQLdb.Connection":
    return MySQLdb.connect(
        host="127.0.0.1", port=server.port, user=user, password=password
    )


def amqp(server: RabbitMQ, password: str) -> None:
    url = server.url.replace(server.password, password)
    pika.BlockingConnection(pika.URLParameters(url)).close()


def test_no_file_and_no_socket_is_open_to_another_user(
    folder: Path, rabbitmq: RabbitMQ, mariadb: MariaDB, mongodb: MongoDB
) -> None:
    paths = [str(path) for path in folder.rglob("*")]
    for name in ("password", ".erlang.cookie", "setup.sql", "mongodb.sock"):
        assert any(path.endswith(f"/{name}") for path in paths), name
    everybodys = folder / "everybodys.txt"
    everybodys.touch()

    found = as_nobody(
        "/usr/bin/python3", "-c", OPEN, text="\n".join([*paths, str(everybodys)])
    )

    assert found.split() == [str(everybodys)]


def test_mongodb_has_no_port(mongodb: MongoDB) -> None:
    mongodb.ping()

    family = [mongodb.process, *mongodb.process.children(recursive=True)]

    assert [one for part in family for one in part.net_connections("inet")] == []


@pytest.mark.parametrize("user", ["root", "", "mysql", "mariadb.sys", "messaging"])
@pytest.mark.parametrize("password", ["", "root", "guest"])
def test_mariadb_refuses_who_does_not_know_the_password(
    user: str, password: str, mariadb: MariaDB
) -> None:
    log_in(mariadb, "root", mariadb.password).close()

    with pytest.raises(MySQLdb.OperationalError, match="Access denied"):
        log_in(mariadb, user, password)


def test_an_account_of_a_host_name_lets_nobody_in(mariadb: MariaDB) -> None:
    """A new server has root@localhost and root@<host> without a password."""
    with closing(log_in(mariadb, "root", mariadb.password)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT user, host FROM mysql.user WHERE host LIKE '%.%.%.%'")
        assert cursor.fetchall() == (("root", "127.0.0.1"),)
        cursor.execute("SELECT @@skip_name_resolve, @@socket")
        assert cursor.fetchone() == (1, "")


def test_mariadb_neither_reads_nor_writes_files(mariadb: MariaDB, folder: Path) -> None:
    # Where the server allows it to those with the right.
    path = mariadb.directory / "tmp" / "stolen"
    with closing(log_in(mariadb, "root", mariadb.password)) as connection:
        cursor = connection.cursor()
        with pytest.raises(MySQLdb.OperationalError, match="Access denied"):
            cursor.execute("SELECT 1 INTO OUTFILE %s", [str(path)])
        path.write_text("secret")
        cursor.execute("SELECT LOAD_FILE(%s)", [str(path)])
        assert cursor.fetchone() == (None,)


@pytest.mark.parametrize("password", ["guest", "", "rabbit"])
def test_rabbitmq_refuses_who_does_not_know_the_password(
    password: str, rabbitmq: RabbitMQ
) -> None:
    amqp(rabbitmq, rabbitmq.password)

    with pytest.raises(AMQPConnectionError, match="ACCESS_REFUSED"):
        amqp(rabbitmq, password)


def test_the_management_plugin_asks_for_the_same_password(rabbitmq: RabbitMQ) -> None:
    url = f"http://127.0.0.1:{rabbitmq.ports['management']}/api/overview"

    def status(password: str) -> int:
        return requests.get(url, auth=("guest", password), timeout=10).status_code

    assert status("guest") == 401
    assert status(rabbitmq.password) == 200


def test_another_user_cannot_join_the_broker(rabbitmq: RabbitMQ) -> None:
    cookie = (rabbitmq.directory / ".erlang.cookie").read_text()
    options = {"NODE": rabbitmq.node, "ERL_EPMD_PORT": str(rabbitmq.ports["epmd"])}

    def ping(cookie: str) -> str:
        erl = ["erl", "-noinput", "-sname", "intruder@localhost", "-eval", PING]
        return as_nobody(*erl, "-setcookie", cookie, **options)

    assert ping("monster") == "pang"
    assert ping(cookie) == "pong"


def test_older_data_get_the_password_at_the_next_start(
    rabbitmq: RabbitMQ, mariadb: MariaDB
) -> None:
    rabbitmq.control("change_password", "guest", "guest")
    amqp(rabbitmq, "guest")
    with closing(log_in(mariadb, "root", mariadb.password)) as connection:
        connection.query("ALTER USER root@'127.0.0.1' IDENTIFIED BY ''")
    log_in(mariadb, "root").close()

    for server in (rabbitmq, mariadb):
        server.stop()
        server.start()

    with pytest.raises(AMQPConnectionError):
        amqp(rabbitmq, "guest")
    amqp(rabbitmq, rabbitmq.password)
    with pytest.raises(MySQLdb.OperationalError):
        log_in(mariadb, "root")


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with MongoDB(tmp_path):
        assert is_private(tmp_path)


def test_a_long_path_gets_a_folder_of_its_own_that_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * LONGEST_SOCKET)
    deep.mkdir()
    stranger = Path(tempfile.mkdtemp(prefix="messaging-tests-"))
    stranger.chmod(0o777)
    # What is left of an earlier run may have been taken by somebody else since.
    (deep / "socket").symlink_to(stranger)
    server = MongoDB(deep)

    with server:
        used = server.address.parent
        assert used != stranger
        assert is_private(used)
        with pymongo.MongoClient(server.url) as client:
            client.reports.kept.insert_one({"_id": 1})
        server.kill()
        server.start()
        assert server.address.parent == used

    assert not used.exists()
    assert stranger.exists()
    stranger.rmdir()


class Slow(Server):
    """Stands in for a server that never opens its port."""

    def launch(self) -> None:
        self.spawn([sys.executable, "-c", "import time; time.sleep(0.5)"])

    def ping(self) -> None:
        pytest.fail("The password went to another program.")


def test_no_password_goes_to_a_program_that_took_the_port(tmp_path: Path) -> None:
    port = free_port()
    server = Slow(tmp_path)
    server.ports = {"port": port}
    choose = server._choose_ports

    def choose_and_lose(remembered: dict[str, int]) -> None:
        choose(remembered)
        taken.bind(("127.0.0.1", port))
        taken.listen()

    server._choose_ports = choose_and_lose  # type: ignore[method-assign]
    with socket.socket() as taken, pytest.raises(Exception, match="exit code 0"):
        server.start()


def test_a_secret_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "password"

    first = own_secret(path)

    assert len(first) == 48
    assert own_secret(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
