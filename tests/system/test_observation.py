"""What operators see while work goes on, and goes wrong: it equals what there is."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import pytest
import requests
from django.contrib.auth.models import User as Account
from django.db.models import Count
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from messaging import topology
from messaging.database import close_stale_connections
from messaging.lab.processes import free_port
from messaging.models import DeadLetter, Inbox, Parked
from messaging.registry import handlers
from tests.support import private_servers
from tests.support.broker import Broker
from tests.support.messages import ANN, PERSON, handle
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually
from users.models import User

#: Requests a second, and the share of messages that no handler can apply.
RATE, POISON = 200, 0.01
SENDERS = 8
#: Looks during a load.
LOOKS = 10
#: Seconds between two equal readings of the broker.
STEADY = 6
STATES = ("handled", "dead_lettered")
ROW = re.compile(r'<tr>\s*<th scope="row">(\w+).*?</th>(.*?)</tr>', re.DOTALL)
CELL = re.compile(r'<td class="number"[^>]*>(\d+|\?)</td>')


class Numbers(NamedTuple):
    """What waits in a queue: ready, in hand and parked messages."""

    ready: int
    in_hand: int
    parked: int


class Load:
    """Requests of several clients, until it is stopped."""

    def __init__(self, api: API) -> None:
        self.accepted: Counter[str] = Counter()
        self.poison = 0
        self._api = api
        self._author = User.objects.get().pk
        self._numbers = count()
        self._may_send, self._stopping = threading.Event(), threading.Event()
        self._idle = threading.Semaphore(SENDERS)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._may_send.set()
        for thread in self._threads:
            thread.join()

    def go_on_for(self, seconds: float) -> None:
        """Send for a while, and return once all is answered."""
        self._may_send.set()
        time.sleep(seconds)
        self._may_send.clear()
        for _ in range(SENDERS):
            assert self._idle.acquire(timeout=20)
        self._idle.release(SENDERS)

    def _send(self) -> None:
        session, broker = requests.Session(), Broker()
        due = time.monotonic()
        while self._may_send.wait() and not self._stopping.is_set():
            with self._idle:
                self._send_one(session, broker, next(self._numbers))
            due = max(due + SENDERS / RATE, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))

    def _send_one(self, session: requests.Session, broker: Broker, number: int) -> None:
        if number % int(1 / POISON) == 0:
            poison = b'{"event_type": "user.create"}'
            broker.send("users_queue", poison, message_id=str(uuid.uuid4()))
            self.poison += 1
            return
        path, body = "users", PERSON | {"email": f"load{number}@example.com"}
        if number % 20 == 1:
            path = "reports"
            body = {"id_usuario": self._author, "tipo_reporte": 1}
            body |= {"descripcion": "Bache", "ubicacion": "Calle Mayor"}
        url = f"{self._api.url}/{path}/"
        assert session.post(url, json=body, timeout=20).status_code == 202
        self.accepted[path] += 1


class Observed:
    """The same system as page, doctor, metrics, broker and databases show it."""

    def __init__(self, api: API, processes: Processes) -> None:
        self._api, self._processes = api, processes
        self._client = Client()
        self._client.force_login(Account.objects.create_superuser("mira"))

    def broker(self) -> dict[str, tuple[int, int]]:
        """Return ready and unacknowledged messages by the broker's names."""
        columns = ("name", "messages_ready", "messages_unacknowledged")
        text = private_servers.rabbitmq.control(
            "list_queues", *columns, "--formatter=json"
        )
        return {
            row["name"]: (row["messages_ready"], row["messages_unacknowledged"])
            for row in json.loads(text)
        }

    def steady(self) -> dict[str, tuple[int, int]]:
        """Return what the broker has once it is the same for a while."""
        before = self.broker()
        for _ in range(20):
            time.sleep(STEADY)
            now = self.broker()
            if now == before:
                return now
            before = now
        pytest.fail("The queues have not come to rest.")

    def truth(self) -> dict[str, Numbers]:
        """Return what waits by queue, from the broker at rest and the database."""
        there = self.steady()
        close_stale_connections()
        rows = Parked.objects.order_by().values_list("partition").annotate(Count("pk"))
        parked = dict(rows)
        result = {}
        for queue in handlers:
            names = topology.consumed_names(queue)
            pairs = [there.get(name, (0, 0)) for name in names]
            ready, in_hand = (sum(column) for column in zip(*pairs, strict=True))
            in_table = sum(parked.get(name, 0) for name in names)
            result[queue] = Numbers(ready, in_hand, in_table)
        return result

    def page(self) -> dict[str, Numbers]:
        """Return what the home page of messages shows."""
        html = self._client.get("/admin/messaging/").content.decode()
        rows = {name: CELL.findall(rest)[:3] for name, rest in ROW.findall(html)}
        return {queue: Numbers(*map(int, rows[queue])) for queue in handlers}

    def metrics(self) -> dict[str, Numbers]:
        """Return what Prometheus would scrape."""
        names = ("queue_ready", "queue_in_hand", "parked")
        sums: dict[tuple[str, str], float] = Counter()
        for name, labels, value in self.samples():
            if queue := labels.get("queue"):
                sums[name, queue.rpartition(".")[0] or queue] += value
        return {
            queue: Numbers(*(int(sums[f"messaging_{name}", queue]) for name in names))
            for queue in handlers
        }

    def total(self, name: str) -> float:
        """Return the sum of a counter over all queues and types."""
        full = f"messaging_{name}_total"
        return sum(value for one, _, value in self.samples() if one == full)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield name, labels and value of each sample of `/metrics`."""
        text = self._api.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def doctor(self) -> dict[str, int]:
        """Return how many messages wait in each queue, as the doctor counts."""
        found = {}
        for one in self.findings():
            if number := re.search(r"(\d+) messages wait", one["text"]):
                found[one["subject"]] = int(number[1])
        return {queue: found.get(queue, 0) for queue in handlers}

    def findings(self) -> list[dict[str, str]]:
        """Return what the doctor finds."""
        result: list[dict[str, str]] = json.loads(
            self._processes.output("doctor", "--json", check=False)
        )
        return result


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_page_doctor_and_metrics_equal_what_there_is(
    no_consumers: None, processes: Processes, seconds: int
) -> None:
    handle(ANN)
    mail = free_port()

    def consume() -> Any:
        server = {"EMAIL_URL": f"smtp://127.0.0.1:{mail}"}
        return processes.manage("run_consumer", "--all", **server)

    consumers = [consume() for _ in range(3)]
    processes.manage("relay_outbox")
    api = start_api(processes, workers=4)
    seen = Observed(api, processes)
    time.sleep(10)  # until what earlier tests have sent is counted
    before = {name: seen.total(name) for name in ("accepted", *STATES)}
    started = datetime.now(UTC)
    with Load(api) as load, ThreadPoolExecutor() as pool:
        is_named = pool.submit(wait_for_the_outage, seen, mail)
        for look in range(LOOKS):
            if look == 3:
                consumers.pop().kill()
            if look == 6:
                consumers[0].send_signal(signal.SIGSTOP)
            load.go_on_for(seconds / LOOKS)
            if look % 2:
                for one in consumers:
                    one.send_signal(signal.SIGSTOP)
                compare(seen)
                for one in consumers:
                    one.send_signal(signal.SIGCONT)
            else:
                for one in consumers:
                    one.send_signal(signal.SIGCONT)
                    processes.stop(one)
                compare(seen)
                consumers = [consume() for _ in range(3)]
        assert is_named.result() - started < timedelta(seconds=30)

    def is_done() -> bool:
        return not any(numbers.ready for numbers in seen.truth().values())

    eventually(is_done, "all is handled or parked", 300, interval=1)
    assert User.objects.count() == 1 + load.accepted["users"]
    assert DeadLetter.objects.count() == load.poison
    time.sleep(10)
    counted = {name: seen.total(name) - number for name, number in before.items()}
    # Ann was created here, where nothing is counted.
    done = Inbox.objects.filter(status=Inbox.Status.DONE).count() - 1
    accepted = load.accepted.total()
    assert counted == {
        "accepted": accepted,
        "handled": done,
        "dead_lettered": load.poison,
    }


def wait_for_the_outage(seen: Observed, port: int) -> datetime:
    """Return when the doctor names address, error and time of the mail server."""

    def is_named() -> bool:
        return any(
            f"127.0.0.1:{port}" in one["text"]
            and "refused" in one["text"]
            and re.search(r"since \d\d\d\d-\d\d-\d\d \d\d:\d\d", one["text"])
            for one in seen.findings()
        )

    eventually(is_named, "the doctor names the mail server", 60, interval=1)
    return datetime.now(UTC)


def compare(seen: Observed) -> None:
    """Fail unless all ways to look at the system agree."""
    truth = seen.truth()
    assert seen.page() == truth
    assert seen.metrics() == truth
    assert seen.doctor() == {queue: sum(numbers) for queue, numbers in truth.items()}
