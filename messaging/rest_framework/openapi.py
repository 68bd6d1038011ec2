"""
The OpenAPI document of `QueuedViewSet`s, for drf-spectacular and OpenAPI 3.1.

    REST_FRAMEWORK = {
        "DEFAULT_SCHEMA_CLASS": "messaging.rest_framework.openapi.QueuedAutoSchema",
    }
    SPECTACULAR_SETTINGS = {
        "OAS_VERSION": "3.1.1",
        "POSTPROCESSING_HOOKS": ["messaging.rest_framework.openapi.add_operations"],
    }

The schemas of bodies are those of the messages, the answers those of the viewset.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from rest_framework import filters
from rest_framework.fields import CharField
from rest_framework.negotiation import DefaultContentNegotiation

from . import described
from .answers import answer, answer_headers, error_answer
from .described import FILLED, HTML, JSON, Schema, ref
from .serializers import MessageSerializer, Write
from .strict import FORMAT, StrictMixin
from .viewsets import STATUS_OF_FAILURE, QueuedViewSet

#: The header of an answer that is the outcome.
APPLIED = "Preference-Applied"


class MessageSerializerExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Describes a body by the JSON schema of its message."""

    target_class = "messaging.rest_framework.serializers.MessageSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Schema:
        """Return the schema of the fields that a client may send."""
        meta = self.target.Meta
        for name, schema in described.fields_of(meta.message).get("$defs", {}).items():
            register(auto_schema.registry, name, schema)
        return described.body_schema(meta.message, meta.fields)


