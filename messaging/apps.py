from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy


class MessagingConfig(AppConfig):
    """Finds the `handlers.py` of every installed app."""

    name = "messaging"
    verbose_name = gettext_lazy("Messages")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register all handlers."""
        autodiscover_modules("handlers")
