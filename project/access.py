"""Authentication and permissions: roles are claims of a signed token."""

from __future__ import annotations

import hashlib
import time
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser
from drf_spectacular.authentication import SessionScheme
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework_simplejwt.authentication import JWTStatelessUserAuthentication
from rest_framework_simplejwt.serializers import TokenObtainSerializer
from rest_framework_simplejwt.tokens import AccessToken, Token

from .missing import NO_TOKEN

#: May create and change users and reports.
EDITOR = "editor"
#: May hide and delete them, and penalise authors.
MODERATOR = "moderator"
ROLES = (EDITOR, MODERATOR)
CLAIM = "roles"
#: Tokens whose signature each process remembers as verified.
REMEMBERED = 1000
INVALID = "El token no es válido o ha caducado."


class HasRole(BasePermission):
    """Lets authenticated clients read, and those with the view's role write."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Compare the client's roles with `view.roles`, a role for each action."""
        if not request.user.is_authenticated:
            return False
        role = getattr(view, "roles", {}).get(getattr(view, "action", None))
        return role is None or role in roles_of(request)


class Throttle(SimpleRateThrottle):
    """Limits each client, by user name or else by address."""

    scope = "client"

    def get_cache_key(self, request: Request, view: Any) -> str:
        """Return the key under which the requests of a client are counted."""
        known = request.user is not None and request.user.is_authenticated
        client = request.user.pk if known else self.get_ident(request)
        # Memcached takes neither spaces nor long keys.
        name = f"{known} {client}".encode(errors="backslashreplace")
        return f"throttle-{hashlib.sha256(name).hexdigest()}"


def roles_of(request: Request) -> list[str]:
    """Return the roles of the token or, in a browser session, of the account."""
    if isinstance(request.auth, Token):
        claims = request.auth.payload.get(CLAIM)
        return claims if isinstance(claims, list) else []
    user = request.user
    return roles_of_account(user) if isinstance(user, AbstractUser) else []


def roles_of_account(user: AbstractUser) -> list[str]:
    """Return the roles of an account: its groups that are named like roles."""
    if user.is_superuser:
        return list(ROLES)
    names = set(user.groups.values_list("name", flat=True))
    return [role for role in ROLES if role in names]


class BearerToken(JWTStatelessUserAuthentication):
    """A token whose claims suffice: authentication reads no database."""

    #: Tokens whose signature has been verified; `REMEMBERED` at most.
    _verified: ClassVar[dict[bytes, Token]] = {}

    def authenticate(self, request: Request) -> Any:
        """Return user and token; raise the same error for every invalid token."""
        try:
            return super().authenticate(request)
        except (AuthenticationFailed, OverflowError) as error:
            raise AuthenticationFailed(INVALID) from error

    def get_validated_token(self, raw_token: bytes) -> Token:
        """Return the token; the signature of one that was valid is known."""
        known = self._verified.get(raw_token)
        if known is not None and known.payload["exp"] > time.time():
            return known
        token = super().get_validated_token(raw_token)
        # A class of tokens with a list of revoked ones has to ask it every time.
        if not hasattr(token, "check_blacklist"):
            if len(self._verified) >= REMEMBERED:
                self._verified.clear()
            self._verified[raw_token] = token
        return token


class BrowserSession(SessionAuthentication):
    """The session of the admin's login, for the browsable API."""

    def enforce_csrf(self, request: Request) -> None:
        """Refuse requests without a CSRF token, with an error in Spanish."""
        try:
            super().enforce_csrf(request)
        except PermissionDenied as error:
            raise PermissionDenied(NO_TOKEN) from error


def issue_token(name: str, roles: list[str]) -> Token:
    """Return a signed token for `name`, valid for the lifetime in SIMPLE_JWT."""
    token = AccessToken()
    token["sub"] = name
    token[CLAIM] = roles
    return token


class BrowserSessionScheme(SessionScheme):  # type: ignore[no-untyped-call]
    """Describes the login in the documentation of the API."""

    target_class = "project.access.BrowserSession"


class BearerTokenScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call]
    """Describes the token in the documentation of the API."""

    target_class = "project.access.BearerToken"


class TokenSerializer(TokenObtainSerializer):
    """Exchanges a user name and password of the admin for a token."""

    default_error_messages = {"no_active_account": "Usuario o contraseña incorrectos."}

    class Meta:
        labels = {"username": "Nombre de usuario", "password": "Contraseña"}

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Check the password and return the token."""
        super().validate(attrs)
        user = self.user
        assert isinstance(
            user, AbstractUser
        )  # else its password would have been refused
        token = issue_token(user.get_username(), roles_of_account(user))
        return {"access": str(token)}
