"""A filter for what Django itself logs about requests."""

from __future__ import annotations

import logging


class OneLineEach(logging.Filter):
    """
    A filter for handlers: of what Django logs about requests, one line for each event.

    Django logs every answer from status 400 on. Those that are worth a line have one of
    their own, of the exception or of the code that made the answer. A traceback is for
    views that fail, not for what strangers send.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop a line about a status alone, and the traceback of a refused request."""
        if record.name.startswith("django.security."):
            record.exc_info = None
        return record.name != "django.request" or bool(record.exc_info)
