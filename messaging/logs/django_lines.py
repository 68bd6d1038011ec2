"""A filter for what Django itself logs about requests."""

from __future__ import annotations

import logging


class OneLineEach(logging.Filter):
    """
    A filter for handlers: of what Django logs about requests, one line for each event.

    Django logs every answer from status 400 on. Those below 500 that are worth a line
    have one of their own, and 503 says that a server is away, which is logged where it
    is noticed. A traceback is for views that fail, not for what strangers send.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop a line about a status alone, and the traceback of a refused request."""
        if record.name.startswith("django.security."):
            record.exc_info = None
        status = getattr(record, "status_code", 500)
        is_news = bool(record.exc_info) or (status >= 500 and status != 503)
        return record.name != "django.request" or is_news
