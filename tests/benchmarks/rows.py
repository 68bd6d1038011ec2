"""All rows, by name."""

from __future__ import annotations

from collections.abc import Callable

from . import (
    accepting,
    draining,
    growing,
    publishing,
    reporting,
    responding,
    servers,
    sharing,
)
from .comparison import Effort, Row

ROWS: dict[str, Callable[[Effort], Row]] = {
    **accepting.ROWS,
    **publishing.ROWS,
    **draining.ROWS,
    **sharing.ROWS,
    **responding.ROWS,
    **reporting.ROWS,
    **growing.ROWS,
}


def missing(name: str) -> str:
    """Return what a row lacks on this machine, or ""."""
    if name == "reports" and not servers.HAS_MONGODB:
        return "there is no mongod, and the embedded server is not for load"
    return ""
