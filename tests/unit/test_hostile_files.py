"""Whatever a report's text is, laying it out takes a bounded amount of work."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime

import pytest
from pypdf import PdfReader

from reports.child_process import ChildFailed, run
from reports.events import ReportCreated
from reports.layout import MAX_LENGTH, MAX_LINES, MAX_MARKS, bounded
from reports.pdf import render
from tests.support.exhausting import deadly, endless, greedy, recursive, stopped
from tests.support.hostile_texts import TEXTS

#: Seconds for a file on a busy machine: two layouts, and starting their processes.
LONG = 30.0
#: Pages of any report.
MANY = 30


def report(**values: str) -> ReportCreated:
    """Return an event about a report with these texts."""
    return ReportCreated.model_construct(
        id_reporte="r1",
        version=1,
        id_usuario=1,
        tipo_reporte=2**31 - 1,
        visibilidad=1.0,
        fecha_creacion=datetime(2026, 1, 2, tzinfo=UTC),
        **{"descripcion": "Bache", "ubicacion": "Cádiz"} | values,
    )


def text_of(pdf: bytes) -> str:
    """Return the text of a PDF file."""
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


@pytest.mark.parametrize("name", TEXTS)
def test_a_report_with_any_text_gets_a_file_in_limited_time(name: str) -> None:
    started = time.monotonic()
    pdf = render(report(descripcion=TEXTS[name]))

    assert time.monotonic() - started < LONG
    assert "Cádiz" in text_of(pdf)
    assert len(PdfReader(io.BytesIO(pdf)).pages) <= MANY


def test_every_field_of_a_report_is_bounded() -> None:
    hostile = "я" + "\u0301" * 100_000

    pdf = render(report(descripcion=hostile, ubicacion=hostile))

    assert "Descripción" in text_of(pdf)


@pytest.mark.parametrize("name", TEXTS)
def test_a_bounded_text_has_few_marks_lines_and_letters(name: str) -> None:
    text = bounded(TEXTS[name])

    assert len(text) <= MAX_LENGTH + len("[...]")
    assert len(text.split("\n")) <= MAX_LINES + 1
    marks = 0
    for letter in text:
        marks = marks + 1 if letter in "\u0301\u0321\u200c\u200d" else 0
        assert marks <= MAX_MARKS
    assert not set(text) & set("\0\x1b\u202e\u2066\u200b\ud83d")


@pytest.mark.parametrize(
    "text",
    [
        "Uno\n\n  dos, «tres» — 5 €",
        "\u0928\u092e\u0938\u094d\u0924\u0947, \u0645\u064e\u0631\u0652\u062d",
        "\u0e1b\u0e49\u0e33, \u1eb9\u0301",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    ],
    ids=["Spanish", "Hindi and Arabic", "Thai and Yoruba", "Persian"],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert bounded(text) == text


def test_what_is_left_out_is_marked() -> None:
    assert bounded("x" * (MAX_LENGTH + 1)) == "x" * MAX_LENGTH + "[...]"
    assert bounded("x\n" * (MAX_LINES + 1)).endswith("x\n[...]")
    assert bounded("x" * MAX_LENGTH) == "x" * MAX_LENGTH


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (endless, "It has not ended within 2 s."),
        (greedy, "MemoryError"),
        (recursive, "RecursionError"),
        (deadly, "SystemExit: 3"),
    ],
)
def test_a_process_that_takes_too_much_is_ended(function: object, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(ChildFailed, match=reason):
        run(function, "x", seconds=2, megabytes=400)  # type: ignore[arg-type]

    assert time.monotonic() - started < LONG


def test_a_process_finishes_its_work_when_the_service_is_stopped() -> None:
    assert run(stopped, "x", seconds=5, megabytes=400) == b"done"


def test_a_text_that_cannot_be_shaped_gets_a_simpler_file() -> None:
    """Layout of a thousand emoji recurses, where letters are joined."""
    pdf = render(report(descripcion="\U0001f600" * 1_000))

    assert text_of(pdf).count("\U0001f600") == 1_000
