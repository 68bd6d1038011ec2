"""The URLs of another project, whose viewsets do more than accept writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Literal

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.versioning import NamespaceVersioning, URLPathVersioning

from messaging import Message
from messaging.envelope import Envelope
from messaging.rest_framework.serializers import MessageSerializer, Write
from messaging.rest_framework.viewsets import QueuedViewSet
from users.models import User

#: A queue without handlers.
QUEUE = "notes_queue"


class NoteSave(Message):
    """Save a note."""

    event_type: Literal["note.save"] = "note.save"
    queue: ClassVar = QUEUE
    text: str
    name: str
    book: str | None = None

    @property
    def partition_key(self) -> str:
        """The name."""
        return self.name


class NoteSerializer(MessageSerializer):
    """Publishes `note.save`."""

    class Meta:
        message = NoteSave
        fields = ["text"]

    def extra_values(self) -> dict[str, Any]:
        """Return what the address says."""
        kwargs = self.context["view"].kwargs
        return {"name": kwargs.get("pk", "new"), "book": kwargs.get("book_pk")}


class MarkingSerializer(NoteSerializer):
    """Adds a header to the message."""

    def envelope(self, *args: Any) -> Envelope:
        """Return the message with its header."""
        envelope = super().envelope(*args)
        return envelope.copy(headers=envelope.headers | {"marked": "yes"})


SAVE = Write(NoteSerializer, "Saved", echo="name")
MARK = Write(MarkingSerializer, "Marked", echo="name")


def client_of(request: Any) -> str:
    """Return the name that a client gives itself."""
    return str(request.META.get("HTTP_X_CLIENT", "nobody"))


class Notes(QueuedViewSet):
    """Notes that anyone may write."""

    authentication_classes: Any = []
    permission_classes: Any = [AllowAny]
    renderer_classes: Any = [JSONRenderer]
    throttle_classes: Any = []
    queryset = User.objects.none()
    writes = dict.fromkeys(("create", "update", "partial_update"), SAVE)


class Marking(Notes):
    """Publishes another envelope than others."""

    writes: ClassVar = {"create": MARK}


class Finalizing(Notes):
    """Adds a header that differs between clients."""

    def finalize_response(self, request: Any, response: Any, *args: Any) -> Any:
        """Add the header."""
        response = super().finalize_response(request, response, *args)
        response["X-Client"] = client_of(request)
        return response


class WithHeaders(Notes):
    """Does the same in another place."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        """The headers of all answers."""
        return super().default_response_headers | {"X-Client": client_of(self.request)}


class Locating(Notes):
    """Sends clients to different addresses."""

    def location(self, request: Request, operation: str) -> dict[str, str]:
        """Return the address."""
        return {"Location": f"/{client_of(request)}/{operation}"}


class ByClient(DefaultContentNegotiation):
    """Refuses a client, whatever it accepts."""

    def select_renderer(self, request: Any, *args: Any) -> Any:
        """Return the renderer for a client."""
        if client_of(request) == "eve":
            raise PermissionDenied
        return super().select_renderer(request, *args)


class Negotiating(Notes):
    """Has a negotiation of its own."""

    content_negotiation_class = ByClient


class Capitals(JSONRenderer):
    """Another kind of JSON."""

    def render(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the JSON in capitals."""
        return bytes(super().render(*args, **kwargs)).upper()


class Rendering(Notes):
    """Has a renderer of its own."""

    renderer_classes = [Capitals]


class RenderingByClient(Notes):
    """Has a renderer for each client."""

    def get_renderers(self) -> list[Any]:
        """Return the renderer for a client."""
        return [Capitals()] if client_of(self.request) == "eve" else [JSONRenderer()]


class RenderingByProperty(Notes):
    """Does the same in another way."""

    @property
    def renderer_classes(self) -> Any:
        """The renderer for a client."""
        return [Capitals if client_of(self.request) == "eve" else JSONRenderer]


class Versioned(Notes):
    """Has versions, by the namespace of its URL."""

    versioning_class = NamespaceVersioning


class InSessions(Notes):
    """Looks for a session, which makes answers vary by cookie."""

    authentication_classes = [SessionAuthentication]


