"""Calling handlers, and what they must not do to the transaction in which they run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from messaging.cluster.leases import HeldLease
from messaging.cluster.time_limit import Abandoned, Watch, named
from messaging.conf import settings
from messaging.dead_letters.letters import Failure
from messaging.envelope import Delivery
from messaging.outbox.suppression import suppressed
from messaging.registry import Handler

from .context import Context, Part
from .policy import FailurePolicy

logger = logging.getLogger(__name__)

#: Maximum characters of a reference, the value that a handler returns.
REFERENCE_LENGTH = 255
#: Statements that end a transaction.
ENDING = r"commit|end|abort|begin|start\s+transaction|rollback(?!\s+(work\s+)?to\b)|xa"
#: Statements before which MySQL and MariaDB commit by themselves
#: (https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html).
COMMITTING = (
    r"alter|analyze|cache|create(?!\s+(or\s+replace\s+)?temporary)|"
    r"drop(?!\s+temporary)|flush|grant|install|load|lock|optimize|rename|repair|"
    r"reset|revoke|set\s+(@@)?(session\s+|session\.)?autocommit|truncate|uninstall|"
    r"unlock"
)
#: Error with which MySQL and MariaDB end a deadlock.
DEADLOCK = 1213
START = r"\s*(/\*.*?\*/\s*|--[^\n]*\n\s*|#[^\n]*\n\s*)*"
ENDS_ANYWHERE = re.compile(rf"{START}({ENDING})\b", re.IGNORECASE | re.DOTALL)
ENDS_ON_MYSQL = re.compile(
    rf"{START}({ENDING}|{COMMITTING})\b", re.IGNORECASE | re.DOTALL
)


class BrokenTransaction(Exception):
    """A handler has made its transaction unusable, or has tried to end it."""


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


def refuse_to_end(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
) -> Any:
    """
    Raise `BrokenTransaction` for a statement that would end the transaction.

    For `connection.execute_wrapper()`. Its effect could not be undone, and the effects
    of the messages before it would be committed without their inbox rows.
    """
    connection = context["connection"]
    is_mysql = connection.vendor == "mysql"
    ends = (ENDS_ON_MYSQL if is_mysql else ENDS_ANYWHERE).match(str(sql))
    if ends:
        raise BrokenTransaction(
            f"A handler must not end its transaction, as {ends[2].upper()} does."
        )
    try:
        return execute(sql, params, many, context)
    except OperationalError as error:
        if error.args[:1] == (DEADLOCK,):
            # The server has rolled back all of it: the handler cannot go on.
            connection.needs_rollback = True
        raise


def check_usable(connection: BaseDatabaseWrapper) -> None:
    """
    Raise `BrokenTransaction` if what a handler wrote would be rolled back.

    Django rolls back silently where a handler has caught a database error without an
    `atomic()` block of its own, has called `set_rollback()`, or has closed the
    connection.
    """
    if connection.closed_in_transaction or not connection.in_atomic_block:
        raise BrokenTransaction("The handler has closed its database connection.")
    if connection.needs_rollback:
        raise BrokenTransaction(
            "The handler has caught a database error, or has called set_rollback(): "
            "run what may fail in a transaction.atomic() block of its own."
        )


def is_usable() -> bool:
    """Return whether the transaction can go on after a failure in a savepoint."""
    connection = connections[settings.DATABASE]
    is_broken = connection.needs_rollback or connection.closed_in_transaction
    return connection.in_atomic_block and not is_broken


def call(
    handler: Handler, ready: Part, policy: FailurePolicy, lease: HeldLease
) -> list[str]:
    """
    Call a handler in a savepoint of its own, and return its references.

    Raises what the handler raises, `BrokenTransaction` or `TransactionEnded`.
    """
    connection = connections[settings.DATABASE]
    references: list[str] | None = None
    try:
        with (
            transaction.atomic(using=settings.DATABASE),
            connection.execute_wrapper(refuse_to_end),
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
    connection = connections[settings.DATABASE]

    def called(function: Callable[[Any], Any], argument: Any, contexts: Part) -> Any:
        given, first = [c.delivery for c in contexts], len(connection.run_on_commit)
        returned = watch.call(function, argument, given)
        check_usable(connection)
        hooks: Any = connection.run_on_commit
        for place, (sids, hook, _) in enumerate(hooks[first:], first):
            hooks[place] = (sids, partial(_run_hook, hook, given, watch), False)
        return returned

    if handler.batch:
        messages = [context.message for context in ready]
        # A generator runs when it is made a list.
        returned = called(lambda ones: list(handler.function(ones)), messages, ready)
        if len(returned) != len(ready):
            raise ValueError(f"{len(ready)} messages, {len(returned)} references.")
        return [reference_of(one) for one in returned]
    references = []
    for context in ready:
        policy.suspect = context
        returned = called(handler.function, context.message, [context])
        references.append(reference_of(returned))
    policy.suspect = None
    return references


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
        logger.exception("A hook of on_commit() has failed for %s", named(given))


def reference_of(returned: object) -> str:
    """Return what a handler returned as the inbox keeps it; raise `ValueError`."""
    reference = "" if returned is None else str(returned)
    if len(reference) > REFERENCE_LENGTH:
        raise ValueError(f"A reference has {REFERENCE_LENGTH} characters at most.")
    reference.encode()  # raises for a lone surrogate, which no database stores
    return reference
