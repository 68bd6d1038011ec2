"""`post_save` in style: what changed is told as events, in the same transaction."""

from typing import Any

from django.dispatch import Signal

from messaging import publish

from .messages import ReportEvent

#: Sent with `events`, a list of what happened, in order.
reports_changed = Signal()


def publish_events(events: list[ReportEvent], **_: Any) -> None:
    """Publish the events of one transaction."""
    publish(*events)
