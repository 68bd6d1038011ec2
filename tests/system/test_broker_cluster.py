"""Three broker nodes: what is accepted is applied while one of them is lost."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import connections

from messaging.amqp.connection import Connection
from messaging.amqp.public_queue import PublicSubscription
from messaging.amqp.publisher import Publisher
from messaging.envelope import Envelope
from messaging.exceptions import Unroutable
from messaging.lab.broker_cluster import BrokerCluster, Node
from tests.support.broker import NEW_QUEUE, Broker
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually, stored
from users.models import User

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ANN = {"nombre": "Ann", "apellido": "Lee"}
#: Seconds within which writes are accepted again, after a node has ended, and after one
#: was frozen or cut off from the others.
CLOSED, FROZEN = 5.0, 15.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[BrokerCluster]:
    """Three nodes."""
    directory = Path(tempfile.mkdtemp(prefix="messaging-tests-"))
    with BrokerCluster(directory) as three:
        connections.close_all()  # the server has closed them meanwhile
        yield three
    shutil.rmtree(directory)


@pytest.fixture
def api(
    broker: Broker, no_consumers: None, processes: Processes, cluster: BrokerCluster
) -> Iterator[API]:
    """The API with consumers and a relay, all on the cluster."""
    processes.environment |= {"RABBITMQ_URL": cluster.url, "CONFIRM_TIMEOUT": "2"}
    processes.output("topology", "apply")
    time.sleep(NEW_QUEUE)
    processes.manage("run_consumer", "users", "reports")
    processes.manage("relay_outbox")
    one = start_api(processes)
    eventually(lambda: post(one, "first@example.com").status_code == 202, "it accepts")
    eventually(stored(User.objects.exists), "it is applied", 30)
    yield one
    processes.kill_all()
    try:
        cluster.restore()
    finally:
        connections.close_all()  # the server has closed them meanwhile


def post(api: API, email: str, **options: Any) -> requests.Response:
    """Create a user."""
    return api.post("/users/", ANN | {"email": email}, **options)


class Load:
    """Writes one after the other; remembers what was accepted, and when."""

    def __init__(self, api: API) -> None:
        self.accepted: dict[str, float] = {}
        self.refused: list[requests.Response] = []
        self.errors: list[Exception] = []
        self._api = api
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(0.02):
                return
            email = f"user-{number}@example.com"
            try:
                answer = post(self._api, email)
            except requests.RequestException as error:
                self.errors.append(error)
                continue
            if answer.status_code == 202:
                self.accepted[email] = time.monotonic()
            else:
                self.refused.append(answer)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


def applied(load: Load) -> Callable[[], bool]:
    """Return the condition that all accepted writes are applied."""

    def are_stored() -> bool:
        emails = set(User.objects.values_list("email", flat=True))
        return load.accepted.keys() <= emails

    return stored(are_stored)


@contextmanager
def failing(
    load: Load, node: Node, fault: Callable[[], None], limit: float
) -> Iterator[None]:
    """Cause a fault, and wait until writes are accepted again, and again."""
    count = len(load.accepted)
    eventually(lambda: len(load.accepted) > count + 20, "writes are accepted")
    moment = time.monotonic()
    fault()
    # What was under way may still have been accepted just then.
    eventually(
        lambda: len(accepted_since(load, moment + 0.1)) > 20,
        f"writes are accepted without {node.node}",
        limit + 10,
    )
    yield
    gaps = sorted(accepted_since(load, moment - 1))
    longest = max(after - before for before, after in itertools.pairwise(gaps))
    logger.warning("The longest pause in accepting writes: %.1f s", longest)
    assert longest < limit


def accepted_since(load: Load, moment: float) -> list[float]:
    """Return when writes were accepted after a moment."""
    return [at for at in list(load.accepted.values()) if at > moment]


@pytest.mark.parametrize("fault", ["kill", "stop", "pause", "isolate"])
def test_a_lost_leader_loses_nothing_and_writes_go_on_in_time(
    api: API, cluster: BrokerCluster, fault: str
) -> None:
    node = cluster.leader("users_queue.0")
    limit = CLOSED if fault in ("kill", "stop") else FROZEN

    with Load(api) as load, failing(load, node, getattr(node, fault), limit):
        eventually(applied(load), "it goes on being applied", 60, 0.5)

    eventually(applied(load), "all that was accepted is applied", 60, 0.5)
    assert load.errors == []
    assert {one.status_code for one in load.refused} <= {503}
    assert all(one.headers["Retry-After"] for one in load.refused)


def test_a_reply_queue_lost_with_its_node_is_made_anew_and_who_waits_gets_202(
    api: API, cluster: BrokerCluster
) -> None:
    wait = {"Prefer": "wait=10"}
    assert post(api, "waiting@example.com", headers=wait).status_code == 201
    node = cluster.leader(reply_queue(cluster))
    node.kill()

    started = time.monotonic()
    answers = [post(api, f"w{n}@example.com", headers=wait) for n in range(3)]

    assert {one.status_code for one in answers} <= {201, 202, 503}
    assert time.monotonic() - started < 30
    eventually(
        lambda: (
            post(api, f"{time.monotonic()}@example.com", headers=wait).status_code
            == 201
        ),
        "outcomes come back on another node",
        20,
    )


def reply_queue(cluster: BrokerCluster) -> str:
    """Return the name of the only reply queue."""
    names = [name for node in cluster.nodes for name in node.lengths()]
    (found,) = [name for name in names if name.startswith("replies.")]
    return found


class Counting(PublicSubscription):
    """Counts its channels."""

    channels = 0

    def opened(self, channel: Any) -> None:
        """Count one more."""
        self.channels += 1
        super().opened(channel)


def test_a_public_queue_waits_for_its_node_without_haste(
    api: API, cluster: BrokerCluster, processes: Processes, settings: Any
) -> None:
    node = cluster.leader("users_queue")
    living = next(one for one in cluster.nodes if one is not node)
    Broker(node.url).send("users_queue", creation("before@example.com"))
    eventually(stored(lambda: has("before@example.com")), "it is forwarded", 30)
    with Broker(node.url).channel() as channel:  # such a queue, but not consumed
        channel.queue_declare("waiting", durable=True)
    Broker(node.url).send("waiting", b"transient")
    Broker(node.url).send("waiting", b"persistent", delivery_mode=2)
    node.kill()

    eventually(lambda: post(api, "own@example.com").status_code == 202, "it accepts")
    eventually(stored(lambda: has("own@example.com")), "the API goes on", 30)
    assert "is down" in processes.output("doctor", "--json", check=False)
    settings.MESSAGING = settings.MESSAGING | {"URL": living.url}
    other = Counting("users_queue", "users_queue")
    connection = Connection("test", other)
    other.attach(connection)
    connection.start()
    other.begin()
    eventually(lambda: other.channels > 2, "it tries again")
    time.sleep(1)  # long enough to notice a loop without pauses
    assert other.channels < 15
    connection.close()
    publisher = Publisher("test")
    with pytest.raises(Unroutable, match="No queue takes"):
        publisher.publish(Envelope(b"{}", "users_queue"))
    publisher.close()

    cluster.restore()
    assert Broker(node.url).take("waiting")[1] == b"persistent"
    Broker(node.url).send("users_queue", creation("after@example.com"))
    eventually(stored(lambda: has("after@example.com")), "it is forwarded again", 60)


def creation(email: str) -> dict[str, Any]:
    """Return the body of a message that creates a user."""
    return {"event_type": "user.create", **ANN, "email": email}


def has(email: str) -> bool:
    """Return whether there is a user with this e-mail."""
    return User.objects.filter(email=email).exists()
