"""The message that both services know."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from messaging import Message
from messaging.fields import Text


class Note(Message):
    """A note that A sends to B."""

    event_type: Literal["note"] = "note"
    queue: ClassVar = "mq_test_queue"
    text: Annotated[Text, Field(min_length=1, max_length=200)]

    @property
    def partition_key(self) -> str:
        """One key for all: notes are applied in the order they were accepted."""
        return "notes"
