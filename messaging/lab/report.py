"""The result of a run, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

from messaging import topology
from messaging.registry import handlers

from .experiment import Experiment
from .faults import Fault
from .sender import POSTPONED, UNANSWERED
from .verdict import COLUMNS, CONNECTIONS, Verdict

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
    if experiment.system.cluster:
        yield row(CONNECTIONS, verdict.columns[CONNECTIONS])
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
    yield from requests(experiment)
    yield from recoveries(experiment.faults.faults, experiment.record.accepted)
    for program in experiment.system.programs:
        if program.exits:
            yield f"{program.name} exited by itself, with exit codes {program.exits}"
    yield from verdict.findings[:FINDINGS]
    if len(verdict.findings) > FINDINGS:
        yield f"... and {len(verdict.findings) - FINDINGS} more"


def requests(experiment: Experiment) -> Iterator[str]:
    """Yield how the API has answered."""
    record = experiment.record
    postponed, unanswered = record.counts[POSTPONED], record.counts[UNANSWERED]
    if total := record.counts["http"] + postponed + unanswered:
        yield (
            f"requests: {total}, of which {postponed} were answered 503 "
            f"({postponed / total:.2%}) and {unanswered} not at all; "
            f"the longest took {record.longest:.1f} s with its repetitions; "
            f"the longest pause in accepting any: {pause(record.accepted):.1f} s"
        )


def recoveries(faults: list[Fault], accepted: Sequence[float]) -> Iterator[str]:
    """Yield a table of recovery, and of pauses in accepting requests, by fault."""
    times: dict[str, list[float]] = defaultdict(list)
    pauses: dict[str, list[float]] = defaultdict(list)
    for fault in faults:
        name = fault.name.rstrip(" 0123456789")
        times[name].append(fault.seconds or 0.0)
        pauses[name].append(pause(accepted, fault))
    head = ("times", "median s", "worst s", "pause s")
    yield f"{'fault':24}{head[0]:>7}" + "".join(f"{one:>11}" for one in head[1:])
    for name in sorted(times):
        seconds = times[name]
        figures = (median(seconds), max(seconds), max(pauses[name]))
        yield f"{name:24}{len(seconds):7}" + "".join(f"{one:11.1f}" for one in figures)


def pause(accepted: Sequence[float], fault: Fault | None = None) -> float:
    """Return the longest time without an accepted request, during a fault or at all."""
    gaps = (
        after - before
        for before, after in pairwise(sorted(accepted))
        if fault is None
        or (after > fault.at and (not fault.ended_at or before < fault.ended_at))
    )
    return max(gaps, default=0.0)


def row(name: str, value: int) -> str:
    """Return a line of the table."""
    return f"{name:32}{value:8}"
