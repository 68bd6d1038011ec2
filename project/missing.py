"""Answers for unknown paths and for errors, in the format of the API's errors."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import is_valid_path
from django.views.decorators.csrf import csrf_exempt

BAD_REQUEST = "Petición inválida."
NOT_FOUND = "No encontrado."
SERVER_ERROR = "Error interno. El fallo ha quedado registrado."


@csrf_exempt
def missing(request: HttpRequest, path: str) -> HttpResponse:
    """Redirect to the path with a slash if it exists, else answer 404."""
    if not path.endswith("/") and is_known(f"{path}/"):
        address = request.get_full_path(force_append_slash=True)
        # 307: the client repeats method and body.
        return HttpResponseRedirect(address, preserve_request=True)
    return not_found(request)


def is_known(path: str) -> bool:
    """Whether a view other than `missing` serves a path."""
    match = is_valid_path(f"/{path}")
    return match is not False and match.func is not missing


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400."""
    return JsonResponse({"detail": BAD_REQUEST}, status=400)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 404."""
    return JsonResponse({"detail": NOT_FOUND}, status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500."""
    return JsonResponse({"detail": SERVER_ERROR}, status=500)
