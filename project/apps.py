import logging
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy

from messaging.amqp.tally import tally

logger = logging.getLogger(__name__)


class ProjectConfig(AppConfig):
    """Has the commands and pages of the project, and notes failed logins."""

    name = "project"

    def ready(self) -> None:
        """Connect the receiver, and translate what Django has in English alone."""
        # Imports models, which Django loads after this module.
        from django.contrib.auth.forms import AdminPasswordChangeForm as Form
        from django.contrib.auth.forms import SetUnusablePasswordMixin as Mixin

        user_login_failed.connect(log_failed_login, dispatch_uid="project.apps")
        Form.usable_password_help_text = format_lazy(  # type: ignore[assignment]
            '{}<ul id="id_unusable_warning" class="messagelist">'
            '<li class="warning">{}</li></ul>',
            Mixin.usable_password_help_text,
            gettext_lazy("Si se desactiva, se pierde la contraseña de esta cuenta."),
        )


def log_failed_login(**_: Any) -> None:
    """Log and count that a password was wrong. Who tried it is personal data."""
    logger.warning("A login failed")
    tally.count_rejected("failed login")
