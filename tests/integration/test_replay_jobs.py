"""Groups of dead letters are sent again as jobs: exactly once, and followed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import transaction
from django.test import override_settings

from messaging.dead_letters import jobs
from messaging.dead_letters.groups import find_groups
from messaging.dead_letters.letters import Failure
from messaging.dead_letters.preview import Preview, preview
from messaging.dead_letters.query import read
from messaging.dead_letters.replayer import REPLAYS, is_worked_off
from messaging.models import DeadLetter, Inbox, Outbox, Parked
from messaging.models.lease import Lease
from messaging.models.replay import Replay, ReplayJob
from messaging.registry import handlers
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.letters import (
    PARTITION,
    command,
    creation,
    give_up,
    json_of,
    relayed,
    run,
)
from tests.support.messages import process
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.models import User

pytestmark = pytest.mark.usefixtures("no_consumers")


def create_job(**options: Any) -> ReplayJob:
    """Create a job for all letters that wait."""
    return jobs.create(DeadLetter.objects.unanswered(), "ana", **options)


def advance(job: ReplayJob) -> int:
    """Send the next portion."""
    with transaction.atomic():
        return jobs.advance(job.pk)


def numbers(job: ReplayJob) -> dict[str, int]:
    """Return the numbers of letters by state."""
    return dict(jobs.progress([job])[job.pk])


def status(job: ReplayJob) -> str:
    """Return the current status."""
    job.refresh_from_db()
    return job.status


def refuse(*names: str) -> None:
    """Have creations refused in this process, as their e-mails are taken."""
    for name in names:
        User.objects.create(
            nombre="x",
            apellido="y",
            email=f"{name}@example.com",
            fecha_creacion=datetime.now(UTC),
        )
    process("users_queue", [command(creation(name)) for name in names])


def apply() -> None:
    """Have what was sent handled in this process."""
    process("users_queue", relayed())


def test_a_job_sends_its_letters_once_in_their_order(broker: Broker) -> None:
    give_up(*(command(b"%d" % n, message_id=str(n)) for n in range(250)))
    job = create_job(rate=1000)

    portions = []
    while portion := advance(job):
        portions.append(portion)

    assert portions == [100, 100, 50]
    assert [one.envelope.body for one in relayed()] == [b"%d" % n for n in range(250)]
    assert numbers(job) == {"sent": 250}
    [*letters] = DeadLetter.objects.all()
    assert {letter.status for letter in letters} == {"requeued"}
    assert letters[0].settled_by == f"ana, job {job.pk}"


def test_a_portion_is_no_larger_than_the_rate(broker: Broker) -> None:
    give_up(*(command(b"x" * n) for n in range(5)))
    job = create_job(rate=2)

    assert [advance(job) for _ in range(4)] == [2, 2, 1, 0]


def test_large_bodies_are_sent_one_by_one(broker: Broker) -> None:
    give_up(*(command(b"x" * 5_000_000, n, message_id=str(n)) for n in range(2)))
    job = create_job()

    assert [advance(job) for _ in range(3)] == [1, 1, 0]


def test_the_outcome_is_followed_through_replays_and_the_inbox(broker: Broker) -> None:
    refuse(*(f"u{n}" for n in range(30)))
    User.objects.filter(email__in=[f"u{n}@example.com" for n in range(18)]).delete()
    job = create_job()
    while advance(job):
        pass
    jobs.follow()
    assert numbers(job) == {"sent": 30}

    apply()
    jobs.follow()

    assert numbers(job) == {"done": 18, "failed": 12}
    assert status(job) == "finished"
    [group] = jobs.failed_again(job)
    assert (group.count, group.code) == (12, "conflict")
    # Another replay of those that have failed does not change what this one led to.
    User.objects.all().delete()
    second = create_job()
    advance(second)
    apply()
    jobs.follow()
    assert numbers(second) == {"done": 12}
    assert numbers(job) == {"done": 18, "failed": 12}


def test_one_is_sent_first_and_the_rest_when_an_operator_says_so(
    broker: Broker,
) -> None:
    refuse("ana", "eva", "bob")
    job = create_job(is_trial=True)

    assert [advance(job) for _ in range(3)] == [1, 0, 0]
    apply()
    jobs.follow()
    assert numbers(job) == {"failed": 1, "waiting": 2}
    assert (status(job), jobs.steps(job)) == ("trial", ["rest", "cancel"])
    User.objects.all().delete()

    assert jobs.steer(job, "rest")
    assert not jobs.steer(job, "rest")
    advance(job)
    apply()
    jobs.follow()
    assert numbers(job) == {"failed": 1, "done": 2}
    assert status(job) == "finished"


def test_a_job_is_paused_resumed_and_cancelled(broker: Broker) -> None:
    give_up(*(command(b"%d" % n) for n in range(4)))
    job = create_job(rate=1)

    advance(job)
    assert jobs.steer(job, "pause")
    assert advance(job) == 0
    assert jobs.steer(job, "resume")
    assert advance(job) == 1
    assert jobs.steer(job, "cancel")
    assert advance(job) == 0
    assert not jobs.steer(job, "resume")

    assert numbers(job) == {"sent": 2, "waiting": 2}
    assert DeadLetter.objects.unanswered().count() == 2


def test_what_was_settled_or_has_failed_anew_is_skipped(broker: Broker) -> None:
    deliveries = [
        command(creation(f"u{n}", email="bad"), message_id=str(n)) for n in range(5)
    ]
    process("users_queue", deliveries)
    job = create_job()
    other = create_job()
    run("dead_letters", "discard", "--id", "0")
    run("dead_letters", "requeue", "--id", "1")
    apply()  # it waits again, for another reason than when the job was created
    DeadLetter.objects.filter(message_id="2").delete()
    DeadLetter.objects.filter(message_id="3").update(queue="gone_queue")

    assert advance(job) == 5
    assert advance(other) == 5

    assert numbers(job) == {"skipped": 4, "sent": 1}
    assert numbers(other) == {"skipped": 5}
    assert [one.message_id for one in relayed()] == ["4"]


def test_a_replay_that_is_parked_has_no_outcome_yet(broker: Broker) -> None:
    refuse("ana")
    job = create_job()
    advance(job)
    [sent] = Replay.objects.all()
    Inbox.objects.filter(pk=sent.inbox_id).update(status="done")
    parked = Parked.objects.create(
        partition=PARTITION,
        message_id=sent.inbox_id,
        parked_at=datetime.now(UTC),
        is_applied=True,
        size=0,
        properties="{}",
        body=b"",
    )

    jobs.follow()
    assert numbers(job) == {"sent": 1}
    parked.delete()
    jobs.follow()
    assert numbers(job) == {"done": 1}


def test_the_outcomes_of_more_than_one_page_are_followed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "FOLLOWED", 2)
    refuse("ana", "eva", "bob")
    job = create_job()
    advance(job)
    relayed()
    Inbox.objects.update(status="done")
    Inbox.objects.filter(pk=Replay.objects.earliest("pk").inbox_id).delete()

    after = jobs.follow()
    assert numbers(job) == {"sent": 2, "done": 1}
    assert jobs.follow(after) == 0
    assert numbers(job) == {"sent": 1, "done": 2}


def test_the_preview_decodes_and_counts_and_runs_no_handler(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse("ana", "eva")
    give_up(command(b"nonsense"), command(creation("bob", email="bad")))
    give_up(command(creation("eva")))
    DeadLetter.objects.filter(event_type="").update(failed_at=datetime.now(UTC))
    give_up(command(b"{}", message_id="gone"))
    DeadLetter.objects.filter(message_id="gone").update(queue="gone_queue")
    User.objects.all().delete()
    process("users_queue", [command(creation("ana"))])  # newer, and applied
    User.objects.all().delete()
    before = (Inbox.objects.count(), Outbox.objects.count())
    mine = handlers["users_queue"]
    for name, handler in mine.items():
        monkeypatch.setitem(mine, name, replace(handler, function=pytest.fail))

    seen = Preview()
    for seen in preview(read(DeadLetter.objects.unanswered())):  # noqa: B007
        pass

    assert seen.as_dict() | {"invalid": seen.invalid.total()} == {
        "letters": 6,
        "valid": 3,
        "invalid": 2,
        "overtaken": 1,
        "unsendable": 1,
    }
    assert before == (Inbox.objects.count(), Outbox.objects.count())
    printed = json_of("dead_letters", "requeue", "--all", "--dry-run")
    assert printed == seen.as_dict()
    printed = run("dead_letters", "requeue", "--all", "--dry-run")
    assert "3 valid, 1 overtaken by newer messages, 1 without handlers" in printed
    assert printed.count("newer messages of its key were applied") == 1
    assert DeadLetter.objects.unanswered().count() == 6


def test_a_letter_whose_key_fails_is_invalid_and_breaks_no_preview(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> str:
        raise KeyError("tenant")

    give_up(command(creation("ana")))
    message = handlers["users_queue"]["user.create"].message
    monkeypatch.setattr(message, "partition_key", property(broken))

    [seen] = preview(read(DeadLetter.objects.unanswered()))

    assert seen.invalid.total() == 1
    assert run("dead_letters", "requeue", "--all").endswith("1 dead letter requeued\n")


def test_an_error_pauses_the_job_and_is_shown(broker: Broker) -> None:
    give_up(command(b"x"))
    job = create_job()

    jobs.fail(job.pk, "DataError: too long")

    assert status(job) == "paused"
    with pytest.raises(CommandError, match="too long"):
        run("replay_jobs", "show", str(job.pk))
    run("replay_jobs", "resume", str(job.pk))
    assert (status(job), job.error) == ("running", "")


# Jobs of whole processes


@pytest.fixture
def workers(processes: Processes) -> Processes:
    """Processes, with a relay among them."""
    processes.manage("relay_outbox")
    return processes


def holder() -> str:
    """Return the id of the process that works off jobs."""
    lease = Lease.objects.filter(pk=REPLAYS).first()
    return lease.worker if lease and is_worked_off() else ""


def test_run_consumer_works_off_jobs(broker: Broker, workers: Processes) -> None:
    refuse(*(f"u{n}" for n in range(30)))
    User.objects.filter(email__in=[f"u{n}@example.com" for n in range(18)]).delete()
    workers.manage("run_consumer", "dead_letters", "users")
    printed = run("dead_letters", "requeue", "--all", "--job", "--first", "--rate", "9")
    job = ReplayJob.objects.get()
    assert printed == f"job {job.pk} sends 30 dead letters\n"

    eventually(lambda: numbers(job) == {"done": 1, "waiting": 29}, "the first one", 30)
    run("replay_jobs", "rest", str(job.pk))
    with pytest.raises(CommandError, match="18 of 30 applied"):
        run("replay_jobs", "show", str(job.pk), "--follow")

    assert numbers(job) == {"done": 18, "failed": 12}
    assert status(job) == "finished"
    [listed] = json_of("replay_jobs", "list")
    assert (listed["total"], listed["done"], listed["failed"]) == (30, 18, 12)
    assert "30 of 30 sent, 18 applied, 12 failed again" in run("replay_jobs", "list")


def test_a_killed_job_is_resumed_without_a_loss_and_without_a_double(
    broker: Broker, processes: Processes
) -> None:
    give_up(*(command(b"%d" % n, n, message_id=f"{n}") for n in range(300)))
    first = processes.manage("run_consumer", "dead_letters")
    eventually(holder, "a process works off jobs", 30)
    job = create_job(rate=40)
    eventually(lambda: Outbox.objects.count() >= 80, "two portions")

    first.kill()
    first.wait()
    sent = Outbox.objects.count()
    assert sent == numbers(job)["sent"] < 300
    processes.manage("run_consumer", "dead_letters")

    eventually(lambda: numbers(job) == {"sent": 300}, "all are sent", 30)
    assert [one.envelope.body for one in relayed()] == [b"%d" % n for n in range(300)]


#: Sends the portions of a job, and dies within the one that holds the letter of the
#: argument, before it is committed.
KILLED = """
import os, signal, sys
import django
django.setup()
from django.db import transaction
from messaging.dead_letters import jobs
from messaging.models import DeadLetter, ReplayJob

