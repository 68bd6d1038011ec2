"""The bar chart of the README: plain SVG, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .comparison import Measured, Result
from .text import number

WIDTH = 800
#: Where bars begin, and how wide the longest one is.
LEFT, LONGEST = 260, 380
BAR, GAP, HEADING = 18, 6, 34
STYLE = """
.page { fill: #ffffff }
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
.title { font-weight: 600 }
.bar { fill: #8c959f }
.ours { fill: #0969da }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 }
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 }
  .ours { fill: #4493f8 }
}
"""


def chart(results: Sequence[Result]) -> str:
    """Return the results as groups of bars, the longest of each group equally long."""
    parts: list[str] = []
    y = 0
    for result in results:
        parts.append(text(GAP, y + 22, f"{result.title} ({result.unit})", "title"))
        y += HEADING
        longest = max(one.median for one in result.contestants)
        for one in result.contestants:
            ratio = result.ratio_to(one)
            note = "" if ratio is None else f" (ratio {ratio:.2f})"
            parts += bar(y, one, one.median / longest, note)
            y += BAR + GAP
    content = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + GAP}" '
        f'width="{WIDTH}" height="{y + GAP}" role="img">\n'
        f"<style>{STYLE}</style>\n"
        f'<path class="page" d="M0 0H{WIDTH}V{y + GAP}H0Z"/>\n{content}\n</svg>\n'
    )


def bar(y: int, measured: Measured, share: float, note: str) -> list[str]:
    """Return the name, the bar and the figure of a contestant, with a note."""
    kind = "bar ours" if "this project" in measured.name else "bar"
    width = max(1, round(LONGEST * share))
    return [
        text(GAP, y + 14, measured.name),
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width}" height="{BAR}"/>',
        text(LEFT + width + 6, y + 14, number(measured.median) + note),
    ]


def text(x: int, y: int, content: str, kind: str = "") -> str:
    """Return a text."""
    given = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{given}>{escape(content)}</text>'
