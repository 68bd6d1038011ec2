"""Examine everything, whatever is away, frozen or broken."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from django.db import connections
from django.utils.module_loading import autodiscover_modules

from messaging.conf import settings

from . import (  # noqa: F401 each registers what it examines
    clock,
    consumers,
    holders,
    letters,
    parked,
    promises,
    servers,
    tables,
    topology,
)
from .findings import Finding, Level, error, explained, note
from .register import BROKER, DATABASE, Examination, Function, examinations

#: Seconds that one examination may take.
DEADLINE = 25.0


def examine() -> Iterator[Finding]:
    """Give all findings, those about the servers first."""
    autodiscover_modules("doctor")
    reachable: dict[str, Function] = {BROKER: servers.broker}
    for alias in connections:
        reachable[alias] = servers.of_database(alias)
    away = set()
    for name, findings in _at_once(reachable).items():
        if any(one.level == Level.ERROR for one in findings):
            away.add(name)
        yield from findings
    left_out = []
    for examination in examinations:
        if _needed(examination) & away:
            left_out.append(examination.name)
        else:
            yield from _alone(examination)
    if left_out:
        yield note("doctor", f"not examined without them: {', '.join(left_out)}")


def _needed(examination: Examination) -> set[str]:
    return {settings.DATABASE if n == DATABASE else n for n in examination.needs}


def _alone(examination: Examination) -> Sequence[Finding]:
    name = examination.name
    return _at_once({name: examination.function})[name]


def _at_once(
    works: dict[str, Function],
) -> dict[str, Sequence[Finding]]:
    """Do all in threads, which a server that hangs cannot keep from being left."""
    results: dict[str, Sequence[Finding]] = {}

    def run(name: str, work: Function) -> None:
        try:
            found = list(work())
        except Exception as cause:  # noqa: BLE001 whatever it is, it is a finding
            text = f"cannot be examined: {explained(cause)}"
            found = [error(name, text, "The log of that server may say more.")]
        finally:
            connections.close_all()
        results[name] = found

    threads = [
        threading.Thread(target=run, args=item, daemon=True) for item in works.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    silent = f"no answer within {DEADLINE:.0f} s"
    return {
        name: results.get(name) or _nothing(name in results, name, silent)
        for name in works
    }


def _nothing(is_done: bool, name: str, silent: str) -> list[Finding]:
    return [] if is_done else [error(name, silent, "Is that server frozen?")]
