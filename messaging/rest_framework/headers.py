"""Request headers of a write (`Prefer`, `Idempotency-Key`, `If-Match`), and `ETag`."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from messaging.message import IF_VERSION
from messaging.operations import derived_uuid

#: Maximum number of seconds to wait for the outcome of a write.
LONGEST_WAIT = 10
#: Maximum number of characters of an idempotency key.
KEY_LENGTH = 255
WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;[^,]*)?(?=,|$)", re.I)
VERSION = re.compile(r'"(\d{1,9})"')


@dataclass(frozen=True, slots=True)
class WriteHeaders:
    """What the request headers say about a write."""

    message_id: str
    #: AMQP headers with the version that the entity must have, if any.
    conditions: dict[str, Any]
    #: Seconds to wait for the outcome; 0 to answer at once.
    wait: int

    @property
    def new_id(self) -> str:
        """The id for a new entity, the same whenever the write is repeated."""
        return derived_uuid("made", self.message_id)


def read_headers(request: Request) -> WriteHeaders:
    """Read the headers of a write; raise `ValidationError` if one is invalid."""
    return WriteHeaders(
        message_id_of(request), conditions_of(request), wait_of(request)
    )


def message_id_of(request: Request) -> str:
    """
    Return the `message_id`: derived from `Idempotency-Key` if given, else random.

    The same caller, method, path and key are the same operation
    (draft-ietf-httpapi-idempotency-key-header).
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return str(uuid.uuid4())
    if not 0 < len(key) <= KEY_LENGTH:
        raise ValidationError(
            {"Idempotency-Key": [_("Give 1 to %d characters.") % KEY_LENGTH]}
        )
    caller = str(getattr(request.user, "pk", None))
    return derived_uuid("message", caller, request.method or "", request.path, key)


def conditions_of(request: Request) -> dict[str, Any]:
    """Return the AMQP headers for `If-Match` (RFC 9110, section 13.1.1)."""
    condition = request.headers.get("If-Match", "*").strip()
    if condition == "*":
        return {}
    version = VERSION.fullmatch(condition)
    if version is None or request.method == "POST":
        raise ValidationError({"If-Match": [_("Give one ETag as it was read.")]})
    return {IF_VERSION: int(version[1])}


def wait_of(request: Request) -> int:
    """Return the seconds to wait for `Prefer: wait=N` (RFC 7240, section 4.3)."""
    wait = WAIT.search(request.headers.get("Prefer", ""))
    return min(int(wait[1]), LONGEST_WAIT) if wait else 0


def etag_of(instance: Any) -> dict[str, str]:
    """Return the `ETag` header for the version of an instance."""
    return {"ETag": f'"{instance.version}"'}
