"""How queries are rewritten for the embedded server that replaces MongoDB."""

from __future__ import annotations

from messaging.lab.nx_mongodb.collection import by_date


def test_a_sort_looks_into_dates_and_keeps_its_ties() -> None:
    """The server sorts dates by the length of their text first, from SQLite 3.45 on."""
    assert by_date({"fecha": -1, "_id": 1}) == [
        ("fecha.$date", -1),
        ("fecha", -1),
        ("_id", 1),
    ]
    assert by_date(None) is None