class Counting(SimpleRateThrottle):
    """Limits each client, and counts each attempt."""

    counted: ClassVar[list[str]] = []

    def get_cache_key(self, request: Any, view: Any) -> str:
        """Count the request and return the key of its client."""
        self.counted.append(self.scope)
        return f"{self.scope}-{client_of(request)}"


class Burst(Counting):
    """Two in an hour."""

    scope, rate = "burst", "2/hour"


class Sustained(Counting):
    """Four in a day."""

    scope, rate = "sustained", "4/day"


class Throttled(Notes):
    """Has two limits."""

    throttle_classes = [Burst, Sustained]


class Changing(BasePermission):
    """Changes what the view was called with, and refuses what it has changed before."""

    def has_permission(self, request: Any, view: Any) -> bool:
        """Change the arguments and the headers."""
        view.kwargs["pk"] += "!"
        request.META["HTTP_X_SEEN"] = request.META.get("HTTP_X_SEEN", "") + "x"
        return request.META["HTTP_X_SEEN"] == "x" and "PUT" in view.allowed_methods


class Changed(Notes):
    """Has arguments and headers that its permission changes."""

    permission_classes = [Changing]


class ForAna(BasePermission):
    """Permits one client."""

    def has_permission(self, request: Any, view: Any) -> bool:
        """Compare the client."""
        return client_of(request) == "ana"


class Permitted(Notes):
    """Is for one client."""

    permission_classes = [ForAna]


class IfEmpty(BasePermission):
    """Asks the database."""

    def has_permission(self, request: Any, view: Any) -> bool:
        """Permit writes while there are no users."""
        return not User.objects.exists()


class Asking(Notes):
    """Has a permission that queries a database."""

    permission_classes = [IfEmpty]


class Creating(Notes):
    """Creates in its own way."""

    def create(self, request: Request, **kwargs: Any) -> Response:
        """Answer without publishing."""
        return Response({"own": True}, status=202)


def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a view so that it serves one client."""

    @csrf_exempt
    @wraps(view)
    def inner(request: Any, *args: Any, **kwargs: Any) -> Any:
        if client_of(request) != "ana":
            return HttpResponse(status=403)
        return view(request, *args, **kwargs)

    return inner


router = SimpleRouter()
for name, cls in {
    "notes": Notes,
    "marking": Marking,
    "finalizing": Finalizing,
    "headers": WithHeaders,
    "locating": Locating,
    "negotiating": Negotiating,
    "rendering": Rendering,
    "by-client": RenderingByClient,
    "by-property": RenderingByProperty,
    "in-sessions": InSessions,
    "throttled": Throttled,
    "changed": Changed,
    "permitted": Permitted,
    "asking": Asking,
    "creating": Creating,
}.items():
    router.register(name, cls, basename=name)
versions = SimpleRouter()
versions.register("notes", Versioned, basename="versioned")
POST = {"post": "create"}
urlpatterns = [
    path("", include("messaging.urls")),
    path("", include(router.urls)),
    path("v1/", include((versions.urls, "notes"), namespace="v1")),
    path("v2/<version>/", Notes.as_view(POST, versioning_class=URLPathVersioning)),
    path("login/", guarded(login_required(Notes.as_view(POST)))),
    path("never-cached/", never_cache(Notes.as_view(POST))),
    path("guarded/", guarded(Notes.as_view(POST))),
    re_path(r"^groups/(\w+)/$", Notes.as_view({"put": "update"})),
    path("books/<book_pk>/notes/<pk>/", Notes.as_view({"put": "update"})),
    path("given/", Notes.as_view(POST), {"pk": "given"}),
    path("suffix/<format>/", Notes.as_view(POST)),
    # One viewset in several places, with different options.
    path("plain/", Notes.as_view(POST)),
    path("capitals/", Notes.as_view(POST, renderer_classes=[Capitals])),
    path("read-only/", Notes.as_view(POST, http_method_names=["get"])),
    path("marked/", Notes.as_view(POST, writes={"create": MARK})),
    path("both/", Notes.as_view(POST | {"put": "update"})),
    path("without-tls/", Notes.as_view(POST)),
]
