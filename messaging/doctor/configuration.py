"""Settings of the project and of its database server that weaken a guarantee."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connections

from messaging import checks
from messaging.conf import settings

from .findings import Finding, Level, error, note, ok, warning
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


def variables(cursor: Any) -> dict[str, str]:
    """Return the variables of this session, and "isolation"."""
    names = (
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
