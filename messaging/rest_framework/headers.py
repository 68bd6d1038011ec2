"""Request headers of a write (`Prefer`, `Idempotency-Key`, `If-Match`), and `ETag`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from messaging.envelope import IDEMPOTENCY_KEY, IF_VERSION, random_id
from messaging.logs.context import actor_header, caller_of
from messaging.operations import derived_uuid
from messaging.traces.trace_context import trace_of_request

#: Maximum number of seconds to wait for the outcome of a write.
LONGEST_WAIT = 10
#: Maximum number of characters of an idempotency key.
KEY_LENGTH = 255
WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;[^,]*)?(?=,|$)", re.I)
#: The caller of requests without one, where they are allowed.
ANYONE = "account:None"
#: `META` of a request, which Django REST framework looks up anew for each use.
Meta = Mapping[str, Any]
VERSION = re.compile(r'"(\d{1,9})"')


@dataclass(frozen=True, slots=True)
class WriteHeaders:
    """What the request headers say about a write."""

    message_id: str
    #: AMQP headers: the version that the entity must have, the idempotency key, the
    #: trace of the request, and who has sent it.
    amqp: dict[str, Any]
    #: Seconds to wait for the outcome; 0 to answer at once.
    wait: int

    @property
    def new_id(self) -> str:
        """The id for a new entity, the same whenever the write is repeated."""
        return derived_uuid("made", self.message_id)


def read_headers(request: Request) -> WriteHeaders:
    """Read the headers of a write; raise `ValidationError` if one is invalid."""
    meta = request.META
    conditions = conditions_of(meta)
    amqp = conditions | trace_of_request(meta) | actor_header(caller_of(request.user))
    key = idempotency_key_of(request, meta)
    if key is None:
        return WriteHeaders(random_id(), amqp, wait_of(meta))
    # The same key with another body is another message, which the consumer refuses.
    content = json.dumps([request.data, conditions], sort_keys=True, default=repr)
    message_id = derived_uuid("message", key, content)
    return WriteHeaders(message_id, amqp | {IDEMPOTENCY_KEY: key}, wait_of(meta))


def idempotency_key_of(request: Request, meta: Meta) -> str | None:
    """
    Return what identifies an operation that its client may repeat, or None.

    The same caller, method, path and `Idempotency-Key` are the same operation
    (draft-ietf-httpapi-idempotency-key-header).
    """
    key = meta.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not 0 < len(key) <= KEY_LENGTH:
        raise ValidationError(
            {"Idempotency-Key": [_("Give 1 to %d characters.") % KEY_LENGTH]}
        )
    caller, method = caller_of(request.user), request.method or ""
    return derived_uuid("key", caller or ANYONE, method, request.path, key)


def conditions_of(meta: Meta) -> dict[str, Any]:
    """Return the AMQP headers for `If-Match` (RFC 9110, section 13.1.1)."""
    condition = meta.get("HTTP_IF_MATCH", "*").strip()
    if condition == "*":
        return {}
    version = VERSION.fullmatch(condition)
    if version is None or meta["REQUEST_METHOD"] == "POST":
        raise ValidationError({"If-Match": [_("Give one ETag as it was read.")]})
    return {IF_VERSION: int(version[1])}


def wait_of(meta: Meta) -> int:
    """Return the seconds to wait for `Prefer: wait=N` (RFC 7240, section 4.3)."""
    wait = WAIT.search(meta.get("HTTP_PREFER", ""))
    return min(int(wait[1]), LONGEST_WAIT) if wait else 0


def etag_of(instance: Any) -> dict[str, str]:
    """Return the `ETag` header for the version of an instance."""
    return {"ETag": f'"{instance.version}"'}
