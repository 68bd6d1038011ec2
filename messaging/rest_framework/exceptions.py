"""The errors that the API answers, and the exceptions they come from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DatabaseError
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.utils.serializer_helpers import ReturnDict
from rest_framework.views import exception_handler as default_exception_handler

from messaging.amqp.tally import tally
from messaging.conf import settings
from messaging.exceptions import InvalidMessage, PublishError, TooLarge
from messaging.http.errors import GENERAL, RETRY_AFTER, bad_request_body
from messaging.logs.repetition import RepeatingLogger
from messaging.text import describe

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)


class PayloadTooLarge(exceptions.APIException):
    """The body is larger than `MESSAGING["MAX_BODY"]`."""

    status_code = 413
    default_code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(
            _("The body is larger than %(size)d bytes.") % {"size": settings.MAX_BODY}
        )


class Unavailable(exceptions.APIException):
    """The broker or a database is unavailable."""

    status_code = 503
    default_code = "unavailable"
    #: Seconds; Django REST framework sends them as `Retry-After`.
    wait = RETRY_AFTER


def validation_error(errors: Mapping[str, list[str]]) -> exceptions.ValidationError:
    """Return the exception for errors by field; "" stands for the whole body."""
    return exceptions.ValidationError({k or GENERAL: v for k, v in errors.items()})


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Build the answer to an exception, for the setting EXCEPTION_HANDLER."""
    # Of views that are not for logging in, which report the password themselves.
    authenticates = getattr(context.get("view"), "authentication_classes", ())
    if authenticates and isinstance(error, exceptions.AuthenticationFailed):
        logger.warning("A token was refused: %s", describe(error.__cause__ or error))
        tally.count_rejected("refused token")
    error = as_api_exception(error)
    response = default_exception_handler(error, context)
    if response is not None and isinstance(error, exceptions.APIException):
        body = body_of(error)
        # The browsable API shows the form of that serializer again.
        serializer = getattr(response.data, "serializer", None)
        response.data = ReturnDict(body, serializer=serializer) if serializer else body
    return response


def body_of(error: exceptions.APIException) -> dict[str, Any]:
    """Return the body of the answer to an exception: see `messaging.http.errors`."""
    detail: Any = error.detail
    if error.status_code == 400:
        fields = detail if isinstance(detail, dict) else {GENERAL: detail}
        errors = {str(name): texts_of(value) for name, value in fields.items()}
        code = "invalid" if isinstance(detail, dict | list) else detail.code
        unnamed = {GENERAL: [str(exceptions.ValidationError.default_detail)]}
        return bad_request_body({n: t for n, t in errors.items() if t} or unnamed, code)
    if isinstance(detail, dict):  # as Simple JWT has it
        code, texts = detail.get("code", error.default_code), detail.get("detail")
        return {"code": str(code), "detail": " ".join(texts_of(texts or detail))}
    return {"code": detail.code, "detail": str(detail)}


def texts_of(detail: Any) -> list[str]:
    """Return the texts of an error, however they are nested."""
    if isinstance(detail, dict):
        detail = list(detail.values())
    if isinstance(detail, list | tuple):
        return [text for one in detail for text in texts_of(one)]
    return [str(detail)]


def as_api_exception(error: Exception) -> Exception:
    """Return the API exception for an error, or the error itself if there is none."""
    match error:
        case Http404():
            # Its own text is in English and names the model.
            return exceptions.NotFound()
        case PermissionDenied():
            return exceptions.PermissionDenied()
        case SuspiciousOperation():
            logger.warning("A request was refused: %s", error)
            tally.count_rejected(type(error).__name__)
            return exceptions.ParseError()
        case TooLarge():
            return PayloadTooLarge()
        case PublishError():
            repeating.error("A write was not queued: %s", error, about=type(error))
            return Unavailable(_("The queue did not confirm in time. Try again later."))
        case exceptions.ValidationError(__cause__=InvalidMessage(__cause__=fault)):
            if fault is not None:
                logger.warning(
                    "A validator failed: %s", describe(fault), exc_info=fault
                )
        case DatabaseError():
            text = "A read failed: %s"
            repeating.error(text, describe(error, 500), about=type(error))
            return Unavailable(_("The database is not available at the moment."))
    return error
