"""
The steps of a batch, from top to bottom: `Processor.process`.

One transaction holds the effects of the handlers, their events, the inbox rows, what is
parked, and dead letters. The projection to a second store follows the commit. A batch
may be processed again from the top at any time: what was decided before is known.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext, suppress
from functools import partial

from messaging.amqp.publisher import Publisher
from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import answers, close_stale_connections
from messaging.dead_letters import archive
from messaging.dead_letters.letters import Failure
from messaging.envelope import now_ms
from messaging.exceptions import Reject
from messaging.logs.context import Handling
from messaging.monitoring import minutes
from messaging.registry import Handler, handler_of, one_by_one, projections

from . import attempts, inbox, parking, routing, transactions
from .circuit_breaker import CircuitBreaker, CircuitOpen, results
from .context import DECIDED, Batch, Part, State, in_states
from .grouping import groups
from .policy import FailurePolicy, Step, portions
from .projection import projectable, projecting
from .retry import Decision
from .transactions import ENDED, TransactionEnded

logger = logging.getLogger(__name__)


class Processor:
    """
    Processes the batches of one partition, under its lease, in one thread.

    It is also the ingress of a public queue, where every message is misrouted; they are
    forwarded through `gateway`.
    """

    def __init__(self, lease: HeldLease, gateway: Publisher | None = None) -> None:
        self.lease = lease
        self._gateway = gateway
        self.circuit = CircuitBreaker(lease.queue)
        # Arrivals and parked messages take turns: each kind counts its waits in a row.
        self._policies = [FailurePolicy(lease.queue) for _kind in range(2)]
        self._policy = self._policies[0]
        #: Keys of which an earlier transaction of this batch has parked a message.
        self._blocked_keys: set[str] = set()
        # A queue that is full or missing is no message's fault.
        self._forwarding = Step(self._forward, lambda: False)
        self._applying = Step(self._apply, lambda: answers(settings.DATABASE))

    @property
    def limit(self) -> int:
        """How many messages to process together."""
        if self.circuit.is_open or self.lease.queue in one_by_one:
            return 1
        return max(1, int(settings.PREFETCH) // 2)

    def process(self, batch: Batch) -> None:
        """
        Forward, apply and project messages, and reply to clients that wait.

        Raises `LeaseLost`, `CircuitOpen`, or the failure of a server: the batch must
        then be processed again, by the holder of the lease.
        """
        self._began = now_ms()
        handling = Handling([context.delivery for context in batch.contexts])
        close_stale_connections()
        self._policy = self._policies[batch.is_parked]
        with attempts.marked(batch, self.lease) if batch.may_kill else nullcontext():
            for context in batch.contexts:
                context.decode()
            misrouted = in_states(batch.contexts, State.MISROUTED)
            self._policy.run(self._forwarding, misrouted)
            ours = [c for c in batch.contexts if c.state is not State.FORWARDED]
            self._blocked_keys.clear()
            for part in portions(ours):
                self._policy.run(self._applying, part)
            if self.lease.queue in projections:
                applied = projectable(ours)
                self._policy.run(projecting(self.lease, ours), applied)
                outcomes = list(results(applied, State.DONE, State.KNOWN))
                with suppress(CircuitOpen):  # what is committed stays so
                    self.circuit.check(outcomes)
                    self.circuit.count(outcomes)
            routing.reply(in_states(ours, *DECIDED))
            if batch.is_parked:
                parking.finish(self.lease, batch.contexts)
        self._policy.server_waits = 0
        values = (len(batch.contexts), self.lease.name)
        logger.info("%d messages of %s are settled", *values, extra=handling.fields)

    def _forward(self, part: Part, decision: Decision | None) -> None:
        """Send misrouted messages to their own partitions, in their order."""
        if decision is not None:
            part[0].give_up(Failure("rejected", decision.reason))
            return
        routing.forward(part, self._gateway)

    def _apply(self, part: Part, decision: Decision | None) -> Part | None:
        """
        Decide messages in one transaction; return those that are still undecided.

        A `decision` about the only message stands in for its handler.
        """
        try:
            with self.lease.transaction([c.id for c in part]) as may_be_known:
                inbox.recognise(part, may_be_known)
                inbox.claim_keys(part)
                if self.lease.has_parked:
                    parking.find_blocked(self.lease, part)
                if decision is None:
                    self._handle(part)
                else:
                    part[0].override(decision)
                is_last = self.lease.queue not in projections
                successes = list(results(part, *[State.DONE] * is_last))
                self.circuit.check(successes)
                self._record(part)
        except TransactionEnded as ended:
            return self._record_committed(part, ended)
        except BaseException:
            for context in part:
                context.reset()  # what was decided is rolled back
            raise
        self.circuit.count(successes)
        self._block_keys(part)
        return None

    def _block_keys(self, part: Part) -> None:
        parked = in_states(part, State.RETRY, State.BLOCKED)
        self._blocked_keys |= {context.key for context in parked}

    def _handle(self, part: Part) -> None:
        """Call the handlers with messages of one type at a time."""
        for group in groups(self.lease, in_states(part, State.NEW)):
            handler = handler_of(self.lease.queue, group[0].event_type)
            handling = Step(
                partial(self._call, handler, part),
                servers_answer=lambda: False,  # so the outer step asks them
                is_nested=True,
                transaction_survives=transactions.is_usable,
            )
            self._policy.run(handling, group)

    def _call(
        self, handler: Handler, part: Part, group: Part, decision: Decision | None
    ) -> None:
        """Call a handler in a savepoint, and again without those that it rejects."""
        if decision is not None:
            group[0].set_aside(decision)
            return
        try:
            while ready := parking.hold_back(group, part, self._blocked_keys):
                self._call_once(handler, ready, alone=len(part) == 1)
        except BaseException:
            for context in group:
                # It may have been rejected because of one that has failed since.
                context.reset(context.inbox_row)
            raise

    def _call_once(self, handler: Handler, ready: Part, alone: bool) -> None:
        """Record what a handler returns, or set aside the messages that it rejects."""
        try:
            result = transactions.call(handler, ready, self._policy, self.lease, alone)
        except Reject as error:
            rejected = {id(message) for message in error.messages}
            named = [c for c in ready if id(c.message) in rejected]
            if not named or not transactions.is_usable():
                raise
            waiting: set[str] = set()
            for context in named:
                if context.key not in waiting:  # or else it is blocked
                    context.set_aside(context.decide(error))
                    waiting |= {context.key} if context.later else set()
            return
        for context, reference in zip(ready, result, strict=True):
            context.done(reference)

    def _record(self, part: Part) -> None:
        """Write what was decided, and what is parked."""
        inbox.record(self.lease, part, self._began)
        parking.record(self.lease, part)
        failed = in_states(part, State.FAILED)
        archive.record([(c.delivery, c.failure) for c in failed if c.failure])
        minutes.record(self.lease, part, self._began)

    def _record_committed(self, part: Part, ended: TransactionEnded) -> Part:
        """Record messages that a handler has committed itself; return the rest."""
        for context in ended.contexts:
            context.set_aside(ENDED)
        rest = in_states(part, State.NEW)
        with self.lease.transaction():
            self._record([c for c in part if c.state is not State.NEW])
        self._block_keys(part)
        return rest
