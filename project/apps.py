from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.db.models.signals import post_delete, post_migrate
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy


class ProjectConfig(AppConfig):
    """Has the commands, pages and roles of the project, and its revoked tokens."""

    name = "project"

    def ready(self) -> None:
        """Connect the receivers, and translate what Django has in English alone."""
        # Imports models, which Django loads after this module.
        from django.contrib.auth import get_user_model
        from django.contrib.auth.forms import AdminPasswordChangeForm as Form
        from django.contrib.auth.forms import SetUnusablePasswordMixin as Mixin

        from . import signals

        user_login_failed.connect(signals.log_failed_login, dispatch_uid="project.apps")
        user_logged_in.connect(
            signals.remove_expired_sessions, dispatch_uid="project.sessions"
        )
        post_delete.connect(
            signals.revoke_tokens, get_user_model(), dispatch_uid="project.revoke"
        )
        post_migrate.connect(signals.create_groups, dispatch_uid="project.groups")
        Form.usable_password_help_text = format_lazy(  # type: ignore[assignment]
            '{}<ul id="id_unusable_warning" class="messagelist">'
            '<li class="warning">{}</li></ul>',
            Mixin.usable_password_help_text,
            gettext_lazy("Si se desactiva, se pierde la contraseña de esta cuenta."),
        )
