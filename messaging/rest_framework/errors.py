"""Errors of HTTP, and what they answer."""

from __future__ import annotations

import logging
from typing import Any

from django.db import DatabaseError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as default_exception_handler

from messaging.conf import settings
from messaging.exceptions import PublishError

logger = logging.getLogger(__name__)

#: Seconds after which a client may try again what the broker or a database refused.
RETRY_AFTER = 5


class PayloadTooLarge(exceptions.APIException):
    """The body is larger than any message may be."""

    status_code = 413
    default_code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(f"El cuerpo de la petición supera {settings.MAX_BODY} bytes.")


class Unavailable(exceptions.APIException):
    """The broker or a database is away."""

    status_code = 503
    default_code = "unavailable"
    wait = RETRY_AFTER


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer 503 with `Retry-After` while the broker or a database is away."""
    if isinstance(error, PublishError):
        logger.error("A write was not queued: %s", error)
        error = Unavailable(
            "No se pudo confirmar el envío a la cola. Inténtelo de nuevo más tarde."
        )
    elif isinstance(error, DatabaseError):
        logger.error("A read failed: %s", error)
        error = Unavailable("La base de datos no está disponible en este momento.")
    return default_exception_handler(error, context)
