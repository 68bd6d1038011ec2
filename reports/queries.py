"""
How Django's queries of reports are sent to MongoDB.

MongoDB uses an index for `$sort` only at the start of a pipeline or right after
`$match` (SERVER-26442). Django's engine puts `$addFields` or `$project` before it, so
that each page would sort all that matches in memory.
"""

from __future__ import annotations

from typing import Any

from django.db.models.sql import Query
from django_mongodb_backend.query import MongoQuery, wrap_database_errors
from pymongo import ReadPreference

from messaging.database import may_lag, query_timeout

Stages = list[dict[str, Any]]


class ReportQuery(Query):
    """A query whose pages MongoDB reads from an index, within a time limit."""

    def get_compiler(self, *args: Any, **kwargs: Any) -> Any:
        """Return the engine's compiler, with another form of the pipeline."""
        compiler: Any = super().get_compiler(*args, **kwargs)
        compiler.query_class = SortedQuery
        return compiler


class SortedQuery(MongoQuery):  # type: ignore[misc]
    """A pipeline that sorts stored documents."""

    @wrap_database_errors  # type: ignore[untyped-decorator]
    def get_cursor(self) -> Any:
        """Return the cursor; the server cancels the query after `time_limit`."""
        seconds = query_timeout.get()
        options = {"maxTimeMS": round(seconds * 1000)} if seconds else {}
        collection = self.compiler.collection
        if not may_lag():
            # Secondaries, which the URL may prefer, must not decide anything.
            collection = self.compiler.connection.get_collection(
                collection.name, read_preference=ReadPreference.PRIMARY
            )
        return collection.aggregate(
            self.get_pipeline(), session=self.compiler.connection.session, **options
        )

    def get_pipeline(self) -> Stages:
        """Return the stages, with `$sort` right after `$match` where possible."""
        return sorted_first(super().get_pipeline())


def sorted_first(stages: Stages) -> Stages:
    """Drop `$addFields` that changes nothing, and move `$project` to the end."""
    stages = [stage for stage in stages if not is_copy(stage)]
    names = [next(iter(stage)) for stage in stages]
    if "$sort" not in names:
        return stages
    place = names.index("$sort")
    if place and names[place - 1] == "$project":
        shown = stages[place - 1]["$project"]
        if all(shown.get(name) == 1 for name in stages[place]["$sort"]):
            stages.append(stages.pop(place - 1))
    return stages


def is_copy(stage: dict[str, Any]) -> bool:
    """Return whether a stage sets each of its fields to its own value."""
    fields = stage.get("$addFields")
    return fields is not None and all(v == f"${name}" for name, v in fields.items())
