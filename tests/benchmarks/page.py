"""docs/speed.json, what was measured, and the page and chart that are made of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .chart import chart
from .comparison import Measured, Result, Sample
from .text import markdown_table, number, rows_of

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
SAMPLES, PAGE, CHART = (DOCS / f"speed.{kind}" for kind in ("json", "md", "svg"))
#: The rows of the chart.
CHARTED = ("accept-16", "accept-64", "publish-16", "drain")
HEAD = """\
# Speed

Measured by `make bench`: this project beside other ways to do the same work, on private
servers, in turn within one run. Machines differ from day to day, so only ratios can be
compared. A ratio is the median of the ratios within each round; 10 % is noise. Less is
better for times (ms, us), more for all others.

![Chart of the main rows, with the ratio of this project to each way](speed.svg)

- Load comes from `wrk`, another e-mail with each request, on the same machine. `DEBUG`
  is off, and this project checks a token; the others check none.
- Messages have the bodies and properties of those that the API publishes.
- CPU is given for each message, by process; "CPU ratio" leaves out broker and database.
  Memory is the sum of the peaks of a way's processes, which count shared pages each.
- A request counts if it is answered with 202. Afterwards the queue must hold a message
  for each, by a passive declare. The column "more" has the number of other answers.
- Latencies of `wrk` are those of a closed loop: they follow from the rate.
- Ways that commit each message do less than this project: they detect no duplicates,
  publish no events, and keep no order when they retry. The raw fills check nothing.

The other ways are in [tests/benchmarks/baselines](../tests/benchmarks/baselines), the
samples of all rounds in [speed.json](speed.json).

```
make bench                              all rows, in about an hour; writes this page
python -m tests.benchmarks drain mixed  some rows
python -m tests.benchmarks --quick      the main rows, small, in two minutes
python -m tests.benchmarks --profile drain    where time goes, by function
python -m tests.benchmarks --help       the rows, and options for their size
```

`python` is `.venv/bin/python` after `make bench`, or after `project/setup.sh bench`.
"""

NOTHING = "Nothing has been measured yet.\n"


def load() -> list[Result]:
    """Return the stored results."""
    if not SAMPLES.exists():
        return []
    return [result_of(stored) for stored in json.loads(SAMPLES.read_text())]


def result_of(stored: dict[str, Any]) -> Result:
    """Return a result that was stored as JSON."""
    contestants = [
        Measured(**one | {"samples": [Sample(**sample) for sample in one["samples"]]})
        for one in stored["contestants"]
    ]
    return Result(**stored | {"contestants": contestants})


def store(results: list[Result]) -> None:
    """Store results, in place of earlier ones of the same rows."""
    every = {result.name: result for result in [*load(), *results]}
    stored = [asdict(result) for result in every.values()]
    SAMPLES.write_text(json.dumps(rounded(stored), indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Return a structure with four digits of each number: more than is known."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {name: rounded(one) for name, one in value.items()}
        case list():
            return [rounded(one) for one in value]
    return value


def page(results: list[Result]) -> str:
    """Return the page."""
    return "\n".join([HEAD, *(map(section, results) if results else [NOTHING])])


def section(result: Result) -> str:
    """Return what the page says about a row."""
    rounds = len(result.contestants[0].samples)
    several = f"{rounds} round{'s' if rounds > 1 else ''}"
    lines = rows_of(result)
    lines[0][0] = "way"
    differs = ["differs in", *(one.differs for one in result.contestants)]
    table = [
        [line[0], what, *line[1:]] for line, what in zip(lines, differs, strict=True)
    ]
    ratios = f'\nRatios are those of "{result.subject}" to each other way.'
    return f"""\
## {result.title}

In {result.unit}, {several}. {result.conditions}{ratios if len(lines) > 2 else ""}

{markdown_table(table)}

`{result.command}`, {result.date}, {result.machine}
"""


def render() -> None:
    """Write the page and the chart from the stored results."""
    results = load()
    PAGE.write_text(page(results))
    CHART.write_text(chart([one for one in results if one.name in CHARTED]))


def summary(results: list[Result]) -> str:
    """Return the ratios of all results, a line each."""
    lines = []
    for result in results:
        subject = result.named(result.subject)
        for other in result.contestants:
            if (ratio := result.ratio_to(other)) is not None:
                head = f"{result.name}: {result.subject} {number(subject.median)}"
                cpu = result.cpu_ratio_to(other)
                tail = "" if cpu is None else f", with {cpu:.2f} of its CPU"
                lines.append(f"{head} is {ratio:.2f} of {other.name}{tail}")
    return "\n".join(lines)
