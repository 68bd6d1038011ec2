"""Tokens and accounts of tests in which access is not open."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import requests
from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.auth.models import User as Account

from project.tokens import Access, issue_token

from .processes import API

ROLES = ("reader", "editor", "moderator", "operator")
#: Sets of them, of which the first two give no right.
ROLE_SETS = ([], ["admin"], *([role] for role in ROLES), list(ROLES))
#: Who may read users and reports.
READERS = "reader editor moderator"
PASSWORD = "una contraseña larga"
#: The key of tokens, which is derived from that of the settings.
KEY = str(Access().get_token_backend().signing_key)
USER = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
REPORT = {"id_usuario": 1, "tipo_reporte": 1, "descripcion": "Un bache"}
#: A valid body for each write.
BODIES: dict[str, Any] = {
    "POST /users/": USER,
    "PUT /users/1/": {"nombre": "Eva"},
    "PATCH /users/1/": {"nombre": "Eva"},
    "DELETE /users/1/": None,
    "POST /reports/": REPORT,
    "PATCH /reports/un-reporte/": {"visibilidad": 0, "penalize_author": True},
    "DELETE /reports/un-reporte/": None,
}


def token(*roles: str, name: str = "ana", **claims: Any) -> str:
    """Return a valid token with these roles and claims."""
    made = issue_token(name, list(roles))
    for claim, value in claims.items():
        made[claim] = value
    return str(made)


def bearer(given: str) -> dict[str, str]:
    """Return the header for a token."""
    return {"Authorization": f"Bearer {given}"}


def signed(key: str, algorithm: str = "HS256", **claims: Any) -> str:
    """Return a token with another key, algorithm or claims; None leaves one out."""
    payload = {"iss": settings.TOKEN_ISSUER, "aud": settings.TOKEN_ISSUER}
    payload |= issue_token("ana", ["editor", "moderator"]).payload | claims
    given = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(given, key, algorithm)


def expired() -> str:
    """Return a token that has just expired."""
    made = issue_token("ana", ["editor", "moderator"])
    made.set_exp(lifetime=timedelta(seconds=-60))
    return str(made)


def ask(api: API, endpoint: str, token: str | None = None, **options: Any) -> Any:
    """Send a valid request to an endpoint."""
    method, _, path = endpoint.partition(" ")
    if token is not None:
        options["headers"] = bearer(token) | options.get("headers", {})
    return api(method, path, **({"json": BODIES.get(endpoint)} | options))


def account(name: str, *groups: str, **fields: Any) -> Account:
    """Create an account with a password, in groups."""
    made = Account.objects.create_user(name, password=PASSWORD, **fields)
    made.groups.set([Group.objects.get_or_create(name=group)[0] for group in groups])
    return made


def log_in(
    api: API, name: str, password: str = PASSWORD, path: str = "/session/login/"
) -> requests.Response:
    """Log in with the form for browsers."""
    assert api.get(path).status_code == 200
    form = {
        "username": name,
        "password": password,
        "csrfmiddlewaretoken": api.session.cookies["csrftoken"],
    }
    return api("POST", path, data=form)