class QueuedAutoSchema(AutoSchema):
    """Describes a view with all that it reads and answers."""

    view: Any

    def get_operation(self, *args: Any, **kwargs: Any) -> Schema | None:
        """Return the description of a method of a view."""
        operation: Schema | None = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        for name, schema in described.schemas().items():
            register(self.registry, name, schema)
        for name, header in answer_headers().items():
            register(self.registry, name, header, ResolvedComponent.HEADER)
        operation["parameters"] = self._all_parameters(operation)
        if text := self._text():
            operation["description"] = text
        if body := operation.get("requestBody"):
            body["required"] = True
            self._describe_forms(body["content"])
        success = self._successes(operation["responses"])
        failures = {
            str(status): self._failure(status)
            for status in sorted(self._failures(operation["responses"]))
        }
        operation["responses"] = success | failures
        return operation

    def _map_serializer(self, serializer: Any, direction: Any, *args: Any) -> Any:
        """Return the schema of a body; an answer has all of its fields."""
        parent: Any = super()
        schema = parent._map_serializer(serializer, direction, *args)
        if direction == "request" and not isinstance(serializer, MessageSerializer):
            for name, one in schema.get("properties", {}).items():
                field = getattr(serializer, "fields", {}).get(name)
                if isinstance(field, CharField) and not field.allow_blank:
                    one.setdefault("minLength", 1)
                    one.setdefault("pattern", FILLED)
        if direction == "response" and "properties" in schema:
            schema |= described.closed(schema["properties"])
            for field in schema["properties"].values():
                if "oneOf" in field:  # an empty text is valid as either
                    field["anyOf"] = field.pop("oneOf")
        return schema

    def _describe_forms(self, content: Schema) -> None:
        """Give forms a schema of their own: they have no null."""
        reference = content.get(JSON, {}).get("schema", {}).get("$ref", "")
        if not reference:
            return
        name = reference.rpartition("/")[2]
        schema = self.registry[(name, ResolvedComponent.SCHEMA)].schema
        register(self.registry, f"{name}Form", described.form_schema(schema))
        for kind in content.keys() - {JSON}:
            content[kind]["schema"] = ref(f"{name}Form")

    @property
    def _write(self) -> Write | None:
        action = getattr(self.view, "action", "")
        return getattr(self.view, "writes", {}).get(action)

    @property
    def _types(self) -> list[str]:
        """The types of answers that are not files."""
        renderers = [one.media_type for one in self.view.get_renderers()]
        return [one for one in (JSON, HTML) if one in renderers]

    #: Of each answer of a view of Django REST framework.
    _headers = ("Allow",)

    def _text(self) -> str:
        action = getattr(self.view, "action", "")
        if self._write:
            return _(
                "Queues the write, and answers 202. The answers with the outcome are "
                "for requests with `Prefer: wait=N`."
            )
        texts = {
            "list": _("One page; `next` and `previous` link to its neighbours."),
            "retrieve": _("One, with its version as `ETag`."),
        }
        own = isinstance(self.view, QueuedViewSet)
        return texts.get(action, "") if own else ""

    # What is read

    def _all_parameters(self, operation: Schema) -> list[Schema]:
        """Return what a request may have, in place of what drf-spectacular guesses."""
        view = self.view
        given = operation.get("parameters", [])
        path = [self._path_parameter(one) for one in given if one["in"] == "path"]
        query = [one for one in given if one["in"] == "query"]
        if getattr(view, "action", "") == "list":
            query = self._list_parameters(query)
        if FORMAT:
            formats = [one.format for one in view.get_renderers()]
            schema = {"type": "string", "enum": formats}
            text = _("Instead of `Accept`.")
            query.append(described.parameter(FORMAT, "query", schema, text))
        headers = []
        if self._write:
            headers = described.write_headers(exists=bool(path))
        elif self._has_version:
            text = _("The `ETag` that the client knows: then the answer is 304.")
            schema = {"type": "string"}
            headers = [described.parameter("If-None-Match", "header", schema, text)]
        return [*path, *query, *headers]

    def _path_parameter(self, given: Schema) -> Schema:
        """Return the parameter of a path, with the schema of the message's field."""
        for write in getattr(self.view, "writes", {}).values():
            whole = described.fields_of(write.serializer.Meta.message)
            if given["name"] in whole.get("required", ()):
                schema = described.plain(whole["properties"][given["name"]])
                return given | {"schema": schema}
        return given

    def _list_parameters(self, given: list[Schema]) -> list[Schema]:
        """Return the parameters of filters, search, ordering and pages."""
        view = self.view
        found = {one["name"]: one for one in given}
        filterset = getattr(view, "filterset_class", None)
        for one in described.filter_parameters(filterset):
            found[one["name"]] = one
        for backend in view.filter_backends:
            if issubclass(backend, filters.SearchFilter):
                name = backend.search_param
                found[name] = described.search_parameter(name)
            elif issubclass(backend, filters.OrderingFilter):
                name = backend.ordering_param
                valid = backend().get_valid_fields(view.queryset, view)
                names = [field for field, _title in valid]
                found[name] = described.ordering_parameter(name, names)
        size = getattr(view.paginator, "page_size_query_param", None)
        if size in found:
            bounds = {"minimum": 1, "maximum": view.paginator.max_page_size}
            default = {"default": view.paginator.page_size}
            found[size]["schema"] = {"type": "integer"} | bounds | default
        return list(found.values())

    # What is answered

    @property
    def _has_version(self) -> bool:
        own = isinstance(self.view, QueuedViewSet)
        return own and getattr(self.view, "action", "") == "retrieve"

    def _successes(self, given: Schema) -> Schema:
        """Return the answers to a request that is not refused, by status."""
        if write := self._write:
            return self._accepted(write) | self._applied()
        found = {}
        for status, response in given.items():
            if status >= "400":
                continue
            headers = [*self._headers, *(["ETag"] if self._has_version else [])]
            content = response.get("content", {})
            described_ = answer(_("What was asked for."), None, *headers)
            described_["headers"] |= response.get("headers", {})
            if JSON in content:
                for kind in set(self._types) - content.keys():
                    content[kind] = {"schema": {"type": "string"}}
            found[status] = described_ | ({"content": content} if content else {})
        if self._has_version:
            text = _("The client has this version.")
            found["304"] = answer(text, None, "ETag", *self._headers)
        return found

    def _accepted(self, write: Write) -> Schema:
        """Return the answer 202."""
        fields = described.fields_of(write.serializer.Meta.message)["properties"]
        text: Schema = {"type": "string"}
        schema = described.closed(
            {
                "status": {**text, "const": "queued"},
                "message": {**text, "const": write.text},
                write.echo: described.not_null(described.plain(fields[write.echo])),
            }
        )
        name = write.serializer.__name__.removesuffix("Serializer") + "Accepted"
        register(self.registry, name, schema)
        return {"202": self._answer(_("It is queued."), ref(name), "Location")}

    def _applied(self) -> Schema:
        """Return the answers with the outcome, which a client has waited for."""
        action = self.view.action
        if action == "destroy":
            text = _("It is deleted.")
            found = {"204": self._answer(text, None, APPLIED)}
            if HTML in self._types:  # a page needs a body
                page = {HTML: {"schema": {"type": "string"}}}
                found["200"] = found["204"] | {"content": page}
            return found
        reader = self.view.serializer_class
        schema = self.resolve_serializer(reader, "response").ref
        if action == "create":
            text = _("It is created.")
            return {"201": self._answer(text, schema, "Location", "ETag", APPLIED)}
        return {"200": self._answer(_("It is changed."), schema, "ETag", APPLIED)}

    def _answer(self, text: str, schema: Schema | None, *headers: str) -> Schema:
        return answer(text, schema, *headers, *self._headers, types=self._types)

    def _failure(self, status: int) -> Schema:
        is_outcome = self._write and status in (*STATUS_OF_FAILURE.values(), 422)
        applied = [APPLIED] if is_outcome else []
        return error_answer(status, *applied, *self._headers, types=self._types)

    def _failures(self, given: Schema) -> set[int]:
        """Return the statuses of all errors that the view may answer."""
        view = self.view
        found = {503} | {int(one) for one in given if one >= "400"}
        found |= {400} if isinstance(view, StrictMixin) else set()
        found |= {404} if "{" in self.path else set()
        found |= {429} if view.get_throttles() else set()
        select = type(view.get_content_negotiator()).select_renderer
        if select is DefaultContentNegotiation.select_renderer:
            found |= {406}
        has_authenticators = bool(view.get_authenticators())
        found |= {401} if has_authenticators else set()
        if self.method != "GET":
            found |= {400, 408, 413, 415}
            found |= {403} if has_authenticators else set()
        if self._write:
            found |= {409, 422} if view.action != "destroy" else {422}
            found |= {412} if "{" in self.path else set()
        return found


def register(
    registry: Any, name: str, schema: Schema, kind: str = ResolvedComponent.SCHEMA
) -> None:
    """Add a component to the document."""
    component: Any = ResolvedComponent
    component = component(name, kind, schema, object=name)
    registry.register_on_missing(component)


def add_operations(result: Schema, **kwargs: Any) -> Schema:
    """Add `/operations/{id}/` to the document, for POSTPROCESSING_HOOKS."""
    try:
        path = unquote(reverse("operation", args=["{id}"]))
    except NoReverseMatch:
        return result
    text = _("The id that an answer 202 links to.")
    name = described.parameter("id", "path", {"type": "string"}, text, required=True)
    text = _("Queued, done or failed; a page for browsers.")
    types = (JSON, HTML)
    found = answer(text, ref("Operation"), "X-Correlation-ID", types=types)
    errors = {str(one): error_answer(one) for one in (400, 404, 410, 503)}
    result["paths"][path] = {
        "get": {
            "operationId": "operations_retrieve",
            "description": _("The outcome of a request that was answered with 202."),
            "parameters": [name],
            "tags": ["operations"],
            "security": [{}],
            "responses": {"200": found} | errors,
        }
    }
    return result
