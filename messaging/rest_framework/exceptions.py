"""The errors that the API answers, and the exceptions they come from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DatabaseError
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler as default_exception_handler

from messaging.amqp.tally import tally
from messaging.conf import settings
from messaging.exceptions import InvalidMessage, PublishError, TooLarge
from messaging.logs.repetition import RepeatingLogger
from messaging.text import describe
from messaging.views import RETRY_AFTER

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
    general = api_settings.NON_FIELD_ERRORS_KEY
    return exceptions.ValidationError({k or general: v for k, v in errors.items()})


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Build the answer to an exception, for the setting EXCEPTION_HANDLER."""
    # Of views that are not for logging in, which report the password themselves.
    authenticates = getattr(context.get("view"), "authentication_classes", ())
    if authenticates and isinstance(error, exceptions.AuthenticationFailed):
        logger.warning("A token was refused: %s", describe(error.__cause__ or error))
        tally.count_rejected("refused token")
    return default_exception_handler(as_api_exception(error), context)


def as_api_exception(error: Exception) -> Exception:
    """Return the API exception for an error, or the error itself if there is none."""
    match error:
        case Http404():
            # Its own text is in English and names the model.
            return exceptions.NotFound()
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
