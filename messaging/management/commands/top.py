from __future__ import annotations

import json
import os
import shutil
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from messaging.amqp.client import connect
from messaging.cluster.resizing import QueueState
from messaging.management.options import seconds
from messaging.management.terminal import TerminalCommand
from messaging.monitoring import state
from messaging.monitoring.servers import Reading, refresh
from messaging.monitoring.state import Backlog
from messaging.text import duration

#: Moves the cursor of a terminal to the top left, and clears what follows.
CLEAR = "\x1b[H\x1b[J"
#: Title, width and alignment of each column but the first.
COLUMNS = (
    ("READY", ">7"),
    ("IN HAND", ">7"),
    ("PARKED", ">7"),
    ("OLDEST", ">8"),
    ("HANDLED/MIN", ">11"),
    ("FAILED/MIN", ">10"),
    ("DONE IN", ">8"),
)


class Command(TerminalCommand):
    """Show the backlog of each queue, and why it waits."""

    help = (
        "Shows how much waits in each queue, since when, how fast it is handled, who "
        "holds it and why it waits; again every few seconds until Ctrl-C. Into a pipe "
        "it is written once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the format of the output."""
        parser.epilog = "Exit codes: 0; with --once, 1 if a server does not answer."
        add = parser.add_argument
        add("--once", action="store_true", help="show it once")
        add("--json", action="store_true", help="one JSON object, once")
        add("--partitions", action="store_true", help="a line for each partition")
        add("--interval", type=seconds, default=2.0, metavar="SECONDS")

    def handle(self, *args: Any, **options: Any) -> None:
        """Show it until stopped."""
        broker = Reading("broker", read_broker)
        database = Reading("database", lambda: state.partitions(broker.value or {}))
        is_once = options["once"] or options["json"] or not self.stdout.isatty()
        try:
            while True:
                refresh([broker])
                refresh([database])
                away = [one.name for one in (broker, database) if not one.is_up]
                self._show(database.value or [], away, is_once=is_once, **options)
                if is_once:
                    sys.exit(1 if away else 0)
                time.sleep(options["interval"])
        except KeyboardInterrupt:
            sys.exit(0)
        except BrokenPipeError:
            # The reader, such as `head`, has closed the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _show(
        self,
        parts: list[Backlog],
        away: list[str],
        *,
        is_once: bool,
        **options: Any,
    ) -> None:
        found = parts if options["partitions"] else state.queues(parts)
        if options["json"]:
            rows = [one.as_dict() for one in found]
            self.stdout.write(json.dumps({"no_answer": away, "queues": rows}, indent=2))
        else:
            lines = [f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"]
            lines += [
                f"no answer from the {name}; what follows is old" for name in away
            ]
            width = None if is_once else shutil.get_terminal_size().columns
            text = "\n".join(line[:width] for line in [*lines, *table(found)])
            if not is_once:
                self.stdout.control(CLEAR)
            self.stdout.write(text)
        self.stdout.flush()


def read_broker() -> dict[str, QueueState]:
    """Return the states of all queues."""
    with connect("top") as client:
        return state.in_broker(client)


def table(found: list[Backlog]) -> Iterator[str]:
    """Yield the lines of a table, those of causes below each queue."""
    width = max((len(one.name) for one in found), default=0)
    titles = "  ".join(f"{title:{form}}" for title, form in COLUMNS)
    yield f"{'QUEUE':{width}}  {titles}  HELD BY"
    for one in found:
        values = (
            "-" if one.ready is None else one.ready,
            one.in_hand,
            one.parked,
            duration(one.age),
            f"{one.handled:.1f}",
            f"{one.failed:.1f}",
            duration(one.drained_in),
        )
        cells = [f"{v:{form}}" for v, (_, form) in zip(values, COLUMNS, strict=True)]
        holders = ", ".join(one.holders) or "-"
        yield f"{one.name:{width}}  {'  '.join(cells)}  {holders}"
        for cause in filter(None, (one.paused, *one.causes)):
            yield f"  {cause}"
