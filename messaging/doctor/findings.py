"""One thing that was found out, good or bad."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings as django_settings

from messaging.conf import settings
from messaging.exceptions import MessagingError


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: Worth knowing; nothing is wrong.
    NOTE = "note"
    #: A promise is weaker than it could be, or trouble is near.
    WARNING = "warning"
    #: A promise is not kept now.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out about `subject`."""

    level: Level
    subject: str
    text: str
    #: What to do about it.
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.level:8} {self.subject}: {self.text}{remedy}"

    def as_dict(self) -> dict[str, str]:
        """Give all of it, for JSON."""
        return {
            "level": str(self.level),
            "subject": self.subject,
            "text": self.text,
            "remedy": self.remedy,
        }


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, remedy: str = "") -> Finding:
    """Nothing is wrong."""
    return Finding(Level.NOTE, subject, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Something should be better."""
    return Finding(Level.WARNING, subject, text, remedy)


def error(subject: str, text: str, remedy: str) -> Finding:
    """Something is broken."""
    return Finding(Level.ERROR, subject, text, remedy)


def explained(cause: BaseException) -> str:
    """Give an error as one line without secrets, whatever a driver put into it."""
    kind = "" if isinstance(cause, MessagingError) else f"{type(cause).__name__}: "
    text = kind + " ".join(str(cause).split())
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets() -> set[str]:
    databases: dict[str, dict[str, Any]] = django_settings.DATABASES
    urls = [settings.URL, *(str(one.get("HOST", "")) for one in databases.values())]
    found = {str(one.get("PASSWORD") or "") for one in databases.values()}
    for url in urls:
        # What stands before the last @, for passwords may hold what they should not.
        before = url.rpartition("://")[2].rpartition("@")[0]
        password = before.partition(":")[2]
        found |= {password, unquote(password)}
    return (found | {django_settings.SECRET_KEY}) - {""}


def is_readable(url: str) -> bool:
    """Whether an address has a port that is a number; else it may show a password."""
    try:
        urlsplit(url).port  # noqa: B018 raises
    except ValueError:
        return False
    return True
