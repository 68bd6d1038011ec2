"""Results as tables of text and of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .comparison import Measured, Result

HEADINGS = (
    "contestant",
    "median",
    "range",
    "ratio",
    "CPU ratio",
    "CPU, us a message",
    "more",
)


def number(value: float) -> str:
    """Return a number with three digits or more."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def pairs(values: dict[str, float]) -> str:
    """Return named numbers."""
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def cells(result: Result, measured: Measured) -> list[str]:
    """Return the cells of a contestant."""
    ratios = [result.ratio_to(measured), result.cpu_ratio_to(measured)]
    latency = pairs(measured.latency)
    more = [latency and f"ms: {latency}", pairs(measured.notes)]
    if measured.memory:
        more.append(f"{number(measured.memory)} MB")
    return [
        measured.name,
        number(measured.median),
        f"{number(min(measured.values))} to {number(max(measured.values))}",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        pairs(measured.cpu),
        "; ".join(filter(None, more)),
    ]


def rows_of(result: Result) -> list[list[str]]:
    """Return the cells of all contestants, without columns that are empty."""
    lines = [list(HEADINGS)] + [cells(result, one) for one in result.contestants]
    used = [n for n in range(len(HEADINGS)) if any(line[n] for line in lines[1:])]
    return [[line[n] for n in used] for line in lines]


def plain_table(result: Result) -> str:
    """Return a result for a terminal."""
    lines = rows_of(result)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    head = f"{result.title} ({result.unit}; ratios of {result.subject!r})"
    return "\n".join([head, *table, f"  {result.command}"])


def markdown_row(values: Iterable[str]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(values)} |"


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; the first line has the headings."""
    rule = ["---"] * len(lines[0])
    return "\n".join(map(markdown_row, [lines[0], rule, *lines[1:]]))
