"""
Operations: accepted requests, their ids and outcomes.

An operation is a message. Its public id is signed and carries the `message_id` and the
time, so that nothing has to be stored when a request is accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from django.conf import settings as django_settings
from django.core import signing

from .conf import settings
from .models import Inbox, Parked

_signer = signing.TimestampSigner(sep=".", salt="messaging.operation")


class OperationExpired(Exception):
    """The operation is older than the inbox's retention period."""


class OperationUnknown(Exception):
    """The id is forged or damaged."""


def operation_id(message_id: str) -> str:
    """Return a signed id that carries the message's id and the time."""
    return _signer.sign(message_id.replace("-", ""))


def message_of(operation: str) -> str:
    """
    Return the `message_id` that an operation id carries.

    Raises `OperationUnknown` for a forged id and `OperationExpired` for an old one.
    """
    retention = timedelta(days=settings.RETENTION_DAYS)
    try:
        return str(uuid.UUID(_signer.unsign(operation, max_age=retention)))
    except signing.SignatureExpired:
        raise OperationExpired from None
    except (signing.BadSignature, ValueError):
        raise OperationUnknown from None


def accepted_at(operation: str) -> datetime:
    """Return when the request of a valid operation id was accepted."""
    seconds = signing.b62_decode(operation.split(_signer.sep)[1])
    return datetime.fromtimestamp(seconds, UTC)


def derived_uuid(*parts: str) -> str:
    """Return a UUID (version 4) that depends on the parts and the key alone."""
    key = settings.IDEMPOTENCY_KEY or django_settings.SECRET_KEY
    digest = hmac.digest(key.encode(), json.dumps(parts).encode(), hashlib.sha256)
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _is_projecting(row: Inbox) -> bool:
    """Whether the change is applied, but not yet projected to the second store."""
    parked = Parked.objects.using(settings.DATABASE)
    return parked.filter(message_id=row.pk, is_applied=True).exists()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an operation."""

    #: "queued", "done" or "failed".
    status: str
    #: The id of the object that was written.
    reference: str = ""
    #: Why it failed, for programs and for people.
    code: str = ""
    reason: str = ""

    @classmethod
    def of(cls, row: Inbox | None) -> Self:
        """Return the outcome that an inbox row records; "queued" without a row."""
        if row is None or (row.status == Inbox.Status.DONE and _is_projecting(row)):
            return cls("queued")
        return cls(row.status, row.reference, row.code, row.reason)

    def encode(self) -> bytes:
        """Return the JSON body of a reply."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Parse the JSON body of a reply; raises `ValueError` for any other body."""
        try:
            if len(body) > settings.MAX_BODY:
                raise ValueError
            fields = json.loads(body)
            texts = [fields[name] for name in cls.__dataclass_fields__]
            "".join(texts).encode()  # not with lone surrogates
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ValueError("It is not the outcome of an operation.") from None
        if texts[0] not in (Inbox.Status.DONE, Inbox.Status.FAILED):
            raise ValueError("It says neither that it is done nor that it has failed.")
        return cls(*texts)
