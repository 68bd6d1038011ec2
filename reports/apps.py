from django.apps import AppConfig
from django.conf import settings


class ReportsConfig(AppConfig):
    """Connects what tells of changed reports."""

    name = "reports"
    verbose_name = "reportes"

    def ready(self) -> None:
        """Connect the receiver, and what reacts to events."""
        from . import files, notifications, reactions  # noqa: F401 they listen
        from .signals import publish_events, reports_changed

        if settings.DELETED_AUTHORS == "anonymise":
            reactions.connect()
        reports_changed.connect(publish_events, dispatch_uid="reports.publish_events")
