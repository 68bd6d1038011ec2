"""
`post_save` in style, but for many users at once: bulk statements send no `post_save`.

Who writes sends `users_changed` inside the transaction of the change, and the receiver
publishes the facts, which leave through the outbox with the commit.
"""

from typing import Any

from django.dispatch import Signal

from messaging import publish

from .messages import UserFact

#: Sent with `facts`, a list of what happened, in order.
users_changed = Signal()


def tell_the_world(facts: list[UserFact], **_: Any) -> None:
    """Publish the facts of one transaction."""
    publish(*facts)
