from django.apps import AppConfig


class UsersConfig(AppConfig):
    """Publishes the events of changed users."""

    name = "users"
    verbose_name = "usuarios"

    def ready(self) -> None:
        """Connect the receiver of `users_changed`."""
        from .signals import publish_events, users_changed

        users_changed.connect(publish_events, dispatch_uid="users.publish_events")
