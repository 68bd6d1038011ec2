"""
Measures speed: `python -m tests.benchmarks [ROW ...]`, all rows by default.

Prints a table for each row. With --write, stores the samples in docs/speed.json, and
renders docs/speed.md and docs/speed.svg.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil

from . import servers  # first: it sets Django up with these servers

# isort: split
from . import (
    accepting,
    capacity,
    draining,
    growing,
    page,
    profiling,
    publishing,
    reading,
    reporting,
    responding,
    sharing,
)
from .comparison import QUICK, Effort, Result, Row, run
from .text import plain_table

#: In the order in which they are measured.
ROWS: dict[str, Callable[[Effort], Row]] = {
    "accept-16": partial(accepting.accept_row, 16),
    "accept-64": partial(accepting.accept_row, 64),
    "publish-1": publishing.one_row,
    "publish-16": publishing.many_row,
    "drain": draining.drain_row,
    "failing": draining.failing_row,
    "mixed": draining.mixed_row,
    "relay": draining.relay_row,
    "ingress": sharing.ingress_row,
    "partitions": sharing.partitions_row,
    "latency": responding.latency_row,
    "reports": reporting.reports_row,
    "workers": accepting.workers_row,
    "processes": sharing.processes_row,
    "backlog": growing.backlog_row,
    "rows": growing.rows_row,
    "lists": reading.lists_row,
    "batches": capacity.batches_row,
    "reads": capacity.reads_row,
    "replicas": capacity.replicas_row,
    "resize": capacity.resize_row,
}
#: The rows of --quick, which take two minutes together.
QUICK_ROWS = ("accept-16", "publish-16", "drain", "failing", "mixed", "relay")


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__
    )
    add: Any = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help=f"one of {', '.join(ROWS)}")
    add("--quick", action="store_true", help="one small round of some rows")
    add("--write", action="store_true", help="write docs/speed.*")
    add("--render", action="store_true", help="only render docs/speed.* again")
    add("--profile", action="store_true", help="sample where time goes, for one round")
    add("--rounds", type=int, help="rounds of each row")
    add("--seconds", type=int, help="seconds of load on an API")
    add("--messages", type=int, help="messages to drain")
    add("--largest", type=int, help="largest backlog and number of rows")
    add("--buffer-pool", default="64M", help="of the database (default: %(default)s)")
    options = parser.parse_args()
    for name in options.rows:
        if not named(name):
            parser.error(f"There is no row {name}.")
    return options


def named(name: str) -> list[str]:
    """Return the rows of a name or a first part of names: `accept` names two rows."""
    return [row for row in ROWS if row == name or row.startswith(f"{name}-")]


def effort_of(options: argparse.Namespace) -> Effort:
    """Return how much to measure."""
    effort = QUICK if options.quick else Effort()
    if rounds := 1 if options.profile else options.rounds:
        effort = replace(effort, rounds=rounds, long_rounds=rounds)
    for name in ("seconds", "messages", "largest"):
        if value := getattr(options, name):
            effort = replace(effort, **{name: value})
    return effort


def command_of(name: str) -> str:
    """Return the command that repeats a row of this run."""
    flags = [one for one in sys.argv[1:] if not named(one) and one != "--write"]
    return shlex.join(["python", "-m", "tests.benchmarks", name, *flags])


def measure(names: list[str], options: argparse.Namespace) -> Iterator[Result]:
    """Yield the result of each row that can be measured; starts and stops servers."""
    effort = effort_of(options)
    try:
        servers.start(options.buffer_pool)
        place = f"{commit()}, {machine()}, {servers.versions()}"
        say(place)
        for name in names:
            if name == "reports" and not servers.HAS_MONGODB:
                say("\nreports: not measured, as there is no mongod")
                continue
            try:
                yield measured(name, ROWS[name](effort), place)
            except Exception:  # noqa: BLE001 an hour of other rows must not be lost
                say(f"\n{name}: not measured\n{traceback.format_exc()}")
    finally:
        servers.stop()


def measured(name: str, row: Row, place: str) -> Result:
    """Measure a row, and print its progress."""
    found = run(row, lambda step: say(f"{name}: {step}", sys.stderr))
    texts = (name, row.title, row.unit, row.subject, row.conditions)
    return Result(
        *texts, command_of(name), f"{datetime.now(UTC):%Y-%m-%d}", place, found
    )


def machine() -> str:
    """Return what the figures depend on, besides the servers."""
    memory = psutil.virtual_memory().total / 2**30
    python = platform.python_version()
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Python {python}"


def commit() -> str:
    """Return the version of the project, if git knows it."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"
    return f"commit {done.stdout.strip()}"


def say(text: str, file: Any = sys.stdout) -> None:
    """Print a line at once."""
    file.write(f"{text}\n")
    file.flush()


def main() -> int:
    """Measure, print, and write; return 1 if a row could not be measured."""
    options = parsed()
    profiling.is_enabled = options.profile
    wanted = options.rows or (QUICK_ROWS if options.quick else ROWS)
    names = [row for name in wanted for row in named(name)]
    results: list[Result] = []
    if not options.render:
        for one in measure(names, options):
            results.append(one)
            say(f"\n{plain_table(one)}")
            if options.write:
                page.store([one])
        say(f"\n{page.summary(results)}")
    if options.write or options.render:
        page.render()
    return int(not options.render and len(results) < len(names))


if __name__ == "__main__":
    sys.exit(main())
