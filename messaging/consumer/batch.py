"""
The steps of a batch, from top to bottom: `Processor.process`.

One transaction holds the effects of the handlers, their events, the inbox rows, what is
parked, and dead letters. The projection to a second store follows the commit. A batch
may be processed again from the top at any time: what was decided before is known.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby

from django.db import DatabaseError, connections, transaction

from messaging.amqp.publisher import publisher
from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import answers, close_stale_connections
from messaging.dead_letters import archive
from messaging.dead_letters.letters import Failure
from messaging.exceptions import Reject
from messaging.models import Parked
from messaging.outbox.suppression import suppressed
from messaging.registry import Handler, handlers, one_by_one, projections

from . import attempts, inbox, parking, routing
from .circuit_breaker import CircuitBreaker, verdicts
from .context import DECIDED, Context, State, in_states
from .policy import FailurePolicy, Part, Step
from .projection import projectable, projecting
from .retry import Decision
from .transactions import ENDED, TransactionEnded, check_usable, refuse_to_end

logger = logging.getLogger(__name__)

#: Characters of what a handler returns.
REFERENCE_LENGTH = 255


@dataclass(slots=True)
class Batch:
    """Messages of one partition that are processed together."""

    contexts: list[Context]
    #: Whether they were parked; if not, they come from the queue.
    is_parked: bool = False

    @property
    def may_kill(self) -> bool:
        """Whether a process may have died of one of them."""
        return self.is_parked or any(c.delivery.redelivered for c in self.contexts)


class Processor:
    """Processes the batches of one partition, under its lease, in one thread."""

    #: Decodes a delivery.
    context: type[Context] = Context

    def __init__(self, lease: HeldLease) -> None:
        self.lease = lease
        self.circuit = CircuitBreaker(lease.queue)
        #: Whether messages may be parked; only the holder of the lease can park any.
        self.has_parked = True
        self._policy = FailurePolicy(lease.queue)
        #: The messages in hand, of which parts share a transaction.
        self._batch: Part = []
        self._forwarding = Step(self._forward, lambda: not publisher().problem())
        self._applying = Step(self._apply, lambda: answers(settings.DATABASE))

    @property
    def limit(self) -> int:
        """How many messages to process together."""
        if self.circuit.is_open or self.lease.queue in one_by_one:
            return 1
        return max(1, int(settings.PREFETCH) // 2)

    def process(self, batch: Batch) -> None:
        """
        Forward, apply and project messages, and answer those who wait for them.

        Raises `LeaseLost`, `CircuitOpen`, or the failure of a server: the batch must
        then be processed again, by the holder of the lease.
        """
        started = time.monotonic()
        close_stale_connections()
        ids = [context.id for context in batch.contexts]
        marks = attempts.marked(ids, self.lease.worker)
        with marks if batch.may_kill else nullcontext():
            misrouted = in_states(batch.contexts, State.MISROUTED)
            self._policy.take(self._forwarding, misrouted)
            ours = [c for c in batch.contexts if c.state is not State.FORWARDED]
            self._batch = ours
            for part in portions(ours):
                self._policy.take(self._applying, part)
            if self.lease.queue in projections:
                self._policy.take(projecting(self.lease, ours), projectable(ours))
            routing.reply(in_states(ours, *DECIDED))
            if batch.is_parked:
                self._unpark(ours)
        self._policy.failures = 0
        elapsed = (time.monotonic() - started) * 1000
        kind = "parked messages" if batch.is_parked else "messages"
        logger.info("%d %s of %s in %.1f ms", len(ids), kind, self.lease.name, elapsed)

    def _forward(self, part: Part, decision: Decision | None) -> None:
        """Send misrouted messages to their own partitions, in their order."""
        if decision is not None:
            part[0].refuse(Failure("rejected", decision.reason))
            return
        routing.forward(part)
        for context in part:
            context.state = State.FORWARDED

    def _apply(self, part: Part, decision: Decision | None) -> Part | None:
        """
        Decide messages in one transaction; return those that are still undecided.

        A `decision` about the only message stands in for its handler.
        """
        for context in part:
            context.reset()
        try:
            with transaction.atomic(using=settings.DATABASE):
                self.lease.lock()
                inbox.recognise(part)
                if self.has_parked:
                    parking.find_blocked(self.lease.name, part)
                if decision is None:
                    self._handle(part)
                elif part[0].state in (State.NEW, State.FAILED):
                    part[0].settle(decision)
                successes = list(verdicts(part))
                self.circuit.check(successes)
                self._record(part)
        except TransactionEnded as ended:
            return self._record_committed(part, ended)
        self.circuit.count(successes)
        return None

    def _handle(self, part: Part) -> None:
        """Call the handlers with runs of messages of one type, in their order."""
        new = in_states(part, State.NEW)
        for event_type, messages in groupby(new, key=lambda c: c.event_type):
            handler, run = handlers[self.lease.queue][event_type], list(messages)
            while ready := parking.hold_back(run, self._batch):
                try:
                    references = self._call(handler, ready)
                except Reject as error:
                    named = [c for c in ready if c.is_among(error.messages)]
                    if not named:
                        raise
                    for context in named:
                        context.settle(context.decide(error))
                else:
                    for context, reference in zip(ready, references, strict=True):
                        context.done(reference)

    def _call(self, handler: Handler, ready: Part) -> list[str]:
        """Return what a handler returns for messages, in a savepoint of its own."""
        connection = connections[settings.DATABASE]
        references: list[str] | None = None
        try:
            with (
                transaction.atomic(using=settings.DATABASE),
                connection.execute_wrapper(refuse_to_end),
                suppressed() if handler.quiet else nullcontext(),
            ):
                references = self._references(handler, ready)
        except DatabaseError as error:
            # The handler has returned; it is the savepoint that is gone.
            if references is not None and connection.is_usable():
                raise TransactionEnded(ready) from error
            raise
        return references

    def _references(self, handler: Handler, ready: Part) -> list[str]:
        connection = connections[settings.DATABASE]
        if handler.batch:
            returned = list(handler.function([c.message for c in ready]))
            check_usable(connection)
            if len(returned) != len(ready):
                raise ValueError(f"{len(ready)} messages, {len(returned)} references.")
            return [reference_of(one) for one in returned]
        references = []
        for context in ready:
            self._policy.suspect = context
            references.append(reference_of(handler.function(context.message)))
            check_usable(connection)
        self._policy.suspect = None
        return references

    def _record(self, part: Part) -> None:
        """Write what was decided, and what is parked."""
        inbox.record(part)
        if parking.record(self.lease.name, part):
            self.has_parked = True
        failed = in_states(part, State.FAILED)
        archive.record([(c.delivery, c.failure) for c in failed if c.failure])

    def _record_committed(self, part: Part, ended: TransactionEnded) -> Part:
        """Record what a handler has committed behind our back; return the rest."""
        for context in ended.contexts:
            context.settle(ENDED)
        rest = in_states(part, State.NEW)
        with transaction.atomic(using=settings.DATABASE):
            self.lease.lock()
            self._record([c for c in part if c.state is not State.NEW])
        return rest

    def _unpark(self, contexts: Part) -> None:
        """Remove the rows of what is decided, so that the next of each key is due."""
        decided = in_states(contexts, *DECIDED, State.REPEATED)
        with transaction.atomic(using=settings.DATABASE):
            self.lease.lock()
            Parked.objects.using(settings.DATABASE).settle(
                [context.row for context in decided if context.row is not None]
            )


def portions(contexts: Part) -> Iterator[Part]:
    """Divide messages into transactions: a body that is too large goes alone."""
    for is_large, run in groupby(contexts, key=lambda c: c.is_large):
        if is_large:
            yield from ([context] for context in run)
        else:
            yield list(run)


def reference_of(returned: object) -> str:
    """Return what a handler returned as the inbox keeps it; raise `ValueError`."""
    reference = "" if returned is None else str(returned)
    if len(reference) > REFERENCE_LENGTH:
        raise ValueError(f"A reference has {REFERENCE_LENGTH} characters at most.")
    reference.encode()  # raises for a lone surrogate, which no database stores
    return reference
