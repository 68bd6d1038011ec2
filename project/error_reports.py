"""
Django's reports of errors, as a page with DEBUG=1 or a mail to the administrators,
without passwords, tokens and what requests contain.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView
from pprint import pformat
from typing import Any

from django.http import HttpRequest
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from messaging.masking import masked

#: Characters of a value that are shown.
LONGEST = 4000
#: Names of values that are secret, besides those that Django knows.
SECRET = re.compile(
    "API|AUTH|TOKEN|KEY|SECRET|PASS|PWD|SIGNATURE|COOKIE|CREDENTIAL|DSN|SESSION", re.I
)
#: Names of variables with the content of a request or a message.
CONTENT = re.compile("body|content|data|payload|post|values|attrs", re.I)
#: A secret in a text, as in a query string.
PAIR = re.compile(rf"([\w-]*({SECRET.pattern})[\w-]*)(=|%3D)[^&\s'\",;]+", re.I)


class Filter(SafeExceptionReporterFilter):
    """Hides secrets wherever they stand, on the page of DEBUG=1 as well."""

    hidden_settings = SECRET

    def is_active(self, request: HttpRequest | None) -> bool:
        """Return True: the page of a developer ends in screenshots."""
        return True

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        """Return a value without its secrets."""
        cleansed = super().cleanse_setting(key, value)
        if isinstance(cleansed, str) and cleansed != self.cleansed_substitute:
            return shown(cleansed)
        return repr(Shown(cleansed)) if isinstance(cleansed, bytes) else cleansed

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, str]:
        """Return the names of the cookies."""
        return dict.fromkeys(getattr(request, "COOKIES", {}), self.cleansed_substitute)

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        """Return the names of the fields of a form."""
        names = () if request is None else request.POST
        return dict.fromkeys(names, self.cleansed_substitute)

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: Any
    ) -> ItemsView[str, Any]:
        """Return the variables of a frame."""
        variables: dict[str, Any] = {}
        for name, value in super().get_traceback_frame_variables(request, tb_frame):
            if SECRET.search(name) or CONTENT.search(name):
                variables[name] = self.cleansed_substitute
            else:
                variables[name] = Shown(self.cleanse_setting(name, value))
        return variables.items()


class Shown:
    """A value whose representation has no secrets."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        try:
            text = pformat(self._value)
        except Exception as error:  # noqa: BLE001 of any object
            text = f"Error in formatting: {type(error).__name__}"
        if len(text) > LONGEST:
            # Half of a secret would not be found.
            text = re.sub(r"\S*\Z", "...", text[:LONGEST])
        return shown(text)


def shown(text: str) -> str:
    """Return a text without secrets and addresses."""
    return PAIR.sub(rf"\1\3{Filter.cleansed_substitute}", masked(text, lines=True))


class Report(ExceptionReporter):
    """A report whose texts have no secrets either."""

    def get_traceback_data(self) -> dict[str, Any]:
        """Return what the templates of Django show."""
        data = super().get_traceback_data()
        texts = ("exception_value", "exception_notes", "unicode_hint", "user_str")
        for name in (*texts, "request_insecure_uri"):
            if data.get(name):
                data[name] = shown(data[name])
        for frame in data["frames"]:
            if frame["exc_cause"]:
                frame["exc_cause"] = shown(str(frame["exc_cause"]))
        if self.request is not None:
            clean = self.filter.cleanse_setting
            items = self.request.GET.items()
            data["request_GET_items"] = [
                (key, clean(key, value)) for key, value in items
            ]
        if data["template_info"]:
            data["template_info"]["message"] = shown(data["template_info"]["message"])
        return data
