"""`post_save` in style: what changed is told as facts, in the same transaction."""

from typing import Any

from django.dispatch import Signal

from messaging import publish

from .messages import ReportFact

#: Sent with `facts`, a list of what happened, in order.
reports_changed = Signal()


def tell_the_world(facts: list[ReportFact], **_: Any) -> None:
    """Publish the facts of one transaction."""
    publish(*facts)
