"""The ASGI application."""

from __future__ import annotations

from project.wsgi import application as django
from messaging.rest_framework.front import Front

application = Front(django)
