"""What an operator may search for: reports by id."""

from __future__ import annotations

from messaging.monitoring.story import looks_up


@looks_up
def keys_of(text: str) -> list[str]:
    """Return the key of the messages about a report."""
    return [f"report:{text}"]
