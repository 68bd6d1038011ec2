"""Settings of the project and of its database server that weaken a guarantee."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connections
from django.db.models import Max

from messaging import checks
from messaging.conf import settings
from messaging.models import session_locks
from messaging.models.lease import Worker

from .findings import Finding, Level, error, explained, note, ok, warning
from .register import DATABASE, examines

#: Seconds for which MySQL may keep the locks of a client that has vanished.
LONGEST_WAIT = 120
#: The names of the timeouts, by kind of database.
TIMEOUTS = {
    "mysql": ("connect_timeout", "read_timeout", "write_timeout"),
    "mongodb": ("serverSelectionTimeoutMS", "socketTimeoutMS"),
}


@examines()
def the_settings() -> Iterator[Finding]:
    """Report each setting that is wrong or weakens a guarantee."""
    found = [finding for check in CHECKS for finding in check()]
    yield from found
    if not found:
        yield ok("settings", "none weakens a guarantee")


def system_checks() -> Iterator[Finding]:
    """Report what the system checks find, as this command runs without them."""
    for check in (
        checks.check_settings,
        checks.check_published_models,
        checks.check_queues_and_exchanges,
        checks.check_encryption,
        checks.check_sqlite,
    ):
        for found in check(None):
            level = Level.ERROR if found.is_serious() else Level.WARNING
            yield Finding(level, "settings", found.msg, found.hint or "")


def debug() -> Iterator[Finding]:
    """Report DEBUG, with which Django remembers queries and shows settings."""
    if not django_settings.DEBUG:
        return
    text = "DEBUG is on: errors show settings and code, and queries are remembered"
    known = {"localhost", "127.0.0.1", "[::1]", "testserver"}
    if {*django_settings.ALLOWED_HOSTS} - known:
        yield warning("settings", text, "Set DEBUG=0 where others have access.")
    else:
        yield note("settings", text, "Set DEBUG=0 in production.")


def database() -> Iterator[Finding]:
    """Report settings of the database with inbox and outbox."""
    values = connections[settings.DATABASE].settings_dict
    name = f"DATABASES[{settings.DATABASE!r}]"
    if not values.get("AUTOCOMMIT", True):
        text = f"{name}: AUTOCOMMIT is off, so that nothing outside of atomic() commits"
        yield error("settings", text, "Leave it on.")
    if values["CONN_MAX_AGE"] == 0:
        text = f"{name}: CONN_MAX_AGE is 0: each batch connects anew and takes its "
        text += "lock again"
        yield warning("settings", text, "Set it to 60.")
    elif not values["CONN_HEALTH_CHECKS"]:
        text = f"{name}: without CONN_HEALTH_CHECKS the first request after a restart "
        text += "of the server fails"
        yield note("settings", text, "Set it to True.")


def timeouts() -> Iterator[Finding]:
    """Report databases without timeouts, which may keep a process from stopping."""
    for alias in connections:
        values = connections[alias].settings_dict
        needed = TIMEOUTS.get(connections[alias].vendor, ())
        options = values.get("OPTIONS", {})
        missing = [
            name
            for name in needed
            if name not in options and name.lower() not in str(values["HOST"]).lower()
        ]
        if missing:
            text = f"DATABASES[{alias!r}] has no {', '.join(missing)}: a server that "
            text += "hangs keeps processes from stopping in time"
            yield warning("settings", text, "Set them in its OPTIONS, to 15 s or less.")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    system_checks,
    debug,
    database,
    timeouts,
)


@examines(DATABASE)
def the_database_server() -> Iterator[Finding]:
    """Report what MySQL or MariaDB is configured to do with commits and locks."""
    connection = connections[settings.DATABASE]
    if connection.vendor != "mysql":
        return
    subject = f"database {settings.DATABASE}"
    with connection.cursor() as cursor:
        values = variables(cursor)
        others = tables_without_transactions(cursor)
    if others:
        text = f"{', '.join(others)} have no transactions"
        remedy = "ALTER TABLE ... ENGINE=InnoDB for each."
        yield error(subject, text, remedy)
    if values["innodb_flush_log_at_trx_commit"] != "1":
        text = "a commit may be lost when the server dies, after its acknowledgement: "
        text += "innodb_flush_log_at_trx_commit is not 1"
        yield warning(subject, text, "Set it to 1.")
    if problem := session_locks.problem_of(settings.DATABASE):
        yield error(subject, problem, "See docs/databases.md.")
    yield from replication(subject, values)
    if values["isolation"] in ("READ-UNCOMMITTED", "SERIALIZABLE"):
        text = f"isolation is {values['isolation']}"
        yield warning(subject, text, "Use READ COMMITTED, Django's default.")
    if int(values["wait_timeout"]) > LONGEST_WAIT:
        text = f"wait_timeout is {values['wait_timeout']} s: so long the server keeps "
        text += "the locks of a client that has vanished"
        yield warning(subject, text, "Set it to 30 in init_command.")
    read = connection.settings_dict.get("OPTIONS", {}).get("read_timeout")
    if read and int(values["innodb_lock_wait_timeout"]) >= read:
        text = "innodb_lock_wait_timeout is not below read_timeout: a client that "
        text += "waits for a lock gives up while the server goes on"
        yield warning(subject, text, "Set it lower in init_command.")


def replication(subject: str, values: dict[str, str]) -> Iterator[Finding]:
    """Report what a fail-over to a replica could lose."""
    if values["read_only"] == "ON":
        text = "it takes no writes: read_only is ON"
        yield error(subject, text, "Connect to the primary.")
        return
    is_replicated = any(int(values.get(name, 0)) for name in ATTACHED)
    if not (is_replicated or settings.REPLICAS):
        return
    value = {name: values.get(f"rpl_semi_sync_{name}") for name in SEMI_SYNC}
    is_lossless = value["status"] == "ON" and value["wait_point"] == "AFTER_SYNC"
    if not is_lossless:
        text = "a fail-over to a replica may lose what was acknowledged: lossless "
        text += "semi-synchronous replication is off"
        yield warning(subject, text, "See docs/databases.md.")
    elif int(value["timeout"] or 0) < SHORTEST_SEMI_SYNC:
        text = f"after {int(value['timeout'] or 0) / 1000:.0f} s without a replica, "
        text += "commits are acknowledged that a fail-over would lose"
        yield warning(subject, text, "Raise rpl_semi_sync_..._timeout.")


#: Numbers of replicas that are attached: of MariaDB, and of those that acknowledge.
ATTACHED = ("slaves_connected", "rpl_semi_sync_clients")
SEMI_SYNC = ("status", "wait_point", "timeout")
#: Milliseconds for which a primary has to wait for a replica, at least: an hour.
SHORTEST_SEMI_SYNC = 3_600_000


@examines(DATABASE)
def the_replicas() -> Iterator[Finding]:
    """Report replicas that do not answer or lag, judging by the heartbeats."""
    newest = Max("seen_at")
    for alias in settings.REPLICAS:
        primary = Worker.objects.using(settings.DATABASE).aggregate(at=newest)["at"]
        try:
            replica = Worker.objects.using(alias).aggregate(at=newest)["at"]
        except Exception as cause:  # noqa: BLE001 each driver has errors of its own
            text = f"does not answer: {explained(cause)}"
            yield warning(f"replica {alias}", text, "Its reads go to the primary.")
            continue
        lag = (primary - replica).total_seconds() if primary and replica else 0.0
        if (primary and not replica) or lag > LONGEST_LAG:
            text = f"its newest heartbeat is {lag:.0f} s older than that of the primary"
            remedy = "Look at SHOW REPLICA STATUS, or take it out of REPLICAS."
            yield warning(f"replica {alias}", text, remedy)
        else:
            yield ok(f"replica {alias}", f"answers, {max(lag, 0):.0f} s behind")


#: Seconds by which replicas may lag.
LONGEST_LAG = 10.0


def variables(cursor: Any) -> dict[str, str]:
    """Return variables of this session and about replication, and "isolation"."""
    names = (
        "read_only",
        "innodb_flush_log_at_trx_commit",
        "innodb_lock_wait_timeout",
        "wait_timeout",
        # The name in MySQL, and the old name that MariaDB had.
        "transaction_isolation",
        "tx_isolation",
    )
    marks = ", ".join(["%s"] * len(names))
    cursor.execute(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({marks})", names)
    values = dict(cursor.fetchall())
    for kind in ("VARIABLES", "STATUS"):
        cursor.execute(
            f"SHOW GLOBAL {kind} WHERE Variable_name LIKE 'rpl_semi_sync_%%' "
            "OR Variable_name = 'Slaves_connected'"
        )
        # MySQL's names have "source" where MariaDB's have "master".
        for name, value in cursor.fetchall():
            short = re.sub("_(master|source)_", "_", name.lower())
            values[short] = value
    values["isolation"] = values.get("transaction_isolation") or values["tx_isolation"]
    return values


def tables_without_transactions(cursor: Any) -> list[str]:
    """Return the tables of this project whose engine is not InnoDB."""
    ours = {model._meta.db_table for model in apps.get_models()}
    cursor.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND engine <> 'InnoDB'"
    )
    return sorted({row[0] for row in cursor.fetchall()} & ours)
