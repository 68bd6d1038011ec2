"""One run of the lab: put up, drive, break, mend, drain, judge."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO

import pika
from django.core.management import call_command
from django.db import connections
from pika.exceptions import AMQPError

from messaging.conf import settings
from messaging.models import Outbox
from messaging.registry import handlers

from .drive import Driver, Record
from .faults import WEIGHTS, Faults
from .sender import Messages, Requests
from .system import Plan, System
from .verdict import Given, Told, Verdict, judge
from .witness import Witness
from .workload import Client, discover

#: Threads that send operations.
CLIENTS = 8
#: Seconds between two lines of progress.
PROGRESS = 5
#: Seconds in which everything must have recovered, and all queues must be empty.
DRAIN_DEADLINE = 120
#: Seconds without a new fact after which none is expected any more.
QUIET = 1.0


class DrainFailed(Exception):
    """Work was left though everything runs."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a run."""

    seed: int = 1
    seconds: float = 60
    kill_every: float = 3
    faults: tuple[str, ...] = tuple(WEIGHTS)
    processes: int = 4
    #: Operations per second, at most.
    rate: float = 80
    manage: str = "python manage.py"
    api: str = ""
    idempotency_keys: bool = False


class Experiment:
    """A system, those who drive it, those who break it and those who watch."""

    def __init__(
        self, plan: Plan, options: Options, say: Callable[[str], None]
    ) -> None:
        self.options = options
        self.workloads = discover()
        self.system = System(plan, options.processes, options.manage, options.api)
        self.faults = Faults(
            self.system, options.seed, options.kill_every, options.faults
        )
        self.record = Record(on_request=self._request_succeeded)
        self.witness = Witness(
            plan.servers()["rabbitmq"].url, self.workloads, self._fact_came
        )
        self._say = say
        #: Set to end all work, finished or not.
        self._abandoned = threading.Event()
        self.drivers = [self._driver(index) for index in range(CLIENTS)]
        self.started_at = 0.0

    def _driver(self, index: int) -> Driver:
        options, plan = self.options, self.system.plan
        url = plan.environment(proxied=True)["RABBITMQ_URL"]
        requests = Requests(
            plan.ports["api"],
            self._abandoned,
            idempotency_keys=options.idempotency_keys,
        )
        return Driver(
            Client(options.seed, index, CLIENTS),
            self.workloads,
            self.record,
            (Messages(url, self._abandoned), requests if options.api else None),
            options.rate / CLIENTS,
        )

    def run(self) -> Verdict:
        """Do all of it; raises `DrainFailed` if the work does not come to an end."""
        self.system.start()
        self.witness.start()
        self._say(f"Everything runs; logs are in {self.system.plan.directory}")
        self.started_at = time.monotonic()
        for driver in self.drivers:
            driver.thread.start()
        self.faults.start()
        self._wait(lambda: self._elapsed > self.options.seconds)
        self._say("No more faults; waiting until everything has recovered")
        self.faults.stop()
        self._wait(self._has_recovered, DRAIN_DEADLINE)
        for driver in self.drivers:
            driver.stop()
        self._wait(lambda: not self._drivers_at_work(), DRAIN_DEADLINE)
        self._say("Draining")
        self._drain()
        return self._judge()

    def stop(self) -> None:
        """Leave nothing running."""
        self._abandoned.set()
        for driver in self.drivers:
            driver.stop()
        self.witness.stop()
        self.faults.stop()
        connections.close_all()
        self.system.stop()

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.started_at

    def _wait(self, condition: Callable[[], bool], limit: float | None = None) -> None:
        """Wait for a condition, say how it goes, and fail with whoever fails."""
        began = time.monotonic()
        next_line = began + PROGRESS
        while not condition():
            for driver in self.drivers:
                if driver.error is not None:
                    raise driver.error
            now = time.monotonic()
            if limit is not None and now > began + limit:
                raise DrainFailed(f"Not within {limit} s. {self.progress()}")
            if now >= next_line:
                next_line += PROGRESS
                self._say(self.progress())
            self.faults.restart_leavers()
            time.sleep(0.1)

    def progress(self) -> str:
        """Tell how it goes, in one line."""
        counts = self.record.counts
        accepted = counts["http"] + counts["amqp"]
        down = ", ".join(self.faults.down) or "nothing"
        return (
            f"{self._elapsed:5.0f} s: {accepted} accepted, "
            f"{len(self.witness.told)} facts, {self.faults.kills} kills, "
            f"{len(self.faults.faults) - self.faults.kills} other faults; "
            f"broken now: {down}"
        )

    def _has_recovered(self) -> bool:
        return all(one.recovered_at is not None for one in self.faults.faults)

    def _drivers_at_work(self) -> bool:
        return any(driver.thread.is_alive() for driver in self.drivers)

    def _request_succeeded(self, accepted_at: float) -> None:
        self.faults.succeeded(accepted_at, request=True)

    def _fact_came(self, told: Told) -> None:
        entity = self.record.entity_of(told)
        if entity is None:
            return
        for attempt in reversed(entity.history[-5:]):
            change = attempt.operation.change
            if change is not None and change.agrees(told.fact):
                self.faults.succeeded(attempt.at, request=False)
                return

    def _drain(self) -> None:
        """
        Wait until no work is left, then have all programs leave.

        What they had in hand without acknowledging it would be in the queues again.
        """
        connections.close_all()  # older than the last kill of the server
        deadline = time.monotonic() + DRAIN_DEADLINE
        while True:
            self._wait(
                lambda: not self._waiting() and self._is_quiet(),
                deadline - time.monotonic(),
            )
            for program in self.system.programs:
                program.stop()
            if not self._waiting():
                return
            for program in self.system.programs:
                program.start()

    def _is_quiet(self) -> bool:
        return time.monotonic() > self.witness.last_at + QUIET

    def _waiting(self) -> int:
        """Give how many messages wait in queues and outbox."""
        url = self.system.plan.servers()["rabbitmq"].url
        try:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                channel = connection.channel()
                waiting: int = sum(
                    channel.queue_declare(queue, passive=True).method.message_count
                    for queue in handlers
                )
        except AMQPError:
            return -1
        return waiting + Outbox.objects.using(settings.DATABASE).count()

    def _judge(self) -> Verdict:
        return judge(
            self.record.attempts,
            self.witness.told,
            {kind: one.read_stores() for kind, one in self.workloads.items()},
            dead_letters(),
        )


def dead_letters() -> list[Given]:
    """Read all dead letters, wherever they are."""
    output = StringIO()
    call_command("dead_letters", "list", "--json", stdout=output)
    given = []
    for letter in json.loads(output.getvalue()):
        body = json.loads(letter["body"])
        given.append(
            Given(letter["message_id"], body["event_type"], body, letter["reason"])
        )
    return given
