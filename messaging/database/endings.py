"""What users' code must not do to the transaction in which it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

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
