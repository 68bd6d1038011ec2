from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy


class MessagingConfig(AppConfig):
    """Imports the `handlers.py` of every installed app, and registers the checks."""

    name = "messaging"
    verbose_name = gettext_lazy("Messages")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register all handlers and checks."""
        from . import checks  # imports models, which Django loads after this module

        autodiscover_modules("handlers")
        register(checks.check_settings)
        register(checks.check_published_models, Tags.models)
        register(checks.check_queues_and_exchanges)
        register(checks.check_sessions, Tags.database)
        register(checks.check_broker_address, deploy=True)
        register(checks.check_encryption, deploy=True)
        register(checks.check_sqlite, deploy=True)
