"""
Signed tokens: their claims carry who the client is and what it may do.

Checking one reads no database. A token lives for minutes; an account gets another from
`/token/refresh/`, where its state in MySQL counts. Revoked tokens are known from a
table that a thread reads every few seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.utils.crypto import salted_hmac
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTStatelessUserAuthentication
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError
from rest_framework_simplejwt.models import TokenUser
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from messaging.amqp.process import OnePerProcess
from messaging.database import close_stale_connections

from .access import CLAIM
from .models import Revocation

logger = logging.getLogger(__name__)

#: The claim of a token that was issued for an account: its id.
ACCOUNT = "account"
#: Distinguishes the key of tokens from other keys that are derived from SECRET_KEY.
SALT = "project.tokens"
#: Tokens whose signature each process remembers as verified.
REMEMBERED = 1000
#: Seconds between two readings of the revoked ones.
PAUSE = 4.0
INVALID = "El token no es válido o ha caducado."


class Backend(TokenBackend):
    """Signs with the first of some keys, and accepts the signatures of all."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        derived, *older = (
            salted_hmac(SALT, "", secret=key, algorithm="sha256").hexdigest()
            for key in keys
        )
        options: dict[str, Any] = {
            "audience": api_settings.AUDIENCE,
            "issuer": api_settings.ISSUER,
            "leeway": api_settings.LEEWAY,
        }
        super().__init__(api_settings.ALGORITHM, derived, **options)
        self._older = [
            TokenBackend(api_settings.ALGORITHM, key, **options) for key in older
        ]

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """Return the claims; raises `TokenBackendError`."""
        try:
            return super().decode(token, verify)
        except TokenBackendError:
            for one in self._older:
                with suppress(TokenBackendError):
                    return one.decode(token, verify)
            raise


backend = lru_cache(Backend)


class Signed:
    """What both kinds of tokens share."""

    payload: dict[str, Any]

    def get_token_backend(self) -> TokenBackend:
        """Return the one that signs with the key of the settings."""
        return backend((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))

    def set_iat(self, claim: str = "iat", at_time: Any = None) -> None:
        """Set the time of issue, with fractions: a revocation has them, too."""
        self.payload[claim] = time.time()

    def verify(self) -> None:
        """Check the claims; raises `TokenError`."""
        super().verify()  # type: ignore[misc]
        if not isinstance(self.payload.get("iat"), int | float):
            raise TokenError("Token has no time of issue")


class Access(Signed, AccessToken):
    """What a client sends with each request."""


class Refresh(Signed, RefreshToken):  # type: ignore[misc]
    """What an account exchanges for an access token."""


class Client(TokenUser):
    """The client that a token identifies."""

    @property
    def caller(self) -> str:
        """Its name among all callers: a token may be named as an account is."""
        return caller_of_token(self.token)


def caller_of_token(token: Token) -> str:
    """Return who a token is for: `account:ID`, or `token:NAME` for any other."""
    account = token.get(ACCOUNT)
    return f"token:{token['sub']}" if account is None else f"account:{account}"


class Revoked:
    """The revoked tokens, as they were last read."""

    def __init__(self) -> None:
        self._names: dict[str, float] = {}

    def read(self) -> None:
        """Read them from the database; raises `DatabaseError`."""
        rows = Revocation.objects.current().values_list("name", "revoked_at")
        found = {name: moment.timestamp() for name, moment in rows}
        inactive = get_user_model().objects.filter(is_active=False)
        for pk in inactive.values_list("pk", flat=True):
            found[f"account:{pk}"] = float("inf")
        self._names = found

    def includes_now(self, token: Token) -> bool:
        """Return whether the database has a revocation of a token."""
        since = datetime.fromtimestamp(token["iat"], UTC)
        rows = Revocation.objects.filter(name__in=list(names_of(token)))
        return rows.filter(revoked_at__gte=since).exists()

    def __contains__(self, token: Token) -> bool:
        if not self._names:
            return False
        issued = token["iat"]
        return any(self._names.get(name, 0) >= issued for name in names_of(token))


def names_of(token: Token) -> Iterator[str]:
    """Yield the names under which a token may be revoked."""
    yield f"id:{token['jti']}"
    yield caller_of_token(token)


revoked = Revoked()


class Reader:
    """Reads the revoked tokens every few seconds, in a thread of its own."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revoked", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """End the thread, within `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                close_stale_connections()
                revoked.read()
            except Exception as error:  # noqa: BLE001 those that were read still count
                logger.warning("Which tokens are revoked is not known anew: %s", error)
                connections.close_all()
            self._stopping.wait(PAUSE)
        connections.close_all()


#: That of this process.
reader = OnePerProcess(Reader)


class BearerToken(JWTStatelessUserAuthentication):
    """A token whose claims suffice: authentication reads no database."""

    #: Tokens whose signature has been verified; `REMEMBERED` at most.
    _verified: ClassVar[dict[bytes, Token]] = {}

    def authenticate(self, request: Request) -> Any:
        """Return user and token; raise the same error for every invalid token."""
        try:
            found = super().authenticate(request)
        except (AuthenticationFailed, OverflowError) as error:
            raise AuthenticationFailed(INVALID) from error
        if found is not None and found[1] in revoked:
            raise AuthenticationFailed(INVALID)
        return found

    def get_validated_token(self, raw_token: bytes) -> Token:
        """Return the token; the signature of one that was valid is known."""
        known = self._verified.get(raw_token)
        if known is not None and known.payload["exp"] > time.time():
            return known
        token = super().get_validated_token(raw_token)
        if len(self._verified) >= REMEMBERED:
            self._verified.clear()
        self._verified[raw_token] = token
        return token


class BearerTokenScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call]
    """Describes the token in the documentation of the API."""

    target_class = "project.tokens.BearerToken"


def issue_token(
    name: str, roles: list[str], lifetime: timedelta | None = None, **claims: Any
) -> Token:
    """Return a signed token for `name`, by default with the lifetime of SIMPLE_JWT."""
    return fill(Access(), name, roles, lifetime, claims)


def fill(
    token: Token,
    name: str,
    roles: list[str],
    lifetime: timedelta | None = None,
    claims: dict[str, Any] | None = None,
) -> Token:
    """Set the claims of a new token, and return it."""
    if lifetime is not None:
        token.set_exp(lifetime=lifetime)
    for claim, value in {"sub": name, CLAIM: roles, **(claims or {})}.items():
        token[claim] = value
    return token
