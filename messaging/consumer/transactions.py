"""Calling users' code in the transaction of a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction

from messaging.cluster.leases import HeldLease
from messaging.cluster.time_limit import Abandoned, Watch, named
from messaging.conf import settings
from messaging.database.endings import check_usable, refuse_to_end
from messaging.dead_letters.letters import Failure
from messaging.envelope import Delivery
from messaging.logs.context import fields_of_all
from messaging.outbox.suppression import suppressed
from messaging.registry import Handler

from .context import Context, Part
from .policy import FailurePolicy

logger = logging.getLogger(__name__)

#: Maximum characters of a reference, the value that a handler returns.
REFERENCE_LENGTH = 255


class TransactionEnded(Exception):
    """The handler of `contexts` has ended its transaction: its effect is committed."""

    def __init__(self, contexts: list[Context]) -> None:
        super().__init__()
        self.contexts = contexts


#: The failure of those messages: calling the handler again could repeat the effect.
ENDED = Failure(
    "exhausted",
    "The handler has ended its transaction: what it wrote is committed.",
    code="failed",
    exception="TransactionEnded",
)


def is_usable() -> bool:
    """Return whether the transaction can go on after a failure in a savepoint."""
    connection = connections[settings.DATABASE]
    is_broken = connection.needs_rollback or connection.closed_in_transaction
    return connection.in_atomic_block and not is_broken


def call(
    handler: Handler, ready: Part, policy: FailurePolicy, lease: HeldLease, alone: bool
) -> list[str]:
    """
    Call a handler in a savepoint of its own, and return its references.

    If its message is `alone` in the transaction, it may have none; then a failure makes
    the transaction unusable. Raises what the handler raises, `BrokenTransaction` or
    `TransactionEnded`.
    """
    connection = connections[settings.DATABASE]
    references: list[str] | None = None
    has_savepoint = handler.savepoint or not alone
    try:
        with (
            transaction.atomic(using=settings.DATABASE, savepoint=has_savepoint),
            suppressed() if handler.suppresses_events else nullcontext(),
        ):
            references = _references(handler, ready, policy, lease.watch)
    except DatabaseError as error:
        # The handler has returned, but its savepoint no longer exists.
        if references is not None and connection.is_usable():
            raise TransactionEnded(ready) from error
        raise
    return references


def _references(
    handler: Handler, ready: Part, policy: FailurePolicy, watch: Watch
) -> list[str]:
    if handler.batch:
        messages = [context.message for context in ready]
        # A generator runs when it is made a list.
        returned = called(lambda m: list(handler.function(m)), messages, ready, watch)
        if len(returned) != len(ready):
            raise ValueError(f"{len(ready)} messages, {len(returned)} references.")
        return [reference_of(one) for one in returned]
    references = []
    for context in ready:
        policy.in_call = context
        returned = called(handler.function, context.message, [context], watch)
        references.append(reference_of(returned))
    policy.in_call = None
    return references


def called(
    function: Callable[[Any], Any], argument: Any, contexts: Part, watch: Watch
) -> Any:
    """Call users' code for messages in the transaction, which it must not end."""
    connection = connections[settings.DATABASE]
    given, first = [c.delivery for c in contexts], len(connection.run_on_commit)
    with connection.execute_wrapper(refuse_to_end):
        returned = watch.call(function, argument, given)
    check_usable(connection)
    hooks: Any = connection.run_on_commit
    for place, (sids, hook, _) in enumerate(hooks[first:], first):
        hooks[place] = (sids, partial(_run_hook, hook, given, watch), False)
    return returned


def _run_hook(hook: Callable[[], object], given: list[Delivery], watch: Watch) -> None:
    """
    Call a hook of `on_commit`, and log what it raises.

    The transaction holds the effects of many messages: the hook of one must neither
    suppress those of the others, nor have a batch that is committed processed again.
    """
    try:
        with watch.timed(given):
            hook()
    except Abandoned:
        raise
    except BaseException:  # users' code may even call sys.exit()
        text = "A hook of on_commit() has failed for %s"
        logger.exception(text, named(given), extra=fields_of_all(given))


def reference_of(returned: object) -> str:
    """Return what a handler returned as the inbox keeps it; raise `ValueError`."""
    reference = "" if returned is None else str(returned)
    if len(reference) > REFERENCE_LENGTH:
        raise ValueError(f"A reference has {REFERENCE_LENGTH} characters at most.")
    reference.encode()  # raises for a lone surrogate, which no database stores
    return reference
