"""Calling handlers, and what they must not do to the transaction in which they run."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from messaging.conf import settings
from messaging.dead_letters.letters import Failure
from messaging.outbox.suppression import suppressed
from messaging.registry import Handler

from .context import Context
from .policy import FailurePolicy, Part

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
    is_mysql = context["connection"].vendor == "mysql"
    ends = (ENDS_ON_MYSQL if is_mysql else ENDS_ANYWHERE).match(str(sql))
    if ends:
        raise BrokenTransaction(
            f"A handler must not end its transaction, as {ends[2].upper()} does."
        )
    return execute(sql, params, many, context)


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


def call(handler: Handler, ready: Part, policy: FailurePolicy) -> list[str]:
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
            references = _references(handler, ready, policy)
    except DatabaseError as error:
        # The handler has returned, but its savepoint no longer exists.
        if references is not None and connection.is_usable():
            raise TransactionEnded(ready) from error
        raise
    return references


def _references(handler: Handler, ready: Part, policy: FailurePolicy) -> list[str]:
    connection = connections[settings.DATABASE]
    if handler.batch:
        returned = list(handler.function([context.message for context in ready]))
        check_usable(connection)
        if len(returned) != len(ready):
            raise ValueError(f"{len(ready)} messages, {len(returned)} references.")
        return [reference_of(one) for one in returned]
    references = []
    for context in ready:
        policy.suspect = context
        references.append(reference_of(handler.function(context.message)))
        check_usable(connection)
    policy.suspect = None
    return references


def reference_of(returned: object) -> str:
    """Return what a handler returned as the inbox keeps it; raise `ValueError`."""
    reference = "" if returned is None else str(returned)
    if len(reference) > REFERENCE_LENGTH:
        raise ValueError(f"A reference has {REFERENCE_LENGTH} characters at most.")
    reference.encode()  # raises for a lone surrogate, which no database stores
    return reference
