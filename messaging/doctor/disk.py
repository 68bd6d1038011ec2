"""Whether the disks of the broker fill up: then it takes no message of anybody."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import urlopen

from messaging.conf import settings
from messaging.logs.repetition import RepeatingLogger

from .findings import Finding, error, ok, unknown, warning
from .register import examines

repeating = RepeatingLogger(__name__)

#: Bytes above the limit at which the broker stops: a warning comes before.
MARGIN = 1024**3
#: Bytes of a page of metrics that are read, and seconds to wait for them.
MOST, TIMEOUT = 8 * 1024**2, 2.0
#: Seconds between two looks of a process that logs.
PAUSE = 60.0
#: The lines of RabbitMQ's plugin for Prometheus.
NAMES = ("available_bytes", "available_limit_bytes")
LINE = r"^rabbitmq_disk_space_{}(?:\{{.*\}})? (\S+)$"
REMEDY = (
    "Find the queue that grows (manage.py top), start its consumers or stop its "
    "senders, or enlarge the disk."
)


@dataclass(frozen=True, slots=True)
class Disk:
    """The free space of a node of the broker, and its limit, in bytes."""

    node: str
    free: float
    limit: float

    @property
    def is_full(self) -> bool:
        """Whether the node takes no messages any more."""
        return self.free <= self.limit

    @property
    def is_low(self) -> bool:
        """Whether that is near."""
        return self.free <= self.limit + MARGIN

    def __str__(self) -> str:
        free, limit = self.free / 2**20, self.limit / 2**20
        return f"{self.node}: {free:,.0f} MiB are free; at {limit:,.0f} MiB it stops"


def disks() -> list[Disk]:
    """Return the disks of all nodes; raises `OSError` or `ValueError`."""
    return [disk_of(url) for url in settings.BROKER_METRICS]


def disk_of(url: str) -> Disk:
    """Return the disk of a node, from the page of its metrics."""
    with urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 checked (rules.py)
        text = answer.read(MOST).decode(errors="replace")
    found = [re.search(LINE.format(name), text, re.MULTILINE) for name in NAMES]
    values = [float(one[1]) for one in found if one]
    if len(values) != len(found):
        raise ValueError("it is no page of RabbitMQ's plugin for Prometheus")
    return Disk(urlsplit(url).netloc.rpartition("@")[2], *values)


@examines()
def broker_disk() -> Iterator[Finding]:
    """Compare the free space of each node with its limit."""
    subject = "disk of the broker"
    if not settings.BROKER_METRICS:
        remedy = (
            "Enable rabbitmq_prometheus on its nodes, and set "
            "MESSAGING['BROKER_METRICS'] to the URLs."
        )
        yield unknown(subject, "its free space is not known", remedy)
        return
    for disk in disks():
        if disk.is_full:
            yield error(subject, str(disk), REMEDY)
        elif disk.is_low:
            yield warning(subject, str(disk), REMEDY)
        else:
            yield ok(subject, str(disk))


@contextmanager
def logged_disks() -> Iterator[None]:
    """Log a warning about each disk that fills up, as long as a `with` block runs."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            log_disks()
            ended.wait(PAUSE)

    if settings.BROKER_METRICS:
        threading.Thread(target=watch, name="disks", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def log_disks() -> None:
    """Log a warning about each disk that fills up, or that cannot be read."""
    try:
        found = disks()
    except (OSError, ValueError) as cause:
        repeating.warning("The free space of the broker is not known: %s", cause)
        return
    for disk in found:
        if disk.is_low:
            text = "The disk of the broker fills up: %s"
            repeating.warning(text, disk, about=disk.node)
