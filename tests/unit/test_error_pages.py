"""Errors are pages for browsers, which need no server, and JSON for programs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DatabaseError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.test import RequestFactory
from django.urls import get_resolver
from django.utils.translation import override
from pymongo.errors import AutoReconnect

from project import missing
from project.pages import OutagePages, is_lost_connection, outage_page

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
ERRORS = [
    (400, SuspiciousOperation("x"), "Petición inválida"),
    (403, PermissionDenied("x"), "Sin permiso"),
    (404, Http404("x"), "No encontrado"),
    (500, None, "Error interno"),
]


def request(accept: str | None, path: str = "/nada/") -> HttpRequest:
    """Return a request of a browser or of a program."""
    headers = {} if accept is None else {"accept": accept}
    return RequestFactory().get(path, headers=headers)


def answer(status: int, error: Exception | None, accept: str | None) -> HttpResponse:
    """Return what the project's handler of a status answers."""
    handler = get_resolver().resolve_error_handler(status)
    return handler(request(accept), *([] if error is None else [error]))


@pytest.mark.parametrize(("status", "error", "title"), ERRORS)
def test_a_browser_gets_a_page(status: int, error: Any, title: str) -> None:
    found = answer(status, error, BROWSER)
    page = found.content.decode()

    assert found.status_code == status
    assert found["Content-Type"] == "text/html; charset=utf-8"
    assert found["Vary"] == "Accept"
    assert '<html lang="es">' in page
    assert f"<h1>{title}</h1>" in page
    assert 'href="/api/docs/"' in page
    assert 'href="/admin/"' in page
    assert 'name="viewport"' in page
    # A strict policy for content allows neither.
    assert not re.search(r"<script>|style=|<style", page)


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/csv"])
@pytest.mark.parametrize(("status", "error", "title"), ERRORS)
def test_a_program_gets_json(
    status: int, error: Any, title: str, accept: str | None
) -> None:
    found = answer(status, error, accept)

    assert found.status_code == status
    assert isinstance(found, JsonResponse)
    assert b'"detail"' in found.content


@pytest.mark.parametrize(("status", "error", "title"), ERRORS)
def test_a_page_in_english_has_no_spanish_word(
    status: int, error: Any, title: str
) -> None:
    with override("en"):
        page = answer(status, error, BROWSER).content.decode()

    assert '<html lang="en">' in page
    assert title not in page
    assert "Users and reports" in page
    assert not re.search(r"[áéíóúñ¿¡]", page)


def test_an_expired_form_is_explained() -> None:
    page = missing.csrf_failure(request(BROWSER), "CSRF cookie not set.")
    plain = missing.csrf_failure(request(None), "CSRF cookie not set.")

    assert page.status_code == plain.status_code == 403
    assert "<h1>Formulario caducado</h1>" in page.content.decode()
    assert plain["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("away", "accepts_writes", "expected", "unexpected"),
    [
        (
            {"reports"},
            True,
            ["MongoDB no responde", "La API acepta escrituras", "Los usuarios, las"],
            ["MySQL", "La lectura de los reportes"],
        ),
        (
            {"default"},
            True,
            ["MySQL no responde", "La API acepta escrituras", "La lectura de los"],
            ["MongoDB", "Los usuarios, las cuentas de acceso y las páginas"],
        ),
        (
            {"default", "reports"},
            False,
            ["MySQL y MongoDB no responden", "RabbitMQ tampoco responde"],
            ["La API acepta", "La lectura de los reportes"],
        ),
        (set(), True, ["Una base de datos no ha respondido"], ["MySQL", "MongoDB"]),
    ],
    ids=["MongoDB", "MySQL", "all", "a moment"],
)
def test_a_page_says_which_database_is_away_and_what_still_works(
    away: set[str], accepts_writes: bool, expected: list[str], unexpected: list[str]
) -> None:
    found = outage_page(away, accepts_writes=accepts_writes)
    page = found.content.decode()

    assert found.status_code == 503
    assert int(found["Retry-After"]) > 0
    assert [text for text in expected if text not in page] == []
    assert [text for text in unexpected if text in page] == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError(2006, "Server has gone away"), True),
        (OperationalError(1054, "Unknown column"), False),
        (AutoReconnect("closed"), True),
        (DatabaseError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_a_lost_connection_is_no_other_error(error: Exception, expected: bool) -> None:
    assert is_lost_connection(error) is expected


def test_other_errors_are_left_to_django() -> None:
    pages = OutagePages(lambda request: HttpResponse())

    assert pages.process_exception(request(BROWSER), ValueError("x")) is None
    assert pages.process_exception(request(None), Http404("x")) is None
    found = pages.process_exception(request(BROWSER), Http404("x"))
    assert found is not None
    assert found.status_code == 404
