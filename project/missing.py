"""Answers for unknown paths and for errors, in the format of the API's errors."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import is_valid_path
from django.views.csrf import csrf_failure as csrf_page
from django.views.decorators.csrf import csrf_exempt
from django.views.defaults import permission_denied

from messaging.http import errors

BAD_REQUEST = "Petición inválida."
NOT_FOUND = "No encontrado."
FORBIDDEN = "Usted no tiene permiso para realizar esta acción."
NO_TOKEN = "Falta el token CSRF o no es válido."  # noqa: S105 an error
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
    return errors.bad_request({errors.GENERAL: [BAD_REQUEST]}, "bad_request")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403: a page to browsers, which come from the admin."""
    if prefers_page(request):
        return permission_denied(request, exception)
    return errors.error_response(403, "permission_denied", FORBIDDEN)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 to a form without its token: a page to browsers."""
    if prefers_page(request):
        return csrf_page(request, reason)
    return errors.error_response(403, "permission_denied", NO_TOKEN)


def prefers_page(request: HttpRequest) -> bool:
    """Return whether a client prefers HTML to JSON."""
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 404."""
    return errors.error_response(404, "not_found", NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500."""
    return errors.error_response(500, "error", SERVER_ERROR)
