"""An error is logged with its cause where it has no text of its own."""

from __future__ import annotations

import logging

import pytest
from django.db import DatabaseError

from messaging.doctor.findings import explained
from messaging.rest_framework.exceptions import as_api_exception
from messaging.text import describe


def caused(error: Exception, cause: Exception | None) -> Exception:
    """Return an error that was raised from a cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DatabaseError("gone away"), "DatabaseError: gone away"),
        (
            caused(DatabaseError("gone"), OSError("refused")),
            "DatabaseError: gone",
        ),
        (
            caused(DatabaseError(), OSError("refused")),
            "DatabaseError: OSError: refused",
        ),
        (caused(DatabaseError(), None), "DatabaseError: "),
    ],
)
def test_an_error_without_text_is_described_by_its_cause(
    error: Exception, text: str
) -> None:
    assert describe(error) == text
    assert explained(error) == text.strip()


def test_a_failed_read_is_logged_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        as_api_exception(caused(DatabaseError(), OSError("refused")))

    assert caplog.messages == ["A read failed: DatabaseError: OSError: refused"]
