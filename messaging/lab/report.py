"""The result of a run, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from messaging import topology
from messaging.registry import handlers

from .experiment import Experiment
from .faults import Fault
from .verdict import COLUMNS, Verdict

#: Maximum number of findings to print.
FINDINGS = 20


def report(experiment: Experiment, verdict: Verdict) -> Iterator[str]:
    """Yield the lines of the report."""
    options, counts = experiment.options, experiment.record.counts
    attempts = experiment.record.attempts
    accepted = counts["http"] + counts["amqp"]
    partitions = sum(map(topology.partition_count, handlers))
    yield (
        f"seed {options.seed}, {options.seconds:.0f} s, {options.processes} consumers, "
        f"{partitions} partitions, {experiment.faults.kills} kills, "
        f"{len(experiment.faults.faults) - experiment.faults.kills} other faults"
    )
    yield row("requests accepted", accepted)
    for name in COLUMNS:
        yield row(name, verdict.columns[name])
    yield ""
    yield (
        f"accepted: {counts['http']} over HTTP, {counts['amqp']} as messages, "
        f"of which {counts['sent twice']} were sent twice and {counts['without id']} "
        f"had no id; outcome unknown: "
        f"{len(attempts) - accepted}; to be refused: "
        f"{sum(one.operation.change is None for one in attempts)}; "
        f"events: {len(experiment.witness.events)}"
    )
    failed, failures = experiment.failures.total()
    if failed:
        yield f"messages that failed at first: {failed}, {failures} times in all"
    yield from recoveries(experiment.faults.faults)
    for program in experiment.system.programs:
        if program.exits:
            yield f"{program.name} exited by itself, with exit codes {program.exits}"
    yield from verdict.findings[:FINDINGS]
    if len(verdict.findings) > FINDINGS:
        yield f"... and {len(verdict.findings) - FINDINGS} more"


def recoveries(faults: list[Fault]) -> Iterator[str]:
    """Yield a table of the times to recover, by kind of fault."""
    times: dict[str, list[float]] = defaultdict(list)
    for fault in faults:
        name = fault.name.rstrip(" 0123456789")
        times[name].append(fault.seconds or 0.0)
    yield f"{'fault':24}{'times':>7}{'median s':>11}{'worst s':>11}"
    for name in sorted(times):
        seconds = times[name]
        yield f"{name:24}{len(seconds):7}{median(seconds):11.1f}{max(seconds):11.1f}"


def row(name: str, value: int) -> str:
    """Return a line of the table."""
    return f"{name:32}{value:8}"
