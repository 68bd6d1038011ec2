"""What the capacity guide is made of: batches, reads, replicas of queues, resizing."""

from __future__ import annotations

import atexit
import http.client
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

from messaging.lab.broker_cluster import BrokerCluster
from messaging.lab.processes import free_port
from project.run import api_command

from .accepting import WARM_UP, this_project, token
from .broker import QUORUM, WINDOW, channel, publish_all
from .comparison import Contestant, Effort, Row, Sample
from .draining import FROM_TO, drain, prepare
from .load import read
from .messages import PERSON, Stream, create_only, email_of, to_queue
from .processes import Failed, Meter, Program, answers, cpu_seconds, running, wait_for
from .servers import DIRECTORY, QUEUE, Installation, connect, query
from .sharing import ONCE_SHARED, drain_shared
from .ways import ThisProject

#: Users in the table that is read, and connections that read.
USERS, CONNECTIONS = 10_000, 16
#: The numbers of partitions between which a queue is resized, and its consumers.
FEW, MANY, CONSUMERS = 4, 8, 2


def batches_row(effort: Effort) -> Row:
    """Compare the sizes of batches, and processes whose commits are grouped."""
    every = []
    # Small batches take long: fewer messages do.
    for size, share in ((1, 20), (10, 4), (100, 1), (500, 1)):
        way, some = in_batches_of(size), effort.messages // share
        apply = partial(apply_waiting, way, some)
        measure = partial(with_commits, apply, some)
        every.append(Contestant(f"{size} a batch", way.differs, measure))
    way, some = in_batches_of(1, partitions=8, processes=4), effort.messages // 20
    measure = partial(with_commits, partial(drain_shared, way, some), some)
    every.append(Contestant("1 a batch, 4 processes", f"eight {way.differs}", measure))
    return Row(
        "user.create applied in batches of 1, 10, 100 and 500",
        "messages/s",
        every,
        "500 a batch",
        effort.long_rounds,
        f"{effort.messages:,} messages; a quarter of them for batches of 10, a "
        f"twentieth for those of 1. {FROM_TO} By 4 processes: {ONCE_SHARED} The "
        "commits are those of all sessions, the relay's too.",
    )


def in_batches_of(size: int, partitions: int = 1, processes: int = 1) -> ThisProject:
    """Return this project with batches of at most so many messages."""
    name = f"batches_{size}_{partitions}"
    place = Installation(name, partitions, name, PREFETCH=2 * size)
    return ThisProject(place, processes)


def apply_waiting(way: ThisProject, messages: int) -> Sample:
    """Apply messages that wait, and return messages a second."""
    return drain(way, create_only(messages))


def with_commits(measure: Callable[[], Sample], messages: int) -> Sample:
    """Return a sample, and how many commits a second it took."""
    connection, sql = connect(), "SHOW GLOBAL STATUS LIKE 'Com_commit'"
    before = int(query(connection, sql)[0][1])
    sample = measure()
    each = (int(query(connection, sql)[0][1]) - before) / messages
    return replace(sample, notes={"commits/s": sample.value * each})


def reads_row(effort: Effort) -> Row:
    """Compare reading one user with a page of users."""
    paths = {"one user": "/users/1/", "a page of users": "/users/"}
    return Row(
        f"GET /users/ from a table of {USERS:,} users",
        "requests/s",
        [
            Contestant(name, f"`{path}`, 1 process", partial(reads, path, effort))
            for name, path in paths.items()
        ],
        "one user",
        effort.long_rounds,
        f"{effort.seconds} s of wrk with {CONNECTIONS} connections, after {WARM_UP} s "
        "to warm up.",
    )


def reads(path: str, effort: Effort) -> Sample:
    """Return how often a path is read in a second."""
    prepare(ThisProject(), Stream([], users=USERS, existing=USERS))
    api, port = this_project(), free_port()
    program = api.start(port)
    with running(program):
        wait_for(lambda: answers(port), "the API answers", [program])
        read(port, CONNECTIONS, WARM_UP, token(), path)
        meter = Meter([program])
        load = read(port, CONNECTIONS, effort.seconds, token(), path)
        found = load.answers.get("200", 0)
        if not found:
            raise Failed(f"Nothing was read: {load}")
        cpu = meter.per_message(found)
    notes = {"not 200": float(sum(load.answers.values()) - found)}
    return Sample(found / load.seconds, cpu, latency=load.latency, notes=notes)


