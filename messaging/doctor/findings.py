"""Findings: what they say, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from django.conf import settings

from messaging.exceptions import MessagingError
from messaging.masking import masked
from messaging.text import describe


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    #: Worth knowing; nothing is wrong.
    NOTE = "note"
    #: A guarantee is weaker than it could be, or trouble is near.
    WARNING = "warning"
    #: A guarantee is broken now.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of an examination, about `subject`."""

    level: Level
    subject: str
    text: str
    #: What to do about it.
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.level:8} {self.subject}: {self.text}{remedy}"

    def as_dict(self) -> dict[str, str]:
        """Return the finding as JSON takes it."""
        return {
            "level": str(self.level),
            "subject": self.subject,
            "text": self.text,
            "remedy": self.remedy,
        }


def ok(subject: str, text: str) -> Finding:
    """Return a finding of level OK."""
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, remedy: str = "") -> Finding:
    """Return a finding of level NOTE."""
    return Finding(Level.NOTE, subject, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding of level WARNING."""
    return Finding(Level.WARNING, subject, text, remedy)


def unknown(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding about what is not watched: a note with DEBUG, else a warning."""
    return (note if settings.DEBUG else warning)(subject, text, remedy)


def error(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding of level ERROR."""
    return Finding(Level.ERROR, subject, text, remedy)


def explained(cause: BaseException) -> str:
    """Return an error as one line, without addresses and secrets."""
    text = str(cause) if isinstance(cause, MessagingError) else describe(cause)
    return masked(" ".join(text.split()))
