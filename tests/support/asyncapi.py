"""The AsyncAPI document of a project, as its command writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from . import BASE

#: Settings that depend on the machine, as `make reference` has them.
ENVIRONMENT = {
    "DEBUG": "1",
    "RABBITMQ_URL": "amqp://localhost/",
    "DATABASE_URL": "sqlite://:memory:",
    "MONGODB_URL": "mongodb://localhost/reports",
    "MESSAGING": "{}",
}


def written(*options: str, **environment: str) -> str:
    """Return what `manage.py asyncapi` writes."""
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "asyncapi", *options],
        cwd=BASE,
        env={"PATH": os.environ["PATH"]} | ENVIRONMENT | environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def document_of(settings: str, **environment: str) -> dict[str, Any]:
    """Return the document of the project with these settings."""
    text = written(DJANGO_SETTINGS_MODULE=settings, **environment)
    found: dict[str, Any] = json.loads(text)
    return found
