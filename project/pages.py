"""Errors as pages, for people with a browser. They need no server but this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from pymongo.errors import ConnectionFailure, PyMongoError

from messaging.http.errors import RETRY_AFTER
from messaging.logs.repetition import RepeatingLogger
from messaging.text import describe

from .availability import databases_away, problem_of_publishing

repeating = RepeatingLogger(__name__)

#: What raises an error of a database, whichever it is.
DATABASE_ERRORS = (DatabaseError, InterfaceError, PyMongoError)
#: Codes with which the client of MariaDB and MySQL reports a lost connection.
CONNECTION_CODES = range(2000, 3000)


def wants_page(request: HttpRequest) -> bool:
    """Return whether a client prefers HTML to JSON, as browsers do."""
    preferred = request.get_preferred_type(["application/json", "text/html"])
    return preferred == "text/html"


def error_page(status: int, title: str, text: str) -> HttpResponse:
    """Return a page about an error."""
    context = {"status": status, "title": title, "text": text}
    return page("project/error.html", context, status)


def page(template: str, context: dict[str, Any], status: int) -> HttpResponse:
    """Render a template without the request, whose user may be in a database."""
    response = HttpResponse(render_to_string(template, context), status=status)
    patch_vary_headers(response, ("Accept",))
    return response


class OutagePages:
    """
    A middleware that explains to people which database is away, and what still works.

    It covers every page: those of the admin, and all that ask who has logged in.
    Programs get what the view makes of the error.
    """

    # It leaves alone what the front accepts: that needs no database.
    front_may_skip = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        return self._get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """Return a page for an error of a database, and for an unknown address."""
        if not wants_page(request):
            return None
        if isinstance(error, Http404):
            return not_found_page()
        if not any(isinstance(one, DATABASE_ERRORS) for one in causes(error)):
            return None
        away = databases_away()
        if not away and not any(map(is_lost_connection, causes(error))):
            return None
        text = "A page could not be shown: %s"
        repeating.error(text, describe(error, 500), about=type(error))
        accepts_writes = problem_of_publishing() is None
        return outage_page(away, accepts_writes=accepts_writes)


def outage_page(away: list[str], *, accepts_writes: bool) -> HttpResponse:
    """Return the page that says which databases are away, and what still works."""
    context = {
        "status": 503,
        "mysql_is_away": "default" in away,
        "mongodb_is_away": "reports" in away,
        "accepts_writes": accepts_writes,
    }
    response = page("project/outage.html", context, 503)
    response["Retry-After"] = str(RETRY_AFTER)
    return response


def not_found_page() -> HttpResponse:
    """Return the page for an unknown address."""
    text = _("La dirección no existe, o lo que había en ella se ha eliminado.")
    return error_page(404, _("No encontrado"), text)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__


def is_lost_connection(error: BaseException) -> bool:
    """Return whether a database was away, although it may answer again."""
    if isinstance(error, ConnectionFailure | InterfaceError):
        return True
    code = error.args[0] if error.args else None
    return isinstance(error, OperationalError) and code in CONNECTION_CODES
