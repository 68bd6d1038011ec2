"""One run of the lab: start, send, inject faults, recover, drain, judge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import connections

from .drive import Driver, Record
from .evidence import connections_lost, dead_letters, messages_left
from .failures import Failures
from .faults import Faults
from .node_faults import NodeFaults
from .sender import Messages, Requests
from .system import Plan, System
from .verdict import CONNECTIONS, LOST, DeadLetter, SeenEvent, Verdict, judge
from .witness import Witness
from .workload import FOREIGN_SHARE, Client, discover

#: Threads that send operations.
CLIENTS = 8
#: With several nodes, one of so many clients writes to the public queues alone: it
#: waits while their node is away, which must not stop the others.
FOREIGN_CLIENTS = 4
#: Seconds between two lines of progress.
PROGRESS = 5
#: Seconds within which everything must start, or recover.
DEADLINE = 120
#: Seconds without progress after which the messages left are considered stuck: longer
#: than a database keeps the locks of a lost connection.
STUCK_AFTER = 60
#: Seconds without a new event after which no more are expected.
QUIET = 1.0


class LabError(Exception):
    """The run cannot be judged or does not end; the message says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    seed: int = 1
    seconds: float = 60
    kill_every: float = 3
    #: Kinds of faults.
    faults: tuple[str, ...] = ()
    processes: int = 4
    #: Maximum number of operations per second.
    rate: float = 80
    manage: str = "python manage.py"
    api: str = ""
    idempotency_keys: bool = True


