"""What OPTIONS says about the writes of a viewset."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from rest_framework.exceptions import APIException
from rest_framework.metadata import SimpleMetadata
from rest_framework.request import Request, clone_request


class WriteMetadata(SimpleMetadata):
    """
    Describes the fields of the writes that the client may make.

    It reads no database: whether what is written exists makes no difference.
    """

    def determine_actions(self, request: Request, view: Any) -> dict[str, Any]:
        """Return the fields of the body, by method."""
        found = {}
        options = view.action
        for method, action in view.action_map.items():
            if action not in view.writes or method.upper() not in view.allowed_methods:
                continue
            view.request, view.action = clone_request(request, method.upper()), action
            try:
                view.check_permissions(view.request)
            except (APIException, PermissionDenied):
                continue
            finally:
                view.request, view.action = request, options
            serializer = view.writes[action].serializer
            found[method.upper()] = self.get_serializer_info(serializer())
        return {method: fields for method, fields in found.items() if fields}
