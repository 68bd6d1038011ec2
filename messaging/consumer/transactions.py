"""What a handler must not do to the transaction in which it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from messaging.dead_letters.letters import Failure

from .context import Context

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


#: What becomes of them: to call the handler again could repeat the effect.
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
