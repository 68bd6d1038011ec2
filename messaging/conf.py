"""
Settings of this package: one dictionary over the defaults below.

    MESSAGING = {"URL": "amqp://guest:guest@127.0.0.1:5672/"}

Nothing else in the package reads `django.conf.settings`.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

DEFAULTS: dict[str, Any] = {
    #: Where the broker is; `amqps://` for TLS.
    "URL": "amqp://guest:guest@127.0.0.1:5672/",
    #: Sent with every message as `app_id`.
    "APP_ID": "messaging",
    #: Alias of the database that holds inbox and outbox beside the effects.
    "DATABASE": "default",
    #: Seconds a publish may take, reconnecting included, before it is `Unconfirmed`.
    "CONFIRM_TIMEOUT": 5.0,
    #: Bytes of the largest body that is published or handled.
    "MAX_BODY": 1024 * 1024,
    #: Messages of one process that await their confirm at a time.
    "MAX_IN_FLIGHT": 2000,
    #: Seconds between heartbeats; a dead peer is noticed after two.
    "HEARTBEAT": 15,
    #: Messages a consumer holds at most: half of them are its largest batch, and the
    #: other half arrives meanwhile. The same for all consumers of a queue, and not to
    #: be lowered while messages wait: see `Subscription`.
    "PREFETCH": 1000,
    #: Bytes of bodies a consumer has in memory; what else it holds waits on disk.
    "PREFETCH_BYTES": 32 * 1024 * 1024,
    #: "quorum", or "classic" where a broker has no quorum queues.
    "QUEUE_TYPE": "quorum",
    #: Times the broker hands out a message whose consumers die before it gives up.
    "DELIVERY_LIMIT": 100,
    #: Seconds a message waits for what it refers to before it is rejected.
    "PATIENCE": 1.0,
    #: Seconds: the first pause before a batch is tried again or a server is asked
    #: again, and the longest.
    "BACKOFF": (0.2, 15.0),
    #: Queues of the broker among which the keys of a queue are divided.
    "PARTITIONS": 1,
    #: Times a message that fails for no known reason is tried; None for ever.
    "MAX_ATTEMPTS": 10,
    #: The same for exceptions by dotted name, which may be that of a base class.
    "ATTEMPTS_OF": {"messaging.exceptions.Retry": None},
    #: Seconds: the first pause before such a message is tried again, and the longest.
    "RETRY_PAUSE": (0.5, 300.0),
    #: Share of the last messages that fail at which a consumer slows down instead of
    #: parking them all; None never.
    "BREAKER": 0.5,
    #: By queue, other values of the six settings named in `BY_QUEUE`.
    "QUEUES": {},
    #: Topic exchange to which events go.
    "EVENTS_EXCHANGE": "events",
    #: Days the inbox remembers a message; older ones are refused as expired.
    "RETENTION_DAYS": 30,
    #: Clients of one process that wait for the outcome of their write at a time.
    "MAX_WAITERS": 16,
    #: Seconds a call waits for its answer.
    "CALL_TIMEOUT": 5.0,
    #: Calls of one function that a server process works on at a time.
    "SERVER_THREADS": 4,
    #: Seconds a consumer may take to finish what is in hand after SIGTERM.
    "STOP_TIMEOUT": 8.0,
    #: Seconds of silence after which the queues of a process are given to others.
    "LEASE": 5.0,
}

#: The keys of `QUEUES` for one queue:
#: {"orders_queue": {"PARTITIONS": 8, "MAX_ATTEMPTS": 20}}.
BY_QUEUE = (
    "PARTITIONS",
    "PATIENCE",
    "MAX_ATTEMPTS",
    "ATTEMPTS_OF",
    "RETRY_PAUSE",
    "BREAKER",
)


class Settings:
    """`settings.URL` reads `MESSAGING["URL"]` or its default."""

    def __getattr__(self, name: str) -> Any:
        given = getattr(django_settings, "MESSAGING", {})
        if not isinstance(given, dict):
            raise ImproperlyConfigured("MESSAGING is not a dictionary.")
        if unknown := given.keys() - DEFAULTS.keys():
            raise ImproperlyConfigured(
                f"MESSAGING has unknown keys {sorted(unknown)}; "
                f"known are {sorted(DEFAULTS)}."
            )
        if name not in DEFAULTS:
            raise AttributeError(f"There is no setting MESSAGING[{name!r}].")
        # Cached as an attribute, so that the next access does not come here.
        value = self.__dict__[name] = given.get(name, DEFAULTS[name])
        return value

    def of(self, queue: str, name: str) -> Any:
        """Return the value of a setting for one queue."""
        own = self.QUEUES.get(queue, {})
        if unknown := own.keys() - set(BY_QUEUE):
            raise ImproperlyConfigured(
                f"MESSAGING['QUEUES'][{queue!r}] has unknown keys {sorted(unknown)}; "
                f"known are {sorted(BY_QUEUE)}."
            )
        return own[name] if name in own else getattr(self, name)

    def reload(self, *, setting: str, **_: Any) -> None:
        """Clear the cached values when a test overrides `MESSAGING`."""
        if setting == "MESSAGING":
            self.__dict__.clear()


settings = Settings()
setting_changed.connect(settings.reload, dispatch_uid="messaging.conf")
