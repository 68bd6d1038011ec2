"""Answers for unknown paths and for errors: pages, or JSON as the API's errors."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import is_valid_path
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from messaging.http import errors

from .pages import error_page, not_found_page, wants_page

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
    if wants_page(request):
        text = _("El servidor no entiende esta petición, o no la admite.")
        return error_page(400, _("Petición inválida"), text)
    return errors.bad_request({errors.GENERAL: [BAD_REQUEST]}, "bad_request")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403."""
    if wants_page(request):
        text = _("Su cuenta no tiene permiso para ver esta página.")
        return error_page(403, _("Sin permiso"), text)
    return errors.error_response(403, "permission_denied", FORBIDDEN)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 to a form without a valid CSRF token."""
    if wants_page(request):
        text = _(
            "El formulario no se ha enviado desde una página de este sitio, o esa "
            "página era demasiado antigua. Vuelva a ella, cárguela de nuevo y repita "
            "el envío. El navegador debe aceptar cookies."
        )
        return error_page(403, _("Formulario caducado"), text)
    return errors.error_response(403, "permission_denied", NO_TOKEN)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 404."""
    if wants_page(request):
        return not_found_page()
    return errors.error_response(404, "not_found", NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500."""
    if wants_page(request):
        text = _("El fallo ha quedado registrado. Inténtelo de nuevo más tarde.")
        return error_page(500, _("Error interno"), text)
    return errors.error_response(500, "error", SERVER_ERROR)
