"""The admin of what was given up: a look, and two things to do about it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.text import Truncator
from django.utils.translation import gettext, gettext_lazy, ngettext

from messaging.conf import settings
from messaging.dead_letters.formatting import ID_LENGTH, as_text, pretty, printable
from messaging.dead_letters.replay import corrected, discard, overtaken, requeue
from messaging.exceptions import InvalidMessage, PublishError
from messaging.models.dead_letter import DeadLetter, DeadLetterQuerySet

from .reading import ReadOnlyAdmin, preformatted

#: Characters of a body that is offered for correction.
EDITABLE = 200_000


class BodyField(forms.CharField):
    """A body; browsers end its lines as they like."""

    def to_python(self, value: Any) -> str:
        """Give it with the line ends it was shown with."""
        return str(super().to_python(value)).replace("\r\n", "\n")


class ReplayForm(forms.ModelForm):
    """Sends a dead letter again, with its body as it is or corrected."""

    replay_body = BodyField(
        label=gettext_lazy("body to send"),
        strip=False,
        required=False,
        widget=forms.Textarea(attrs={"rows": 16, "cols": 100, "spellcheck": "false"}),
        help_text=gettext_lazy(
            "Sent under the same message id. The original stays in the archive."
        ),
    )

    class Meta:
        model = DeadLetter
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        text = as_text(self.instance.body)
        if text is not None and len(text) <= EDITABLE:
            self.fields["replay_body"].initial = printable(text, "\n\t")
        else:
            del self.fields["replay_body"]

    @property
    def body(self) -> bytes | None:
        """The corrected body; None to send the original, byte for byte."""
        if "replay_body" not in self.changed_data:
            return None
        return str(self.cleaned_data["replay_body"]).encode()

    def clean(self) -> dict[str, Any]:
        """Refuse a corrected body that would only fail again."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.body is not None and "_discard" not in self.data:
            try:
                corrected(self.instance, self.body)
            except InvalidMessage as error:
                self.add_error("replay_body", str(error))
        return cleaned


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """What was given up; actions send it again or discard it."""

    form = ReplayForm
    change_form_template = "admin/messaging/dead_letter.html"
    list_display = (
        "short_id",
        "failed_at",
        "kind",
        "queue",
        "event_type",
        "short_reason",
        "status",
    )
    list_filter = ("status", "kind", "queue", "event_type")
    search_fields = ("id__startswith", "message_id__startswith", "reason")
    search_help_text = gettext_lazy("Beginning of an id, or part of the reason")
    ordering = ("-failed_at",)
    show_full_result_count = False
    actions = ("requeue", "discard")
    #: Read-only, beside `replay_body` of letters that can be sent again.
    shown = (
        "id",
        "message_id",
        "queue",
        "event_type",
        "kind",
        "code",
        "reason",
        "exception",
        "failed_at",
        "archived_at",
        "status",
        "settled_at",
        "settled_by",
        "replays",
        "trail",
        "sent_with",
        "size",
        "pretty_body",
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether somebody may settle letters, or this one, which waits."""
        waits = obj is None or obj.settled_at is None
        return waits and admin.ModelAdmin.has_change_permission(self, request, obj)

    def get_readonly_fields(self, *_: Any) -> tuple[str, ...]:
        """Everything is."""
        return self.shown

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show everything, and a form to those who may use it."""
        fields = list(self.shown)
        if self.has_change_permission(request, obj) and obj is not None:
            form = ReplayForm(instance=obj)
            fields += [name for name in form.fields if name == "replay_body"]
        return fields

    @admin.display(description="id", ordering="id")
    def short_id(self, letter: DeadLetter) -> str:
        """Give the beginning of the id, as the command does."""
        return letter.id[:ID_LENGTH]

    @admin.display(description=gettext_lazy("reason"), ordering="reason")
    def short_reason(self, letter: DeadLetter) -> str:
        """Give the beginning of the reason."""
        return Truncator(letter.reason).chars(100)

    @admin.display(description=gettext_lazy("history"))
    def trail(self, letter: DeadLetter) -> str:
        """Give what has happened to it, a line each."""
        lines = ("  ".join(event.values()) for event in letter.history)
        return preformatted("\n".join(map(printable, lines)))

    @admin.display(description=gettext_lazy("properties"))
    def sent_with(self, letter: DeadLetter) -> str:
        """Give properties and headers of the original."""
        return preformatted(pretty(letter.properties.encode()))

    @admin.display(description=gettext_lazy("body"))
    def pretty_body(self, letter: DeadLetter) -> str:
        """Give the body, indented."""
        return preformatted(pretty(letter.body))

    @admin.action(
        description=gettext_lazy("Send again (requeue)"), permissions=["change"]
    )
    def requeue(
        self, request: HttpRequest, queryset: QuerySet[Any], body: bytes | None = None
    ) -> None:
        """Send letters again."""
        number = 0
        newer: dict[str, Any] = {}
        try:
            for letters in requeue(chosen(queryset), whom(request), body=body):
                number += len(letters)
                newer |= overtaken(letters)
        except PublishError as error:
            text = gettext("The broker did not take all of them: %s") % error
            self.message_user(request, text, messages.ERROR)
        if newer:
            text = ngettext(
                "Newer messages of the same key had been applied before %d of them.",
                "Newer messages of the same key had been applied before %d of them.",
                len(newer),
            )
            self.message_user(request, text % len(newer), messages.WARNING)
        text = ngettext(
            "%d dead letter was sent again.",
            "%d dead letters were sent again.",
            number,
        )
        self.message_user(request, text % number, messages.SUCCESS)

    @admin.action(description=gettext_lazy("Discard"), permissions=["change"])
    def discard(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Give letters up; the rows stay."""
        number = sum(map(len, discard(chosen(queryset), whom(request))))
        text = ngettext(
            "%d dead letter was discarded.", "%d dead letters were discarded.", number
        )
        self.message_user(request, text % number, messages.SUCCESS)

    def save_model(
        self, request: HttpRequest, obj: DeadLetter, form: Any, change: bool
    ) -> None:
        """Settle in place of saving."""
        one = DeadLetter.objects.filter(pk=obj.pk)
        if "_discard" in request.POST:
            self.discard(request, one)
        else:
            self.requeue(request, one, form.body)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Go back to the list; what was done is told already."""
        return self.response_post_save_change(request, obj)


def chosen(queryset: QuerySet[DeadLetter]) -> DeadLetterQuerySet:
    """Give those of the selected letters that wait, oldest first."""
    ids = list(queryset.values_list("pk", flat=True))
    letters = DeadLetter.objects.using(settings.DATABASE).filter(pk__in=ids)
    return letters.waiting().order_by("failed_at", "id")


def whom(request: HttpRequest) -> str:
    """Give the name that goes into the history."""
    return f"admin {request.user}"
