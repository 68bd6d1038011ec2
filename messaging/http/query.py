"""Query parameters that a view does not know, or that are given twice."""

from __future__ import annotations

from collections.abc import Collection

from django.core.exceptions import TooManyFieldsSent
from django.http import HttpRequest
from django.utils.translation import gettext as _

from messaging.text import storable

from .errors import GENERAL

#: Maximum characters of an unknown name that an error repeats.
LENGTH = 100


def query_errors(request: HttpRequest, known: Collection[str]) -> dict[str, list[str]]:
    """Return the errors of a query, by parameter; each may be given once."""
    try:
        given = list(request.GET.lists())
    except TooManyFieldsSent:
        return {GENERAL: [_("There are too many parameters.")]}
    errors = {}
    for name, values in given:
        if name not in known:
            errors[storable(name)[:LENGTH]] = [unknown(known)]
        elif len(values) > 1:
            errors[name] = [_("Give this parameter once.")]
    return errors


def unknown(known: Collection[str]) -> str:
    """Return the text about an unknown parameter, which names those that are known."""
    if not known:
        return _("There is no such parameter; none is known here.")
    names = ", ".join(sorted(known))
    return _("There is no such parameter. Known: %(names)s.") % {"names": names}
