"""Settings of log lines."""

import logging

from django.core.exceptions import ImproperlyConfigured

from .base import DEBUG, env

#: "json" for programs that collect log lines, "console" for people.
LOG_FORMAT = env.str("LOG_FORMAT", default="console" if DEBUG else "json")
if LOG_FORMAT not in ("json", "console"):
    raise ImproperlyConfigured('LOG_FORMAT must be "json" or "console".')
#: Of the lines of this project; of libraries there are warnings and worse.
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
# Python would write warnings to the same stream in a form of its own.
logging.captureWarnings(True)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "context": {"()": "messaging.logs.context.AddContext"},
        "one_line_each": {"()": "messaging.logs.django_lines.OneLineEach"},
    },
    "formatters": {
        "console": {"()": "messaging.logs.console.ConsoleFormatter"},
        "json": {"()": "messaging.logs.json_lines.JSONFormatter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "filters": ["context", "one_line_each"],
            "formatter": LOG_FORMAT,
        },
        "rejected": {"class": "messaging.amqp.tally.CountRejected"},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "level": "INFO"},  # Django's default has its own
        "django.security": {"handlers": ["rejected"]},
        "messaging": {"level": LOG_LEVEL},
        "project": {"level": LOG_LEVEL},
        "axes": {"level": "ERROR"},  # its warnings name who failed to log in
        "reports": {"level": LOG_LEVEL},
        "users": {"level": LOG_LEVEL},
    },
}
