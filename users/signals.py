"""
`post_save` in style, but for many users at once: bulk statements send no `post_save`.

Who writes sends `users_changed` inside the transaction of the change, and the receiver
publishes the events, which leave through the outbox with the commit.
"""

from typing import Any

from django.dispatch import Signal

from messaging import publish

from .messages import UserEvent

#: Sent with `events`, a list of what happened, in order.
users_changed = Signal()


def publish_events(events: list[UserEvent], **_: Any) -> None:
    """Publish the events of one transaction."""
    publish(*events)
