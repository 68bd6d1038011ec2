"""What became of an accepted request, without a row written at its acceptance."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.core import signing

from .conf import settings

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
    try:
        value = _signer.unsign(
            operation, max_age=timedelta(days=settings.RETENTION_DAYS)
        )
        return str(uuid.UUID(value))
    except signing.SignatureExpired:
        raise OperationExpired from None
    except (signing.BadSignature, ValueError):
        raise OperationUnknown from None
