"""Pages that send groups of dead letters again: groups, preview, and the jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import ADDITION, CHANGE
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, gettext_lazy, ngettext

from messaging.conf import settings
from messaging.dead_letters import groups, jobs
from messaging.dead_letters.groups import Group
from messaging.dead_letters.masking import mask
from messaging.dead_letters.preview import Preview, preview
from messaging.dead_letters.query import read
from messaging.dead_letters.replay import discard
from messaging.dead_letters.replayer import is_worked_off
from messaging.models.dead_letter import DeadLetter, DeadLetterQuerySet
from messaging.models.replay import Replay, ReplayJob

from .passwords import recent_password
from .publishing import log
from .reading import OperationsAdmin, sees_personal_data, text_column
from .states import STATUS

#: Letters that a preview decodes.
PREVIEWED = 1000
#: Groups that a preview lists.
LISTED = 10
#: The steps of a job that send more letters.
SENDING = ("rest", "resume")
#: Seconds after which the page of a job that is under way is loaded again.
REFRESH = 3


class JobForm(forms.Form):
    """How to send dead letters again."""

    rate = forms.IntegerField(
        label=gettext_lazy("Letters per second"), min_value=1, max_value=10_000
    )


class ReplayPages(OperationsAdmin):
    """The pages of the admin of dead letters that are about many of them."""

    change_list_template = "admin/messaging/dead_letters.html"

    def get_urls(self) -> list[Any]:
        """Add the page of groups."""
        view = self.admin_site.admin_view(self.groups_view)
        name = "messaging_deadletter_groups"
        return [path("groups/", view, name=name), *super().get_urls()]

    def has_too_many(
        self, request: HttpRequest, queryset: QuerySet[Any], limit: int
    ) -> bool:
        """Return whether an action has more rows than `limit`; a job may have any."""
        is_job = request.POST.get("action") == "replay"
        may = is_job and request.POST.get("confirm") != "discard"
        return not may and super().has_too_many(request, queryset, limit)

    def groups_view(self, request: HttpRequest) -> HttpResponse:
        """Show the groups of waiting dead letters, or note something about one."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._note(request)
        is_answered = "answered" in request.GET
        letters = DeadLetter.objects.using(settings.DATABASE)
        rows = letters.answered() if is_answered else letters.unanswered()
        context = self._context(request, gettext("Groups of dead letters")) | {
            "groups": shown(request, groups.find_groups(rows)),
            "is_answered": is_answered,
            "number_answered": letters.answered().count(),
            "jobs": ReplayJob.objects.using(settings.DATABASE).sending()[:LISTED],
        }
        template = "admin/messaging/dead_letter_groups.html"
        return TemplateResponse(request, template, context)

    def _note(self, request: HttpRequest) -> HttpResponse:
        if not self.has_operate_permission(request):
            raise PermissionDenied
        cause, text = request.POST.get("cause", ""), request.POST.get("note", "")
        groups.note(cause, text, str(request.user))
        self.message_user(request, gettext("The note was saved."), messages.SUCCESS)
        return HttpResponseRedirect(request.get_full_path())

    def _context(self, request: HttpRequest, title: str) -> dict[str, Any]:
        return self.admin_site.each_context(request) | {
            "title": title,
            "opts": self.opts,
            "may_operate": self.has_operate_permission(request),
            "sees_personal_data": sees_personal_data(request),
        }

    @admin.action(
        description=gettext_lazy("Preview, and send again as a job"),
        permissions=["operate"],
    )
    def replay(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        """Show what sending the selected dead letters again would lead to, or do it."""
        chosen: Any = queryset.using(settings.DATABASE)
        rows: DeadLetterQuerySet = chosen.waiting().order_by("failed_at", "id")
        if not rows.exists():
            text = gettext("None of them is waiting.")
            self.message_user(request, text, messages.WARNING)
            return None
        given = request.POST if "confirm" in request.POST else None
        form = JobForm(given, initial={"rate": settings.REPLAY_RATE})
        if given is None or not form.is_valid():
            return self._preview(request, rows, form)
        answer: HttpResponse = self._settle(request, rows, form)
        return answer

    @recent_password
    def _settle(
        self, request: HttpRequest, rows: DeadLetterQuerySet, form: JobForm
    ) -> HttpResponse:
        """Discard dead letters, or make a job that sends them again."""
        confirmed = request.POST["confirm"]
        if confirmed == "discard":
            self._discard(request, rows)
            return HttpResponseRedirect(reverse("admin:messaging_deadletter_groups"))
        job = jobs.create(
            rows,
            operator(request),
            is_trial=confirmed == "first",
            rate=form.cleaned_data["rate"],
        )
        log(request, ReplayJob.objects.filter(pk=job.pk), ADDITION)
        url = reverse("admin:messaging_replayjob_change", args=[job.pk])
        return HttpResponseRedirect(url)

    def _preview(
        self, request: HttpRequest, rows: DeadLetterQuerySet, form: JobForm
    ) -> HttpResponse:
        seen = Preview()
        for seen in preview(islice(read(rows), PREVIEWED)):  # noqa: B007
            pass
        context = self._context(request, gettext("Send dead letters again")) | {
            "number": rows.count(),
            "preview": seen,
            "invalid": [
                (reason if sees_personal_data(request) else mask(reason), number)
                for reason, number in seen.invalid.most_common(LISTED)
            ],
            "groups": groups.find_groups(rows, LISTED),
            "form": form,
            "is_worked_off": is_worked_off(),
            "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "admin/messaging/preview.html", context)

    def _discard(self, request: HttpRequest, rows: DeadLetterQuerySet) -> None:
        number = logged(request, discard(rows, operator(request)), "discard")
        text = ngettext(
            "%d dead letter was discarded.", "%d dead letters were discarded.", number
        )
        self.message_user(request, text % number, messages.SUCCESS)


@admin.register(ReplayJob)
class ReplayJobAdmin(OperationsAdmin):
    """Jobs, with buttons that steer them."""

    change_form_template = "admin/messaging/replay_job.html"
    list_display = ("__str__", "what", STATUS, "progress", "created_by", "created_at")
    list_filter = ("status",)
    ordering = ("-id",)
    sortable_by = ("__str__", "created_at")
    fields: ClassVar[Any] = (
        "what",
        STATUS,
        "progress",
        "failed_again",
        "rate",
        "created_by",
        "created_at",
        "finished_at",
        "error",
    )

    masked: ClassVar[Any] = {
        "error": text_column(gettext_lazy("error"), lambda job: mask(job.error))
    }

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may steer jobs, or `obj` in its state."""
        may = self.has_operate_permission(request)
        return may and (obj is None or bool(jobs.steps(obj)))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return all fields."""
        return self.get_fields(request, obj)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list, with the numbers of letters of all jobs in one query."""
        shown = super().get_changelist_instance(request)
        numbers = jobs.progress(shown.result_list)
        for job in shown.result_list:
            job.numbers = numbers[job.pk]
        return shown

    @admin.display(description=gettext_lazy("what"), ordering="title")
    def what(self, job: ReplayJob) -> str:
        """Return what the letters have in common."""
        return job.title or gettext("letters of several groups")

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, job: ReplayJob) -> str:
        """Return a bar, and the numbers of letters."""
        numbers = numbers_of(job)
        sent = numbers[Replay.State.SENT] + sum(numbers[s] for s in Replay.OUTCOMES)
        sent_of = {"sent": sent, "total": job.total}
        texts = [gettext("%(sent)d of %(total)d sent") % sent_of]
        labels = dict(Replay.State.choices) | {
            Replay.State.SENT.value: gettext("under way")
        }
        texts += [
            f"{labels[state]}: {numbers[state]}"
            for state in (*Replay.OUTCOMES, Replay.State.SENT, Replay.State.SKIPPED)
            if numbers[state]
        ]
        bar = '<progress value="{}" max="{}" aria-hidden="true"></progress> {}'
        return format_html(bar, sent, max(job.total, 1), ", ".join(texts))

    @admin.display(description=gettext_lazy("failed again"))
    def failed_again(self, job: ReplayJob) -> str:
        """Return the reasons, without values, and how many letters each has."""
        found = jobs.failed_again(job)
        return format_html_join(
            "", "<div>{}: {}</div>", ((one.count, one.title) for one in found)
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the buttons, and whether the page is loaded again by itself."""
        job = kwargs.get("obj")
        if job is not None:
            numbers = numbers_of(job)
            moves = is_moving(job, numbers)
            context |= {
                "steps": jobs.steps(job),
                "moves": moves,
                "refresh": REFRESH if moves and "still" not in request.GET else 0,
                "is_worked_off": not moves or is_worked_off(),
            }
        return super().render_change_form(request, context, *args, **kwargs)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show a job, or steer it; to send more, the password must be recent."""
        sends = request.POST.get("step") in SENDING
        steer = self._send_more if sends else super().change_view
        return steer(request, *args, **kwargs)

    @recent_password
    def _send_more(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return super().change_view(request, *args, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: ReplayJob, form: Any, change: bool
    ) -> None:
        """Take the step of the button instead of saving."""
        step = request.POST.get("step", "")
        if step not in jobs.STEPS or not jobs.steer(obj, step):
            text = gettext("The job had changed; nothing was done.")
            self.message_user(request, text, messages.WARNING)
        else:
            log(request, [obj], CHANGE, step)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log nothing: `save_model` has, if the step was taken."""

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Return to the job."""
        return HttpResponseRedirect(request.get_full_path())


def is_moving(job: ReplayJob, numbers: Counter[str]) -> bool:
    """Return whether a job goes on without an operator."""
    if job.status == ReplayJob.Status.RUNNING and numbers[Replay.State.WAITING]:
        return True
    has_tried = any(numbers[state] for state in Replay.OUTCOMES)
    is_trying = job.status == ReplayJob.Status.TRIAL and not has_tried
    return is_trying or numbers[Replay.State.SENT] > 0


def numbers_of(job: Any) -> Counter[str]:
    """Return the numbers of letters by state, which a list has read already."""
    found: Counter[str] | None = getattr(job, "numbers", None)
    return jobs.progress([job])[job.pk] if found is None else found


def shown(request: HttpRequest, found: list[Group]) -> list[Group]:
    """Return groups as the user may see them."""
    if sees_personal_data(request):
        return found
    return [replace(group, example=mask(group.example)) for group in found]


def selected(queryset: QuerySet[DeadLetter]) -> DeadLetterQuerySet:
    """Return the selected dead letters, oldest first."""
    ids = list(queryset.values_list("pk", flat=True))
    letters = DeadLetter.objects.using(settings.DATABASE).filter(pk__in=ids)
    return letters.order_by("failed_at", "id")


def waiting(queryset: QuerySet[DeadLetter]) -> DeadLetterQuerySet:
    """Return the selected dead letters that are waiting, oldest first."""
    return selected(queryset).waiting()


def logged(request: HttpRequest, settled: Iterable[list[DeadLetter]], act: str) -> int:
    """Log what is settled, in portions; return the number of dead letters."""
    number = 0
    for letters in settled:
        log(request, letters, CHANGE, act)
        number += len(letters)
    return number


def operator(request: HttpRequest) -> str:
    """Return the user's name for the history."""
    return f"admin {request.user}"
