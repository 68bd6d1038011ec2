from django.apps import AppConfig
from django.conf import settings
from django.utils.translation import gettext_lazy as _


class ReportsConfig(AppConfig):
    """Registers the listeners, and publishes the events of changed reports."""

    name = "reports"
    verbose_name = _("Reportes")

    def ready(self) -> None:
        """Connect the receiver of `reports_changed`, and register the listeners."""
        # Importing these modules registers their functions.
        from . import files, notifications, projection, reactions  # noqa: F401
        from .signals import publish_events, reports_changed

        if settings.DELETED_AUTHORS == "anonymise":
            reactions.connect()
        reports_changed.connect(publish_events, dispatch_uid="reports.publish_events")
