from django.apps import AppConfig
from django.conf import settings


class ReportsConfig(AppConfig):
    """Connects what tells of changed reports."""

    name = "reports"
    verbose_name = "reportes"

    def ready(self) -> None:
        """Connect the receiver, and what reacts to facts."""
        from . import files, notifications, reactions  # noqa: F401 they listen
        from .signals import reports_changed, tell_the_world

        if settings.DELETED_AUTHORS == "anonymise":
            reactions.connect()
        reports_changed.connect(tell_the_world, dispatch_uid="reports.tell_the_world")