def settle(letter, *args, **details):
    if letter.message_id == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    original(letter, *args, **details)

original, DeadLetter.settle = DeadLetter.settle, settle
while True:
    with transaction.atomic():
        jobs.advance(ReplayJob.objects.get().pk)
"""


def test_a_portion_that_is_cut_off_by_a_kill_is_sent_again_as_a_whole(
    broker: Broker, processes: Processes
) -> None:
    give_up(*(command(b"%d" % n, n, message_id=f"{n}") for n in range(30)))
    job = create_job(rate=10)

    assert processes.start("-c", KILLED, "15").wait(30) == -signal.SIGKILL

    assert numbers(job) == {"sent": 10, "waiting": 20}
    while advance(job):
        pass
    assert [one.envelope.body for one in relayed()] == [b"%d" % n for n in range(30)]


@pytest.mark.slow
def test_a_frozen_process_loses_the_jobs_and_sends_nothing_when_it_goes_on(
    broker: Broker, processes: Processes
) -> None:
    give_up(*(command(b"%d" % n, n, message_id=f"{n}") for n in range(100)))
    frozen = processes.manage("run_consumer", "dead_letters")
    first = eventually(holder, "a process works off jobs", 30)
    job = create_job(rate=4)
    eventually(lambda: numbers(job).get("sent"), "the first portion")

    frozen.send_signal(signal.SIGSTOP)
    processes.manage("run_consumer", "dead_letters")
    eventually(lambda: holder() not in ("", first), "another one takes over", 30)
    ReplayJob.objects.update(rate=20)
    frozen.send_signal(signal.SIGCONT)

    eventually(lambda: numbers(job) == {"sent": 100}, "all are sent", 30)
    assert [one.envelope.body for one in relayed()] == [b"%d" % n for n in range(100)]


# The command


def test_the_rest_is_sent_only_if_the_first_one_succeeds(
    broker: Broker, workers: Processes
) -> None:
    refuse("ana", "eva", "bob")
    workers.manage("run_consumer", "users")

    with pytest.raises(CommandError, match="it failed again: Ya existe") as raised:
        run("dead_letters", "requeue", "--all", "--first")
    assert raised.value.returncode == 1
    assert DeadLetter.objects.unanswered().count() == 3

    User.objects.all().delete()
    printed = run("dead_letters", "requeue", "--all", "--first")
    assert printed.splitlines()[-1] == "3 dead letters requeued"
    eventually(lambda: User.objects.count() == 3, "all are applied")


def test_a_first_one_without_outcome_has_an_exit_code_of_its_own(
    broker: Broker,
) -> None:
    give_up(command(creation("ana")), command(creation("eva")))

    with pytest.raises(CommandError, match=r"no outcome within 0\.5 s") as raised:
        run("dead_letters", "requeue", "--all", "--first", "--timeout", "0.5")

    assert raised.value.returncode == 75
    assert DeadLetter.objects.unanswered().count() == 1


@pytest.mark.parametrize(
    "arguments", [["--status", "discarded"], ["--body", "/dev/null", "--id", "1"]]
)
def test_a_job_sends_waiting_letters_as_they_are(
    broker: Broker, arguments: list[str]
) -> None:
    with pytest.raises(CommandError, match="A job sends"):
        run("dead_letters", "requeue", "--job", *arguments)


def test_json_says_what_was_done(broker: Broker) -> None:
    give_up(command(creation("ana"), message_id="1"))
    give_up(command(creation("eva"), message_id="2"), failure=Failure("poison", "x"))
    poison = next(one.cause for one in find_groups() if one.kind == "poison")

    [one] = json_of("dead_letters", "requeue", "--group", poison)
    assert (one["message_id"], one["done"]) == ("2", "requeued")
    job = json_of("dead_letters", "requeue", "--all", "--job")
    assert (job["total"], job["waiting"], job["status"]) == (1, 1, "running")
    assert json_of("dead_letters", "discard", "--all")[0]["done"] == ("discarded")
    shown = json_of("replay_jobs", "cancel", str(job["id"]))
    assert shown["status"] == "cancelled"
    with pytest.raises(CommandError, match="There is no job 0"):
        run("replay_jobs", "show", "0")


@pytest.mark.parametrize("line", ["dead_letters groups --json", "parked list"])
def test_output_is_cut_by_head_without_an_error(
    broker: Broker, processes: Processes, line: str
) -> None:
    texts = ("abcdefghij"[n % 10] * (1 + n // 10) for n in range(300))
    with transaction.atomic():
        for text in texts:
            give_up(command(b"{}"), failure=Failure("rejected", f"{text} " * 99))
    Parked.objects.bulk_create(
        Parked(
            partition=PARTITION,
            message_id=str(n),
            parked_at=datetime.now(UTC),
            error="x" * 900,
            size=0,
            properties="{}",
            body=b"",
        )
        for n in range(300)
    )
    shell = f"set -o pipefail; {sys.executable} manage.py {line} | head -n 1"

    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=BASE,
        env=processes.environment,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_progress_is_shown_on_a_terminal_only(
    broker: Broker, processes: Processes
) -> None:
    give_up(*(command(b"%d" % n) for n in range(150)))
    requeue = f"{sys.executable} manage.py dead_letters requeue --all --dry-run"

    on_terminal, elsewhere = (
        subprocess.run(
            ["script", "-qec", f"{requeue} {where}", "/dev/null"],
            cwd=BASE,
            env=processes.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for where in (">/dev/null", "2>&1 | cat")
    )

    assert "] 100 of 150" in on_terminal
    assert "\x1b[K" in on_terminal
    assert "] 100 of 150" not in elsewhere
    assert "\x1b" not in elsewhere


def test_old_jobs_are_pruned(broker: Broker) -> None:
    give_up(command(b"1"))
    old, new = create_job(), create_job()
    old.created_at = datetime.now(UTC) - timedelta(days=31)
    old.save()

    assert "1 of 1 replayjob rows" in run("prune_messages")

    assert list(ReplayJob.objects.all()) == [new]
    assert Counter(Replay.objects.values_list("job", flat=True)) == {new.pk: 1}


def test_the_rate_of_jobs_is_a_setting(broker: Broker, settings: Any) -> None:
    with override_settings(MESSAGING=settings.MESSAGING | {"REPLAY_RATE": 7}):
        assert create_job().rate == 7
