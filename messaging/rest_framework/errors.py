"""Errors of HTTP, and what they answer."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DatabaseError
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as default_exception_handler

from messaging.conf import settings
from messaging.exceptions import PublishError, TooLarge
from messaging.views import RETRY_AFTER

logger = logging.getLogger(__name__)


class PayloadTooLarge(exceptions.APIException):
    """The body is larger than any message may be."""

    status_code = 413
    default_code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(
            _("The body is larger than %(size)d bytes.") % {"size": settings.MAX_BODY}
        )


class Unavailable(exceptions.APIException):
    """The broker or a database is away."""

    status_code = 503
    default_code = "unavailable"
    wait = RETRY_AFTER


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer 503 with `Retry-After` while the broker or a database is away."""
    return default_exception_handler(answered(error), context)


def answered(error: Exception) -> Exception:
    """Give what is told of an error, in place of what is known of it."""
    match error:
        case Http404():
            # Its own text is in English and names the model.
            return exceptions.NotFound()
        case SuspiciousOperation():
            logger.warning("A request was refused: %s", error)
            return exceptions.ParseError()
        case TooLarge():
            return PayloadTooLarge()
        case PublishError():
            logger.error("A write was not queued: %s", error)
            return Unavailable(_("The queue did not confirm in time. Try again later."))
        case DatabaseError():
            logger.error("A read failed: %s", error)
            return Unavailable(_("The database is not available at the moment."))
    return error
