"""Reports: applied to MariaDB and to MongoDB."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import pymongo

from messaging.envelope import Envelope
from messaging.publish import envelope_for
from messaging.topology import consumed_names
from reports.commands import ReportCreate

from .broker import purge
from .comparison import Contestant, Effort, Row, Sample
from .draining import FROM_TO, WARM, add_users
from .processes import Meter, running, wait_for
from .servers import BASE, mongodb
from .ways import ThisProject, make_samples

QUEUE = "reports_queue"


@cache
def collection() -> Any:
    """Return the collection of reports, with its indexes."""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity=0", "--database=reports"],
        cwd=BASE,
        check=True,
    )
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongodb.url)
    return client.get_default_database()["reports"]


def creations(ids: list[str]) -> Iterator[Envelope]:
    """Yield a command for each id that creates a report of the first user."""
    for name in ids:
        yield envelope_for(
            ReportCreate(
                id_reporte=name,
                id_usuario=1,
                tipo_reporte=1,
                descripcion="Issue description",
                ubicacion="Location info",
                fecha_creacion=datetime.now(UTC),
            )
        )


def drain_reports(messages: int) -> Sample:
    """Return the microseconds of CPU that a consumer takes for a report."""
    way = ThisProject()
    make_samples("shipped")  # before: it applies a message
    way.empty()
    stored = collection()
    add_users(way, 1)
    purge(way.url, *consumed_names(QUEUE))
    ids = [str(uuid.uuid4()) for _ in range(messages)]
    way.publish(creations(ids))
    programs = [
        way.program("consumer", "run_consumer", "reports"),
        way.program("relay", "relay_outbox"),
    ]

    def has(name: str) -> Callable[[], Any]:
        return lambda: stored.find_one({"_id": name})

    warm = min(WARM, messages // 10)
    with running(*programs):
        wait_for(has(ids[warm]), "the first reports", programs)
        meter, started = Meter(programs), time.monotonic()
        first = stored.count_documents({"_id": {"$in": ids}})
        wait_for(has(ids[-1]), "the last report", programs)
        elapsed = time.monotonic() - started
        cpu = meter.per_message(max(1, messages - first))
        memory = programs[0].peak
    rate = {"messages/s at best": (messages - first) / elapsed}
    return Sample(cpu["consumer"], cpu, memory, notes=rate)


def reports_row(effort: Effort) -> Row:
    """Measure what a report takes."""
    measure = partial(drain_reports, effort.messages)
    return Row(
        "CPU of the consumer, report.create applied to MariaDB and MongoDB",
        "us a message",
        [Contestant("this project", "quorum queue, one process", measure)],
        "this project",
        effort.rounds,
        f"{effort.messages:,} waiting messages about reports of one user. {FROM_TO}",
    )
