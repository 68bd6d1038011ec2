"""Where a password or a refresh token is given, and who is locked out."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth import SESSION_KEY, authenticate, get_user_model
from django.contrib.auth.models import AbstractUser
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse
from django.views.decorators.debug import sensitive_variables
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import TokenObtainSerializer
from rest_framework_simplejwt.tokens import Token

from .access import roles_of_account
from .throttling import too_many
from .tokens import ACCOUNT, INVALID, Refresh, fill, issue_token, revoked

#: The claim of a refresh token that tells whether the password has changed.
PASSWORD = "password"  # noqa: S105
#: Characters of a name that are compared; no account has a longer one.
LONGEST_NAME = 150


def lockout() -> Throttled:
    """Return the error for who has given too many wrong passwords."""
    wait = settings.AXES_COOLOFF_TIME.total_seconds()
    return Throttled(wait, "Demasiados intentos de iniciar sesión.")


def locked_out(
    request: HttpRequest, response: HttpResponse, credentials: Any
) -> HttpResponse:
    """Return the answer to a form, for AXES_LOCKOUT_CALLABLE."""
    return too_many(lockout())


def login_name(request: HttpRequest, credentials: Any = None) -> str:
    """Return the name that was given, which may be of any length."""
    given = (credentials or request.POST).get("username") or ""
    return str(given)[:LONGEST_NAME]


class PasswordChangeForm(AdminPasswordChangeForm):
    """Changes the own password; wrong guesses of the old one lock out, as elsewhere."""

    def __init__(self, request: HttpRequest, **options: Any) -> None:
        super().__init__(**options)
        self._request = request

    @sensitive_variables()
    def clean_old_password(self) -> str:
        """Let the backends decide, which count the wrong ones."""
        given: str = self.cleaned_data["old_password"]
        name = self.user.get_username()
        if authenticate(self._request, username=name, password=given) != self.user:
            text = self.error_messages["password_incorrect"]
            raise forms.ValidationError(text, "password_incorrect")
        return given


class TokenSerializer(TokenObtainSerializer):
    """Exchanges a user name and password of the admin for two tokens."""

    default_error_messages = {"no_active_account": "Usuario o contraseña incorrectos."}

    class Meta:
        labels = {"username": "nombre de usuario", "password": "contraseña"}

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Check the password and return the tokens."""
        try:
            super().validate(attrs)
        except AuthenticationFailed:
            if getattr(self.context["request"], "axes_locked_out", False):
                raise lockout() from None
            raise
        user = self.user
        # Else its password would have been refused.
        assert isinstance(user, AbstractUser)
        # A session has the same: it ends when the password changes.
        claims = {ACCOUNT: user.pk, PASSWORD: user.get_session_auth_hash()}
        refresh = fill(Refresh(), user.get_username(), [], claims=claims)
        return {"access": str(access_for(user, refresh)), "refresh": str(refresh)}


class RefreshSerializer(serializers.Serializer):
    """Exchanges the refresh token of an account for an access token."""

    refresh = serializers.CharField(max_length=2000, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Return an access token with the roles that the account has now."""
        try:
            refresh = Refresh(attrs["refresh"])
        except (TokenError, OverflowError) as error:
            raise AuthenticationFailed(INVALID) from error
        account = get_user_model().objects.filter(pk=refresh.get(ACCOUNT))
        user = account.filter(is_active=True).first()
        if (
            not isinstance(user, AbstractUser)
            or refresh.get(PASSWORD) not in password_hashes(user)
            or revoked.includes_now(refresh)
        ):
            raise AuthenticationFailed(INVALID)
        return {"access": str(access_for(user, refresh))}


def password_hashes(user: AbstractUser) -> list[str]:
    """Return what tells the password from another one, by all keys of the settings."""
    return [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]


def end_sessions(account: int) -> int:
    """Log an account out of all browsers; return of how many."""
    ended = 0
    for session in Session.objects.iterator():
        if session.get_decoded().get(SESSION_KEY) == str(account):
            session.delete()
            ended += 1
    return ended


def access_for(user: AbstractUser, refresh: Token) -> Token:
    """Return an access token that is revoked together with the refresh token."""
    claims = {ACCOUNT: user.pk, "jti": refresh["jti"]}
    return issue_token(user.get_username(), roles_of_account(user), None, **claims)
