"""Who may do what: roles are claims of a signed token, no look-up is needed."""

from __future__ import annotations

from typing import Any

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

#: Creates and changes users and reports.
EDITOR = "editor"
#: Hides and removes, and penalises authors.
MODERATOR = "moderator"
ROLES = (EDITOR, MODERATOR)
CLAIM = "roles"
INVALID = "El token no es válido o ha caducado."


class HasRole(BasePermission):
    """Lets everyone known read, and those write who have the role the view asks for."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Compare the roles of token or user with `view.roles`, by action."""
        if not request.user.is_authenticated:
            return False
        role = getattr(view, "roles", {}).get(getattr(view, "action", None))
        return role is None or role in roles_of(request)


class Throttle(SimpleRateThrottle):
    """Limits each client: who is known by name, and others by address."""

    scope = "client"

    def get_cache_key(self, request: Request, view: Any) -> str:
        """Give the name under which the requests of a client are counted."""
        known = request.user is not None and request.user.is_authenticated
        client = request.user.pk if known else self.get_ident(request)
        return f"throttle {'user' if known else 'address'} {client}"


def roles_of(request: Request) -> list[str]:
    """Give the claims of the token or, in a browser session, those of the account."""
    if isinstance(request.auth, Token):
        claims = request.auth.payload.get(CLAIM)
        return claims if isinstance(claims, list) else []
    user = request.user
    return roles_of_account(user) if isinstance(user, AbstractUser) else []


def roles_of_account(user: AbstractUser) -> list[str]:
    """Give the roles after which the groups of an account are named."""
    if user.is_superuser:
        return list(ROLES)
    names = set(user.groups.values_list("name", flat=True))
    return [role for role in ROLES if role in names]


class BearerToken(JWTStatelessUserAuthentication):
    """The token of a program, whose claims are all there is to know."""

    def authenticate(self, request: Request) -> Any:
        """Give the caller; what is wrong with a token is nobody's business."""
        try:
            return super().authenticate(request)
        except (AuthenticationFailed, OverflowError):
            raise AuthenticationFailed(INVALID) from None


class BrowserSession(SessionAuthentication):
    """The login of the admin, for the browsable API."""

    def enforce_csrf(self, request: Request) -> None:
        """Refuse what another site made the browser send."""
        try:
            super().enforce_csrf(request)
        except PermissionDenied as error:
            raise PermissionDenied("Falta el token CSRF o no es válido.") from error


def issue_token(name: str, roles: list[str]) -> Token:
    """Give a signed token for `name`, valid for SIMPLE_JWT's lifetime."""
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

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Check the password and give the token."""
        super().validate(attrs)
        user = self.user
        assert isinstance(user, AbstractUser)  # or its password had been refused
        token = issue_token(user.get_username(), roles_of_account(user))
        return {"access": str(token)}
