from django.apps import AppConfig

from messaging.registry import handlers

from .failures import Failures, failing


class LabConfig(AppConfig):
    """Injects failures into handlers during a run. Must be the last installed app."""

    name = "messaging.lab"
    label = "messaging_lab"

    def ready(self) -> None:
        """Wrap all handlers that the other apps have registered."""
        failures = Failures.current()
        for types in handlers.values():
            for event_type, handler in types.items():
                types[event_type] = failing(handler, failures)
