"""Viewsets that read from a database and queue what is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from messaging.conf import settings
from messaging.operations import operation_id

from .errors import PayloadTooLarge
from .serializers import MessageSerializer


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

    def get_serializer_class(self) -> type[serializers.BaseSerializer]:
        """Give the serializer of a queued action, or the one that reads."""
        write = self.writes.get(self.action or "")
        return write.serializer if write else super().get_serializer_class()

    def create(self, request: Request) -> Response:
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
        """Publish what the client sent and answer 202."""
        write = self.writes[self.action]
        serializer = write.serializer(
            data=request.data, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        message = serializer.validated_data
        operation = operation_id(serializer.save())
        return Response(
            {
                "status": "queued",
                "message": write.text,
                write.echo: getattr(message, write.echo),
            },
            status=202,
            headers={"Location": reverse("operation", [operation], request=request)},
        )
