"""Who sees and does what: three permissions, and the pages that replay groups."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Account
from django.db import transaction
from django.db.models import QuerySet
from django.test import Client

from messaging.admin import lists
from messaging.dead_letters import jobs
from messaging.dead_letters.groups import find_groups
from messaging.dead_letters.letters import Failure
from messaging.dead_letters.masking import mask, mask_body
from messaging.envelope import PARTITIONS, Delivery, Envelope
from messaging.models import DeadLetter, Inbox, Outbox, Parked
from messaging.models.replay import Replay, ReplayJob
from tests.support.broker import Broker
from tests.support.letters import command, creation, give_up, relayed, run
from tests.support.messages import process

pytestmark = pytest.mark.usefixtures("no_consumers")

LETTERS = "/admin/messaging/deadletter/"
GROUPS = f"{LETTERS}groups/"
PARKED = "/admin/messaging/parked/"
SECRET = "ana.ruiz@example.com"


def personal_rows() -> tuple[DeadLetter, Parked]:
    """Record a dead letter and a parked message that are full of an address."""
    give_up(
        command(
            creation("ana", email=SECRET, biografia="likes secrets"),
            headers={"partition_key": f"email:{SECRET}"},
        ),
        failure=Failure("exhausted", f"SMTP refused {SECRET}", "failed"),
    )
    [letter] = DeadLetter.objects.all()
    letter.history.append({"at": "now", "what": "requeued", "body": SECRET})
    letter.save()
    parked = Parked.objects.create(
        partition="users_queue.0",
        message_id="1",
        event_type="user.create",
        key=f"email:{SECRET}",
        digest="1",
        due_at=datetime.now(UTC),
        error=f"SMTP refused {SECRET}",
        parked_at=datetime.now(UTC),
        size=2,
        properties=json.dumps({"headers": {"partition_key": f"email:{SECRET}"}}),
        body=json.dumps(creation("ana", email=SECRET)).encode(),
    )
    Inbox.objects.create(
        message_id="1",
        key=f"email:{SECRET}",
        reason=f"SMTP refused {SECRET}",
        status="failed",
        processed_at=datetime.now(UTC),
    )
    Outbox.objects.create(
        message_id="1",
        headers={"partition_key": f"email:{SECRET}"},
        mandatory=True,
        body=b"{}",
        shard=0,
        created_at=datetime.now(UTC),
    )
    return letter, parked


def pages(letter: DeadLetter, parked: Parked) -> list[str]:
    """Return the paths of all pages that show something of a message."""
    outbox = Outbox.objects.get()
    return [
        LETTERS,
        GROUPS,
        f"{LETTERS}{letter.pk}/change/",
        PARKED,
        f"{PARKED}{parked.pk}/change/",
        "/admin/messaging/inbox/",
        "/admin/messaging/inbox/1/change/",
        "/admin/messaging/outbox/",
        f"/admin/messaging/outbox/{outbox.pk}/change/",
    ]


def texts(client: Client, paths: list[str]) -> str:
    """Return the contents of pages, all of which must exist."""
    answers = [client.get(path) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return "".join(answer.content.decode() for answer in answers)


def test_without_a_permission_personal_data_is_on_no_page(
    broker: Broker, login: Callable[..., Client]
) -> None:
    letter, parked = personal_rows()
    client = login("view_operations", "operate")

    shown = texts(client, pages(letter, parked))

    assert "ana.ruiz" not in shown
    assert "secrets" not in shown
    assert "replay_body" not in shown
    assert "biografia" in shown  # the structure stays
    assert "SMTP refused" in shown
    # The number of results would reveal what is hidden.
    for path in (f"{LETTERS}?q=ana.ruiz", f"{PARKED}?q=email:ana"):
        assert client.get(path).context["cl"].result_count == 0
    data = {"action": "replay", "_selected_action": [letter.pk]}
    assert "ana.ruiz" not in client.post(LETTERS, data).content.decode()


@pytest.mark.parametrize(
    "query",
    [
        "inbox/?key=email:ana.ruiz@example.com",
        "inbox/?reason__contains=ana",
        "outbox/?headers__partition_key__startswith=email:a",
        "parked/?key__startswith=email:a",
        "parked/?properties__icontains=ana",
        "deadletter/?reason__regex=a.*z",
        "deadletter/?replay__requested_by=ana",
    ],
)
def test_without_a_permission_no_address_asks_for_what_is_hidden(
    broker: Broker, login: Callable[..., Client], query: str
) -> None:
    personal_rows()
    client = login("view_operations", "operate")

    assert client.get(f"/admin/messaging/{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "inbox/?status__exact=failed",
        "parked/?due_at__isempty=0",
        "deadletter/?cause=x&status__exact=waiting",
        "deadletter/?queue=users_queue&kind__exact=rejected",
        "worker/?o=1",
    ],
)
def test_links_and_filters_find_what_is_plain(
    broker: Broker, login: Callable[..., Client], query: str
) -> None:
    client = login("view_operations", "operate")

    assert client.get(f"/admin/messaging/{query}").status_code == 200


def test_with_the_permission_all_is_shown(
    broker: Broker, login: Callable[..., Client]
) -> None:
    letter, parked = personal_rows()
    client = login("view_operations", "view_personal_data")

    shown = texts(client, pages(letter, parked))

    assert shown.count(SECRET) > 8
    assert "likes secrets" in shown
    assert "replay_body" not in shown  # to look is not to send
    assert client.get(f"{PARKED}?q=email:ana").context["cl"].result_count == 1


def test_a_letter_is_sent_again_by_those_who_do_not_see_it(
    broker: Broker, login: Callable[..., Client]
) -> None:
    letter, _ = personal_rows()
    client = login("view_operations", "operate")

    answer = client.post(f"{LETTERS}{letter.pk}/change/", {"_save": "1"}, follow=True)

    assert answer.status_code == 200
    [sent] = relayed()
    assert json.loads(sent.envelope.body)["email"] == SECRET
    letter.refresh_from_db()
    assert letter.status == "requeued"


UPDATE = {"event_type": "user.update", "user_id": 5, "biografia": "a"}
INVALID = UPDATE | {"biografia": "x" * 5001}
VISIBILITY = {
    "event_type": "report.update_visibility",
    "id_reporte": "r1",
    "visibilidad": 0,
}
CREATION = {
    "event_type": "report.create",
    "id_reporte": "r1",
    "id_usuario": 1,
    "tipo_reporte": 1,
    "descripcion": "a",
    "fecha_creacion": "2026-01-01T00:00:00Z",
}
CREATED = CREATION | {
    "event_type": "report.created",
    "version": 1,
    "ubicacion": "",
    "visibilidad": 1.0,
}
USER_CREATION = creation("ana", fecha_creacion="2026-01-01T00:00:00Z")
LATER = {"fecha_creacion": "2026-02-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("original", "changes", "extra", "is_sent"),
    [
        # A value of the same message, for the same key.
        (UPDATE, {"biografia": "short"}, [], True),
        # Another type, another key, a rating, and what could not be decoded.
        (UPDATE, {"event_type": "user.delete"}, [], False),
        (UPDATE, {"user_id": 6}, [], False),
        (UPDATE, {"calificacion": 0.0}, [], False),
        (UPDATE | {"calificacion": 5.0}, {"calificacion": 0.0}, [], False),
        (INVALID, {"biografia": "short"}, [], False),
        (VISIBILITY, {"penalize_author": True}, [], False),
        # In another's name, at another time, hidden, to another address.
        (CREATION, {"descripcion": "b"}, [], True),
        (CREATION, {"id_usuario": 2}, [], False),
        (CREATION, {"visibilidad": 0.0}, [], False),
        (CREATION, LATER, [], False),
        (CREATION, {"id_usuario": 2} | LATER, ["reports.add_report"], True),
        (CREATION, {"visibilidad": 0.0}, ["reports.add_report"], False),
        (CREATION, {"visibilidad": 0.0}, ["reports.change_report"], True),
        (USER_CREATION, {"biografia": "b"}, [], True),
        (USER_CREATION, {"email": "eva@example.com"}, [], False),
        (USER_CREATION, LATER, [], False),
        (USER_CREATION, {"numero_reportes": 9}, ["users.add_user"], False),
        (USER_CREATION, LATER, ["users.add_user"], True),
        (UPDATE, {"email": "eva@example.com"}, [], False),
        (UPDATE, {"email": "eva@example.com"}, ["users.change_user"], True),
        # Nobody has a permission for events.
        (CREATED, {"descripcion": "b"}, [], True),
        (CREATED, {"id_reporte": "r2"}, ["reports.add_report"], False),
        (CREATED, {"id_reporte": "r2"}, "superuser", True),
        # With the permission that the admin demands for what is ordered.
        (INVALID, {"biografia": "short"}, ["users.change_user"], True),
        (UPDATE, {"event_type": "user.delete"}, ["users.change_user"], False),
        (UPDATE, {"event_type": "user.delete"}, ["users.delete_user"], True),
        (VISIBILITY, {"penalize_author": True}, ["reports.change_report"], True),
        # Nobody writes ratings in the admin but superusers.
        (UPDATE, {"calificacion": 0.0}, ["users.change_user"], False),
        (UPDATE, {"calificacion": 0.0}, "superuser", True),
    ],
)
def test_a_letter_becomes_another_message_by_those_alone_who_may_order_that(
    broker: Broker,
    login: Callable[..., Client],
    permissions: QuerySet[Permission],
    original: dict[str, Any],
    changes: dict[str, Any],
    extra: Any,
    is_sent: bool,
) -> None:
    client = login("view_operations", "operate", "view_personal_data")
    account = Account.objects.get()
    if extra == "superuser":
        account.is_superuser = True
        account.save()
    for name in extra if isinstance(extra, list) else ():
        app, _, codename = name.partition(".")
        wanted = permissions.get(content_type__app_label=app, codename=codename)
        account.user_permissions.add(wanted)
    kind = original["event_type"].partition(".")[0]
    is_event = original["event_type"].endswith("ed")
    queue = "report_files_queue" if is_event else f"{kind}s_queue"
    envelope = Envelope(json.dumps(original).encode(), f"{queue}.0", PARTITIONS)
    give_up(Delivery(envelope, queue, 1, consumer_tag="test"))
    [letter] = DeadLetter.objects.all()

    body = json.dumps(original | changes)
    data = {"_save": "1", "replay_body": body}
    answer = client.post(f"{LETTERS}{letter.pk}/change/", data, follow=True)

    assert answer.status_code == 200
    assert [json.loads(bytes(row.body)) for row in Outbox.objects.all()] == (
        [original | changes] if is_sent else []
    )
    letter.refresh_from_db()
    assert letter.status == ("requeued" if is_sent else "waiting")
    assert ("ordena otra cosa" in answer.content.decode()) is not is_sent


@pytest.mark.parametrize(
    "codenames",
    [
        ["view_operations"],
        ["view_operations", "view_personal_data"],
        ["view_deadletter", "change_deadletter", "view_parked", "change_parked"],
    ],
)
def test_only_who_may_operate_changes_anything(
    broker: Broker, login: Callable[..., Client], codenames: list[str]
) -> None:
    letter, parked = personal_rows()
    parked.due_at = None
    parked.save()
    client = login(*codenames)
    for action in ("requeue", "discard", "replay", "restore"):
        data = {"action": action, "_selected_action": [letter.pk], "confirm": "all"}
        client.post(LETTERS, data | {"rate": "5"})
    client.post(PARKED, {"action": "try_now", "_selected_action": [parked.pk]})
    note = {"cause": letter.cause, "note": "x"}

    assert client.post(GROUPS, note).status_code == 403
    assert client.post(f"{LETTERS}{letter.pk}/change/", {}).status_code == 403
    for row in (letter, parked):
        row.refresh_from_db()
    assert (letter.status, parked.due_at) == ("waiting", None)
    assert not ReplayJob.objects.exists()
    assert find_groups()[0].note == ""


def test_without_any_of_them_there_is_nothing_to_see(
    broker: Broker, login: Callable[..., Client]
) -> None:
    letter, parked = personal_rows()
    client = login("operate", "view_personal_data")

    for path in pages(letter, parked):
        assert client.get(path).status_code == 403


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing", "nothing"),
        ("to <ana.ruiz+x@example.com>: no", "to <[address]>: no"),
        ("email:ana@example.com", "email:[address]"),
        ("/users/?email=ana%40example.com&x=1", "/users/?email=[address]&x=1"),
        ("@ alone", "@ alone"),
        ("'ñandú@münchen.de'", "'[address]'"),
    ],
)
def test_addresses_are_hidden_wherever_they_stand(text: str, expected: str) -> None:
    assert mask(text) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\xff", "[hidden]"),
        (b"text", "[hidden]"),
        (b'"text"', '"[hidden]"'),
        (b"[" * 100_000, "[hidden]"),
        (
            b'{"event_type": "a", "n": [1, null, true], "a@b.c": {"d": 1.5}}',
            {
                "event_type": "a",
                "n": ["[hidden]", None, True],
                "[address]": {"d": "[hidden]"},
            },
        ),
    ],
)
def test_a_body_keeps_its_structure_alone(body: bytes, expected: Any) -> None:
    masked = mask_body(body)

    assert (masked if isinstance(expected, str) else json.loads(masked)) == expected


@pytest.fixture
def admin(login: Callable[..., Client]) -> Client:
    """The browser of an operator who may do everything."""
    return login("view_operations", "operate", "view_personal_data")


def buttons(answer: Any) -> list[str]:
    """Return the values of the buttons of a page."""
    page = answer.content.decode()
    return re.findall(r'<button[^>]* name="(?:step|confirm)" value="(\w+)"', page)


def advance() -> None:
    """Have the only job go on, and its messages handled."""
    with transaction.atomic():
        jobs.advance(ReplayJob.objects.get().pk)
    process("users_queue", relayed())
    jobs.follow()


def test_a_group_is_previewed_tried_and_sent(broker: Broker, admin: Client) -> None:
    bodies = [creation(f"u{n}") for n in range(60)]
    give_up(*(command(body) for body in bodies), failure=Failure("exhausted", "Down"))
    give_up(command(creation("other")))
    page = admin.get(GROUPS).content.decode()
    down = next(one for one in find_groups() if one.pattern == "Down")
    [target] = re.findall(rf'action="([^"]*cause={down.cause}[^"]*)"', page)
    target = target.replace("&amp;", "&")
    form = {"action": "replay", "select_across": "1", "_selected_action": "x"}

    preview = admin.post(target, form)
    assert preview.status_code == 200
    assert "60 mensajes muertos esperan" in preview.content.decode()
    assert "60 son válidos" in preview.content.decode()
    assert buttons(preview) == ["first", "all", "discard"]
    assert "run_consumer dead_letters" in preview.content.decode()
    assert not Outbox.objects.exists()

    refused = admin.post(target, form | {"confirm": "first", "rate": "0"})
    assert not ReplayJob.objects.exists()
    assert buttons(refused) == ["first", "all", "discard"]
    job_page = admin.post(
        target, form | {"confirm": "first", "rate": "100"}, follow=True
    )
    job = ReplayJob.objects.get()
    assert job_page.request["PATH_INFO"].endswith(f"replayjob/{job.pk}/change/")
    assert (job.total, job.rate, job.created_by) == (60, 100, "admin mira")
    assert b'http-equiv="refresh"' in job_page.content

    advance()
    tried = admin.get(job_page.request["PATH_INFO"])
    assert "aplicados: 1" in tried.content.decode()
    assert b'http-equiv="refresh"' not in tried.content
    assert buttons(tried) == ["rest", "cancel"]
    admin.post(job_page.request["PATH_INFO"], {"step": "rest"})
    advance()
    done = admin.get(job_page.request["PATH_INFO"])
    assert "aplicados: 60" in done.content.decode()
    assert buttons(done) == []
    assert [one.pattern for one in find_groups()] == [
        "Ya existe un usuario con ese e-mail."
    ]
    assert LogEntry.objects.count() == 2
    assert admin.get("/admin/messaging/replayjob/").status_code == 200


def test_selected_letters_are_sent_as_a_job(broker: Broker, admin: Client) -> None:
    give_up(*(command(b"%d" % n, message_id=str(n)) for n in range(4)))
    letters = list(DeadLetter.objects.order_by("failed_at", "pk"))
    form = {"action": "replay", "_selected_action": [one.pk for one in letters[1:3]]}
    page = admin.post(LETTERS, form).content.decode()
    for letter in letters[1:3]:
        assert f'name="_selected_action" value="{letter.pk}"' in page

    admin.post(LETTERS, form | {"confirm": "all", "rate": "5"})

    chosen = Replay.objects.values_list("letter__message_id", flat=True)
    assert list(chosen.order_by("pk")) == ["1", "2"]


def test_a_job_may_have_more_letters_than_other_actions(
    broker: Broker, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MAX_ROWS", 2)
    give_up(*(command(b"%d" % n) for n in range(4)))
    form = {"action": "replay", "select_across": "1", "_selected_action": "x"}

    admin.post(LETTERS, form | {"confirm": "discard", "rate": "1"})
    admin.post(LETTERS, form | {"action": "requeue"})
    assert {one.status for one in DeadLetter.objects.all()} == {"waiting"}
    assert buttons(admin.post(LETTERS, form)) == ["first", "all", "discard"]
    admin.post(LETTERS, form | {"confirm": "all", "rate": "1"})

    assert ReplayJob.objects.get().total == 4


def test_a_group_is_discarded_and_fetched_back(broker: Broker, admin: Client) -> None:
    give_up(*(command(b"%d" % n) for n in range(3)))
    form = {"action": "replay", "select_across": "1", "_selected_action": "x"}
    page = admin.post(LETTERS, form | {"confirm": "discard", "rate": "1"}, follow=True)
    assert "3" in page.content.decode()
    assert {one.status for one in DeadLetter.objects.all()} == {"discarded"}
    again = admin.post(LETTERS, form, follow=True)
    assert "Ninguno de ellos espera." in again.content.decode()

    admin.post(
        f"{LETTERS}?status__exact=discarded",
        {"action": "restore", "select_across": "1", "_selected_action": "x"},
    )
    assert {one.status for one in DeadLetter.objects.all()} == {"waiting"}


def test_a_note_is_written_and_shown(broker: Broker, admin: Client) -> None:
    give_up(command(b"x", reply_to="me"), command(b"y"))
    [group] = find_groups()
    page = admin.get(GROUPS).content.decode()
    assert "?answered" in page

    admin.post(GROUPS, {"cause": group.cause, "note": "<b>ticket</b>"})

    page = admin.get(GROUPS).content.decode()
    assert "&lt;b&gt;ticket&lt;/b&gt;" in page
    assert find_groups()[0].noted_by == "mira"
    assert group.cause not in admin.get(f"{GROUPS}?answered").content.decode()
    answered = admin.get(f"{LETTERS}?is_answered__exact=1")
    assert answered.context["cl"].result_count == 1


def test_a_stale_button_changes_nothing(broker: Broker, admin: Client) -> None:
    give_up(command(b"x"))
    run("dead_letters", "requeue", "--all", "--job")
    job = ReplayJob.objects.get()
    path = f"/admin/messaging/replayjob/{job.pk}/change/"

    admin.post(path, {"step": "pause"})
    page = admin.post(path, {"step": "rest"}, follow=True)

    job.refresh_from_db()
    assert job.status == "paused"
    assert "no se hizo nada" in page.content.decode()


def test_the_list_of_jobs_takes_the_same_queries_for_any_number(
    broker: Broker, admin: Client, django_assert_num_queries: Callable[[int], Any]
) -> None:
    give_up(*(command(b"%d" % n) for n in range(3)))
    for _ in range(5):
        run("dead_letters", "requeue", "--all", "--job")

    with django_assert_num_queries(7):
        page = admin.get("/admin/messaging/replayjob/")

    assert page.content.decode().count("0 de 3 enviados") == 5


def test_no_page_has_an_inline_script(broker: Broker, admin: Client) -> None:
    give_up(command(creation("ana")))
    run("dead_letters", "requeue", "--all", "--job")
    give_up(command(creation("eva")))
    job = ReplayJob.objects.get()
    answers = [
        admin.get(GROUPS),
        admin.get(f"/admin/messaging/replayjob/{job.pk}/change/"),
        admin.post(
            LETTERS, {"action": "replay", "select_across": "1", "_selected_action": "x"}
        ),
    ]

    for answer in answers:
        scripts = re.findall(r"<script([^>]*)>", answer.content.decode())
        assert all("src=" in attributes for attributes in scripts)
        assert not re.search(rb"\son\w+=", answer.content)
