"""Settings, of this project and of its database server, that weaken a promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connections

from messaging.conf import settings

from .findings import Finding, error, note, ok, warning
from .register import DATABASE, examines

#: Longest that MySQL may leave the locks of a client that has vanished, in seconds.
ABANDONED = 120
#: Largest number of messages that AMQP's prefetch can say.
MOST_PREFETCHED = 65_535


def database() -> dict[str, Any]:
    """Give the settings of the database with inbox and outbox."""
    told: dict[str, Any] = connections[settings.DATABASE].settings_dict
    return told


@examines()
def the_settings() -> Iterator[Finding]:
    """Tell of each setting that weakens a promise."""
    found = [finding for check in CHECKS for finding in check()]
    yield from found
    if not found:
        yield ok("settings", "none weakens a promise")


def queue_type() -> Iterator[Finding]:
    """Classic queues are on one node only and count no deliveries."""
    if settings.QUEUE_TYPE == "classic":
        text = "QUEUE_TYPE is classic: queues are lost with their node, and messages "
        text += "that kill consumers are given up by this package alone"
        yield warning("settings", text, "Use quorum queues (docs/operations.md).")


def prefetch() -> Iterator[Finding]:
    """Too few are slow, too many are no number of AMQP's."""
    if not 0 < settings.PREFETCH <= MOST_PREFETCHED:
        text = f"PREFETCH is {settings.PREFETCH}"
        yield error("settings", text, f"Use 2 to {MOST_PREFETCHED}.")
    elif settings.PREFETCH < 2:
        text = "PREFETCH is 1: nothing arrives while a message is worked on"
        yield warning("settings", text, "Use the default, 1000.")
    elif settings.PREFETCH > 20_000:
        text = f"PREFETCH is {settings.PREFETCH}: all of it is delivered again when "
        text += "a consumer is lost, and batches take long to stop"
        yield warning("settings", text, "Use the default, 1000.")


def patience() -> Iterator[Finding]:
    """Times that are too short to be kept, or too long to wait for."""
    if not settings.HEARTBEAT:
        text = "HEARTBEAT is 0: a broker that vanishes is never missed"
        yield error("settings", text, "Use the default, 15.")
    if settings.STOP_TIMEOUT > 9:
        text = f"STOP_TIMEOUT is {settings.STOP_TIMEOUT:g}: SIGTERM takes over 10 s"
        yield warning("settings", text, "Use the default, 8.")
    if settings.LEASE < 2:
        text = f"LEASE is {settings.LEASE:g}: a short pause costs a process its queues"
        yield warning("settings", text, "Use the default, 5.")
    if settings.RETENTION_DAYS < 1:
        text = f"RETENTION_DAYS is {settings.RETENTION_DAYS:g}: what waits longer in "
        text += "a queue is refused, and what is repeated later applied twice"
        yield warning("settings", text, "Use the default, 30.")


def debug() -> Iterator[Finding]:
    """Django remembers queries and shows its inside."""
    if not django_settings.DEBUG:
        return
    text = "DEBUG is on: errors show settings and code, and queries are remembered"
    known = {"localhost", "127.0.0.1", "[::1]", "testserver"}
    if {*django_settings.ALLOWED_HOSTS} - known:
        yield warning("settings", text, "DEBUG=0 where others come.")
    else:
        yield note("settings", text, "DEBUG=0 in production.")


def transactions() -> Iterator[Finding]:
    """What makes effects, inbox and outbox other than one transaction."""
    told = database()
    name = f"DATABASES[{settings.DATABASE!r}]"
    if told.get("ATOMIC_REQUESTS"):
        text = f"{name}: ATOMIC_REQUESTS lets writes over HTTP wait in the outbox, so "
        text += "that they are answered before the broker has them"
        yield warning("settings", text, "Set it to False.")
    if not told.get("AUTOCOMMIT", True):
        text = f"{name}: AUTOCOMMIT is off, so that nothing outside of atomic() commits"
        yield error("settings", text, "Leave it on.")
    if told["ENGINE"].endswith("sqlite3"):
        text = f"{name}: SQLite has one writer, and no locks on rows"
        yield warning("settings", text, "Use MySQL, MariaDB or PostgreSQL.")


