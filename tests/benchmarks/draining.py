"""Applying what waits in a queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from . import ways
from .broker import channel
from .comparison import Contestant, Effort, Row, Sample
from .messages import (
    Stream,
    create_only,
    email_of,
    mixed,
    number_of,
    row_of,
    with_failures,
)
from .processes import INTERVAL, Meter, Program, running, wait_for
from .servers import connect, query
from .tables import Table
from .ways import ThisProject, Way

#: Messages that are applied before the clock starts: programs import and connect late.
WARM = 500
#: Seconds between two looks at a database that is also watched.
WATCHED = 0.05

OURS = "this project"
#: Where the figures begin and end, for the reader.
FROM_TO = (
    "All messages wait before the consumers start. From the first to the last visible "
    "row, without the start of the programs."
)


class Progress:
    """How far a stream is applied, seen from outside."""

    def __init__(self, way: Way, stream: Stream) -> None:
        self.stream = stream
        self._connection = connect(way.database)
        self._last_emails = list(stream.last_emails.values())
        (self._last_before,) = query(
            self._connection, "SELECT COALESCE(MAX(user_id), 0) FROM users_user"
        )[0]
        #: How many users there are in the end.
        self._users = self._count() + stream.users - stream.existing

    def _count(self) -> int:
        return int(query(self._connection, "SELECT COUNT(*) FROM users_user")[0][0])

    def newest(self) -> int:
        """Return the number of the user of the stream that was inserted last, or -1."""
        sql = "SELECT email FROM users_user WHERE user_id > %s "
        sql += "ORDER BY user_id DESC LIMIT 1"
        rows = query(self._connection, sql, self._last_before)
        return number_of(rows[0][0]) if rows else -1

    def after_warm_up(self, programs: list[Program]) -> int:
        """Wait until the first messages are applied; return the newest user."""
        warm = min(WARM, len(self.stream.envelopes) // 10)
        wait_for(lambda: self.newest() >= warm, "the first users", programs)
        return self.newest()

    def left(self, newest: int) -> int:
        """Return how many messages came after a user."""
        share = newest / max(map(number_of, self._last_emails))
        return max(1, round(len(self.stream.envelopes) * (1 - share)))

    def is_complete(self) -> bool:
        """Return whether the last users are there."""
        marks = ", ".join(["%s"] * len(self._last_emails))
        sql = f"SELECT COUNT(*) FROM users_user WHERE email IN ({marks})"
        found = query(self._connection, sql, *self._last_emails)
        return bool(found[0][0] == len(self._last_emails))

    def check(self, programs: list[Program]) -> None:
        """Raise `Failed` unless there are as many users as there must be."""
        reason = f"{self._users} users"
        wait_for(lambda: self._count() == self._users, reason, programs)


def drain(way: Way, stream: Stream, watch: Callable[[], None] | None = None) -> Sample:
    """Let a way apply a stream that waits, and return messages a second."""
    progress = prepare(way, stream)
    way.publish(stream.envelopes)
    programs = way.start()
    with running(*programs):
        newest = progress.after_warm_up(programs)
        sample = timed(progress, programs, newest=newest, watch=watch)
        progress.check(programs)
    return sample


def prepare(way: Way, stream: Stream) -> Progress:
    """Empty queues and tables, and insert the users that a stream is about."""
    if stream.existing:
        ways.make_samples("shipped")  # before: it applies a message
    way.empty()
    add_users(way, stream.existing)
    return Progress(way, stream)


def timed(
    progress: Progress,
    programs: list[Program],
    *,
    newest: int = 0,
    publish: Callable[[], object] | None = None,
    watch: Callable[[], None] | None = None,
) -> Sample:
    """
    Return messages a second, from now until all are applied.

    `newest` is the user that was inserted last. `publish` is called when the clock has
    started, and `watch` at every look at the database, and last when all is applied.
    """
    messages = progress.left(newest)
    meter, started = Meter(programs), time.monotonic()
    if publish:
        publish()

    def is_complete() -> bool:
        if watch:
            watch()
        return progress.is_complete()

    interval = WATCHED if watch else INTERVAL
    wait_for(is_complete, "the last user", programs, interval)
    elapsed = time.monotonic() - started
    cpu = meter.per_message(messages)
    if watch:
        watch()
    memory = sum(p.peak for p in programs if p.name == "consumer")
    return Sample(messages / elapsed, cpu, memory)


def add_users(way: Way, number: int) -> None:
    """Insert users at version 1, with the ids from 1 on."""
    if not number:
        return
    sample, connection = connect("shipped_sample"), connect(way.database)
    fields = row_of(create_only(1).envelopes[0])[1]
    created = [(n, "", fields | {"email": email_of(0)}) for n in range(1, number + 1)]
    for name in ("users_user", "users_userledger"):
        Table(sample, name).insert(connection.cursor(), created)


def contestant(
    way: Way,
    messages: int,
    stream: Callable[[int], Stream] = create_only,
    **changes: str,
) -> Contestant:
    """Return a way as a contestant, which drains its share of the messages."""
    size = int(messages * way.share)
    found = Contestant(way.name, way.differs, lambda: drain(way, stream(size)))
    return replace(found, **changes)


def drain_row(effort: Effort) -> Row:
    """Compare ways to apply `user.create`."""
    every = [
        ways.one_by_one(),
        ways.kombu(),
        ways.celery(),
        ThisProject(),
        ways.raw_fill("today", "raw fill of the first four tables"),
        ways.raw_fill("shipped", "raw fill of the tables as they are"),
    ]
    return Row(
        "user.create applied, one process",
        "messages/s",
        [contestant(way, effort.messages) for way in every],
        OURS,
        effort.rounds,
        f"{effort.messages:,} waiting messages, a quarter of them for ways that commit "
        f"each. {FROM_TO}",
    )


def failing_row(effort: Effort) -> Row:
    """Compare a stream in which one of a hundred messages fails with one without."""
    return Row(
        "the same with 1 % of failing messages, against none",
        "messages/s",
        [
            contestant(ThisProject(), effort.messages, name="none fails"),
            contestant(
                ThisProject(),
                effort.messages,
                with_failures,
                name="1 % fail",
                differs="each becomes a dead letter: its e-mail is taken",
            ),
        ],
        "1 % fail",
        effort.rounds,
        f"{effort.messages:,} waiting messages. {FROM_TO}",
    )


def mixed_row(effort: Effort) -> Row:
    """Compare a mixed stream with one of creations."""
    return Row(
        "70 % creations, 20 % updates, 10 % deletions, against creations only",
        "messages/s",
        [
            contestant(ThisProject(), effort.messages, name="creations only"),
            contestant(
                ThisProject(),
                effort.messages,
                mixed,
                name="mixed",
                differs="half of the updates are about 500 users, half about one",
            ),
        ],
        "mixed",
        effort.rounds,
        f"{effort.messages:,} waiting messages. {FROM_TO}",
    )


def relay_row(effort: Effort) -> Row:
    """Compare the events that are relayed while draining with what is applied."""
    last: list[Sample] = []

    def relayed() -> Sample:
        notes = last[-1].notes
        return Sample(last[-1].value * notes.pop("relayed"), notes=notes)

    def applied() -> Sample:
        last.append(drain_and_relay(effort.messages))
        return Sample(last[-1].value, last[-1].cpu)

    return Row(
        "events relayed while draining, against messages applied",
        "messages/s",
        [
            Contestant("applied", "one process", applied),
            Contestant("relayed", "one relay", relayed),
        ],
        "relayed",
        effort.rounds,
        "Both in the same drain: what has reached a queue that is bound to `user.#` by "
        f"the moment the last user is visible. {effort.messages:,} messages. {FROM_TO}",
    )


def drain_and_relay(messages: int) -> Sample:
    """Drain creations, and note the events that were relayed meanwhile."""
    way = ThisProject()
    connection = connect(way.database)
    depths: list[int] = []
    events: list[int] = []
    with channel(way.url) as opened:
        queue = opened.queue_declare("", exclusive=True).method.queue
        opened.exchange_declare("events", "topic", durable=True)
        opened.queue_bind(queue, "events", "user.#")

        def watch() -> None:
            rows = query(connection, "SELECT COUNT(*) FROM messaging_outbox")
            depths.append(int(rows[0][0]))
            answer = opened.queue_declare(queue, passive=True)
            events.append(answer.method.message_count)

        sample = drain(way, create_only(messages), watch=watch)
    notes = {"relayed": events[-1] / messages, "outbox at most": float(max(depths))}
    return replace(sample, notes=notes)
