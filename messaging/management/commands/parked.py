from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError
from django.db.models import Q

from messaging.conf import settings
from messaging.management.options import positive
from messaging.management.printing import (
    closed_pipe_allowed,
    encoded,
    print_array,
    print_lines,
)
from messaging.management.terminal import TerminalCommand
from messaging.masking import printable
from messaging.models.inbox import inbox_ids
from messaging.models.parked import Parked, ParkedQuerySet
from messaging.registry import handlers
from messaging.topology import partition_names

HEADINGS = ("MESSAGE", "PARTITION", "TYPE", "KEY", "TRIED", "NEXT", "ERROR")
#: Rows that are read at a time.
CHUNK = 1000
#: The columns that are printed; bodies are not.
SHOWN = (
    "pk",
    "partition",
    "message_id",
    "event_type",
    "key",
    "attempts",
    "due_at",
    "error",
    "parked_at",
    "is_applied",
    "size",
    "properties",
)


class Command(TerminalCommand):
    """List parked messages, and retry them."""

    help = (
        "Lists the messages that are retried later, and those that wait behind them, "
        "and makes them due now."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add a subcommand for each action."""
        parser.epilog = "Exit codes: 0 when it was done; 1 when not; 2 when misused."
        actions = parser.add_subparsers(metavar="ACTION", required=True)
        texts = {
            "list": "Lists parked messages in the order in which they were parked.",
            "retry": "Makes the first message of each selected key due now.",
        }
        for name, text in texts.items():
            one = actions.add_parser(name, help=text, description=text)
            one.set_defaults(act=getattr(self, name))
            one.add_argument("--queue", help="of this queue")
            one.add_argument("--id", help="the message id")
            one.add_argument("--type", dest="event_type", help="of this event type")
            one.add_argument("--key", help="the beginning of the partition key")
            one.add_argument("--error", help="with this text in the error")
            one.add_argument("--json", action="store_true", help="print JSON")
            if name == "list":
                one.add_argument("--limit", type=positive, metavar="N")
            else:
                one.add_argument("--all", action="store_true", help="every one")

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Run the action."""
        if options["queue"] and options["queue"] not in handlers:
            raise CommandError(f"No such queue. Known: {', '.join(sorted(handlers))}.")
        try:
            with closed_pipe_allowed(self.stdout):
                act(**options)
        except DatabaseError as error:
            raise CommandError(str(error)) from error

    def list(self, *, json: bool, limit: int | None, **options: Any) -> None:
        """Print a table, or JSON."""
        rows = read(selected(**options), limit)
        if json:
            print_array(self.stdout, (encoded(as_dict(row)) for row in rows))
            return
        number = print_lines(self.stdout, HEADINGS, map(cells, rows))
        self.stdout.write(f"{number} parked message{'' if number == 1 else 's'}")

    def retry(self, *, json: bool, **options: Any) -> None:
        """Make messages due."""
        if not any(options[name] for name in (*CONDITIONS, "queue", "id", "all")):
            raise CommandError("Say which: --all, or any of the filters.")
        parked = Parked.objects.using(settings.DATABASE)
        number = parked.try_now(selected(**options))
        if json:
            self.stdout.write(encoded({"keys": number}))
        else:
            keys = "key" if number == 1 else "keys"
            self.stdout.write(f"the first message of {number} {keys} is retried now")


#: Lookups by option.
CONDITIONS = {
    "event_type": "event_type",
    "key": "key__startswith",
    "error": "error__icontains",
}


def selected(*, queue: str | None, id: str | None, **options: Any) -> ParkedQuerySet:
    """Return the rows that the options select."""
    rows = Parked.objects.using(settings.DATABASE)
    if queue:
        rows = rows.filter(partition__in=[queue, *partition_names(queue)])
    if id:
        rows = rows.filter(Q(message_id=id) | Q(message_id__in=inbox_ids(id)))
    given = {lookup: options[name] for name, lookup in CONDITIONS.items()}
    return rows.filter(**{name: v for name, v in given.items() if v is not None})


def read(rows: ParkedQuerySet, limit: int | None) -> Iterator[Parked]:
    """Yield rows in the order in which they were parked."""
    last, left = 0, limit
    while left != 0:
        size = CHUNK if left is None else min(CHUNK, left)
        chunk = list(rows.filter(pk__gt=last).order_by("pk").only(*SHOWN)[:size])
        yield from chunk
        if len(chunk) < size:
            return
        last = chunk[-1].pk
        left = None if left is None else left - size


def cells(row: Parked) -> tuple[str, ...]:
    """Return the cells of a row of the table."""
    return (
        printable(row.logged_id),
        row.partition,
        printable(row.event_type),
        printable(row.key),
        str(row.attempts),
        f"{row.due_at:%m-%d %H:%M:%S}" if row.due_at else "in turn",
        printable(row.error),
    )


def as_dict(row: Parked) -> dict[str, Any]:
    """Return everything but the body."""
    return {
        "message_id": row.logged_id,
        "inbox_id": row.message_id,
        "partition": row.partition,
        "event_type": row.event_type,
        "key": row.key,
        "attempts": row.attempts,
        "due_at": row.due_at and row.due_at.isoformat(),
        "parked_at": row.parked_at.isoformat(),
        "error": row.error,
        "is_applied": row.is_applied,
        "size": row.size,
    }