def lasting_connections() -> Iterator[Finding]:
    """A lease is kept by a session, which should not end with each batch."""
    told = database()
    name = f"DATABASES[{settings.DATABASE!r}]"
    if told["CONN_MAX_AGE"] == 0:
        text = f"{name}: CONN_MAX_AGE is 0: each batch connects anew and takes its "
        text += "lock again"
        yield warning("settings", text, "Set it to 60.")
    elif not told["CONN_HEALTH_CHECKS"]:
        text = f"{name}: without CONN_HEALTH_CHECKS the first request after a restart "
        text += "of the server fails"
        yield note("settings", text, "Set it to True.")


def timeouts() -> Iterator[Finding]:
    """A server that hangs must not keep a process from stopping."""
    for alias in connections:
        told = connections[alias].settings_dict
        needed = TIMEOUTS.get(connections[alias].vendor, ())
        options = told.get("OPTIONS", {})
        missing = [
            name
            for name in needed
            if name not in options and name.lower() not in str(told["HOST"]).lower()
        ]
        if missing:
            text = f"DATABASES[{alias!r}] has no {', '.join(missing)}: a server that "
            text += "hangs keeps processes from stopping in time"
            yield warning("settings", text, "Set them in its OPTIONS, to 15 s or less.")


#: What each kind of database calls its timeouts.
TIMEOUTS = {
    "mysql": ("connect_timeout", "read_timeout", "write_timeout"),
    "mongodb": ("serverSelectionTimeoutMS", "socketTimeoutMS"),
}
CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    queue_type,
    prefetch,
    patience,
    debug,
    transactions,
    lasting_connections,
    timeouts,
)


@examines(DATABASE)
def the_database_server() -> Iterator[Finding]:
    """Tell what MySQL or MariaDB does with a commit, and with locks."""
    connection = connections[settings.DATABASE]
    if connection.vendor != "mysql":
        return
    subject = f"database {settings.DATABASE}"
    with connection.cursor() as cursor:
        told = variables(cursor)
        loose = tables_without_transactions(cursor)
    if loose:
        text = f"{', '.join(loose)} know no transactions"
        remedy = "ALTER TABLE ... ENGINE=InnoDB for each."
        yield error(subject, text, remedy)
    if told["innodb_flush_log_at_trx_commit"] != "1":
        text = "a commit may be lost when the server dies, after its acknowledgement: "
        text += "innodb_flush_log_at_trx_commit is not 1"
        yield warning(subject, text, "Set it to 1.")
    if told["isolation"] in ("READ-UNCOMMITTED", "SERIALIZABLE"):
        text = f"isolation is {told['isolation']}"
        yield warning(subject, text, "Use READ COMMITTED, Django's default.")
    if int(told["wait_timeout"]) > ABANDONED:
        text = f"wait_timeout is {told['wait_timeout']} s: so long it keeps the locks "
        text += "of a client that has vanished"
        yield warning(subject, text, "Set it to 30 in init_command.")
    read = database().get("OPTIONS", {}).get("read_timeout")
    if read and int(told["innodb_lock_wait_timeout"]) >= read:
        text = "innodb_lock_wait_timeout is not below read_timeout: who waits for a "
        text += "lock gives up while the server goes on"
        yield warning(subject, text, "Set it lower in init_command.")


def variables(cursor: Any) -> dict[str, str]:
    """Give what holds for this session."""
    names = (
        "innodb_flush_log_at_trx_commit",
        "innodb_lock_wait_timeout",
        "wait_timeout",
        # Called so by MySQL, and formerly by MariaDB.
        "transaction_isolation",
        "tx_isolation",
    )
    marks = ", ".join(["%s"] * len(names))
    cursor.execute(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({marks})", names)
    told = dict(cursor.fetchall())
    told["isolation"] = told.get("transaction_isolation") or told["tx_isolation"]
    return told


def tables_without_transactions(cursor: Any) -> list[str]:
    """Give the tables of this project that are in another engine than InnoDB."""
    ours = {model._meta.db_table for model in apps.get_models()}
    cursor.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND engine <> 'InnoDB'"
    )
    return sorted({row[0] for row in cursor.fetchall()} & ours)
