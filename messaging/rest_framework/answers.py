"""The answers of an OpenAPI document, and their headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext as _
from rest_framework import exceptions

from .bridge import LATE, LATE_TEXT
from .described import JSON, Schema, ref
from .exceptions import PayloadTooLarge, Unavailable, body_of, validation_error


def answer_headers() -> dict[str, Schema]:
    """Return the response headers, by name."""
    texts = {
        "Allow": _("The methods of this address."),
        "Content-Disposition": _("The name of the file."),
        "ETag": _("The version, for `If-Match` and `If-None-Match`."),
        "Location": _("The address of the operation or, with 201, of what was made."),
        "Preference-Applied": _("`wait`, if the answer is the outcome."),
        "Retry-After": _("Seconds after which to try again."),
        "WWW-Authenticate": _("How to authenticate."),
        "X-Correlation-ID": _("The id of the message, as it is in logs."),
        "X-Request-ID": _("The id of the request, to report it."),
    }
    return {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in texts.items()
    }


def answer(
    text: str, schema: Schema | None = None, *names: str, types: Iterable[str] = (JSON,)
) -> Schema:
    """Return an answer with a schema for JSON, as other types, and named headers."""
    described: Schema = {"description": text}
    if names:
        described["headers"] = {name: ref(name, "headers") for name in names}
    if schema is not None:
        described["content"] = {
            kind: {"schema": schema if kind == JSON else {"type": "string"}}
            for kind in types
        }
    return described


def error_answer(status: int, *names: str, types: Iterable[str] = (JSON,)) -> Schema:
    """Return the answer for the status of an error, with an example of it."""
    text, example = errors()[status]
    names += {401: ("WWW-Authenticate",), 429: ("Retry-After",)}.get(status, ())
    names += ("Retry-After", "X-Request-ID") if status == 503 else ()
    schema = ref("BadRequest" if status == 400 else "Error")
    described = answer(text, schema, *names, types=types)
    described["content"][JSON]["example"] = example
    return described


def errors() -> dict[int, tuple[str, Any]]:
    """Return, for each status, when it is answered, and an example of a body."""

    def failed(code: str, detail: str) -> dict[str, str]:
        return {"code": code, "detail": detail}

    blank = {"nombre": [_("This field cannot be blank.")]}
    return {
        400: (
            _("A field, a header or a parameter is invalid or unknown."),
            body_of(validation_error(blank)),
        ),
        401: (
            _("There is no token, or it is invalid or has expired."),
            body_of(exceptions.NotAuthenticated()),
        ),
        403: (
            _("The role, or in a browser the CSRF token, is missing."),
            body_of(exceptions.PermissionDenied()),
        ),
        404: (_("There is no such object."), body_of(exceptions.NotFound())),
        406: (
            _("None of the types that `Accept` names can be sent."),
            body_of(exceptions.NotAcceptable()),
        ),
        408: (
            _("The body did not arrive in the time of the settings."),
            failed(LATE, _(LATE_TEXT)),
        ),
        409: (
            _("With `Prefer`: it contradicts something that exists."),
            failed("conflict", _("There is one already.")),
        ),
        410: (
            _("The operation is older than what is remembered."),
            failed("gone", _("The operation is too old.")),
        ),
        412: (
            _("With `Prefer` and `If-Match`: it has another version."),
            failed("precondition_failed", _("It has another version.")),
        ),
        413: (_("The body is too large."), body_of(PayloadTooLarge())),
        415: (
            _("The body has a type that is not supported."),
            body_of(exceptions.UnsupportedMediaType("text/plain")),
        ),
        422: (
            _("With `Prefer`: it was refused for another reason."),
            failed("rejected", _("It was refused.")),
        ),
        429: (
            _("The client has sent too many requests."),
            body_of(exceptions.Throttled(30)),
        ),
        503: (
            _("The broker has not confirmed in time, or a database is unavailable."),
            body_of(
                Unavailable(_("The queue did not confirm in time. Try again later."))
            ),
        ),
    }
