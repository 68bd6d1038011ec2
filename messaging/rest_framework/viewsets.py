"""Viewsets that read from a database and publish a command for each write."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from messaging.database import read_lagging
from messaging.models import Inbox
from messaging.operations import Outcome, operation_id

from .headers import etag_of
from .metadata import WriteMetadata
from .outcomes import save_and_wait
from .serializers import Write
from .strict import StrictMixin

#: Key in a request's `META` of the error with which the front has left it to Django.
FAILURE = "messaging.failure"
STATUS_OF_FAILURE = {"not_found": 404, "conflict": 409, "precondition_failed": 412}


class QueuedViewSet(StrictMixin, viewsets.ReadOnlyModelViewSet):
    """Reads come from the database; a write touches none, and publishes a command."""

    metadata_class = WriteMetadata
    #: By name of the action.
    writes: ClassVar[dict[str, Write]]

    def check_throttles(self, request: Request) -> None:
        """Count a request, unless the front has counted it."""
        if FAILURE not in request.META:
            super().check_throttles(request)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Read a page, which may come from a replica."""
        return read_lagging(partial(super().list, request, *args, **kwargs))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Read one, with its version as `ETag`; it may come from a replica, too."""
        return read_lagging(partial(self.read_one, request))

    def read_one(self, request: Request) -> Response:
        """Build the answer with one object."""
        instance = self.get_object()
        tag = etag_of(instance)
        if request.headers.get("If-None-Match") == tag["ETag"]:
            return Response(status=304, headers=tag)
        return Response(self.get_serializer(instance).data, headers=tag)

    def get_serializer_class(self) -> type[serializers.BaseSerializer]:
        """Return the serializer of a write, or the one for reads."""
        write = self.writes.get(self.action or "")
        return write.serializer if write else super().get_serializer_class()

    def create(self, request: Request, **kwargs: Any) -> Response:
        """Queue the write."""
        return self.enqueue(request)

    update = partial_update = destroy = create

    def enqueue(self, request: Request) -> Response:
        """Validate the body, publish the command, and answer 202 or its outcome."""
        if error := request.META.get(FAILURE):
            raise error
        write = self.writes[self.action]
        serializer = write.validated(self, request)
        headers = serializer.context["headers"]
        outcome = save_and_wait(serializer, headers)
        if outcome is not None and (answer := self.answer_for(request, outcome)):
            return answer
        return Response(
            write.answer(serializer.validated_data),
            status=202,
            headers=self.location(request, operation_id(headers.message_id)),
        )

    def location(self, request: Request, operation: str) -> dict[str, str]:
        """Return the header of an answer 202 that says where its outcome will be."""
        return {"Location": reverse("operation", [operation], request=request)}

    def answer_for(self, request: Request, outcome: Outcome) -> Response | None:
        """Build the answer for an outcome; None if the resource cannot be read now."""
        headers = {"Preference-Applied": "wait"}
        if outcome.status == Inbox.Status.FAILED:
            return Response(
                {"code": outcome.code, "detail": outcome.reason},
                status=STATUS_OF_FAILURE.get(outcome.code, 422),
                headers=headers,
            )
        if self.action == "destroy":
            return Response(status=204, headers=headers)
        reader = super().get_serializer_class()  # not that of the write
        try:
            instance = self.get_queryset().get(pk=outcome.reference)
        except (DatabaseError, ObjectDoesNotExist, ValueError):
            return None
        data = reader(instance, context=self.get_serializer_context()).data
        headers |= etag_of(instance)
        if self.action != "create":
            return Response(data, headers=headers)
        name = f"{self.basename}-detail"
        headers["Location"] = reverse(name, [outcome.reference], request=request)
        return Response(data, status=201, headers=headers)
