"""
Who may do what: `RIGHTS` is the table of all roles, in the API and in the admin.

Roles are claims of a signed token or, in a browser session, groups of an account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest
from drf_spectacular.authentication import SessionScheme
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework_simplejwt.tokens import Token

from messaging.admin.passwords import is_recent
from messaging.conf import settings as messaging

from .missing import NO_TOKEN

#: May read users without their personal fields, and reports that are not hidden.
READER = "reader"
#: May create and change users and reports.
EDITOR = "editor"
#: May hide and delete them, and penalise authors.
MODERATOR = "moderator"
#: May see what the system does, and act on its messages.
OPERATOR = "operator"
ROLES = (READER, EDITOR, MODERATOR, OPERATOR)
#: The claims of a token: its roles, and the user that it is about if it is a user's.
CLAIM = "roles"
USER_CLAIM = "user_id"

READS = ("list", "retrieve", "metadata")
#: The action of seeing reports that are hidden.
SEE_HIDDEN = "see hidden"
ASKS_AGAIN = "Inicie sesión de nuevo para borrar: ha pasado tiempo desde entonces."
#: Fields that are left out, by resource, for all whose roles do not have them.
PERSONAL = {"user": ("email", "fecha_nacimiento")}


@dataclass(frozen=True, slots=True)
class Rights:
    """What a role allows; whatever is not here is denied."""

    #: By resource: an attribute `resource` of views.
    actions: Mapping[str, tuple[str, ...]]
    #: By resource, the personal fields to see, filter, search and order by.
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Of accounts in the group of this name, which need to be staff as well.
    permissions: tuple[str, ...] = ()


RIGHTS = {
    READER: Rights(
        {
            "root": ("get", "options"),
            "user": READS,
            "report": (*READS, "file"),
        },
    ),
    EDITOR: Rights(
        {
            "root": ("get", "options"),
            "user": (*READS, "create", "update", "partial_update"),
            "report": (*READS, "file", "create"),
        },
        fields=PERSONAL,
        permissions=("users.view_user", "users.add_user", "users.change_user"),
    ),
    MODERATOR: Rights(
        {
            "root": ("get", "options"),
            "user": (*READS, "destroy"),
            "report": (*READS, "file", "partial_update", "destroy", SEE_HIDDEN),
        },
        permissions=(
            "reports.view_report",
            "reports.change_report",
            "reports.delete_report",
        ),
    ),
    OPERATOR: Rights(
        {"root": ("get", "options"), "metrics": ("get",), "health": ("get",)},
        permissions=("messaging.view_operations", "messaging.operate"),
    ),
}


class HasRole(BasePermission):
    """Allows the actions of the client's roles, to an end user for himself alone."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Look up the view's resource and action, without reading a database."""
        if not request.user.is_authenticated:
            return False
        given = request.method or ""
        method = given.lower()
        if method not in view.http_method_names or not hasattr(view, method):
            return True  # it is answered with 405
        action = getattr(view, "action", "get" if method == "head" else method)
        if not allows(request, getattr(view, "resource", ""), action):
            return False
        if given in SAFE_METHODS or not is_end_user(request):
            return True
        return is_own(request, view, action)


def allows(request: Request, resource: str, action: str) -> bool:
    """Return whether a role of the client allows an action."""
    return settings.OPEN_ACCESS or any(
        action in RIGHTS[role].actions.get(resource, ()) for role in roles_of(request)
    )


def roles_for(resource: str, action: str) -> list[str]:
    """Return the roles that allow an action."""
    found = RIGHTS.items()
    return [role for role, one in found if action in one.actions.get(resource, ())]


def sees_hidden(request: Request) -> bool:
    """Return whether the client may see reports that are hidden."""
    return not is_end_user(request) and allows(request, "report", SEE_HIDDEN)


def hidden_fields(request: Request, resource: str) -> set[str]:
    """Return the personal fields of a resource that the client may not see."""
    hidden = set(PERSONAL.get(resource, ()))
    if settings.OPEN_ACCESS:
        return set()
    if not is_end_user(request):
        for role in roles_of(request):
            hidden.difference_update(RIGHTS[role].fields.get(resource, ()))
    return hidden


def is_end_user(request: Request) -> bool:
    """Return whether a token is that of a user, who may write about himself alone."""
    return isinstance(request.auth, Token) and USER_CLAIM in request.auth


def end_user(request: Request) -> int | None:
    """Return the id of the user whose token it is, or None; an odd claim is nobody."""
    user = request.auth.get(USER_CLAIM) if isinstance(request.auth, Token) else None
    return user if type(user) is int else None


def is_own(request: Request, view: Any, action: str) -> bool:
    """
    Return whether a user writes about himself, by the URL and the body alone.

    He cannot change his e-mail: whether that fails would tell which addresses exist.
    Whose report an id belongs to takes a look-up: he can only create reports.
    """
    user = end_user(request)
    if int(request.META.get("CONTENT_LENGTH") or 0) > messaging.MAX_BODY:
        return True  # it is answered with 413, and must not be read
    body = request.data if isinstance(request.data, Mapping) else {}
    match view.resource, action:
        case "user", "destroy":
            return bool(view.kwargs["pk"] == str(user))
        case "user", "update" | "partial_update":
            return bool(view.kwargs["pk"] == str(user)) and "email" not in body
        case "report", "create":
            return user is not None and str(body.get("id_usuario")) == str(user)
        case _:
            return False


def roles_of(request: Request) -> Iterable[str]:
    """Return the roles of the token or, in a browser session, of the account."""
    if isinstance(request.auth, Token):
        claims = request.auth.payload.get(CLAIM)
        given = claims if isinstance(claims, list) else []
        return [role for role in ROLES if role in given]
    user = request.user
    return roles_of_account(user) if isinstance(user, AbstractUser) else []


def roles_of_account(user: AbstractUser) -> list[str]:
    """Return the roles of an account: its groups that are named like roles."""
    if user.is_superuser:
        return list(ROLES)
    # A request asks several times: permissions, filters, serializers.
    if (known := getattr(user, "_roles", None)) is None:
        names = set(user.groups.values_list("name", flat=True))
        known = [role for role in ROLES if role in names]
        user._roles = known  # type: ignore[attr-defined]
    return known


def permitted(request: HttpRequest, resource: str, *authenticators: Any) -> bool:
    """Return whether a client of a plain view may read a resource."""
    asked = Request(request, authenticators=authenticators)
    try:
        return allows(asked, resource, "get")
    except APIException:  # the token or the session is not valid
        return False


class BrowserSession(SessionAuthentication):
    """
    The session of the admin's login, for the browsable API.

    As in the admin, a session that was forgotten erases nothing.
    """

    def authenticate(self, request: Request) -> Any:
        """Return account and None; refuse to erase without a recent password."""
        found = super().authenticate(request)
        if found and request.method == "DELETE" and not is_recent(request._request):
            raise PermissionDenied(ASKS_AGAIN)
        return found

    def enforce_csrf(self, request: Request) -> None:
        """Refuse requests without a CSRF token, with an error in Spanish."""
        try:
            super().enforce_csrf(request)
        except PermissionDenied as error:
            raise PermissionDenied(NO_TOKEN) from error


class BrowserSessionScheme(SessionScheme):  # type: ignore[no-untyped-call]
    """Describes the login in the documentation of the API."""

    target_class = "project.access.BrowserSession"