class Experiment:
    """A system, its clients, the faults to inject, and the witness of its events."""

    #: What it is made of, for subclasses.
    system_class: type[System] = System
    faults_class: type[Faults] = Faults
    messages_class: type[Messages] = Messages

    def __init__(
        self, plan: Plan, options: Options, say: Callable[[str], None]
    ) -> None:
        self.options = options
        self.workloads = discover()
        programs = (options.processes, options.manage, options.api)
        self.system = self.system_class(plan, *programs)
        kind = NodeFaults if self.system.cluster else self.faults_class
        self.faults = kind(
            self.system, options.seed, options.kill_every, options.faults
        )
        self.failures = Failures.current()
        self.record = Record(on_request=self._request_succeeded)
        self.witness = Witness(
            [one.url for one in self.system.brokers],
            self.workloads,
            self._event_arrived,
        )
        self._say = say
        #: Set to end all clients, even in the middle of an operation.
        self._abandoned = threading.Event()
        self.drivers = [self._driver(index) for index in range(CLIENTS)]
        self.started_at = 0.0
        #: Messages that wait, by place, and when their number last changed.
        self._left: dict[str, int] = {}
        self._moved_at = 0.0

    def _driver(self, index: int) -> Driver:
        options, plan = self.options, self.system.plan
        urls = plan.environment(proxied=True)["RABBITMQ_URL"].split(",")
        foreign = FOREIGN_SHARE
        if self.system.cluster:
            foreign = float(index % FOREIGN_CLIENTS == 0)
        requests = Requests(
            plan.ports["api"],
            self.record.counts,
            self._abandoned,
            idempotency_keys=options.idempotency_keys,
        )
        return Driver(
            Client(options.seed, index, CLIENTS, foreign),
            self.workloads,
            self.record,
            (
                self.messages_class(urls, self._abandoned),
                requests if options.api else None,
            ),
            options.rate / CLIENTS,
        )

    def run(self) -> Verdict:
        """Run it and return the verdict; raise `LabError` if the run does not end."""
        self.system.start()
        self.witness.start()
        self._say(f"Everything runs; logs are in {self.system.plan.directory}")
        self.started_at = time.monotonic()
        for driver in self.drivers:
            driver.thread.start()
        self._wait(self._is_at_work, "to begin", DEADLINE)
        self.started_at = time.monotonic()
        self.faults.start()
        self._wait(lambda: self._elapsed > self.options.seconds, "")
        self._say("No more faults; waiting until everything has recovered")
        self.faults.stop()
        self._wait(self._has_recovered, "to recover", DEADLINE)
        for driver in self.drivers:
            driver.stop()
        self._wait(self._clients_are_done, "for answers", DEADLINE)
        self._say("Draining")
        self._drain()
        return self._judge()

    def stop(self) -> None:
        """Stop all threads and processes."""
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

    def _wait(
        self, condition: Callable[[], bool], what: str, limit: float | None = None
    ) -> None:
        """Wait for a condition and report progress; raise `LabError` on any failure."""
        began = time.monotonic()
        next_line = began + PROGRESS
        while not condition():
            self._check()
            now = time.monotonic()
            if limit is not None and now > began + limit:
                raise LabError(f"{limit:.0f} s were too short {what}. {self._rest()}")
            if now >= next_line:
                next_line += PROGRESS
                self._say(self.progress())
            self.faults.restart_exited()
            time.sleep(0.1)

    def _check(self) -> None:
        """Raise `LabError` if a thread of the lab has failed."""
        errors = [self.faults.error, self.witness.error]
        for error in (*errors, *(driver.error for driver in self.drivers)):
            if error is not None:
                raise LabError(repr(error)) from error

    def _rest(self) -> str:
        """Describe what has not recovered, and which messages are left."""
        faults = [one.name for one in self.faults.faults if one.recovered_at is None]
        return (
            f"{self.progress()}; never recovered from: {', '.join(faults) or 'nothing'}"
            f"; messages left: {messages_left(self.system.brokers)}"
        )

    def progress(self) -> str:
        """Return the progress, in one line."""
        counts = self.record.counts
        accepted = counts["http"] + counts["amqp"]
        down = ", ".join(self.faults.down) or "nothing"
        return (
            f"{self._elapsed:5.0f} s: {accepted} accepted, "
            f"{len(self.witness.events)} events, {self.faults.kills} kills, "
            f"{len(self.faults.faults) - self.faults.kills} other faults; "
            f"broken now: {down}"
        )

    def _is_at_work(self) -> bool:
        by_request = not self.options.api or self.record.counts["http"] > 0
        return by_request and bool(self.witness.events)

    def _has_recovered(self) -> bool:
        return all(one.recovered_at is not None for one in self.faults.faults)

    def _clients_are_done(self) -> bool:
        return not any(driver.thread.is_alive() for driver in self.drivers)

    def _request_succeeded(self, accepted_at: float) -> None:
        self.faults.succeeded(accepted_at, request=True)

    def _event_arrived(self, seen: SeenEvent) -> None:
        entity = self.record.entity_of(seen)
        if entity is None:
            return
        for attempt in reversed(entity.history[-5:]):
            change = attempt.operation.change
            if change is not None and change.agrees(seen.event):
                self.faults.succeeded(attempt.at, request=False)
                return

    def _drain(self) -> None:
        """Wait until no messages are left, then stop all programs."""
        connections.close_all()  # they are older than the last kill of the server
        self._wait(self._is_drained, "to drain")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda program: program.stop(), self.system.programs))
        self._left = messages_left(self.system.brokers)

    def _is_drained(self) -> bool:
        """Return whether no messages are left, or those left are stuck."""
        now = time.monotonic()
        quiet = now - self.witness.last_at
        if quiet < QUIET:
            return False
        left = messages_left(self.system.brokers)
        if left != self._left:
            self._left, self._moved_at = left, now
        return not left or min(quiet, now - self._moved_at) > STUCK_AFTER

    def dead_letters(self) -> list[DeadLetter]:
        """Return all dead letters: the operations that were to fail, and no others."""
        return dead_letters()

    def _judge(self) -> Verdict:
        verdict = judge(
            self.record.attempts,
            self.witness.events,
            {kind: one.read_stores() for kind, one in self.workloads.items()},
            self.dead_letters(),
        )
        for place, number in self._left.items():
            verdict.find(LOST, place, f"{number} messages are left", number)
        if self.system.cluster:
            for node in self.system.cluster.nodes:
                for line in connections_lost(node.lines(), self.faults.faults):
                    verdict.find(CONNECTIONS, node.node, line)
        return verdict
