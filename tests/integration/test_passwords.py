"""The admin asks for the password again before it erases, or replays a group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User as Account
from django.test import Client, override_settings
from django.utils import timezone

from messaging.admin.passwords import FIELD, GIVEN_AT
from messaging.models import DeadLetter
from messaging.models.replay import ReplayJob
from reports.documents import store, write_documents
from reports.models import Report
from tests.support.access import PASSWORD
from tests.support.broker import Broker
from tests.support.letters import command, give_up
from users.models import User

pytestmark = pytest.mark.usefixtures("no_consumers")

USERS, REPORTS = "/admin/users/user/", "/admin/reports/report/"
LETTERS, JOBS = "/admin/messaging/deadletter/", "/admin/messaging/replayjob/"
MINUTE = 60


@pytest.fixture
def mira(broker: Broker) -> Account:
    """An administrator."""
    return Account.objects.create_superuser("mira", password=PASSWORD)


@pytest.fixture
def admin(mira: Account) -> Client:
    """The admin, 16 minutes after the login."""
    client = Client(headers={"accept-language": "en"})
    client.force_login(mira, "django.contrib.auth.backends.ModelBackend")
    age(client, 16)
    return client


def age(client: Client, minutes: int) -> None:
    """Let the password be given some minutes ago."""
    session = client.session
    session[GIVEN_AT] = time.time() - minutes * MINUTE
    session.save()


def user() -> User:
    """Return a stored user."""
    return User.objects.create(
        nombre="Eva",
        apellido="Sanz",
        email="e@b.example",
        fecha_creacion=timezone.now(),
    )


def report() -> Report:
    """Return a stored report."""
    made = Report(
        id_reporte="uno",
        id_usuario=1,
        tipo_reporte=1,
        descripcion="Un bache",
        visibilidad=1.0,
        fecha_creacion=timezone.now(),
        version=1,
    )
    write_documents([store(made)])
    return made


def letters() -> list[str]:
    """Return the ids of dead letters."""
    give_up(command(b"{}", 1), command(b"{}", 2))
    return list(DeadLetter.objects.values_list("pk", flat=True))


def selected(action: str, *keys: Any, **fields: Any) -> dict[str, Any]:
    """Return the form of a list that runs an action."""
    return {"action": action, "_selected_action": list(keys), **fields}


def acts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each act that needs the password: its address and its form."""
    one = user()
    yield f"{USERS}{one.pk}/delete/", {"post": "yes"}
    yield USERS, selected("delete_selected", one.pk, post="yes")
    other = report()
    yield f"{REPORTS}{other.pk}/delete/", {"post": "yes"}
    yield REPORTS, selected("delete_selected", other.pk, post="yes")
    keys = letters()
    for confirm in ("all", "first", "discard"):
        yield LETTERS, selected("replay", *keys, confirm=confirm, rate="5")


@contextmanager
def unchanged(broker: Broker) -> Iterator[None]:
    """Fail if something is published, sent again or discarded."""
    yield
    assert [broker.count(f"{name}_queue.0") for name in ("users", "reports")] == [0, 0]
    assert not ReplayJob.objects.exists()
    assert not DeadLetter.objects.exclude(status="waiting").exists()


def test_erasing_and_replaying_ask_for_a_password_that_is_old(
    admin: Client, broker: Broker
) -> None:
    with unchanged(broker):
        for path, form in acts():
            page = admin.post(path, form)

            assert page.status_code == 200
            assert page.context["title"] == "Confirm that it is you"
            assert b'type="password"' in page.content
            assert "no-store" in page["Cache-Control"]


def test_a_wrong_password_does_nothing(admin: Client, broker: Broker) -> None:
    with unchanged(broker):
        for given in ("", "x", f" {PASSWORD}", PASSWORD.upper()):
            form = {"post": "yes", FIELD: given}
            page = admin.post(f"{USERS}{user().pk}/delete/", form)
            User.objects.all().delete()

            assert page.context["form"].errors[FIELD]
            assert PASSWORD not in page.content.decode()


def test_the_password_of_another_account_does_nothing(
    admin: Client, broker: Broker
) -> None:
    Account.objects.create_superuser("eva", password="otra contraseña larga")
    with unchanged(broker):
        form = {"post": "yes", "username": "eva", FIELD: "otra contraseña larga"}
        page = admin.post(f"{USERS}{user().pk}/delete/", form)

        assert page.context["form"].errors


def test_the_right_password_does_what_was_asked_for_and_counts_for_a_while(
    admin: Client, broker: Broker
) -> None:
    one, other = user().pk, letters()
    asked = admin.post(USERS, selected("delete_selected", one, post="yes"))
    sent_on: dict[str, Any] = {}
    for name, value in asked.context["sent_on"]:
        sent_on.setdefault(name, []).append(value)

    done = admin.post(USERS, sent_on | {FIELD: PASSWORD})
    replayed = admin.post(
        LETTERS, selected("replay", *other, confirm="first", rate="5")
    )

    assert done.status_code == 302
    assert broker.count("users_queue.0") == 1
    assert LogEntry.objects.get(action_flag=DELETION).object_id == str(one)
    assert replayed.status_code == 302
    assert ReplayJob.objects.count() == 1


def test_more_of_a_job_needs_the_password_and_stopping_it_does_not(
    admin: Client,
) -> None:
    keys = letters()
    age(admin, 1)
    admin.post(LETTERS, selected("replay", *keys, confirm="all", rate="5"))
    age(admin, 16)
    path = f"{JOBS}{ReplayJob.objects.get().pk}/change/"

    paused = admin.post(path, {"step": "pause"})
    asked = admin.post(path, {"step": "resume"})

    assert paused.status_code == 302
    assert asked.context["title"] == "Confirm that it is you"
    assert ReplayJob.objects.get().status == ReplayJob.Status.PAUSED
    assert admin.post(path, {"step": "resume", FIELD: PASSWORD}).status_code == 302
    assert ReplayJob.objects.get().status == ReplayJob.Status.RUNNING


def test_who_guesses_the_password_is_locked_out(admin: Client) -> None:
    path = f"{USERS}{user().pk}/delete/"

    answers = [admin.post(path, {"post": "yes", FIELD: "x"}) for _ in range(6)]

    assert [one.status_code for one in answers] == [200] * 4 + [429] * 2
    assert admin.post(path, {"post": "yes", FIELD: PASSWORD}).status_code == 429


def test_the_page_shows_what_was_sent_without_running_it(
    admin: Client,
) -> None:
    form = {"post": "yes", '"><script>': '"><img src=x onerror=alert(1)>'}

    page = admin.post(f"{USERS}{user().pk}/delete/", form)

    assert b'"><img src=x' not in page.content
    assert b'"><script>"' not in page.content


@pytest.mark.parametrize(("minutes", "asks"), [(None, False), (60, False), (1, True)])
def test_how_often_is_a_setting(
    admin: Client, settings: Any, minutes: float | None, asks: bool
) -> None:
    with override_settings(
        MESSAGING=settings.MESSAGING | {"PASSWORD_MINUTES": minutes}
    ):
        page = admin.post(f"{USERS}{user().pk}/delete/", {"post": "yes"})

        assert (page.status_code == 200) == asks


def test_a_session_ends_after_some_hours(admin: Client, settings: Any) -> None:
    assert settings.SESSION_COOKIE_AGE == 12 * 60 * MINUTE
    assert admin.session.get_expiry_age() == settings.SESSION_COOKIE_AGE
