"""
The lines about messages that failed, one for each attempt.

They are written after the commit: until then an attempt may be rolled back, and made
again. They are never left out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction

from messaging.conf import settings
from messaging.envelope import Delivery
from messaging.exceptions import fault_of

from .context import fields_of

if TYPE_CHECKING:
    from messaging.consumer.retry import Later
    from messaging.dead_letters.letters import Failure

logger = logging.getLogger(__name__)


def log_retries(failed: Sequence[tuple[Delivery, int, Later | None]]) -> None:
    """Log messages that are tried again later, with the number of their attempts."""
    if failed:
        hook = partial(_log_retries, failed)
        transaction.on_commit(hook, using=settings.DATABASE, robust=True)


def _log_retries(failed: Sequence[tuple[Delivery, int, Later | None]]) -> None:
    for delivery, attempt, later in failed:
        assert later is not None  # as for all that are tried again
        logger.log(
            logging.WARNING if later.is_fault else logging.INFO,
            "Attempt %d of message %s failed, the next is in %.1f s: %s",
            attempt,
            delivery.message_id,
            later.pause,
            later.reason,
            # Where it failed is logged once, and when it is given up.
            exc_info=fault_of(later.error) if attempt == 1 else None,
            extra=fields_of(delivery, attempt),
        )


def log_dead_letters(failed: Sequence[tuple[Delivery, Failure]]) -> None:
    """Log messages that are given up."""
    hook = partial(_log_dead_letters, failed)
    transaction.on_commit(hook, using=settings.DATABASE, robust=True)


def _log_dead_letters(failed: Sequence[tuple[Delivery, Failure]]) -> None:
    for delivery, failure in failed:
        logger.error(
            "Message %s of %s is a dead letter (%s): %s",
            delivery.message_id,
            delivery.queue,
            failure.kind,
            failure.reason,
            exc_info=fault_of(failure.error),
            extra=fields_of(delivery),
        )
