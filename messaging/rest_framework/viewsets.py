"""Viewsets that read from a database and queue what is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from messaging.conf import settings
from messaging.models import Inbox
from messaging.operations import Outcome, operation_id
from messaging.rpc.client import replies

from .errors import PayloadTooLarge
from .preferences import Preferences, preferences_of
from .serializers import MessageSerializer

STATUS_OF_FAILURE = {"not_found": 404, "conflict": 409, "precondition_failed": 412}


@dataclass(frozen=True, slots=True)
class Write:
    """How a viewset answers one action that is queued."""

    serializer: type[MessageSerializer]
    #: What the client is told.
    text: str
    #: The field of the message that the answer repeats.
    echo: str


class QueuedViewSet(viewsets.ReadOnlyModelViewSet):
    """
    Reads from the database, and queues each of `writes`, by the name of the action.

    Queueing touches no database: the client's data become a message, and the answer is
    202 as soon as the broker has confirmed it.
    """

    writes: ClassVar[dict[str, Write]]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse large bodies before they are read."""
        super().initial(request, *args, **kwargs)
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.MAX_BODY:
            raise PayloadTooLarge

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Read one, and tell its version for a later `If-Match`."""
        instance = self.get_object()
        tag = etag_of(instance)
        if request.headers.get("If-None-Match") == tag["ETag"]:
            return Response(status=304, headers=tag)
        return Response(self.get_serializer(instance).data, headers=tag)

    def get_serializer_class(self) -> type[serializers.BaseSerializer]:
        """Give the serializer of a queued action, or the one that reads."""
        write = self.writes.get(self.action or "")
        return write.serializer if write else super().get_serializer_class()

    def create(self, request: Request, **kwargs: Any) -> Response:
        """Queue the creation."""
        return self.queue(request)

    def update(self, request: Request, **kwargs: Any) -> Response:
        """Queue the change."""
        return self.queue(request)

    def partial_update(self, request: Request, **kwargs: Any) -> Response:
        """Queue the change."""
        return self.queue(request)

    def destroy(self, request: Request, **kwargs: Any) -> Response:
        """Queue the removal."""
        return self.queue(request)

    def queue(self, request: Request) -> Response:
        """
        Publish what the client sent and answer 202.

        With `Prefer: wait=N` the outcome is awaited, and answered if it comes in time.
        """
        write = self.writes[self.action]
        preferences = preferences_of(request)
        serializer = write.serializer(
            data=request.data,
            context={**self.get_serializer_context(), "preferences": preferences},
        )
        serializer.is_valid(raise_exception=True)
        outcome = self.publish(serializer, preferences)
        if outcome is not None and (answer := self.answer(request, outcome)):
            return answer
        operation = operation_id(preferences.message_id)
        return Response(
            {
                "status": "queued",
                "message": write.text,
                write.echo: getattr(serializer.validated_data, write.echo),
            },
            status=202,
            headers={"Location": reverse("operation", [operation], request=request)},
        )

    def publish(
        self, serializer: MessageSerializer, preferences: Preferences
    ) -> Outcome | None:
        """Publish, and give the outcome if it was waited for and came in time."""
        if not preferences.wait or replies().waiting >= settings.MAX_WAITERS:
            serializer.save()
            return None
        deadline = time.monotonic() + preferences.wait
        with replies().expected(preferences.message_id, preferences.wait) as reply:
            serializer.save(reply_to=replies().address)
            try:
                outcome = reply.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return None
        return Outcome.decode(outcome.body)

    def answer(self, request: Request, outcome: Outcome) -> Response | None:
        """Answer with what was written, or why not; None if it cannot be read now."""
        applied = {"Preference-Applied": "wait"}
        if outcome.status == Inbox.Status.FAILED:
            return Response(
                {"code": outcome.code, "detail": outcome.reason},
                status=STATUS_OF_FAILURE.get(outcome.code, 422),
                headers=applied,
            )
        if self.action == "destroy":
            return Response(status=204, headers=applied)
        reader = super().get_serializer_class()
        try:
            instance = self.get_queryset().get(pk=outcome.reference)
        except (DatabaseError, ObjectDoesNotExist):
            return None
        data = reader(instance, context=self.get_serializer_context()).data
        if self.action != "create":
            return Response(data, headers=applied | etag_of(instance))
        name = f"{self.basename}-detail"
        location = reverse(name, [outcome.reference], request=request)
        return Response(
            data,
            status=201,
            headers=applied | etag_of(instance) | {"Location": location},
        )


def etag_of(instance: Any) -> dict[str, str]:
    """Give the header that tells the version of what was read."""
    return {"ETag": f'"{instance.version}"'}
