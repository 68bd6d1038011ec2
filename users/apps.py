from django.apps import AppConfig


class UsersConfig(AppConfig):
    """Connects what tells of changed users."""

    name = "users"
    verbose_name = "usuarios"

    def ready(self) -> None:
        """Connect the receiver."""
        from .signals import tell_the_world, users_changed

        users_changed.connect(tell_the_world, dispatch_uid="users.tell_the_world")
