"""Several processes, partitions, and the ingress of the public queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from . import ways
from .broker import publish_all
from .comparison import Contestant, Effort, Row, Sample
from .draining import FROM_TO, drain, prepare, timed
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


class Shares:
    """Whether each of several processes has had its share of the partitions a while."""

    def __init__(self, way: ThisProject) -> None:
        self._processes = way.processes
        self._connection = connect(way.database)
        self._since = 0.0

    def __call__(self) -> bool:
        sql = "SELECT COUNT(DISTINCT worker) FROM messaging_lease "
        sql += "WHERE worker <> '' AND queue = %s"
        holders = query(self._connection, sql, QUEUE)[0][0]
        if holders < self._processes:
            self._since = 0.0
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > SETTLED


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
            wait_for(Shares(way), "the processes share the partitions", programs)
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
        plain, ours = ways.one_by_one(count), in_processes(count)
        size = effort.messages
        contestants += [
            Contestant(
                plain.name,
                plain.differs,
                partial(drain_plain, plain, int(size * plain.share)),
            ),
            Contestant(
                ours.name,
                f"eight {ours.differs}",
                partial(drain_shared, ours, size),
            ),
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


def drain_plain(way: ways.Way, messages: int) -> Sample:
    """Drain creations."""
    return drain(way, create_only(messages))


def ingress_row(effort: Effort) -> Row:
    """Compare messages that other programs send to the public queue with ours."""

    def contestant(processes: int, *, is_public: bool) -> Contestant:
        several = f"{processes} process{'es' if processes > 1 else ''}"
        source = "by the public queue" if is_public else "from the partition"
        way = ThisProject(processes=processes)
        if is_public:
            way = ThisProject(processes=processes, route=to_public_queue)
        measure = partial(drain_plain, way, effort.messages)
        return Contestant(f"{several}, {source}", way.differs, measure)

    return Row(
        "messages of other programs, by the public queue",
        "messages/s",
        [
            contestant(1, is_public=False),
            contestant(1, is_public=True),
            contestant(2, is_public=True),
        ],
        "2 processes, by the public queue",
        effort.rounds,
        f"{effort.messages:,} waiting messages, in the public queue without "
        "properties. The ingress takes what one process takes more of the public "
        f"queue than of the partition. {FROM_TO}",
    )


ROWS: dict[str, Callable[[Effort], Row]] = {
    "processes": processes_row,
    "partitions": partitions_row,
    "ingress": ingress_row,
}
