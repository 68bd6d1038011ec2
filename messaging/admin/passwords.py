"""The password of an account, asked for again before an act that counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from django import forms
from django.contrib.auth import authenticate
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.debug import sensitive_variables

from messaging.conf import settings

#: The key in a session of the time at which the password was given, since 1970.
GIVEN_AT = "messaging_password_given_at"
#: The field of the password among those of the form that is sent on.
FIELD = "messaging_password"
SAFE = ("GET", "HEAD", "OPTIONS")


class PasswordForm(forms.Form):
    """Checks the password of an account."""

    messaging_password = forms.CharField(
        label=gettext_lazy("Password"),
        strip=False,
        widget=forms.PasswordInput(
            attrs={"autocomplete": "current-password", "autofocus": True}
        ),
    )

    def __init__(self, request: HttpRequest, data: Any) -> None:
        super().__init__(data)
        self._request = request

    @sensitive_variables()
    def clean_messaging_password(self) -> None:
        """Let the project's backends decide, which may lock out who guesses."""
        name = self._request.user.get_username()
        given = self.cleaned_data[FIELD]
        account = authenticate(self._request, username=name, password=given)
        if account != self._request.user:
            raise forms.ValidationError(gettext("This is not your password."))


def recent_password(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Decorate a method of an admin that must not run on behalf of a forgotten session.

    If the password was given more than `PASSWORD_MINUTES` ago, the answer is a page
    that asks for it and sends the same form again. Requests that change nothing are
    let through.
    """

    @wraps(method)
    def asking(admin: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.method in SAFE or is_recent(request):
            return method(admin, request, *args, **kwargs)
        form = PasswordForm(request, request.POST if FIELD in request.POST else None)
        if form.is_valid():
            remember(request)
            return method(admin, request, *args, **kwargs)
        context = admin.admin_site.each_context(request) | {
            "title": gettext("Confirm that it is you"),
            "opts": admin.opts,
            "form": form,
            "sent_on": [
                (name, value)
                for name, values in request.POST.lists()
                for value in values
                if name not in (FIELD, "csrfmiddlewaretoken")
            ],
        }
        return TemplateResponse(request, "admin/messaging/password.html", context)

    return asking


def is_recent(request: HttpRequest) -> bool:
    """Return whether the password was given in this session a short time ago."""
    if (minutes := settings.PASSWORD_MINUTES) is None:
        return True
    given_at = request.session.get(GIVEN_AT, 0)
    return bool(time.time() - given_at < minutes * 60)


# Like the admins of this package, it is registered when Django imports them.
@receiver(user_logged_in, dispatch_uid="messaging.admin.passwords")
def remember(request: HttpRequest | None, **_: Any) -> None:
    """Note that the password was given now, if there is a session."""
    session = getattr(request, "session", None)
    if session is not None:
        session[GIVEN_AT] = time.time()
