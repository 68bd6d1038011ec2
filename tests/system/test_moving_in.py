"""The three ways of `docs/moving-in.md`, with the commands of that page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import MySQLdb
import pymongo
import pytest
from celery import Celery
from django.db import connections

from messaging import publish
from messaging.amqp.publisher import publisher
from messaging.models import DeadLetter, Inbox
from tests.support import BASE, private_servers
from tests.support.broker import Broker, virtual_host
from tests.support.documented import Shell, commands
from tests.support.processes import Processes, start_api
from tests.support.waiting import eventually
from users.commands import UserCreate
from users.models import User, UserLedger

pytestmark = pytest.mark.slow

PAGE = "moving-in.md"
MODULES = "tests.support.moving"


@pytest.fixture
def site(broker: Broker, no_consumers: None, settings: Any) -> Iterator[Broker]:
    """A virtual host of its own, without any queue."""
    url = virtual_host(f"moving-{uuid.uuid4().hex[:8]}")
    settings.MESSAGING = settings.MESSAGING | {"URL": url}
    publisher.close()
    yield Broker(url)
    publisher.close()


@pytest.fixture
def shell(site: Broker, processes: Processes, tmp_path: Path) -> Shell:
    """A shell with the variables and programs that the page names."""
    processes.environment |= {"RABBITMQ_URL": site.url}
    mariadb, rabbitmq = private_servers.mariadb, private_servers.rabbitmq
    options = tmp_path / "client.cnf"
    options.write_text(
        "[client]\nhost=127.0.0.1\nuser=root\n"
        f"port={mariadb.port}\npassword={mariadb.password}\n"
    )
    own = processes.environment | {"MYSQL_CNF": str(options)}
    made = Shell(tmp_path / "bin", **own, VHOST=site.url.rpartition("/")[2])
    made.provide_rabbitmq_tools(rabbitmq)
    return made


@pytest.fixture
def old_database(shell: Shell) -> Iterator[str]:
    """The name of a database with the table of the old consumer."""
    server = private_servers.mariadb
    name = f"old_{uuid.uuid4().hex[:8]}"
    connection = MySQLdb.connect(
        host="127.0.0.1", port=server.port, user="root", password=server.password
    )
    cursor = connection.cursor()
    cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    cursor.execute(
        f"CREATE TABLE {name}.users (user_id INT PRIMARY KEY AUTO_INCREMENT, "
        "nombre VARCHAR(100), apellido VARCHAR(100), email VARCHAR(100) UNIQUE, "
        "fecha_nacimiento DATETIME, fecha_creacion DATETIME DEFAULT NOW(), "
        "calificacion FLOAT DEFAULT 5, numero_reportes INT DEFAULT 0, "
        "url_foto_perfil VARCHAR(255), biografia TEXT)"
    )
    yield name
    cursor.execute(f"DROP DATABASE {name}")
    connection.close()


def creation(name: str) -> dict[str, str]:
    return {"nombre": name, "apellido": "Lee", "email": f"{name}@example.com"}


class OldAPI:
    """The API from before the move."""

    def __init__(self, processes: Processes) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{MODULES}.old_api", "users_queue"],
            cwd=BASE,
            env=processes.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, event_type: str, **body: Any) -> None:
        """Publish an event."""
        print(
            json.dumps({"event_type": event_type} | body),
            file=self.process.stdin,
            flush=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "confirmed\n"


@pytest.fixture
def old_api(processes: Processes, shell: Shell) -> Iterator[OldAPI]:
    """The API from before the move, running."""
    api = OldAPI(processes)
    yield api
    api.process.communicate(timeout=10)


def in_old(name: str, statement: str) -> Any:
    """Return a value from the old database."""
    with connections["default"].cursor() as cursor:
        cursor.execute(statement.format(f"{name}.users"))
        row = cursor.fetchone()
    return row and row[0]


@pytest.mark.timeout(240)
def test_an_old_api_goes_on_while_this_project_takes_over_its_queue(
    site: Broker,
    shell: Shell,
    processes: Processes,
    old_api: OldAPI,
    old_database: str,
) -> None:
    [upgrade, reports, users, consume] = commands(
        PAGE, "From a publisher and a consumer of your own"
    )
    [copy] = commands(PAGE, "From a publisher and a consumer of your own", "python")
    old_url = f"{private_servers.mariadb.url.rpartition('/')[0]}/{old_database}"
    mongodb_url = f"{private_servers.mongodb.url.rpartition('/')[0]}/{old_database}"
    old_consumer = (["-m", f"{MODULES}.old_consumer"], {"OLD_DATABASE_URL": old_url})
    consumer = processes.start(*old_consumer[0], **old_consumer[1])
    for name in ("ann", "bo", "cy"):
        old_api.send("user.create", **creation(name))
    old_api.send("user.delete", user_id=2)
    total = "SELECT COUNT(*) FROM {}"
    eventually(lambda: in_old(old_database, total) == 2, "the old one consumes", 20)
    in_old(old_database, "UPDATE {} SET numero_reportes = 1 WHERE user_id = 3")
    report = str(uuid.uuid4())
    with pymongo.MongoClient(mongodb_url, tz_aware=True) as client:
        client.get_default_database()["reports"].insert_one(
            {
                "id_reporte": report,
                "id_usuario": 3,
                "tipo_reporte": 1,
                "descripcion": "Bache",
                "fecha_creacion": datetime(2026, 1, 1, tzinfo=UTC),
            }
        )

    shell.run(upgrade)
    processes.stop(consumer)
    old_api.send("user.update", user_id=1, biografia="while nobody consumed")
    old_api.send("user.create", **creation("di"))
    file = shell.folder / "copy_reports.py"
    file.write_text(copy)
    shell.environment["OLD_MONGODB_URL"] = mongodb_url
    shell.run(reports.replace(file.name, str(file)))
    database = connections["default"].settings_dict["NAME"]
    users = users.replace(" messaging <<", f" {database} <<")
    shell.run(users.replace("FROM old.users", f"FROM {old_database}.users"))
    running = shell.start(consume)

    try:
        rows = User.objects.order_by("pk").values_list("nombre", "biografia")
        expected = [("ann", "while nobody consumed"), ("cy", ""), ("di", "")]
        eventually(lambda: [*rows] == expected, "all is applied", 30)
        assert User.objects.in_bulk([1, 3])[3].nombre == "cy"
        again = processes.start(*old_consumer[0], **old_consumer[1])
        assert again.wait(20) == 1
        assert in_old(old_database, total) == 2
        api = start_api(processes)
        assert api.post("/users/", creation("eva")).status_code == 202
        old_api.send("user.create", **creation("flo"))
        eventually(lambda: User.objects.count() == 5, "both APIs are served", 30)
        shown = api.get(f"/reports/{report}/").json()
        assert (shown["descripcion"], shown["id_usuario"]) == ("Bache", 3)
        penalty = {"visibilidad": 0, "penalize_author": True}
        assert api.patch(f"/reports/{report}/", penalty).status_code == 202
        lower = User.objects.filter(pk=3, numero_reportes=1, calificacion=4.5)
        eventually(lower.exists, "the author is penalised", 30)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    assert UserLedger.objects.count() == 5
    assert not DeadLetter.objects.exists()
    assert site.count("users_queue") == 0


@pytest.mark.timeout(240)
def test_no_task_of_celery_is_lost_or_doubled_when_it_becomes_a_message(
    site: Broker, shell: Shell, processes: Processes
) -> None:
    app = Celery("shop", broker=site.url)
    options = ["worker", "--pool", "solo", "--loglevel", "WARNING", "--without-gossip"]
    options += ["--without-mingle", "--without-heartbeat", "--prefetch-multiplier=1"]

    def work(module: str) -> subprocess.Popen[bytes]:
        name, host = f"{MODULES}.{module}", next(names)
        return processes.start("-m", "celery", "-A", name, *options, "-n", host)

    names = (f"worker{number}@%h" for number in count())

    numbers = count()

    def delay(number: int) -> None:
        for _ in range(number):
            name = f"task{next(numbers)}"
            app.send_task("register_user", kwargs=creation(name))

    def applied(number: int) -> None:
        eventually(lambda: User.objects.count() >= number, f"{number} are there", 60)

    shell.run("manage.py topology apply")
    old = work("tasks_before")
    delay(30)
    applied(10)
    new, consumer = work("tasks_after"), processes.manage("run_consumer", "users")
    delay(200)
    # Only what came as a message has a row in the inbox.
    eventually(lambda: Inbox.objects.count() > 5, "the new worker sends", 60)
    assert processes.stop(old) == 0
    new.kill()
    new = work("tasks_after")
    delay(50)
    for _ in range(20):
        publish(UserCreate(**creation(f"task{next(numbers)}")))

    applied(300)
    eventually(lambda: site.count("celery") == 0, "no task waits", 30)
    assert processes.stop(new) == 0
    assert processes.stop(consumer) == 0
    found = sorted(User.objects.values_list("nombre", flat=True))
    assert found == sorted(f"task{number}" for number in range(300))
    assert UserLedger.objects.filter(version=1).count() == 300
    assert not DeadLetter.objects.exists()
    app.close()


def test_the_page_shows_the_task_that_was_tried() -> None:
    [shown] = commands(PAGE, "From Celery", "python")
    source = (BASE / "tests" / "support" / "moving" / "tasks_after.py").read_text()

    assert shown.strip() in source


def fill(site: Broker, queue: str, names: list[str], **arguments: Any) -> None:
    """Declare a queue with arguments, and send creations to it."""
    with site.channel() as channel:
        channel.queue_declare(queue, durable=True, arguments=arguments)
    site.send(
        queue,
        *({"event_type": "user.create"} | creation(name) for name in names),
        delivery_mode=2,
    )


@pytest.mark.timeout(240)
def test_messages_of_queues_with_other_arguments_are_moved_and_none_is_lost(
    site: Broker, shell: Shell, processes: Processes
) -> None:
    [plan, move, replace] = commands(PAGE, "From queues with other arguments")
    limits = {"x-max-length": 100_000, "x-dead-letter-exchange": ""}
    fill(site, "users_queue", ["ann"], **limits)
    fill(site, "users_queue.0", [f"p{n}" for n in range(100)], **limits)
    fill(site, "users_queue.dead", ["ann", "bo"])

    def move_to(source: str, target: str) -> None:
        shell.environment |= {"FROM": source, "TO": target}
        shell.run(move)

    assert {*re.findall(r"users_queue\.\w+", shell.run(plan, code=1))} >= {
        "users_queue.0",
        "users_queue.dead",
    }
    move_to("users_queue.0", "users_queue")
    shell.run(replace.replace("manage.py topology apply", ""))
    move_to("users_queue.dead", "letters")
    shell.run(replace)
    move_to("letters", "users_queue.dead")

    assert site.count("users_queue") == 101
    assert site.count("users_queue.dead") == 2
    processes.manage("run_consumer", "users", "dead_letters")
    eventually(lambda: User.objects.count() == 101, "all are applied", 60)
    eventually(lambda: DeadLetter.objects.count() == 2, "letters are archived", 30)
    assert {one.kind for one in DeadLetter.objects.all()} == {"rejected"}
    # Whoever declares the public queue as before is served as before.
    fill(site, "users_queue", ["zoe"], **limits)
    eventually(User.objects.filter(nombre="zoe").exists, "zoe is there", 30)
