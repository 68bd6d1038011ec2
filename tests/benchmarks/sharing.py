"""Several processes, partitions, and the ingress of the public queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from . import ways
from .broker import publish_all
from .comparison import Contestant, Effort, Row, Sample
from .draining import FROM_TO, contestant, prepare, timed
from .messages import create_only, to_public_queue
from .processes import running, wait_for
from .servers import QUEUE, Installation, connect, query
from .ways import ThisProject

#: This project with eight partitions.
eight = Installation("eight", partitions=8, host="eight")
#: Seconds after which every process has its share of the partitions, once all have any.
SETTLED = 3.0
#: When the messages of rows about several processes are published.
ONCE_SHARED = (
    "published as fast as possible once the processes share the partitions. From the "
    "first one published to the last visible row."
)


def settled(way: ThisProject) -> Callable[[], bool]:
    """Return a function that says whether each process has held its share a while."""
    connection = connect(way.database)
    sql = "SELECT COUNT(DISTINCT worker) FROM messaging_lease "
    sql += "WHERE worker <> '' AND queue = %s"
    since: list[float] = []

    def is_settled() -> bool:
        if query(connection, sql, QUEUE)[0][0] < way.processes:
            since.clear()
            return False
        since.append(time.monotonic())
        return since[-1] - since[0] > SETTLED

    return is_settled


def drain_shared(way: ThisProject, messages: int) -> Sample:
    """Drain partitions that the processes have shared before."""
    with way.installation.settings():
        stream = create_only(messages)
        progress = prepare(way, stream)
        # Leases of the processes before would count.
        query(connect(way.database), "DELETE FROM messaging_lease")
        posts = list(map(way.route, stream.envelopes))
        programs = way.start()
        with running(*programs):
            wait_for(settled(way), "the processes share the partitions", programs)
            publish = partial(publish_all, way.url, posts)
            sample = timed(progress, programs, publish=publish)
            progress.check(programs)
    return sample


def partitions_row(effort: Effort) -> Row:
    """Compare the CPU of two processes that share eight partitions with one's."""

    def cpu(processes: int) -> Sample:
        sample = drain_shared(in_processes(processes), effort.messages)
        rate = {"messages/s at best": sample.value}
        return Sample(sample.cpu["consumer"], sample.cpu, sample.memory, notes=rate)

    return Row(
        "CPU of consumers, eight partitions in two processes against one",
        "us a message",
        [
            Contestant("1 process", "eight quorum queues", partial(cpu, 1)),
            Contestant("2 processes", "eight quorum queues", partial(cpu, 2)),
        ],
        "2 processes",
        effort.rounds,
        f"{effort.messages:,} messages, {ONCE_SHARED}",
    )


def in_processes(count: int) -> ThisProject:
    """Return this project with eight partitions in so many processes."""
    several = f"{count} process{'es' if count > 1 else ''}"
    return ThisProject(eight, processes=count, name=f"this project, {several}")


def processes_row(effort: Effort) -> Row:
    """Compare 1, 2 and 4 processes."""
    contestants = []
    for count in (1, 2, 4):
        ours = in_processes(count)
        measure = partial(drain_shared, ours, effort.messages)
        contestants += [
            contestant(ways.one_by_one(count), effort.messages),
            Contestant(ours.name, f"eight {ours.differs}", measure),
        ]
    return Row(
        "user.create applied by 1, 2 and 4 processes",
        "messages/s",
        contestants,
        "this project, 2 processes",
        effort.long_rounds,
        f"{effort.messages:,} messages of this project, {ONCE_SHARED} A quarter of "
        f"them for pika: {FROM_TO}",
    )


def ingress_row(effort: Effort) -> Row:
    """Compare messages that other programs send to the public queue with ours."""
    one = ThisProject(name="1 process, from the partition")
    public = ThisProject(route=to_public_queue, name="1 process, by the public queue")
    two = replace(public, processes=2, name="2 processes, by the public queue")
    return Row(
        "messages of other programs, by the public queue",
        "messages/s",
        [contestant(way, effort.messages) for way in (one, public, two)],
        two.name,
        effort.rounds,
        f"{effort.messages:,} waiting messages, in the public queue without "
        "properties. The ingress takes what one process takes more of the public "
        f"queue than of the partition. {FROM_TO}",
    )
