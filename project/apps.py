from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed


class ProjectConfig(AppConfig):
    """Has the commands of the project, and logs failed logins."""

    name = "project"

    def ready(self) -> None:
        """Connect the receiver."""
        from .access import log_failed_login  # imports models

        user_login_failed.connect(log_failed_login, dispatch_uid="project.access")
