"""
What is wrong, and what to do about it.

An app adds to it in a module `doctor.py`, which is found by itself:

    @examines("database", "reports")
    def ledger() -> Iterator[Finding]:
        if lost := ...:
            yield error("reports", f"{lost} documents are lost", "Restore them.")
"""

from .findings import Finding, Level, error, note, ok, warning
from .register import examines

__all__ = ["Finding", "Level", "error", "examines", "note", "ok", "warning"]
