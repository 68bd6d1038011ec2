"""The doctor's findings."""

from __future__ import annotations

from collections.abc import Iterable

from messaging.doctor import Finding, Level


def worst(findings: Iterable[Finding]) -> Finding:
    """Return the worst finding."""
    order = list(Level)
    return max(findings, key=lambda finding: order.index(finding.level))
