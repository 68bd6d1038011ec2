"""
Accepted requests: their identity, and what became of them.

An operation is a message. Its public id is signed and carries the `message_id` and the
time, so that nothing need be stored when it is accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Self

from django.conf import settings as django_settings
from django.core import signing

from .conf import settings
from .models import Inbox, Parked

_signer = signing.TimestampSigner(sep=".", salt="messaging.operation")


class OperationExpired(Exception):
    """The operation is older than what the inbox remembers."""


class OperationUnknown(Exception):
    """Nobody has issued this id."""


def operation_id(message_id: str) -> str:
    """Give a signed id that carries the message's id and the time."""
    return _signer.sign(uuid.UUID(message_id).hex)


def message_of(operation: str) -> str:
    """
    Give the `message_id` an operation id carries.

    Raises `OperationUnknown` for a forged id and `OperationExpired` for an old one.
    """
    retention = timedelta(days=settings.RETENTION_DAYS)
    try:
        return str(uuid.UUID(_signer.unsign(operation, max_age=retention)))
    except signing.SignatureExpired:
        raise OperationExpired from None
    except (signing.BadSignature, ValueError):
        raise OperationUnknown from None


def derived_uuid(*parts: str) -> str:
    """Give the same random-looking UUID (version 4) for the same parts, to us alone."""
    digest = hmac.digest(
        django_settings.SECRET_KEY.encode(), json.dumps(parts).encode(), hashlib.sha256
    )
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _is_projecting(row: Inbox) -> bool:
    """Whether the second store does not have yet what was applied."""
    parked = Parked.objects.using(settings.DATABASE)
    return parked.filter(message_id=row.pk, is_applied=True).exists()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an operation."""

    #: "queued", "done" or "failed".
    status: str
    #: The id of what was written.
    reference: str = ""
    #: Why it failed, for programs and for people.
    code: str = ""
    reason: str = ""

    @classmethod
    def of(cls, row: Inbox | None) -> Self:
        """Read it from the inbox row of a message; "queued" without one."""
        if row is None or (row.status == Inbox.Status.DONE and _is_projecting(row)):
            return cls("queued")
        return cls(row.status, row.reference, row.code, row.reason)

    def encode(self) -> bytes:
        """Give the JSON body of a reply."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the JSON body of a reply."""
        return cls(**json.loads(body))
