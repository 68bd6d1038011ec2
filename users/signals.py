"""
`users_changed` is to a batch what `post_save` is to one row: bulk writes send none.

It is sent inside the transaction of the change. The receiver publishes the events
through the outbox, so they leave with the commit, or not at all.
"""

from typing import Any

from django.dispatch import Signal

from messaging import publish

from .events import UserEvent

#: Sent with `events`, the list of events of one transaction, in order.
users_changed = Signal()


def publish_events(events: list[UserEvent], **_: Any) -> None:
    """Publish the events of one transaction."""
    publish(*events)
