"""Who may do what: roles are claims of a signed token, no look-up is needed."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework_simplejwt.serializers import TokenObtainSerializer
from rest_framework_simplejwt.tokens import AccessToken, Token

#: Creates and changes users and reports.
EDITOR = "editor"
#: Hides and removes, and penalises authors.
MODERATOR = "moderator"
ROLES = (EDITOR, MODERATOR)
CLAIM = "roles"


class HasRole(BasePermission):
    """Lets everyone known read, and those write who have the role the view asks for."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Compare the roles of token or user with `view.roles`, by action."""
        if not request.user.is_authenticated:
            return False
        role = getattr(view, "roles", {}).get(view.action)
        return role is None or role in roles_of(request)


def roles_of(request: Request) -> list[str]:
    """Give the claims of the token or, in a browser session, what staff may do."""
    if isinstance(request.auth, Token):
        return list(request.auth.payload.get(CLAIM, []))
    return list(ROLES) if request.user.is_staff else []


def issue_token(name: str, roles: list[str]) -> Token:
    """Give a signed token for `name`, valid for SIMPLE_JWT's lifetime."""
    token = AccessToken()
    token["sub"] = name
    token[CLAIM] = roles
    return token


class TokenSerializer(TokenObtainSerializer):
    """Exchanges a user name and password of the admin for a token."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Check the password and give the token."""
        super().validate(attrs)
        user = self.user
        assert isinstance(user, User)  # what this project's accounts are
        names = set(user.groups.values_list("name", flat=True))
        roles = [role for role in ROLES if user.is_superuser or role in names]
        return {"access": str(issue_token(user.get_username(), roles))}
