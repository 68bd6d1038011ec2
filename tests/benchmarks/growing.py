"""What changes with the number of waiting messages, and of rows."""

from __future__ import annotations

from functools import cache, partial
from itertools import chain

from . import ways
from .comparison import Contestant, Effort, Row, Sample
from .draining import OURS, drain, prepare, timed
from .messages import create_only, creations, email_of, row_of
from .processes import running
from .servers import Installation, connect, create_database, query
from .tables import Created, existing
from .ways import ThisProject, Way

#: Messages that are applied, whatever waits behind them.
MEASURED = 10_000
#: Rows of one INSERT that fills a table.
CHUNK = 1_000
#: The tables that grow; the outbox is empty when nothing is published.
GROWING = ("users_user", "users_userledger", "messaging_inbox")


def backlog_row(effort: Effort) -> Row:
    """Compare applying with more and more waiting messages."""
    way = ThisProject()
    return Row(
        "user.create applied, with more and more waiting",
        "messages/s",
        [
            Contestant(f"{size:,} waiting", way.differs, partial(apply_some, way, size))
            for size in effort.sizes
        ],
        f"{effort.sizes[-1]:,} waiting",
        effort.long_rounds,
        f"The first {min(MEASURED, effort.sizes[0]):,} messages are applied; the "
        "others wait.",
    )


def apply_some(way: Way, waiting: int) -> Sample:
    """Apply the first of many waiting messages, and return messages a second."""
    first = create_only(min(MEASURED, waiting))
    others = range(len(first.envelopes), waiting)
    progress = prepare(way, first)
    way.publish(chain(first.envelopes, creations(map(email_of, others))))
    programs = way.start()
    with running(*programs):
        newest = progress.after_warm_up(programs)
        sample = timed(progress, programs, newest=newest)
    way.empty()
    return sample


def rows_row(effort: Effort) -> Row:
    """Compare applying to tables with more and more rows, with a raw fill beside it."""
    return Row(
        "user.create applied, to tables with more and more rows",
        "messages/s",
        [
            Contestant(
                f"{way.name}, {size:,} rows",
                way.differs,
                partial(apply_to, way, size, effort),
            )
            for size in effort.sizes
            for way in full(size)
        ],
        f"{OURS}, {effort.sizes[-1]:,} rows",
        effort.long_rounds,
        f"{effort.sizes[0]:,} waiting messages. Users, ledger and inbox have so many "
        "rows before; those of earlier rounds come on top.",
    )


def full(size: int) -> list[Way]:
    """Return this project and a raw fill, each with a full database of its own."""
    return [
        ThisProject(installation_with(size), keeps_rows=True),
        ways.raw_fill(f"raw_{size}", "raw fill", keeps_rows=True),
    ]


@cache
def installation_with(size: int) -> Installation:
    """Return an installation with a database of its own."""
    return Installation(f"rows_{size}")


def apply_to(way: Way, size: int, effort: Effort) -> Sample:
    """Apply messages to tables with so many rows."""
    fill(size)
    return drain(way, create_only(min(MEASURED, effort.sizes[0])))


@cache
def fill(size: int) -> None:
    """Fill the tables of this project, and copy them for the raw fill."""
    installation_with(size).prepare()
    ways.make_samples("shipped")
    sample, connection = connect("shipped_sample"), connect(f"rows_{size}")
    tables = existing(sample, GROWING)
    message_id, fields = row_of(create_only(1).envelopes[0])
    query(connection, "SET unique_checks = 0")
    for start in range(1, size + 1, CHUNK):
        numbers = range(start, min(start + CHUNK, size + 1))
        created: list[Created] = [
            (n, message_id, fields | {"email": email_of(0)}) for n in numbers
        ]
        for table in tables:
            table.insert(connection.cursor(), created)
    create_database(f"raw_{size}")
    raw = connect(f"raw_{size}")
    ways.copy_tables(raw, f"rows_{size}", GROWING)
    ways.copy_tables(raw, "shipped_sample", ("messaging_outbox",))
