"""The ASGI application: writes are accepted in front of Django."""

from __future__ import annotations

from project.wsgi import application as django

# isort: split
# It needs Django set up, which that import does.
from messaging.rest_framework.front import Front

application = Front(django)
