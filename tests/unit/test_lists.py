"""How lists are counted, and how their queries are sent and cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections
from django.template import Context, Template
from pymongo.errors import ExecutionTimeout, NetworkTimeout, OperationFailure

from messaging.admin.lists import AtLeast
from messaging.database import (
    QueryTimeout,
    no_time_limit,
    query_timeout,
    time_limit,
)
from reports.queries import sorted_first
from reports.views import ReportViewSet
from users.views import UserViewSet

MATCH = {"$match": {"deleted": False}}
SORT = {"$sort": {"visibilidad": -1, "_id": -1}}
LIMIT = {"$limit": 51}
COPY = {"$addFields": {"visibilidad": "$visibilidad", "_id": "$_id"}}
SHOW = {"$project": {"visibilidad": 1, "_id": 1}}
PART = {"$project": {"_id": 1}}
RENAME = {"$project": {"visibilidad": "$version", "_id": 1}}
COMPUTE = {"$addFields": {"__order1": {"$toLower": "$ubicacion"}}}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        # What a list sends: `$addFields` would keep MongoDB from using an index.
        ([MATCH, COPY, SORT, LIMIT], [MATCH, SORT, LIMIT]),
        ([COPY, SORT, LIMIT], [SORT, LIMIT]),
        # What `values_list` sends.
        ([MATCH, SHOW, SORT, LIMIT], [MATCH, SORT, LIMIT, SHOW]),
        # Here the order of the stages matters.
        ([MATCH, PART, SORT, LIMIT], [MATCH, PART, SORT, LIMIT]),
        ([MATCH, RENAME, SORT, LIMIT], [MATCH, RENAME, SORT, LIMIT]),
        ([MATCH, COMPUTE, SORT], [MATCH, COMPUTE, SORT]),
        # There is nothing to sort.
        ([MATCH, SHOW, LIMIT], [MATCH, SHOW, LIMIT]),
        ([], []),
    ],
)
def test_sort_comes_right_after_match(stages: Any, expected: Any) -> None:
    assert sorted_first(stages) == expected


def test_a_count_that_stopped_is_displayed_with_a_plus_sign() -> None:
    count = AtLeast(10_000)
    rendered = Template("{{ count }}").render(Context({"count": count}))

    assert (rendered, "%s" % count, count) == ("10000+", "10000+", 10_000)  # noqa: UP031


@pytest.mark.parametrize(
    ("error", "cause", "is_timeout"),
    [
        # MariaDB, MySQL, and the two forms in which errors of MongoDB arrive.
        (OperationalError(1969, "max_statement_time exceeded"), None, True),
        (OperationalError(3024, "maximum statement execution time"), None, True),
        (DatabaseError(), ExecutionTimeout("exceeded time limit", 50), True),
        (OperationalError("MongoDB: ..."), ExecutionTimeout("exceeded", 50), True),
        (DatabaseError(), OperationFailure("Sort exceeded memory", 292), True),
        # The server is away or hangs.
        (OperationalError(2006, "server has gone away"), None, False),
        (DatabaseError(), NetworkTimeout("timed out"), False),
        (DatabaseError(), None, False),
    ],
)
@pytest.mark.parametrize("alias", ["default", "reports"])
def test_a_cancelled_query_is_recognised(
    alias: str, error: DatabaseError, cause: Exception | None, is_timeout: bool
) -> None:
    with pytest.raises(DatabaseError) as caught, time_limit(alias):
        raise error from cause

    assert isinstance(caught.value, QueryTimeout) == is_timeout
    assert query_timeout.get() is None
    assert connections[alias].execute_wrappers == []


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [(None, None), (2, 2), (0.5, 0.5), (1e-9, 0.001), (float("inf"), 86_400)],
)
def test_every_time_limit_is_one_that_the_servers_accept(
    settings: Any, setting: float | None, seconds: float | None
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"QUERY_TIMEOUT": setting}

    with time_limit("default"):
        inside = query_timeout.get()
        with no_time_limit():
            suspended = query_timeout.get()

    assert (inside, suspended, query_timeout.get()) == (seconds, None, None)


@pytest.mark.parametrize("view", [UserViewSet, ReportViewSet])
def test_no_list_can_be_ordered_by_a_field_that_may_be_null(view: Any) -> None:
    # A cursor cannot point behind a NULL: nothing is greater or less than it.
    names = getattr(view, "orderings", None) or view.ordering_fields
    fields = map(view.queryset.model._meta.get_field, names)

    assert not any(field.null for field in fields)
