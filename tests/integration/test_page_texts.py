"""What pages of admin and API say: titles, names, times, states, languages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User as Account
from django.test import Client

from messaging.admin.lists import ListAdmin
from messaging.models import DeadLetter, Inbox, Worker
from reports.models import Report
from tests.support.broker import Broker
from tests.support.letters import command, creation, give_up
from tests.support.texts import text_of
from users.models import User

NOW = datetime(2026, 5, 1, 12, 30, 45, tzinfo=UTC)
BROWSER = {"accept": "text/html"}


def page(client: Client, path: str, language: str = "es") -> str:
    """Return the HTML of a page."""
    answer = client.get(path, headers=BROWSER | {"accept-language": language})
    assert answer.status_code == 200
    html = answer.content.decode()
    assert re.search(rf'<html lang="{language}"', html)
    return html


def title(html: str) -> str:
    """Return the text of the heading of a page."""
    headings: list[str] = re.findall(r"<h1[^>]*>(.*?)</h1>", html, re.DOTALL)
    return text_of(headings[-1]).strip()


@pytest.fixture
def letter(broker: Broker) -> DeadLetter:
    """A dead letter."""
    give_up(command(creation("ana")))
    DeadLetter.objects.update(failed_at=NOW, archived_at=NOW)
    return DeadLetter.objects.get()


@pytest.fixture
def user(broker: Broker) -> User:
    """A user."""
    return User.objects.create(
        nombre="Ana", apellido="Ruiz", email="a@b.example", fecha_creacion=NOW
    )


@pytest.mark.parametrize(
    ("path", "es", "en"),
    [
        ("messaging/deadletter/", "Mensajes muertos", "Dead letters"),
        ("messaging/parked/", "Mensajes aparcados", "Parked messages"),
        ("messaging/inbox/", "Mensajes tratados", "Inbox"),
        ("messaging/outbox/", "Mensajes por publicar", "Outbox"),
        ("messaging/replayjob/", "Tareas de reenvío", "Replay jobs"),
        ("messaging/worker/", "Procesos", "Processes"),
        ("messaging/lease/", "Concesiones", "Leases"),
        ("messaging/", "Mensajes", "Messages"),
        ("reports/report/", "Reportes", "Reports"),
        ("reports/notification/", "Notificaciones", "Notifications"),
        ("users/user/", "Usuarios", "Users"),
        ("users/user/add/", "Añadir usuario", "Add user"),
    ],
)
def test_a_page_has_what_it_shows_for_a_title(
    broker: Broker, admin_client: Client, path: str, es: str, en: str
) -> None:
    assert title(page(admin_client, f"/admin/{path}")) == es
    assert title(page(admin_client, f"/admin/{path}", "en")) == en


def test_no_two_entries_of_the_admin_have_the_same_name(
    broker: Broker, admin_client: Client
) -> None:
    for language in ("es", "en"):
        html = page(admin_client, "/admin/", language)
        names = [
            text_of(cell).strip()
            for cell in re.findall(r'<th scope="row"[^>]*>(.*?)</th>', html, re.DOTALL)
        ]
        assert len(names) == len(set(names)) > 8


def test_a_row_that_nobody_can_change_is_not_to_be_changed(
    admin_client: Client, letter: DeadLetter
) -> None:
    html = page(admin_client, f"/admin/messaging/deadletter/{letter.pk}/change/")

    assert title(html) == "Mensaje muerto"


@pytest.mark.parametrize(
    ("language", "at"),
    [("es", "01/05/2026 12:30:45 UTC"), ("en", "2026-05-01 12:30:45 UTC")],
)
def test_times_have_seconds_and_a_zone(
    admin_client: Client, letter: DeadLetter, user: User, language: str, at: str
) -> None:
    Inbox.objects.create(message_id="1", event_type="a.b", processed_at=NOW)
    Worker.objects.create(id="1", name="one", queues=[], started_at=NOW, seen_at=NOW)
    paths = [
        "messaging/deadletter/",
        f"messaging/deadletter/{letter.pk}/change/",
        "messaging/inbox/",
        "messaging/inbox/1/change/",
        "messaging/worker/",
        "users/user/",
        f"users/user/{user.pk}/change/",
        "messaging/deadletter/groups/",
    ]

    missing = [
        path
        for path in paths
        if at not in page(admin_client, f"/admin/{path}", language)
    ]

    assert missing == []


@pytest.mark.parametrize(
    ("language", "words"),
    [("es", ("rechazado", "en espera")), ("en", ("rejected", "waiting"))],
)
def test_states_are_badges(
    admin_client: Client, letter: DeadLetter, language: str, words: tuple[str, str]
) -> None:
    html = page(admin_client, "/admin/messaging/deadletter/", language)

    assert f'<span class="badge error">{words[0]}</span>' in html
    assert f'<span class="badge warning">{words[1]}</span>' in html


def test_every_list_of_this_project_becomes_cards_on_phones(
    broker: Broker, admin_client: Client
) -> None:
    of_others = {"auth"}
    lists = {
        model._meta.label: isinstance(one, ListAdmin)
        for model, one in admin.site._registry.items()
        if model._meta.app_label not in of_others
    }

    assert lists
    assert all(lists.values()), lists
    html = page(admin_client, "/admin/messaging/parked/")
    assert "messaging/lists.js" in html
    assert "messaging/admin.css" in html


def test_a_hint_that_django_has_in_english_alone_is_translated(
    broker: Broker, admin_client: Client
) -> None:
    path = f"/admin/auth/user/{Account.objects.get().pk}/password/"
    spanish, english = (page(admin_client, path, one) for one in ("es", "en"))

    assert "se pierde la contraseña" in spanish
    assert "If disabled" not in spanish
    assert "will be lost" in english
    assert "contraseña" not in english


@pytest.mark.parametrize("path", ["/", "/users/", "/reports/", "/users/{user}/"])
def test_pages_of_the_api_are_in_spanish_and_link_to_docs_and_admin(
    client: Client, user: User, path: str
) -> None:
    answer: Any = client.get(
        path.format(user=user.pk), headers=BROWSER | {"accept-language": "en"}
    )
    html = answer.content.decode()

    assert '<html lang="es">' in html
    assert 'href="/api/docs/"' in html
    assert 'href="/admin/"' in html
    text = text_of(html)
    for word in (
        "Raw data",
        "HTML form",
        "Filters",
        "Media type",
        "Log in",
        "resource",
    ):
        assert word not in text
    assert not re.search(r"style=|<script>", html.split("filtersModal")[0])


def test_forms_of_the_api_call_fields_as_the_admin_does(
    client: Client, user: User, broker: Broker
) -> None:
    html = client.get(f"/users/{user.pk}/", headers=BROWSER).content.decode()
    labels = [
        text_of(one).strip()
        for one in re.findall(r"<label[^>]*>(.*?)</label>", html, re.DOTALL)
    ]

    fields = User._meta
    expected = [
        str(fields.get_field(name).verbose_name).capitalize()
        for name in ("nombre", "apellido", "email", "fecha_nacimiento", "biografia")
    ]
    assert [name for name in expected if name not in labels] == []
    assert not Report.objects.exists()
