"""Waiting for the outcome of a write (`Prefer: wait=N`), which comes by reply queue."""

from __future__ import annotations

import time

from messaging.conf import settings
from messaging.logs.repetition import RepeatingLogger
from messaging.operations import Outcome
from messaging.rpc.client import CannotWait, replies

from .headers import WriteHeaders
from .serializers import MessageSerializer

repeating = RepeatingLogger(__name__)

#: Seconds to wait for the reply queue, which the first request of a process declares.
READY_TIMEOUT = 1.0


def save_and_wait(
    serializer: MessageSerializer, headers: WriteHeaders
) -> Outcome | None:
    """
    Publish the message, and return its outcome if it arrives within `headers.wait`.

    Return None if it does not, if the client does not wait, if no outcome can be
    received now, if `MESSAGING["MAX_WAITERS"]` requests are waiting already, or if the
    reply is none that a consumer sends.
    """
    if not headers.wait:
        serializer.save()
        return None
    deadline = time.monotonic() + headers.wait
    try:
        with replies().expected(
            headers.message_id, READY_TIMEOUT, settings.MAX_WAITERS
        ) as reply:
            serializer.save(reply_to=replies().address)
            answer = reply.result(max(0.0, deadline - time.monotonic()))
    except CannotWait:
        # Raised before anything was published.
        serializer.save()
        return None
    except TimeoutError:
        return None
    try:
        return Outcome.decode(answer.body)
    except ValueError as error:
        repeating.warning("A reply is ignored: %s", error)
        return None
