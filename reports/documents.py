"""Writes to MongoDB in which an older version of a report never undoes a newer one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.db import OperationalError, connections
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, PyMongoError

from .models import Report

#: Acknowledged once it outlives the loss of a server; after 10 s, an error to retry.
DURABLE = WriteConcern("majority", j=True, wtimeout=10_000)
#: MongoDB's code for an upsert that passed over its document, which is newer.
DUPLICATE_KEY = 11000
#: Tombstones that are removed at a time.
CHUNK = 1000
#: The author of reports whose author is no longer told.
NOBODY = 0
#: What a tombstone goes without.
CONTENT = [
    field
    for field in Report._meta.concrete_fields
    if field.name not in ("id_reporte", "version", "deleted")
]


class DocumentMissing(Exception):
    """Reports to change are not stored, not even as tombstones."""

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
    """What a report becomes at this version, unless it has it or a newer one."""

    id_reporte: str
    version: int
    change: dict[str, Any]
    #: Whether the document is made where there is none.
    upsert: bool = True

    def operation(self) -> UpdateOne:
        older = {"_id": self.id_reporte, "version": {"$lt": self.version}}
        return UpdateOne(older, self.change, upsert=self.upsert)


def store(report: Report) -> Write:
    """The whole report, new or not."""
    connection = connections["reports"]
    values = {
        field.column: field.get_db_prep_save(getattr(report, field.attname), connection)
        for field in CONTENT
    }
    values |= {"version": report.version, "deleted": False}
    return Write(report.id_reporte, report.version, {"$set": values})


def change(id_reporte: str, version: int, **values: Any) -> Write:
    """
    Fields of a report that must be stored already.

    All that can ever change must be among them, for a later version may come first.
    """
    return Write(id_reporte, version, {"$set": values | {"version": version}}, False)


def bury(id_reporte: str, version: int) -> Write:
    """A tombstone in place of the report, stored or not; it says since when."""
    values = {"version": version, "deleted": True, "deleted_at": datetime.now(UTC)}
    content = {field.column: "" for field in CONTENT}
    return Write(id_reporte, version, {"$set": values, "$unset": content})


def write_documents(writes: Sequence[Write]) -> None:
    """
    Apply at most one write for each report; to repeat it is harmless.

    Raises `OperationalError` while MongoDB is away, `DocumentRefused` for documents
    that it does not take, and `DocumentMissing` once everything else is applied.
    """
    if len({write.id_reporte for write in writes}) < len(writes):
        raise ValueError("Writes to one report have no order within a batch.")
    try:
        met, passed_over = _apply(writes)
        # Of two upserts at once the newer may be passed over. Tried again it finds the
        # document of the older; passed over again, it is the older.
        _apply(passed_over)
        if met + len(passed_over) < len(writes):
            _raise_missing([write.id_reporte for write in writes if not write.upsert])
    except PyMongoError as error:
        # Its text may hold whole documents.
        text = f"MongoDB: {type(error).__name__}: {str(error)[:200]}"
        raise OperationalError(text) from error


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
            raise OperationalError("MongoDB has not made a write durable.") from None
        refused = {
            writes[error["index"]].id_reporte: error["code"]
            for error in result["writeErrors"]
            if error["code"] != DUPLICATE_KEY
        }
        if refused:
            raise DocumentRefused(refused) from None
    passed_over = [writes[error["index"]] for error in result["writeErrors"]]
    return result["nMatched"] + result["nUpserted"], passed_over


def _raise_missing(ids: list[str]) -> None:
    found = _collection().find({"_id": {"$in": ids}}, {"_id": True})
    stored = {document["_id"] for document in found}
    if missing := [id_reporte for id_reporte in ids if id_reporte not in stored]:
        raise DocumentMissing(missing)


def overwrite(write: Write) -> None:
    """
    Apply a write whatever version is there; raises `PyMongoError`.

    For repairs alone, which hold the lock on the ledger's row meanwhile.
    """
    one = UpdateOne({"_id": write.id_reporte}, write.change, upsert=write.upsert)
    _collection().bulk_write([one])


def tombstones(before: datetime) -> Iterator[list[str]]:
    """Give the ids of the tombstones from before a moment, in chunks."""
    old = {"deleted": True, "deleted_at": {"$lt": before}}
    found = _collection().find(old, {"_id": True}, batch_size=CHUNK)
    while chunk := [document["_id"] for document in islice(found, CHUNK)]:
        yield chunk


def sweep(ids: list[str], before: datetime) -> int:
    """Remove those of the tombstones that are from before a moment; count them."""
    old = {"_id": {"$in": ids}, "deleted": True, "deleted_at": {"$lt": before}}
    return _collection().delete_many(old).deleted_count


def _collection() -> Collection[dict[str, Any]]:
    connection: Any = connections["reports"]
    collection: Collection[dict[str, Any]] = connection.get_collection(
        Report._meta.db_table, write_concern=DURABLE
    )
    return collection
