"""The shape of every error: `{"code", "detail"}`, and `"errors"` for a bad request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _

#: Seconds after which a client may repeat what failed for want of broker or database.
RETRY_AFTER = 5
#: Key of the errors that concern a request as a whole.
GENERAL = "non_field_errors"

Errors = Mapping[str, list[str]]


def json_response(body: dict[str, Any], **options: Any) -> JsonResponse:
    """Answer with JSON whose letters are as Django REST framework writes them."""
    return JsonResponse(body, json_dumps_params={"ensure_ascii": False}, **options)


def bad_request_body(errors: Errors, code: str = "invalid") -> dict[str, Any]:
    """Return the body of an answer 400, whose `detail` is the first error."""
    name, (text, *_others) = next(iter(errors.items()))
    detail = text if name == GENERAL else f"{name}: {text}"
    return {"code": code, "detail": detail, "errors": dict(errors)}


def bad_request(errors: Errors, code: str = "invalid") -> JsonResponse:
    """Answer 400."""
    return json_response(bad_request_body(errors, code), status=400)


def error_response(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> JsonResponse:
    """Answer with an error: `code` is for programs, `detail` for people."""
    body = {"code": code, "detail": detail}
    return json_response(body, status=status, headers=headers)


def read_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Decorate a view that serves GET and HEAD, and answers 405 to other methods."""

    @wraps(view)
    def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request, *args, **kwargs)
        text = _("Method “%(method)s” not allowed.") % {"method": request.method}
        return error_response(405, "method_not_allowed", text, {"Allow": "GET, HEAD"})

    return inner
