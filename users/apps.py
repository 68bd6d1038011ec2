from django.apps import AppConfig


class UsersConfig(AppConfig):
    """Connects what tells of changed users."""

    name = "users"
    verbose_name = "usuarios"

    def ready(self) -> None:
        """Connect the receiver."""
        from .signals import publish_events, users_changed

        users_changed.connect(publish_events, dispatch_uid="users.publish_events")
