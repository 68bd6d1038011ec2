"""What an operator may search for: users by e-mail or id."""

from __future__ import annotations

from collections.abc import Iterator

from messaging.monitoring.story import looks_up

from .commands import normalise_email
from .models import User


@looks_up
def keys_of(text: str) -> Iterator[str]:
    """Yield the keys of the messages about a user."""
    if text.isdecimal():
        yield f"user:{text}"
    elif "@" in text:
        yield f"email:{normalise_email(text)}"
        for pk in User.objects.filter(email=text).values_list("pk", flat=True):
            yield f"user:{pk}"
