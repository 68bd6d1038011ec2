"""
The settings of this package: one dictionary, and a default for each key.

    MESSAGING = {"URL": "amqp://guest:guest@127.0.0.1:5672/"}

Nothing else in the package reads `django.conf.settings`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

DEFAULTS: dict[str, Any] = {
    #: Address of the broker; `amqps://` for TLS, with options that name certificates:
    #: `?cacertfile=ca.pem&certfile=own.pem&keyfile=own.key`. The nodes of a cluster are
    #: a list, or one text with commas in between.
    "URL": "amqp://guest:guest@127.0.0.1:5672/",
    #: Whether queues, exchanges and bindings are declared. False where others make
    #: them, and without permission to do so: what is missing is waited for.
    "DECLARE": True,
    #: Name of this application: the `app_id` of every message it publishes.
    "APP_ID": "messaging",
    #: Secret by which requests with an `Idempotency-Key` are recognised. None stands
    #: for Django's `SECRET_KEY`, after whose rotation they would be applied again.
    "IDEMPOTENCY_KEY": None,
    #: Alias of the database in which handlers write; it also holds inbox and outbox.
    "DATABASE": "default",
    #: Aliases of databases that replicate `DATABASE`. Lists and single objects of the
    #: API are read from them: see `messaging.database.ReplicaRouter`.
    "REPLICAS": (),
    #: Seconds `publish` waits for the broker's confirm, including reconnecting, before
    #: it raises `Unconfirmed`.
    "CONFIRM_TIMEOUT": 5.0,
    #: Maximum size in bytes of a body that is published or handled; of a
    #: compressed one, also when it is decompressed.
    "MAX_BODY": 1024 * 1024,
    #: Seconds in which the body of a request must arrive, or it is answered with 408.
    "BODY_TIMEOUT": 10.0,
    #: Maximum size in bytes of the body of a request to any path; larger ones are
    #: answered with 413, unread.
    "MAX_REQUEST_BODY": 2560 * 1024,
    #: Maximum number of messages of one process that await their confirm.
    "MAX_IN_FLIGHT": 2000,
    #: Seconds between heartbeats of a connection. A broker that is silent for five more
    #: is given up, and one gives up a client that is silent for two of them.
    "HEARTBEAT": 5,
    #: The same for the connections of consumers: what a frozen process has in hand is
    #: given to another one when they are missed.
    "CONSUMER_HEARTBEAT": 3,
    #: Maximum number of unacknowledged messages of a consumer. Its largest batch is one
    #: half; the other half arrives meanwhile. It must be the same for all consumers of
    #: a queue, and must not be lowered while messages wait: see `Subscription`.
    "PREFETCH": 1000,
    #: Maximum size in bytes of the bodies that a process keeps in memory for a queue,
    #: whatever its number of partitions; further ones are spooled to disk.
    "PREFETCH_BYTES": 32 * 1024 * 1024,
    #: Type of the queues: "quorum", or "classic" for a broker without quorum queues.
    "QUEUE_TYPE": "quorum",
    #: Deliveries after which the broker dead-letters a message whose consumers die.
    "DELIVERY_LIMIT": 100,
    #: Seconds a message that raises `NotYet` is retried before it is rejected.
    "PATIENCE": 1.0,
    #: Seconds a message of this project is retried whose type no handler knows, as a
    #: newer release may have sent it, before it is rejected.
    "UNKNOWN_TYPE_WAIT": 600.0,
    #: First and longest pause in seconds before the next attempt while a server is
    #: unavailable; pauses double in between.
    "BACKOFF": (0.2, 15.0),
    #: Number of partitions of a queue, each a queue of the broker with one consumer at
    #: a time.
    "PARTITIONS": 1,
    #: Attempts after which a failing message becomes a dead letter; None for no limit.
    "MAX_ATTEMPTS": 10,
    #: The same for particular exceptions, by the dotted name of the class or of a base
    #: class.
    "ATTEMPTS_OF": {
        "messaging.exceptions.Retry": None,
        "messaging.exceptions.TimeLimitExceeded": 3,
    },
    #: Seconds that a handler or a projection may take for a message, or for a list of
    #: messages if it takes lists; then the message is set aside. None for no limit.
    "TIME_LIMIT": 300.0,
    #: First and longest pause in seconds between attempts of a failing message; pauses
    #: double in between.
    "RETRY_PAUSE": (0.5, 300.0),
    #: Share of failures among the last messages above which a consumer tries messages
    #: one at a time instead of parking them all; None to disable.
    "BREAKER": 0.5,
    #: Maximum size in bytes of the bodies that wait in a partition, a queue of dead
    #: letters, or the queue of a function; the broker refuses further ones until some
    #: are taken. None for no limit.
    "MAX_QUEUE_BYTES": 1024 * 1024 * 1024,
    #: Addresses of the pages of metrics of the broker's nodes, which
    #: `rabbitmq_prometheus` serves, such as "http://127.0.0.1:15692/metrics": `doctor`,
    #: the home page and the log of the relay warn before a disk is full.
    "BROKER_METRICS": (),
    #: Address of the management plugin of the broker, with a user who has the tag
    #: `monitoring`, such as "http://monitor:secret@127.0.0.1:15672": `doctor` asks it
    #: which queues have no limit. None not to ask.
    "BROKER_MANAGEMENT": None,
    #: By queue, other values of the eight settings named in `BY_QUEUE`.
    "QUEUES": {},
    #: Name of the topic exchange to which events are published.
    "EVENTS_EXCHANGE": "events",
    #: Members of `info` in the AsyncAPI document, such as title, version, description.
    "ASYNCAPI_INFO": {},
    #: Days for which the inbox remembers a message; older messages are rejected as
    #: expired, because duplicates of them could not be detected.
    "RETENTION_DAYS": 30,
    #: Days after which `prune_messages` removes dead letters that nobody has settled;
    #: None to keep them.
    "DEAD_LETTER_DAYS": None,
    #: Days for which the numbers of each minute are kept; `prune_messages` sums up what
    #: is older.
    "HISTORY_DAYS": 2,
    #: Seconds after which MariaDB, MySQL or MongoDB cancels a query of a list in the
    #: API or the admin, for example a search that no index serves; None for no limit.
    "QUERY_TIMEOUT": 2.0,
    #: Name of what is deployed, such as a tag or a commit, which is shown beside each
    #: process; by default the version of this package.
    "RELEASE": "",
    #: Dead letters per second that a replay job sends, unless its operator chooses.
    "REPLAY_RATE": 50,
    #: Minutes after which the admin asks for the password again before it deletes,
    #: settles dead letters, or changes rights; None to ask at login only.
    "PASSWORD_MINUTES": 15.0,
    #: Maximum number of requests of one process that wait for the outcome of a write.
    "MAX_WAITERS": 16,
    #: Seconds a call waits for its reply.
    "CALL_TIMEOUT": 5.0,
    #: Maximum number of seconds in which a server tries to send a reply, however long
    #: its caller would wait.
    "REPLY_TIMEOUT": 10.0,
    #: Calls of one function that a server process runs at a time.
    "SERVER_THREADS": 4,
    #: Seconds a consumer may take after SIGTERM to finish its current batch.
    "STOP_TIMEOUT": 8.0,
    #: Seconds without a heartbeat after which other workers take over the partitions of
    #: a worker.
    "LEASE": 5.0,
}

#: The keys of `QUEUES` for one queue:
#: {"orders_queue": {"PARTITIONS": 8, "MAX_ATTEMPTS": 20}}.
BY_QUEUE = (
    "PARTITIONS",
    "PATIENCE",
    "MAX_ATTEMPTS",
    "ATTEMPTS_OF",
    "TIME_LIMIT",
    "RETRY_PAUSE",
    "BREAKER",
    "MAX_QUEUE_BYTES",
)


#: Where one address ends and the next begins: a password may contain a comma.
NEXT_URL = re.compile(r"\s*,\s*(?=amqps?://)")


class Settings:
    """`settings.URL` reads `MESSAGING["URL"]` or its default."""

    @property
    def urls(self) -> list[str]:
        """The addresses of the broker's nodes, of which `URL` names one or several."""
        given = self.URL
        if isinstance(given, list | tuple):
            return list(given)
        return NEXT_URL.split(str(given).strip())

    @property
    def virtual_host(self) -> str:
        """The name of the virtual host, which is the same at every node."""
        return unquote(urlsplit(self.urls[0]).path.removeprefix("/")) or "/"

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
        if queue not in self.QUEUES:
            return getattr(self, name)
        own = self.QUEUES[queue]
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
