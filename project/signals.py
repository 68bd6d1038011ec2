"""What happens when accounts change, and when somebody fails to log in."""

from __future__ import annotations

import logging
from typing import Any

from messaging.amqp.tally import tally

from .models import Revocation

logger = logging.getLogger(__name__)


def log_failed_login(**_: Any) -> None:
    """Log and count that a password was wrong. Who tried it is personal data."""
    logger.warning("A login failed")
    tally.count_rejected("failed login")


def revoke_tokens(instance: Any, **_: Any) -> None:
    """Revoke the tokens of an account that was deleted."""
    Revocation.objects.revoke(f"account:{instance.pk}")
