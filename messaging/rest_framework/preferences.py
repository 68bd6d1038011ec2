"""What a client asks for in headers: `Prefer`, `Idempotency-Key`, `If-Match`."""

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

#: Seconds a client may wait for the outcome of its write.
LONGEST_WAIT = 10
#: Characters of an idempotency key.
KEY_LENGTH = 255
WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;[^,]*)?(?=,|$)", re.I)
VERSION = re.compile(r'"(\d{1,9})"')


@dataclass(frozen=True, slots=True)
class Preferences:
    """The identity and the conditions of one write."""

    message_id: str
    #: AMQP headers that carry the conditions.
    headers: dict[str, Any]
    #: Seconds to wait for the outcome; 0 not to wait.
    wait: int

    @property
    def made_id(self) -> str:
        """The id of what the write makes: the same whenever it is repeated."""
        return derived_uuid("made", self.message_id)


def preferences_of(request: Request) -> Preferences:
    """Read the headers of a write; raises `ValidationError`."""
    return Preferences(message_id_of(request), conditions_of(request), wait_of(request))


def message_id_of(request: Request) -> str:
    """
    Give the `message_id`: derived from an `Idempotency-Key`, else made up.

    The same caller, method, path and key make the same operation
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
    """Give the version that `If-Match` asks for (RFC 9110, section 13.1.1)."""
    condition = request.headers.get("If-Match", "*").strip()
    if condition == "*":
        return {}
    version = VERSION.fullmatch(condition)
    if version is None or request.method == "POST":
        raise ValidationError({"If-Match": [_("Give one ETag as it was read.")]})
    return {IF_VERSION: int(version[1])}


def wait_of(request: Request) -> int:
    """Give how long `Prefer: wait=N` waits (RFC 7240, section 4.3)."""
    wait = WAIT.search(request.headers.get("Prefer", ""))
    return min(int(wait[1]), LONGEST_WAIT) if wait else 0
