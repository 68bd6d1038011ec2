"""How long the lists of the API and of the admin take, with more and more rows."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import cache, lru_cache, partial
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User as Account
from django.core import signing
from django.db import connections
from django.test import Client

from messaging.models import Inbox
from messaging.models.dead_letter import DeadLetter
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

from .accepting import token
from .comparison import Contestant, Effort, Row, Sample
from .reporting import collection
from .servers import HAS_MONGODB, ordinary
from .ways import truncate

#: Times that each list is read, after a first time.
READINGS = 5
#: Milliseconds that a list may take, unless it is a search.
GOAL = 100
#: Dead letters, whatever the number of other rows.
DEAD_LETTERS = 10_000
LEDGER = {"user_id": "n + 1", "version": "1", "deleted": "0"}


def lists_row(effort: Effort) -> Row:
    """Compare the slowest list with more and more rows."""
    kinds = {
        "API": ("each ordering, on two pages, and each filter", of_the_api),
        "admin": ("each ordering, filter and page", of_the_admin),
        "searches": ("free texts, which no index serves", searches),
    }
    return Row(
        "the slowest list of the API and of the admin",
        "ms",
        [
            Contestant(f"{kind}, {size:,} rows", what, partial(slowest, paths, size))
            for size in effort.sizes
            for kind, (what, paths) in kinds.items()
        ],
        f"admin, {effort.sizes[-1]:,} rows",
        1,
        f"Warm medians of {READINGS} requests in this process. So many users and inbox "
        f"rows, {DEAD_LETTERS:,} dead letters and, with a `mongod`, as many reports as "
        "users. The database cancels searches after 2 s.",
    )


def slowest(paths: Callable[[], Iterable[str]], size: int) -> Sample:
    """Return the longest median of lists in tables with so many rows."""
    fill(size)
    medians = [median_of(path) for path in paths()]
    over = sum(median > GOAL for median in medians)
    notes = {"lists": float(len(medians)), f"over {GOAL} ms": float(over)}
    return Sample(max(medians), notes=notes)


@lru_cache(maxsize=1)
def fill(size: int) -> None:
    """Replace the rows of the tables by so many others."""
    ordinary.prepare()
    truncate(ordinary.database)
    insert(User, size, USERS)
    insert(UserLedger, size, LEDGER)
    insert(Inbox, size, INBOX)
    insert(DeadLetter, DEAD_LETTERS, LETTERS)
    for table in (User, UserLedger, Inbox, DeadLetter):
        execute(f"ANALYZE TABLE {table._meta.db_table}")
    if HAS_MONGODB:
        collection().delete_many({})
        for start in range(0, size, 1000):
            numbers = range(start, min(start + 1000, size))
            write_documents([store(make_report(n)) for n in numbers])
    connections.close_all()  # idle for too long meanwhile


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


@cache
def client() -> Client:
    """Return a client of the API and of the admin, with all rights."""
    headers = {"authorization": f"Bearer {token()}"}
    made = Client(False, headers=headers, raise_request_exception=False)
    made.defaults["SERVER_NAME"] = "localhost"
    made.force_login(account())
    return made


@cache
def account() -> Account:
    """Return an account that may see everything."""
    return Account.objects.create_superuser("bench", password="bench")


def median_of(path: str) -> float:
    """Return the warm median of a list in milliseconds, and print what it takes."""
    client().get(path)
    before = rows_read()
    status = client().get(path).status_code
    read = rows_read() - before
    taken: list[float] = []
    while len(taken) < READINGS and sum(taken) < 10 * GOAL:
        started = time.perf_counter()
        client().get(path)
        taken.append((time.perf_counter() - started) * 1000)
    median = statistics.median(taken)
    sys.stderr.write(f"{median:7.1f} ms {read:7} rows {status} {path:.100}\n")
    return median


#: By path, filters with values that are frequent, rare, and never occur.
FILTERS = {
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
        f"fecha_creacion_after={NOW - timedelta(days=1):%Y-%m-%d}",
        f"fecha_creacion_before={NOW - timedelta(days=365):%Y-%m-%d}",
    ],
    "/reports/": [
        "id_usuario=7",
        "tipo_reporte=3",
        "visibilidad_min=1",
        "visibilidad_min=2",
        "visibilidad_max=0",
        f"fecha_creacion_after={NOW - timedelta(hours=3):%Y-%m-%dT%H:%M}",
    ],
}


def of_the_api() -> Iterator[str]:
    """Yield the first page and a middle one of each ordering, and each filter."""
    views: list[Any] = [UserViewSet, *([ReportViewSet] if HAS_MONGODB else [])]
    for path, view in zip(FILTERS, views, strict=False):
        for name in view.ordering_fields:
            for ordering in (name, f"-{name}"):
                yield f"{path}?ordering={ordering}"
                yield f"{path}?ordering={ordering}&cursor={middle(view, ordering)}"
        yield from (f"{path}?{query}" for query in FILTERS[path])


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


def of_the_admin() -> Iterator[str]:
    """Yield each large list of the admin, and its pages, orderings and filters."""
    for model in (User, Inbox, DeadLetter, *([Report] if HAS_MONGODB else [])):
        path = address(model)
        yield from (path, f"{path}?p=2", *links(model, account()))
    yield f"{address(User)}?q=nadie@example.com"


def searches() -> Iterator[str]:
    """Yield searches without an index, for what is frequent and what is not there."""
    for path in ("/users/?search=", *(f"{address(m)}?q=" for m in (User, DeadLetter))):
        yield from (path + term for term in ("nombre7", "apellido17", "nadie"))
    if HAS_MONGODB:
        for path in ("/reports/?search=", f"{address(Report)}?q="):
            yield from (path + term for term in ("bache", "nadie"))
