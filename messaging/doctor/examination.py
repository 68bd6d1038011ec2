"""Running all examinations, even if servers are away or frozen."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from django.db import connections
from django.utils.module_loading import autodiscover_modules

from messaging.conf import settings

from . import (  # noqa: F401 each registers its examinations
    clock,
    configuration,
    consumers,
    dead_letters,
    disk,
    leases,
    limits,
    parked,
    rpc,
    servers,
    tables,
    topology,
)
from .findings import Finding, Level, error, explained, note
from .register import BROKER, DATABASE, Examination, Function, examinations

#: Seconds that one examination may take.
DEADLINE = 25.0


def examine() -> Iterator[Finding]:
    """Yield all findings, those about the servers first."""
    autodiscover_modules("doctor")
    reachable: dict[str, Function] = {BROKER: servers.broker}
    for alias in connections:
        reachable[alias] = servers.of_database(alias)
    away = set()
    for name, findings in _run_together(reachable).items():
        if any(one.level == Level.ERROR for one in findings):
            away.add(name)
        yield from findings
    skipped = []
    for examination in examinations:
        if _needed(examination) & away:
            skipped.append(examination.name)
        else:
            yield from _run(examination)
    if skipped:
        yield note("doctor", f"not examined without them: {', '.join(skipped)}")


def _needed(examination: Examination) -> set[str]:
    return {settings.DATABASE if n == DATABASE else n for n in examination.needs}


def _run(examination: Examination) -> Sequence[Finding]:
    name = examination.name
    return _run_together({name: examination.function})[name]


def _run_together(functions: dict[str, Function]) -> dict[str, Sequence[Finding]]:
    """Run each function in a thread, and do not wait for those that hang."""
    results: dict[str, Sequence[Finding]] = {}

    def run(name: str, function: Function) -> None:
        try:
            found = list(function())
        except Exception as cause:  # noqa: BLE001 whatever it is, it is a finding
            text = f"cannot be examined: {explained(cause)}"
            found = [error(name, text, "The log of that server may say more.")]
        finally:
            connections.close_all()
        results[name] = found

    threads = [
        threading.Thread(target=run, args=item, daemon=True)
        for item in functions.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    return {
        name: results[name] if name in results else [_no_answer(name)]
        for name in functions
    }


def _no_answer(name: str) -> Finding:
    text = f"no answer within {DEADLINE:.0f} s"
    return error(name, text, "Check whether that server is frozen.")
