from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class UsersConfig(AppConfig):
    """Publishes the events of changed users."""

    name = "users"
    verbose_name = _("Usuarios")

    def ready(self) -> None:
        """Connect the receiver of `users_changed`."""
        from .signals import publish_events, users_changed

        users_changed.connect(publish_events, dispatch_uid="users.publish_events")
