"""
Writes of reports to MongoDB, each with a version.

A write applies to an older version of its document only, so writes that arrive late,
twice or in the wrong order do no harm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.db import connections
from pymongo import ReadPreference, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from messaging import Unavailable

from .models import Report
from .mongodb import SERVER_CODES, django_errors

#: Acknowledged once the write survives the loss of a server. Fails after 10 s.
DURABLE = WriteConcern("majority", j=True, wtimeout=10_000)
#: MongoDB's error code for an upsert whose document exists in a newer version.
DUPLICATE_KEY = 11000
#: Number of tombstones to remove at a time.
CHUNK = 1000
#: `id_usuario` of a report whose author was removed from it.
NO_AUTHOR = 0
#: The fields that a tombstone does not have.
CONTENT = [
    field
    for field in Report._meta.concrete_fields
    if field.name not in ("id_reporte", "version", "deleted")
]


class DocumentMissing(Exception):
    """Documents to change do not exist, not even as tombstones."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(f"No document of {', '.join(ids)}.")
        self.ids = ids


class DocumentRefused(Exception):
    """MongoDB refuses documents, by id and error code, for what they contain."""

    def __init__(self, codes: dict[str, int]) -> None:
        some = ", ".join(
            f"{key} (code {code})" for key, code in list(codes.items())[:5]
        )
        super().__init__(f"MongoDB refuses {len(codes)} documents: {some}")


@dataclass(frozen=True, slots=True)
class Write:
    """A change of one document, which applies if its version is older than this one."""

    id_reporte: str
    version: int
    change: dict[str, Any]
    #: Whether to insert the document if it does not exist.
    upsert: bool = True

    def operation(self) -> UpdateOne:
        """Return the operation for `bulk_write`."""
        older = {"_id": self.id_reporte, "version": {"$lt": self.version}}
        return UpdateOne(older, self.change, upsert=self.upsert)


def store(report: Report) -> Write:
    """Return a write of the whole report, whether it exists or not."""
    connection = connections["reports"]
    values = {
        field.column: field.get_db_prep_save(getattr(report, field.attname), connection)
        for field in CONTENT
    }
    values |= {"version": report.version, "deleted": False}
    return Write(report.id_reporte, report.version, {"$set": values})


def change(id_reporte: str, version: int, **values: Any) -> Write:
    """
    Return a write of some fields of an existing document.

    `values` must contain every field that can change, because this write may replace
    an earlier version that was not applied.
    """
    return Write(id_reporte, version, {"$set": values | {"version": version}}, False)


def delete(id_reporte: str, version: int) -> Write:
    """Return a write that replaces the document by a tombstone, or inserts one."""
    values = {"version": version, "deleted": True, "deleted_at": datetime.now(UTC)}
    content = {field.column: "" for field in CONTENT}
    return Write(id_reporte, version, {"$set": values, "$unset": content})


def write_documents(writes: Sequence[Write]) -> None:
    """
    Apply the writes, at most one for each report. Repeating them is harmless.

    Raises `OperationalError` while MongoDB is away, `Unavailable` if it cannot write,
    `DocumentRefused` for documents that it does not take, and `DocumentMissing` once
    everything else is applied.
    """
    if len({write.id_reporte for write in writes}) < len(writes):
        raise ValueError("Writes to one report have no order within a batch.")
    with django_errors():
        met, passed_over = _apply(writes)
        # Of two upserts at once the newer may be passed over. Tried again it finds the
        # document of the older; passed over again, it is the older.
        _apply(passed_over)
        if met + len(passed_over) < len(writes):
            _raise_missing([write.id_reporte for write in writes if not write.upsert])


def _apply(writes: Sequence[Write]) -> tuple[int, list[Write]]:
    """Return how many met or made their document, and the upserts passed over."""
    if not writes:
        return 0, []
    try:
        operations = [write.operation() for write in writes]
        result: Any = (
            _collection().bulk_write(operations, ordered=False).bulk_api_result
        )
    except BulkWriteError as exc:
        result = exc.details
        if result["writeConcernErrors"]:
            raise Unavailable("MongoDB has not made a write durable.") from None
        refused = {
            writes[error["index"]].id_reporte: error["code"]
            for error in result["writeErrors"]
            if not _is_newer(error)
        }
        if codes := SERVER_CODES.keys() & refused.values():
            names = ", ".join(f"{code} {SERVER_CODES[code]}" for code in sorted(codes))
            raise Unavailable(f"MongoDB cannot write: {names}") from None
        if refused:
            raise DocumentRefused(refused) from None
    passed_over = [writes[error["index"]] for error in result["writeErrors"]]
    return result["nMatched"] + result["nUpserted"], passed_over


def _is_newer(error: dict[str, Any]) -> bool:
    """Return whether a document exists in a newer version than that of a write."""
    # Another unique index may refuse the document itself; older servers name none.
    index = error.get("keyPattern")
    return error["code"] == DUPLICATE_KEY and index in (None, {"_id": 1})


def _raise_missing(ids: list[str]) -> None:
    found = _collection().find({"_id": {"$in": ids}}, {"_id": True})
    stored = {document["_id"] for document in found}
    if missing := [id_reporte for id_reporte in ids if id_reporte not in stored]:
        raise DocumentMissing(missing)


def overwrite(write: Write) -> None:
    """
    Apply a write regardless of the stored version; raise `PyMongoError`.

    Only for repairs, which hold the lock on the ledger row meanwhile.
    """
    one = UpdateOne({"_id": write.id_reporte}, write.change, upsert=write.upsert)
    _collection().bulk_write([one])


def tombstones(before: datetime) -> Iterator[list[str]]:
    """Yield lists of the ids of tombstones older than `before`."""
    old = {"deleted": True, "deleted_at": {"$lt": before}}
    found = _collection().find(old, {"_id": True}, batch_size=CHUNK)
    while chunk := [document["_id"] for document in islice(found, CHUNK)]:
        yield chunk


def sweep(ids: list[str], before: datetime) -> int:
    """Remove those of the tombstones that are older than `before`; return how many."""
    old = {"_id": {"$in": ids}, "deleted": True, "deleted_at": {"$lt": before}}
    return _collection().delete_many(old).deleted_count


def _collection() -> Collection[dict[str, Any]]:
    connection: Any = connections["reports"]
    collection: Collection[dict[str, Any]] = connection.get_collection(
        Report._meta.db_table,
        write_concern=DURABLE,
        # The URL may prefer secondaries, which lag.
        read_preference=ReadPreference.PRIMARY,
    )
    return collection
