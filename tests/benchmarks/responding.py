"""How long after its acceptance a write is visible, at a low rate of requests."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from messaging.lab.processes import free_port

from . import ways
from .accepting import API, drf, this_project, token
from .comparison import Contestant, Effort, Row, Sample
from .messages import PERSON, email_of
from .processes import Meter, answers, running, wait_for
from .servers import connect, query
from .ways import ThisProject, Way

#: Requests a second: far below what any client or server can do.
RATE = 50
#: Connections of the client; one is free whenever a request is due.
CONNECTIONS = 4
#: Seconds between two looks at the table.
INTERVAL = 0.001
#: Requests before the clock starts.
WARM = 50


class Watcher(threading.Thread):
    """Notes when each user becomes visible."""

    def __init__(self, database: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        self._connection = connect(database)
        self._stopping = threading.Event()

    def run(self) -> None:
        last = 0
        sql = "SELECT user_id, email FROM users_user WHERE user_id > %s ORDER BY 1"
        while not self._stopping.wait(INTERVAL):
            rows = query(self._connection, sql, last)
            now = time.monotonic()
            self.seen |= {email: now for _, email in rows}
            last = rows[-1][0] if rows else last

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class Client:
    """Sends requests at a constant rate, and notes when each is accepted."""

    def __init__(self, port: int, sent: str) -> None:
        self.accepted: dict[str, float] = {}
        self.refused = 0
        self._headers = {"Content-Type": "application/json"}
        if sent:
            self._headers["Authorization"] = f"Bearer {sent}"
        self._local = threading.local()
        self._port = port

    def send(self, count: int) -> None:
        """Send so many requests."""
        start = time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for number in range(count):
                time.sleep(max(0.0, start + number / RATE - time.monotonic()))
                pool.submit(self._post, email_of(number))

    def _connection(self) -> Any:
        if not hasattr(self._local, "connection"):
            new = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            self._local.connection = new
        return self._local.connection

    def _post(self, email: str) -> None:
        connection = self._connection()
        body = json.dumps(PERSON | {"email": email})
        connection.request("POST", "/users/", body, self._headers)
        response = connection.getresponse()
        response.read()
        if response.status == 202:
            self.accepted[email] = time.monotonic()
        else:
            self.refused += 1


def respond(api: API, way: Way, seconds: int) -> Sample:
    """Return the median of milliseconds from the 202 to the visible row."""
    way.empty()
    api.empty()
    port = free_port()
    programs = [api.start(port), *way.start()]
    watcher = Watcher(way.database)
    with running(*programs):
        wait_for(lambda: answers(port), "the API answers", programs)
        watcher.start()
        client = Client(port, token() if api.token else "")
        warm = Client(port, token() if api.token else "")
        warm.send(WARM)
        wait_for(lambda: len(watcher.seen) >= WARM, "the first users", programs)
        meter = Meter(programs)
        client.send(RATE * seconds)
        accepted = client.accepted
        wait_for(lambda: accepted.keys() <= watcher.seen.keys(), "all users", programs)
        cpu = meter.per_message(len(accepted))
    watcher.stop()
    delays = [1000 * (watcher.seen[e] - moment) for e, moment in accepted.items()]
    cuts = statistics.quantiles(delays, n=100)
    latency = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(delays)}
    notes = {"not 202": float(client.refused)}
    return Sample(cuts[49], cpu, None, latency, notes)


def latency_row(effort: Effort) -> Row:
    """Compare the delay from acceptance to effect."""
    plain_api = drf()
    plain = ways.one_by_one(queue=plain_api.queue)
    ours_api, ours = this_project(), ThisProject()
    seconds = 2 * effort.seconds
    return Row(
        f"accepted to applied, {RATE} requests/s",
        "ms",
        [
            Contestant(
                "DRF + pika, one by one",
                f"{plain_api.differs}; {plain.differs}",
                lambda: respond(plain_api, plain, seconds),
            ),
            Contestant(
                "this project",
                f"{ours_api.differs}; {ours.differs}",
                lambda: respond(ours_api, ours, seconds),
            ),
        ],
        "this project",
        effort.rounds,
        f"From the client's receipt of the 202 to the visible row, which is looked for "
        f"every {INTERVAL * 1000:.0f} ms; {seconds} s, from a client in Python. A row "
        "may be visible before the answer has arrived.",
    )