def replicas_row(effort: Effort) -> Row:
    """Compare a quorum queue on one node with one on three."""
    measure = partial(fill_replicated, effort.messages)
    return Row(
        "published to a quorum queue with 1 and 3 replicas",
        "messages/s",
        [
            Contestant("1 replica", "on one of three nodes", partial(measure, 1)),
            Contestant("3 replicas", "on each of three nodes", partial(measure, 3)),
        ],
        "3 replicas",
        effort.long_rounds,
        f"{effort.messages:,} messages, up to {WINDOW:,} unconfirmed, to the node of "
        "the leader. All nodes are on this machine; CPU is that of the three.",
    )


@cache
def cluster() -> BrokerCluster:
    """Return three nodes, which run until this process ends."""
    nodes = BrokerCluster(DIRECTORY / "cluster")
    atexit.register(nodes.kill)
    nodes.start()
    return nodes


def fill_replicated(messages: int, replicas: int) -> Sample:
    """Return how many messages a second a new queue takes."""
    nodes, queue = cluster().nodes, f"replicated-{uuid.uuid4()}"
    with channel(nodes[0].url) as opened:
        arguments = QUORUM | {"x-quorum-initial-group-size": replicas}
        opened.queue_declare(queue, durable=True, arguments=arguments)
    posts = list(map(to_queue(queue), create_only(messages).envelopes))
    processes = [node.process for node in nodes]
    before = cpu_seconds(processes)
    elapsed = publish_all(nodes[0].url, posts)
    taken = cpu_seconds(processes) - before
    with channel(nodes[0].url) as opened:
        opened.queue_delete(queue)
    return Sample(messages / elapsed, {"broker": 1e6 * taken / messages})


def resize_row(effort: Effort) -> Row:
    """Compare changing the number of partitions while little and much waits."""
    resized = Resized()
    few, many = effort.messages // 20, effort.messages
    return Row(
        f"the pause that changing the number of partitions costs, {FEW} and {MANY}",
        "s",
        [
            Contestant(
                f"{waiting:,} messages wait",
                f"{CONSUMERS} consumers, a relay, 1 process of the API",
                partial(resized.measure, waiting),
            )
            for waiting in (few, many)
        ],
        f"{many:,} messages wait",
        effort.long_rounds,
        "From SIGTERM to the API until it accepts again, as the guide says: stop API "
        "and relay, wait until all is applied, stop the consumers, `topology apply`, "
        "start everything. There and back in turn.",
    )


class Resized:
    """An installation whose queue is resized while messages wait."""

    def __init__(self) -> None:
        self._place = Installation("resized", FEW, "resized")
        self._way = ThisProject(self._place, CONSUMERS)

    def measure(self, waiting: int) -> Sample:
        """Change the number; return the seconds without an accepted request."""
        port = free_port()
        with self._place.settings():
            stream = create_only(waiting)
            progress = prepare(self._way, stream)
            api, relay, consumers = self._start(port)
            with running(api, relay, *consumers):
                wait_for(lambda: accepts(port), "the API accepts", [api])
                self._way.publish(stream.envelopes)
                watch = Watch()
                stop(api, relay)
                watch.lap("stop API and relay")
                wait_for(progress.is_complete, "all is applied", consumers)
                watch.lap("apply what waits")
                stop(*consumers)
                watch.lap("stop consumers")
        queues = self._place.messaging["QUEUES"][QUEUE]
        queues["PARTITIONS"] = FEW + MANY - queues["PARTITIONS"]
        with self._place.settings():
            self._place.manage("topology apply")
            watch.lap("topology apply")
            api, relay, consumers = self._start(port)
            with running(api, relay, *consumers):
                wait_for(lambda: accepts(port), "the API accepts", [api])
                watch.lap("start")
        return Sample(sum(watch.laps.values()), notes=watch.laps)

    def _start(self, port: int) -> tuple[Program, Program, list[Program]]:
        api = Program("api", api_command(port), self._place.environment)
        relay = self._way.program("relay", "relay_outbox")
        return api, relay, self._way.start_consumers()


class Watch:
    """How long each step takes."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Note the seconds since the last step."""
        now = time.monotonic()
        self.laps[name], self._last = now - self._last, now


def stop(*programs: Program) -> None:
    """Stop programs at the same time."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(Program.stop, programs))


def accepts(port: int) -> bool:
    """Return whether the API accepts a user."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"Content-Type": "application/json"}
    headers["Authorization"] = f"Bearer {token()}"
    body = json.dumps(PERSON | {"email": email_of(0)})
    with suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/users/", body, headers)
        return connection.getresponse().status == 202
    return False
