from django.apps import AppConfig


class ReportsConfig(AppConfig):
    """Connects what tells of changed reports."""

    name = "reports"
    verbose_name = "reportes"

    def ready(self) -> None:
        """Connect the receiver."""
        from .signals import reports_changed, tell_the_world

        reports_changed.connect(tell_the_world, dispatch_uid="reports.tell_the_world")
