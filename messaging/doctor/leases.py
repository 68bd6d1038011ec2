"""Which worker holds which partitions, and what keeps them from work."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from messaging.conf import settings
from messaging.models.lease import Lease, Worker

from .findings import Finding, Level, note, ok, warning
from .register import DATABASE, examines


@examines(DATABASE)
def leases() -> Iterator[Finding]:
    """Examine the leases; a second time after a while if one is being handed over."""
    findings = list(_look())
    if any(one.level == Level.WARNING for one in findings):
        time.sleep(settings.LEASE)
        findings = list(_look())
    yield from findings


@examines(DATABASE)
def warnings() -> Iterator[Finding]:
    """Report calls that have been running for long, and queues of other consumers."""
    for worker in Worker.objects.using(settings.DATABASE).living():
        for partition, (text, remedy) in (worker.warnings or {}).items():
            yield warning(partition, f"{worker.name} {text}", remedy)


def _look() -> Iterator[Finding]:
    workers = list(Worker.objects.using(settings.DATABASE).all())
    living = {one.pk: one for one in Worker.objects.using(settings.DATABASE).living()}
    queues: dict[str, list[Lease]] = defaultdict(list)
    for lease in Lease.objects.using(settings.DATABASE).order_by("name"):
        queues[lease.queue].append(lease)
    for queue, parts in sorted(queues.items()):
        # A queue without any worker is a finding of `consumers`.
        if any(queue in worker.queues for worker in living.values()):
            yield _of_queue(queue, parts, living)
    for worker in workers:
        if worker.pk not in living:
            yield _not_living(worker, queues)


def _of_queue(queue: str, parts: list[Lease], living: dict[str, Worker]) -> Finding:
    free = [lease.name for lease in parts if lease.worker not in living]
    if free:
        text = f"no process holds {', '.join(free)}"
        return warning(queue, text, "The log of its consumers says why; restart them.")
    shares: dict[str, list[str]] = defaultdict(list)
    for lease in parts:
        shares[living[lease.worker].name].append(lease.name)
    held = [f"{name} holds {', '.join(mine)}" for name, mine in sorted(shares.items())]
    return ok(queue, "; ".join(held))


def _not_living(worker: Worker, queues: dict[str, list[Lease]]) -> Finding:
    held = [
        lease.name
        for parts in queues.values()
        for lease in parts
        if lease.worker == worker.pk
    ]
    text = f"dead or frozen since {worker.seen_at:%Y-%m-%d %H:%M:%S} UTC"
    if held:
        remedy = "Look at that process; start another, which takes them over."
        return warning(worker.name, f"{text}, and holds {', '.join(held)}", remedy)
    return note(worker.name, text, "manage.py prune_messages removes it.")
