from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed
from django.db.models.signals import post_delete, post_migrate


class ProjectConfig(AppConfig):
    """Has the commands and the roles of the project, and its revoked tokens."""

    name = "project"

    def ready(self) -> None:
        """Connect the receivers."""
        from django.contrib.auth import get_user_model

        from . import signals

        user_login_failed.connect(signals.log_failed_login, dispatch_uid="project.apps")
        post_delete.connect(
            signals.revoke_tokens, get_user_model(), dispatch_uid="project.revoke"
        )
        post_migrate.connect(signals.create_groups, dispatch_uid="project.groups")
