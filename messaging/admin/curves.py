"""Small curves of what a queue has handled, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.utils.html import format_html
from django.utils.safestring import SafeString

#: Size in pixels; CSS may stretch it.
WIDTH, HEIGHT = 96, 24


class Curve:
    """Messages that were handled, and attempts that failed, in steps of time."""

    def __init__(self, step: timedelta, steps: int, end: datetime) -> None:
        self._step = step
        self._start = end - step * steps
        self.handled = [0] * steps
        self.failed = [0] * steps

    def add(self, minute: datetime, handled: int, failed: int) -> None:
        """Add the numbers of a minute, unless it is before the start."""
        place = (minute - self._start) // self._step
        if 0 <= place < len(self.handled):
            self.handled[place] += handled
            self.failed[place] += failed

    def svg(self, text: str) -> SafeString:
        """Return a drawing, which `text` describes."""
        highest = max(*self.handled, *self.failed, 1)
        return format_html(
            '<svg class="curve" viewBox="0 0 {} {}" preserveAspectRatio="none" '
            'role="img" aria-label="{}"><title>{}</title>'
            '<polyline class="handled" points="{}"/>'
            '<polyline class="failed" points="{}"/></svg>',
            WIDTH,
            HEIGHT,
            text,
            text,
            points(self.handled, highest),
            points(self.failed if any(self.failed) else (), highest),
        )


def points(values: Iterable[int], highest: int) -> str:
    """Return the points of a line from the left to the right."""
    given = list(values)
    distance = WIDTH / max(len(given) - 1, 1)
    room = HEIGHT - 2  # so that no line is cut off
    return " ".join(
        f"{place * distance:.1f},{HEIGHT - 1 - value / highest * room:.1f}"
        for place, value in enumerate(given)
    )
