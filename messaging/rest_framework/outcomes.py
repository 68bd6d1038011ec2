"""Waiting for the outcome of a write (`Prefer: wait=N`), which comes by reply queue."""

from __future__ import annotations

import time

from messaging.conf import settings
from messaging.operations import Outcome
from messaging.rpc.client import replies

from .headers import WriteHeaders
from .serializers import MessageSerializer


def save_and_wait(
    serializer: MessageSerializer, headers: WriteHeaders
) -> Outcome | None:
    """
    Publish the message, and return its outcome if it arrives within `headers.wait`.

    Return None if it does not, if the client does not wait, or if
    `MESSAGING["MAX_WAITERS"]` requests are waiting already.
    """
    if not headers.wait or replies().waiting >= settings.MAX_WAITERS:
        serializer.save()
        return None
    deadline = time.monotonic() + headers.wait
    with replies().expected(headers.message_id, headers.wait) as reply:
        serializer.save(reply_to=replies().address)
        try:
            answer = reply.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return None
    return Outcome.decode(answer.body)
