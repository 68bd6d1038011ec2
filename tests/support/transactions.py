"""Transactions that are open in MariaDB."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.db import connections

logger = logging.getLogger(__name__)


def is_idle() -> bool:
    """Whether nobody is in the middle of a transaction."""
    running = transactions()
    if running:
        logger.debug("Transactions: %s", running)
        # InnoDB does not bring the table up to date for whoever has read it within
        # 0.1 s: asked more often, it shows for ever what was once running.
        time.sleep(0.15)
    return not running


def transactions() -> list[Any]:
    """Give the transactions that somebody is in the middle of."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT * FROM information_schema.innodb_trx")
        return list(cursor.fetchall())
