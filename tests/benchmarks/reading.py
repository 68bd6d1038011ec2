"""
Times each list of the API and of the admin: its pages, orderings, filters and searches.

    python -m tests.benchmarks.reading --users 1000000 --inbox 1000000

It prints the warm median of each request, which is made in this process, how many
queries it takes, and how many rows MariaDB or MySQL reads for them.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.support import private_servers as servers  # first: it sets the environment

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
# Otherwise Django keeps the text of every query.
os.environ["DEBUG"] = os.environ["OPEN_ACCESS"] = "0"
os.environ["HTTPS"] = "0"

import django

django.setup()

from django.contrib.auth.models import User as Account
from django.core import signing
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from messaging.models import Inbox
from messaging.models.dead_letter import DeadLetter
from project.access import issue_token
from project.pagination import SALT, position_of
from reports.documents import store, write_documents
from reports.models import Report
from reports.views import ReportViewSet
from tests.support.changelists import address, links
from tests.support.filling import (
    INBOX,
    LETTERS,
    NOW,
    USERS,
    execute,
    insert,
    rows_read,
)
from users.models import User, UserLedger
from users.views import UserViewSet

ROUNDS = 5
#: Milliseconds that a list may take; searches without an index may take longer.
GOAL = 100
HOST = "localhost"


def main() -> None:
    """Start servers, fill the tables, time every request, stop servers."""
    options = arguments()
    try:
        with ThreadPoolExecutor() as pool:
            every = (servers.mariadb, servers.mongodb)
            list(pool.map(lambda server: server.start(), every))
        execute(f"SET GLOBAL innodb_buffer_pool_size = {options.buffer_pool * 2**20}")
        call_command("migrate", database="default", verbosity=0)
        call_command("migrate", database="reports", verbosity=0)
        fill(options)
        say(
            f"{options.users:,} users, {options.inbox:,} inbox rows, "
            f"{options.letters:,} dead letters, {options.reports:,} reports; "
            f"buffer pool {options.buffer_pool} MB; medians of {ROUNDS}"
        )
        report(options.only)
    finally:
        connections.close_all()
        servers.pytest_unconfigure()


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--inbox", type=int, default=100_000)
    parser.add_argument("--letters", type=int, default=10_000)
    # The embedded server scans all of them for each query.
    parser.add_argument("--reports", type=int, default=1_000)
    parser.add_argument("--buffer-pool", type=int, default=512, help="in MB")
    parser.add_argument("--only", default="", help="paths that begin like this")
    return parser.parse_args()


def fill(options: argparse.Namespace) -> None:
    """Fill the tables by statements that insert many rows."""
    started = time.monotonic()
    insert(User, options.users, USERS)
    ledger = {"user_id": "n + 1", "version": "1", "deleted": "0"}
    insert(UserLedger, options.users, ledger)
    insert(Inbox, options.inbox, INBOX)
    insert(DeadLetter, options.letters, LETTERS)
    for start in range(0, options.reports, 1000):
        numbers = range(start, min(start + 1000, options.reports))
        write_documents([store(make_report(n)) for n in numbers])
    for table in (User, UserLedger, Inbox, DeadLetter):
        execute(f"ANALYZE TABLE {table._meta.db_table}")
    say(f"filled in {time.monotonic() - started:.0f} s")


def make_report(n: int) -> Report:
    """Return an unsaved report."""
    return Report(
        id_reporte=str(UUID(int=n, version=4)),
        id_usuario=n % 100 + 1,
        tipo_reporte=n % 7,
        descripcion=f"Un bache grande, el número {n}",
        ubicacion=f"Calle {n % 50}",
        visibilidad=(1.0, 1.0, 1.0, 0.0, 2.5)[n % 5],
        fecha_creacion=NOW - timedelta(minutes=n),
        version=1,
    )


def report(only: str) -> None:
    """Time every request and print a table."""
    account = Account.objects.create_superuser("bench", password="bench")
    token = {"authorization": f"Bearer {issue_token('bench', [])}"}
    client = Client(False, headers=token, raise_request_exception=False)
    client.defaults["SERVER_NAME"] = HOST
    client.force_login(account)
    say(f"| {'request':100} | status | queries | rows | ms |")
    say("|---|---|---|---|---|")
    paths = [path for path in requests(account) if path.startswith(only)]
    medians = [row(client, path) for path in paths]
    slow = sum(median > GOAL for median in medians)
    say(f"{slow} of {len(paths)} take more than {GOAL} ms")


def row(client: Client, path: str) -> float:
    """Time one request, print its row and return its median in milliseconds."""
    client.get(path)
    before = rows_read()
    with ExitStack() as stack:
        every = [CaptureQueriesContext(one) for one in connections.all()]
        captured = [stack.enter_context(one) for one in every]
        status = client.get(path).status_code
    read, queries = rows_read() - before, sum(map(len, captured))
    taken: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        client.get(path)
        taken.append((time.perf_counter() - started) * 1000)
        if taken[0] > 1000:  # its order of magnitude is enough
            break
    median = statistics.median(taken)
    label = re.sub("cursor=.*", "cursor=(middle)", path)
    say(f"| {label:100.140} | {status} | {queries} | {read} | {median:.1f} |")
    return median


def requests(account: Account) -> Iterator[str]:
    """Yield the path of every request to time."""
    yield from of_the_api()
    yield from of_the_admin(account)


#: By path, filters and searches: frequent values, rare ones, and ones that never occur.
QUERIES = {
    "/users/": [
        "email=nadie@example.com",
        "apellido=Apellido17",
        "calificacion_min=5",
        "calificacion_min=4.5",
        "calificacion_max=0",
        "calificacion_max=4",
        "numero_reportes_min=3",
        "numero_reportes_min=30",
        "numero_reportes_max=2",
        f"fecha_creacion_after={NOW - timedelta(days=365):%Y-%m-%d}",
        f"fecha_creacion_after={NOW - timedelta(days=60):%Y-%m-%d}",
        f"fecha_creacion_after={NOW - timedelta(days=1):%Y-%m-%d}",
        f"fecha_creacion_before={NOW - timedelta(days=365):%Y-%m-%d}",
        "search=nombre7",
        "search=apellido17",
        "search=nadie",
    ],
    "/reports/": [
        "id_usuario=7",
        "tipo_reporte=3",
        "visibilidad_min=1",
        "visibilidad_min=2",
        "visibilidad_max=0",
        f"fecha_creacion_after={NOW - timedelta(hours=3):%Y-%m-%dT%H:%M}",
        "search=bache",
        "search=nadie",
    ],
}


def of_the_api() -> Iterator[str]:
    """Yield lists of the API, with each ordering, its first and a middle page."""
    for path, view in (("/users/", UserViewSet), ("/reports/", ReportViewSet)):
        for name in view.ordering_fields:
            for ordering in (name, f"-{name}"):
                yield f"{path}?ordering={ordering}"
                yield f"{path}?ordering={ordering}&cursor={middle(view, ordering)}"
        for query in QUERIES[path]:
            yield f"{path}?{query}"
    one = User.objects.first()
    yield f"/users/{one.pk if one else 0}/"


def middle(view: Any, ordering: str) -> str:
    """Return the cursor of the page that begins in the middle of a list."""
    rows = view.queryset
    key = rows.model._meta.pk.name
    sign = "-" if ordering.startswith("-") else ""
    order = [ordering] if ordering in (key, f"-{key}") else [ordering, sign + key]
    place = rows.count() // 2
    keys = rows.order_by(*order).values_list("pk", flat=True)[place : place + 1]
    row = rows.get(pk=keys[0])
    return signing.dumps([order, False, position_of(row, tuple(order))], salt=SALT)


def of_the_admin(account: Account) -> Iterator[str]:
    """Yield each large list of the admin: pages, orderings, filters, searches."""
    for model in (User, Inbox, DeadLetter, Report):
        path = address(model)
        yield from (path, f"{path}?p=2", *links(model, account))
        yield from (f"{path}?q={term}" for term in ("nombre7", "nadie", "a@b.com"))


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
