"""
Findings about servers, queues, tables and settings, each with a remedy.

`examination.py`, to open first, runs every function that `@examines` has registered;
the other modules have one topic each. An app adds its own in a module `doctor.py`,
which is imported automatically:

    @examines("database", "reports")
    def ledger() -> Iterator[Finding]:
        if lost := ...:
            yield error("reports", f"{lost} documents are lost", "Restore them.")
"""

from .findings import Finding, Level, error, note, ok, warning
from .register import examines

__all__ = ["Finding", "Level", "error", "examines", "note", "ok", "warning"]
