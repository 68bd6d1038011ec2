"""Transactions that are open in MariaDB."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.db import connections

logger = logging.getLogger(__name__)


#: Seconds between two looks at the table of transactions. InnoDB does not refresh it
#: for a reader who has read it within 0.1 s: read more often, it never changes.
INTERVAL = 0.15


def is_idle() -> bool:
    """Return whether no process has a transaction open."""
    if running := transactions():
        logger.debug("Transactions: %s", running)
        time.sleep(INTERVAL)
    return not running


def is_waiting_for_lock() -> bool:
    """Return whether a transaction waits for a lock that another one holds."""
    if not (waiting := transactions("trx_state = 'LOCK WAIT'")):
        time.sleep(INTERVAL)
    return bool(waiting)


def transactions(condition: str = "TRUE") -> list[Any]:
    """Return the open transactions for which an SQL condition holds."""
    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT * FROM information_schema.innodb_trx WHERE {condition}")
        return list(cursor.fetchall())
