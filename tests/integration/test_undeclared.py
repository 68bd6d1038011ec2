"""A topology that others make: nothing is declared; what is missing is waited for."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from messaging import CallTimeout, NoServer, call, serves
from messaging.amqp import queues
from messaging.amqp.client import connect
from messaging.amqp.publisher import Publisher, publisher
from messaging.cluster.repartition import differences, plan
from messaging.doctor.findings import Level
from messaging.doctor.rpc import functions
from messaging.doctor.topology import topology
from messaging.envelope import PARTITIONS, Envelope
from messaging.exceptions import MessagingError, NotThere, Unroutable
from messaging.models import Outbox
from messaging.registry import handlers
from messaging.rpc.client import Replies, ReplyLost, replies
from messaging.rpc.functions import served
from messaging.rpc.server import Server
from messaging.topology import Binding, declared, partition_name
from tests.support.broker import Broker, virtual_host
from tests.support.processes import Processes, start_api
from tests.support.waiting import eventually, stored
from users.models import User

ANN = {"nombre": "Ann", "apellido": "Lee"}
FIRST = partition_name("users_queue", 0)


class Site:
    """A virtual host of others, and a user who may configure nothing there."""

    def __init__(self, server: Any, directory: Path) -> None:
        self.name = f"others-{uuid.uuid4()}"
        self.user = f"runner-{uuid.uuid4()}"
        self.url = f"amqp://{self.user}:secret@127.0.0.1:{server.port}/{self.name}"
        self._server = server
        self._directory = directory
        self.administrator = virtual_host(self.name)
        server.control("add_user", self.user, "secret")

    def allow(self, write: str, read: str = ".*") -> None:
        """Let the user publish and consume what has these names."""
        patterns = ("^$", write, read)
        self._server.control("set_permissions", "-p", self.name, self.user, *patterns)

    def make(self) -> None:
        """Import what the project exports, as its administrator."""
        path = self._directory / "definitions.json"
        out = StringIO()
        call_command("topology", "export", "--user", self.user, stdout=out)
        path.write_text(out.getvalue())
        self._server.control("import_definitions", str(path))

    def permissions(self) -> list[dict[str, str]]:
        """Return the permissions of the user."""
        return self._listed("user_permissions", self.user)

    def bindings(self) -> list[dict[str, str]]:
        """Return all bindings."""
        columns = ("source_name", "routing_key", "destination_name")
        return self._listed("bindings", *columns, "-p", self.name)

    def policies(self) -> list[dict[str, str]]:
        """Return all policies."""
        return self._listed("policies", "-p", self.name)

    def _listed(self, what: str, *arguments: str) -> list[dict[str, str]]:
        command = (f"list_{what}", *arguments, "--formatter", "json")
        found: list[dict[str, str]] = json.loads(self._server.control(*command))
        return found


@pytest.fixture
def site(
    broker: Broker,
    no_consumers: None,
    servers: SimpleNamespace,
    settings: Any,
    tmp_path: Path,
) -> Iterator[Site]:
    """An empty virtual host, which this process uses without declaring anything."""
    one = Site(servers.rabbitmq, tmp_path)
    settings.MESSAGING = settings.MESSAGING | {"URL": one.url, "DECLARE": False}
    yield one
    servers.rabbitmq.control("delete_vhost", one.name)


@pytest.fixture
def environment(site: Site) -> dict[str, str]:
    """The environment of processes that declare nothing."""
    return {"RABBITMQ_URL": site.url, "MESSAGING": json.dumps({"DECLARE": False})}


@contextmanager
def serving(name: str) -> Iterator[None]:
    """Serve a function that returns its own name, in this process."""

    @serves(name)
    def whoami() -> str:
        return name

    server = Server(served[name], threads=1)
    thread = threading.Thread(target=server.run)
    server.connection.start()
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()
        server.connection.close()
        del served[name]


@contextmanager
def receiving() -> Iterator[Replies]:
    """Call, and receive replies, on connections of the site."""
    own, sender = Replies().connect(), Publisher("test")
    try:
        with replies.replaced_by(own), publisher.replaced_by(sender):
            yield own
    finally:
        own.close()
        sender.close()


def test_what_is_missing_is_waited_for_and_everything_works_once_it_is_there(
    site: Site, environment: dict[str, str], processes: Processes
) -> None:
    site.allow(".*")
    api = start_api(processes, CONFIRM_TIMEOUT="1", **environment)
    consumer = processes.manage("run_consumer", "--all", **environment)
    relay = processes.manage("relay_outbox", **environment)

    refused = api.post("/users/", ANN | {"email": "ann@example.com"})

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    site.make()
    headers = {"Prefer": "wait=10"}
    eventually(
        lambda: (
            api.post(
                "/users/", ANN | {"email": "b@example.com"}, headers=headers
            ).status_code
            in (201, 409)
        ),
        "it is stored, and the outcome comes back",
        40,
    )
    Broker(site.url).send("users_queue", {"event_type": "user.create", "data": {}})
    eventually(
        stored(lambda: not Outbox.objects.exists() and User.objects.count() == 1),
        "events are published",
        20,
    )
    for one in (consumer, relay):
        assert one.poll() is None
        assert processes.stop(one) == 0


def test_the_exported_permissions_are_all_that_is_needed(site: Site) -> None:
    site.make()

    (found,) = site.permissions()

    assert found["configure"] == "^$"
    for kind in ("write", "read"):
        assert ".*" not in found[kind]


def test_what_is_imported_is_what_the_project_would_declare(
    site: Site, settings: Any
) -> None:
    site.make()
    owner = {"URL": site.administrator, "DECLARE": True}
    settings.MESSAGING = settings.MESSAGING | owner

    with connect("test") as client:
        # A queue with other arguments would have to be replaced, or differ.
        assert [one for one in plan(client) if one.action != "record"] == []
        assert list(differences(client)) == []
    found = {tuple(one.values()) for one in site.bindings()}
    wanted = [one for one in declared() if isinstance(one, Binding)]
    assert len(wanted) > 5
    for one in wanted:
        assert (one.exchange, one.routing_key, one.queue) in found
    names = {one["name"] for one in site.policies()}
    assert names >= {"messaging-leaders", *(f"limit-{queue}" for queue in handlers)}


def test_a_publisher_says_what_is_missing_and_who_makes_it(site: Site) -> None:
    site.allow(".*")
    own = Publisher("test")
    try:
        with pytest.raises(Unroutable, match=f"{PARTITIONS}.*topology export"):
            own.publish(Envelope(b"{}", FIRST, exchange=PARTITIONS))
        with pytest.raises(NotThere):
            own.declare()
        site.make()
        own.publish(Envelope(b"{}", FIRST, exchange=PARTITIONS))
        own.declare()
    finally:
        own.close()


def test_doctor_and_plan_name_what_is_missing_and_change_nothing(site: Site) -> None:
    site.allow(".*")
    with serving("price"):
        missing = [*topology(), *functions()]
        plans = StringIO()
        with pytest.raises(SystemExit) as ended:
            call_command("topology", "plan", stdout=plans)
        assert ended.value.code == 1
        with pytest.raises(CommandError, match="Left undone"):
            call_command("topology", "apply", stdout=StringIO())
        for name in ("users_queue", FIRST, "users_queue.dead", PARTITIONS, "price"):
            assert any(
                one.level == Level.ERROR and f" {name}" in one.text for one in missing
            ), name
        assert any("messaging.outbox" in one.text for one in missing)
        assert "DECLARE" in plans.getvalue()

        site.make()

        with connect("test") as client:
            assert [step for step in plan(client) if step.action != "record"] == []
        assert {one.level for one in functions()} <= {Level.OK, Level.NOTE}


def test_calls_are_answered_without_any_queue_for_replies(site: Site) -> None:
    site.allow(".*")
    name = f"price-{uuid.uuid4()}"
    with serving(name), receiving() as own:
        with pytest.raises(NoServer):
            call(name, timeout=5)
        site.make()

        eventually(lambda: answers(name), "it is served", 40)

        assert own.address.startswith("amq.rabbitmq.reply-to.")


def test_replies_without_a_queue_can_arrive_for_as_long_as_one_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question about such a queue would end the connection."""
    site.make()
    monkeypatch.setattr(queues, "WATCH_PAUSE", 0.05)

    with receiving() as own, own.expected("any", 10) as reply:
        with pytest.raises(TimeoutError) as error:
            reply.result(1)
        assert not isinstance(error.value, ReplyLost)


def answers(name: str) -> bool:
    """Return whether a function that returns its own name is served."""
    try:
        return bool(call(name, timeout=5) == name)
    except NoServer:
        return False


@pytest.mark.parametrize("exchange", ["amq\\.default", "messaging\\.partitions"])
def test_permission_to_publish_to_either_exchange_is_enough_to_receive_replies(
    site: Site, exchange: str
) -> None:
    site.make()
    site.allow(f"^{exchange}$")

    with receiving() as own, own.expected("any", 10):
        assert own.address.startswith("amq.rabbitmq.reply-to.")


def test_who_may_publish_nowhere_learns_that_no_reply_can_arrive(site: Site) -> None:
    site.make()
    with serving("price"):
        site.allow("^$")
        with receiving(), pytest.raises(CallTimeout, match="reply"):
            call("price", timeout=2)


def test_nothing_temporary_is_declared(site: Site) -> None:
    site.make()
    with connect("test") as client, pytest.raises(MessagingError, match="DECLARE"):
        client.temporary_queue()
