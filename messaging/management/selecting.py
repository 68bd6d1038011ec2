"""The options that select dead letters."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from messaging.conf import settings
from messaging.dead_letters.query import Selection
from messaging.models.dead_letter import DeadLetter

from .options import moment, positive, seconds

#: The options that select dead letters; each is a field of `Selection`.
FILTERS = (
    "queue",
    "kind",
    "event_type",
    "reason",
    "is_answered",
    "since",
    "until",
    "status",
    "limit",
)


def add_filters(parser: ArgumentParser, all_help: str) -> None:
    """Add the options that select dead letters."""
    parser.add_argument("--queue", help="of this queue")
    for name, what in (("id", "an id or message id"), ("group", "the id of a group")):
        parser.add_argument(
            f"--{name}",
            dest=f"{name}s",
            metavar=name.upper(),
            action="append",
            default=[],
            help=f"the beginning of {what}; may be repeated",
        )
    parser.add_argument("--kind", choices=DeadLetter.Kind.values)
    parser.add_argument("--type", dest="event_type", help="of this event type")
    parser.add_argument("--reason", help="with this text in the reason")
    parser.add_argument("--status", choices=DeadLetter.Status.values)
    for name, what in (("since", "first"), ("until", "last")):
        parser.add_argument(
            f"--{name}",
            type=moment,
            metavar="TIME",
            help=f"{what} moment of failure: 2026-11-26T10:00 (UTC), or 2h ago",
        )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--answered",
        dest="is_answered",
        action="store_const",
        const=True,
        help="rejected while their senders waited for the outcome",
    )
    either.add_argument(
        "--unanswered", dest="is_answered", action="store_const", const=False
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="at most N, the oldest"
    )
    parser.add_argument("--all", action="store_true", help=all_help)


def add_replaying(parser: ArgumentParser) -> None:
    """Add the options that say how dead letters are sent again."""
    add = parser.add_argument
    add("--body", metavar="FILE", help="corrected body (- for stdin)")
    add("--first", action="store_true", help="go on only if the first one succeeds")
    add(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long --first waits for the outcome (%(default)s)",
    )
    add("--job", action="store_true", help="leave it to run_consumer dead_letters")
    add(
        "--rate",
        type=positive,
        metavar="N",
        help=f"letters per second of a job ({settings.REPLAY_RATE})",
    )


def selected(*, settled_too: bool = False, **options: Any) -> Selection:
    """Return the selection of the options: waiting ones, unless they say otherwise."""
    chosen = {name: options[name] for name in FILTERS}
    for name in ("ids", "groups"):
        chosen[name] = tuple(options[name])
    if chosen["status"] is None and not (settled_too and options["all"]):
        chosen["status"] = DeadLetter.Status.WAITING
    return Selection(**chosen)


def narrowed(options: dict[str, Any]) -> Selection:
    """Return the selection of the options, which must not select all by accident."""
    selection = selected(**options)
    if not (options["all"] or selection.is_narrow):
        raise CommandError("Say which: --all, or any of the filters.")
    return selection
