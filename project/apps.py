import logging
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed

from messaging.amqp.tally import tally

logger = logging.getLogger(__name__)


class ProjectConfig(AppConfig):
    """Has the commands of the project, and notes failed logins."""

    name = "project"

    def ready(self) -> None:
        """Connect the receiver."""
        user_login_failed.connect(log_failed_login, dispatch_uid="project.apps")


def log_failed_login(**_: Any) -> None:
    """Log and count that a password was wrong. Who tried it is personal data."""
    logger.warning("A login failed")
    tally.count_rejected("failed login")
