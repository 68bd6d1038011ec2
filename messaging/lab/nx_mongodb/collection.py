"""A collection that rewrites queries so that nx-27017 answers like MongoDB."""

import pymongo
from django.db import NotSupportedError
from pymongo.errors import BulkWriteError, DuplicateKeyError

DUPLICATE_KEY = 11000

#: Matches every document, but cannot be expressed in SQL: the server then evaluates the
#: whole filter in Python. Its SQL compares dates by the second and confuses null and
#: missing.
IN_PYTHON = {"_id": {"$regex": ""}}
#: Without effect, but the server does not use SQL for an update with array filters: in
#: SQL it would set dates as text, and true as 1.
ARRAY_FILTERS = [{"no_array": None}]


class Collection(pymongo.collection.Collection):
    def find(self, filter=None, *args, sort=None, **kwargs):
        return super().find(exact(filter or {}), *args, sort=by_date(sort), **kwargs)

    def aggregate(self, pipeline, session=None, **options):
        """Use `find` and `count`: the filters of `aggregate` do not support dates."""
        stages = [stage for step in pipeline for stage in step.items()]
        query = {"filter": {}}
        for position, (name, value) in enumerate(stages):
            if name == "$match" and position == 0:
                query["filter"] = value
            elif name in ("$sort", "$skip", "$limit") and name[1:] not in query:
                query[name[1:]] = value
            elif name == "$project" and all(shown == 1 for shown in value.values()):
                query["projection"] = value
            elif name == "$project" and value == {"a": {"$literal": 1}}:  # exists()
                query["projection"] = {"_id": 1}
            elif name == "$addFields" and is_identity(value):
                continue
            elif name == "$facet" and is_count(value):
                return Answer([{"__count": self._count(query, session)}])
            else:
                raise NotSupportedError(f"nx-27017 cannot answer {name} {value}.")
        query["max_time_ms"] = options.get("maxTimeMS")
        return Answer(self.find(**query, session=session))

    def _count(self, query, session):
        limits = {name: query[name] for name in ("skip", "limit") if name in query}
        command = {"count": self.name, "query": exact(query["filter"]), **limits}
        return self.database.command(command, session=session)["n"]

    def update_many(self, filter, update, **kwargs):
        """Convert Django's pipeline to a `$set`: the server supports no pipeline."""
        if isinstance(update, list):
            update = {"$set": literals(update)}
        kwargs["array_filters"] = ARRAY_FILTERS
        return super().update_many(exact(filter), update, **kwargs)

    def delete_many(self, filter, **kwargs):
        return super().delete_many(exact(filter), **kwargs)

    def bulk_write(self, requests, **kwargs):
        for request in requests:
            if isinstance(request, pymongo.UpdateOne):
                request._array_filters = ARRAY_FILTERS
                if not is_plain("_id", request._filter["_id"]):
                    request._filter = {**request._filter, "$and": [IN_PYTHON]}
        return super().bulk_write(requests, **kwargs)

    def insert_many(self, documents, **kwargs):
        """Raise `DuplicateKeyError` for a duplicate key, as Django expects."""
        try:
            return super().insert_many(documents, **kwargs)
        except BulkWriteError as exc:
            error = exc.details["writeErrors"][0]
            if error["code"] != DUPLICATE_KEY:
                raise
            raise DuplicateKeyError(error["errmsg"], DUPLICATE_KEY, error) from exc

    def create_indexes(self, indexes, session=None):
        """Create none: filters run in Python, and an index with `_id` is an error."""
        if any(index.document.get("unique") for index in indexes):
            raise NotSupportedError("nx-27017 takes no unique index of Django's.")

    def drop_index(self, name, session=None):
        """Do nothing, because there are no indexes."""


class Answer:
    """A cursor over documents that are already read, so that errors come early."""

    def __init__(self, documents):
        self._documents = iter(list(documents))

    def __iter__(self):
        return self._documents

    def next(self):
        return next(self._documents)


def exact(filter):
    """Return a filter that uses SQL for simple equalities, and Python for the rest."""
    parts = filter["$and"] if list(filter) == ["$and"] else [filter]
    conditions = [condition for part in parts for condition in part.items()]
    merged = dict(conditions)
    if len(merged) == len(conditions) and all(map(is_plain, merged, merged.values())):
        return merged
    return {"$and": [filter, IN_PYTHON]}


def by_date(sort):
    """
    Return a sort order that also works for dates.

    The server stores a date as `{"$date": text}` and sorts it, from SQLite 3.45 on, as
    a binary value that begins with its length. Only dates have a field `$date`, so
    other values are sorted as they were.
    """
    fields = dict(sort or {}).items()
    parts = [((f"{name}.$date", way), (name, way)) for name, way in fields]
    return [part for pair in parts for part in pair if part[0] != "_id.$date"] or None


def is_plain(field, value):
    if field != "_id":
        return isinstance(value, bool | int | float)
    if isinstance(value, dict):
        return list(value) == ["$in"] and all(is_plain("_id", v) for v in value["$in"])
    # The server treats text that begins like a date ("2024-01-01") as a date.
    return isinstance(value, str) and value[:8].isalnum()


def literals(pipeline):
    values = dict(value for stage in pipeline for value in stage["$set"].items())
    if any(not isinstance(v, dict) or list(v) != ["$literal"] for v in values.values()):
        raise NotSupportedError("nx-27017 updates fields with literals only.")
    return {name: value["$literal"] for name, value in values.items()}


def is_identity(fields):
    return all(value == f"${name}" for name, value in fields.items())


def is_count(facet):
    group = facet["group"][0]["$group"]
    return set(group) == {"__count", "_id"} and group["_id"] is None
