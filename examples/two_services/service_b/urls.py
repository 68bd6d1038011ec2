"""The HTTP API of B."""

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET

from .models import HeardNote


@require_GET
def notes(request: HttpRequest) -> JsonResponse:
    """Return the texts of all notes."""
    texts = HeardNote.objects.order_by("pk").values_list("text", flat=True)
    return JsonResponse({"notes": list(texts)})


urlpatterns = [path("notes/", notes)]
