"""
Projecting committed effects to a second store, and handling those that fail.

After the commit nothing can be undone: a message whose projection fails is parked as
applied, and only its projection is retried. If it is given up, it is a dead letter of
kind `projection`, and requeueing it repeats only the projection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from messaging.cluster.leases import HeldLease
from messaging.database import answers
from messaging.dead_letters import archive
from messaging.exceptions import SERVER_FAILURES
from messaging.monitoring import minutes
from messaging.registry import Applied, projections

from . import inbox, parking
from .context import Context, Part, State
from .policy import Step
from .retry import Decision


def projectable(contexts: Iterable[Context]) -> Part:
    """Return the messages whose effects are committed and may not be projected yet."""
    return [
        context
        for context in contexts
        if context.state in (State.DONE, State.KNOWN)
        and context.failure is None
        and (context.message is not None or is_poison(context))
    ]


def is_poison(context: Context) -> bool:
    """Whether too many processes have died of a message."""
    return context.refusal is not None and context.refusal.kind == "poison"


def projecting(lease: HeldLease, contexts: Sequence[Context]) -> Step:
    """Return the step that projects the messages of a batch."""
    for context in projectable(contexts):
        if not context.is_applied:
            context.attempts = 0  # those of the handler

    def run(part: Part, decision: Decision | None) -> None:
        if decision is not None:
            _set_aside(part[0], decision)
            return
        for context in projectable(part):
            if context.refusal and is_poison(context):
                # Its handler has succeeded: it is the projection that kills.
                _set_aside(context, replace(context.refusal, kind="projection"))
        if ready := projectable(part):
            applied = [Applied(c.message, c.reference) for c in ready if c.message]
            given = [context.delivery for context in ready]
            lease.watch.call(projections[lease.queue].project, applied, given)
            inbox.projected(ready)

    def _set_aside(context: Context, decision: Decision) -> None:
        context.set_aside(decision, is_applied=True)
        later = contexts[contexts.index(context) + 1 :]
        with lease.transaction():
            if context.failure is not None:
                inbox.projection_failed(context)
                archive.record([(context.delivery, context.failure)])
            else:
                # Projections of one key stay in order, too.
                behind = [c for c in projectable(later) if c.key == context.key]
                for one in behind:
                    one.block(is_applied=True)
                parking.record(lease, [context, *behind])
            minutes.record(lease, [context])

    def store_answers() -> bool:
        database = projections[lease.queue].database
        return database is not None and answers(database)

    failures = (*SERVER_FAILURES, ConnectionError, TimeoutError)
    return Step(run, store_answers, failures, kind="projection")
