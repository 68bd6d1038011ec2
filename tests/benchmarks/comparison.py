"""Rows: contestants that are measured in turn, and what their samples say."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: Processes that all contestants share.
SERVERS = ("broker", "database")


@dataclass(frozen=True)
class Effort:
    """How much a run measures."""

    #: Rounds of a row, and of one that takes minutes a round.
    rounds: int = 5
    long_rounds: int = 3
    #: Seconds of load on an API.
    seconds: int = 10
    #: Messages that wait to be drained.
    messages: int = 20_000
    #: Largest backlog, and largest number of rows.
    largest: int = 1_000_000

    @property
    def sizes(self) -> list[int]:
        """The sizes up to the largest, in powers of ten from 10,000 on."""
        powers = [10_000 * 10**n for n in range(3)]
        return [n for n in powers if n < self.largest] + [self.largest]


QUICK = Effort(rounds=1, long_rounds=1, seconds=3, messages=4_000, largest=20_000)


@dataclass(frozen=True)
class Sample:
    """One measurement of one contestant."""

    #: In the unit of the row.
    value: float
    #: Microseconds of CPU for each message, by process.
    cpu: dict[str, float] = field(default_factory=dict)
    #: Peak resident memory of the contestant's processes, in MB.
    memory: float | None = None
    #: Milliseconds, by percentile.
    latency: dict[str, float] = field(default_factory=dict)
    #: Other figures, by name.
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def own_cpu(self) -> float:
        """The CPU of its own processes together, without the servers'."""
        return sum(us for name, us in self.cpu.items() if name not in SERVERS)


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a row."""

    name: str
    #: What differs from the others: queue type, token, processes.
    differs: str
    measure: Callable[[], Sample]


@dataclass(frozen=True)
class Row:
    """Contestants to compare."""

    title: str
    unit: str
    contestants: Sequence[Contestant]
    #: The name of the contestant whose ratios to the others are shown.
    subject: str
    rounds: int
    #: How much was measured, and from where to where.
    conditions: str


@dataclass(frozen=True)
class Measured:
    """The samples of one contestant, one for each round."""

    name: str
    differs: str
    samples: list[Sample]

    @property
    def values(self) -> list[float]:
        """The value of each round."""
        return [sample.value for sample in self.samples]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    def ratio_to(self, other: Measured) -> float:
        """Return the median of the ratios within each round."""
        pairs = zip(self.values, other.values, strict=True)
        return statistics.median(own / reference for own, reference in pairs)

    def cpu_ratio_to(self, other: Measured) -> float | None:
        """Return the same of the CPU of their own processes; None if not measured."""
        pairs = zip(self.samples, other.samples, strict=True)
        both = [(own.own_cpu, reference.own_cpu) for own, reference in pairs]
        if not all(min(pair) for pair in both):
            return None
        return statistics.median(own / reference for own, reference in both)

    @property
    def cpu(self) -> dict[str, float]:
        """The median of each process."""
        return by_name(statistics.median, [sample.cpu for sample in self.samples])

    @property
    def latency(self) -> dict[str, float]:
        """The median of each percentile."""
        return by_name(statistics.median, [sample.latency for sample in self.samples])

    @property
    def notes(self) -> dict[str, float]:
        """The highest of all rounds: one refused request is one too many."""
        return by_name(max, [sample.notes for sample in self.samples])

    @property
    def memory(self) -> float | None:
        """The highest peak of all rounds."""
        peaks = [s.memory for s in self.samples if s.memory is not None]
        return max(peaks, default=None)


@dataclass(frozen=True)
class Result:
    """A row and its samples."""

    name: str
    title: str
    unit: str
    subject: str
    conditions: str
    #: The command that repeats it, when it was run, and on which machine.
    command: str
    date: str
    machine: str
    contestants: list[Measured]

    def named(self, name: str) -> Measured:
        """Return a contestant."""
        return next(one for one in self.contestants if one.name == name)

    def ratio_to(self, other: Measured) -> float | None:
        """Return the ratio of the subject to another contestant; None to itself."""
        subject = self.named(self.subject)
        return None if other is subject else subject.ratio_to(other)

    def cpu_ratio_to(self, other: Measured) -> float | None:
        """Return the same of the CPU a message."""
        subject = self.named(self.subject)
        return None if other is subject else subject.cpu_ratio_to(other)


def by_name(
    choose: Callable[[list[float]], float], rounds: Sequence[dict[str, float]]
) -> dict[str, float]:
    """Return one value for each name of all rounds; what a round lacks is 0."""
    names = dict.fromkeys(name for values in rounds for name in values)
    return {name: choose([one.get(name, 0.0) for one in rounds]) for name in names}


def run(row: Row, announce: Callable[[str], None] = lambda _: None) -> list[Measured]:
    """Measure the contestants of a row in turn, round after round."""
    found = [Measured(one.name, one.differs, []) for one in row.contestants]
    for number in range(1, row.rounds + 1):
        for contestant, measured in zip(row.contestants, found, strict=True):
            announce(f"round {number} of {row.rounds}, {contestant.name}")
            measured.samples.append(contestant.measure())
    return found
