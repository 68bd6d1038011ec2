"""The admin of dead letters: read-only, with actions to requeue and discard them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.text import Truncator
from django.utils.translation import gettext, gettext_lazy, ngettext

from messaging.dead_letters.formatting import ID_LENGTH, as_text, pretty
from messaging.dead_letters.masking import mask, mask_body, mask_event
from messaging.dead_letters.replay import (
    overtaken,
    requeue,
    restore,
)
from messaging.exceptions import InvalidMessage, PublishError
from messaging.masking import printable
from messaging.models.dead_letter import DeadLetter

from .orders import check_correction
from .passwords import recent_password
from .publishing import log
from .reading import MESSAGE_ID, preformatted, sees_personal_data, text_column
from .replays import ReplayPages, logged, operator, selected, waiting
from .states import STATUS, state_column, word

KIND = state_column("kind", gettext_lazy("kind"))

#: Maximum characters of a body that can be edited.
EDITABLE = 200_000


class BodyField(forms.CharField):
    """A message body as text."""

    def to_python(self, value: Any) -> str:
        """Restore the line endings, which browsers submit as CRLF."""
        return str(super().to_python(value)).replace("\r\n", "\n")


class ReplayForm(forms.ModelForm):
    """Requeues a dead letter, with its original or a corrected body."""

    replay_body = BodyField(
        label=gettext_lazy("body to send"),
        strip=False,
        required=False,
        widget=forms.Textarea(attrs={"rows": 16, "cols": 100, "spellcheck": "false"}),
        help_text=gettext_lazy(
            "Sent under the same message id. The original stays in the archive."
        ),
    )

    #: Who sends it.
    account: Any = AnonymousUser()

    class Meta:
        model = DeadLetter
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "replay_body" not in self.fields:
            return
        text = as_text(self.instance.content)
        if text is not None and len(text) <= EDITABLE:
            self.fields["replay_body"].initial = printable(text, "\n\t")
        else:
            del self.fields["replay_body"]

    @property
    def body(self) -> bytes | None:
        """The corrected body; None to send the original bytes."""
        if "replay_body" not in self.changed_data:
            return None
        return str(self.cleaned_data["replay_body"]).encode()

    def clean(self) -> dict[str, Any]:
        """Validate a corrected body as its handler's message."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.body is not None and "_discard" not in self.data:
            try:
                check_correction(self.account, self.instance, self.body)
            except InvalidMessage as error:
                self.add_error("replay_body", str(error))
            except PermissionDenied as error:
                text = gettext("This body orders something else, which needs: %s")
                self.add_error("replay_body", text % error)
        return cleaned


#: The same for users who may not see the body; None removes the field.
SealedForm = type("SealedForm", (ReplayForm,), {"replay_body": None})


@admin.register(DeadLetter)
class DeadLetterAdmin(ReplayPages):
    """Dead letters, with actions to requeue and discard them."""

    form = ReplayForm
    change_form_template = "admin/messaging/dead_letter.html"
    list_display = (
        "short_id",
        "failed_at",
        KIND,
        "queue",
        "event_type",
        "short_reason",
        "is_answered",
        STATUS,
    )
    list_filter = ("status", "is_answered", "kind", "queue", "event_type")
    search_fields = ("id__startswith", "message_id__startswith", "reason")
    plain_search_fields = ("id__startswith", "message_id__startswith")
    plain_lookups = ("cause",)  # links of groups
    search_help_text = gettext_lazy("Beginning of an id, or part of the reason")
    ordering = ("-failed_at",)
    actions = ("replay", "requeue", "discard", "restore")
    #: The read-only fields; `replay_body` is shown as well if it can be edited.
    shown = (
        "id",
        MESSAGE_ID,
        "queue",
        "event_type",
        KIND,
        "code",
        "reason",
        "exception",
        "is_answered",
        "sent_by",
        "failed_at",
        "archived_at",
        STATUS,
        "settled_at",
        "settled_by",
        "replays",
        "trail",
        "sent_with",
        "size",
        "pretty_body",
    )
    masked: ClassVar[Any] = {
        "reason": text_column(gettext_lazy("reason"), lambda one: mask(one.reason)),
        "short_reason": text_column(
            gettext_lazy("reason"), lambda one: Truncator(mask(one.reason)).chars(100)
        ),
        "sent_by": text_column(
            gettext_lazy("sent by"), lambda one: mask(one.actor) or "-"
        ),
        "trail": text_column(
            gettext_lazy("history"),
            lambda one: trail_of(map(mask_event, one.history)),
        ),
        "sent_with": text_column(
            gettext_lazy("properties"),
            lambda one: preformatted(mask(pretty(one.properties.encode()))),
        ),
        "pretty_body": text_column(
            gettext_lazy("body"), lambda one: preformatted(mask_body(one.content))
        ),
    }

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may settle dead letters, or `obj` if it waits."""
        is_waiting = obj is None or obj.settled_at is None
        return is_waiting and self.has_operate_permission(request)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the form, without the body for those who may not see it."""
        base = ReplayForm if sees_personal_data(request) else SealedForm
        form: Any = super().get_form(request, *args, **{"form": base} | kwargs)
        form.account = request.user
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return all fields of the model."""
        return self._shown(request, self.shown)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return all fields, with the form's if the user may change the object."""
        fields = self._shown(request, self.shown)
        if self.has_change_permission(request, obj) and obj is not None:
            form = self.get_form(request, obj, fields=[])(instance=obj)
            fields += [name for name in form.fields if name == "replay_body"]
        return fields

    @admin.display(description="id", ordering="id")
    def short_id(self, letter: DeadLetter) -> str:
        """Return the beginning of the id, as the command prints it."""
        return letter.id[:ID_LENGTH]

    @admin.display(description=gettext_lazy("reason"), ordering="reason")
    def short_reason(self, letter: DeadLetter) -> str:
        """Return the beginning of the reason."""
        return Truncator(letter.reason).chars(100)

    @admin.display(description=gettext_lazy("sent by"))
    def sent_by(self, letter: DeadLetter) -> str:
        """Return who had ordered it."""
        return letter.actor or "-"

    @admin.display(description=gettext_lazy("history"))
    def trail(self, letter: DeadLetter) -> str:
        """Return the history, one line per event."""
        return trail_of(letter.history)

    @admin.display(description=gettext_lazy("properties"))
    def sent_with(self, letter: DeadLetter) -> str:
        """Return properties and headers of the original as indented JSON."""
        return preformatted(pretty(letter.properties.encode()))

    @admin.display(description=gettext_lazy("body"))
    def pretty_body(self, letter: DeadLetter) -> str:
        """Return the body, indented if it is JSON."""
        return preformatted(pretty(letter.content))

    @admin.action(
        description=gettext_lazy("Send again (requeue)"), permissions=["operate"]
    )
    @recent_password
    def requeue(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Requeue the selected dead letters that are waiting."""
        self._requeue(request, queryset)

    def _requeue(
        self, request: HttpRequest, queryset: QuerySet[Any], body: bytes | None = None
    ) -> None:
        number = 0
        newer: dict[str, Any] = {}
        try:
            for letters in requeue(waiting(queryset), operator(request), body=body):
                number += len(letters)
                log(request, letters, CHANGE, "requeue")
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

    @admin.action(description=gettext_lazy("Discard"), permissions=["operate"])
    @recent_password
    def discard(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Discard the selected dead letters that are waiting; the rows are kept."""
        self._discard(request, waiting(queryset))

    @admin.action(
        description=gettext_lazy("Fetch back (restore)"), permissions=["operate"]
    )
    def restore(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Let the selected dead letters that were discarded wait again."""
        settled = restore(selected(queryset), operator(request))
        number = logged(request, settled, "restore")
        text = ngettext(
            "%d dead letter waits again.", "%d dead letters wait again.", number
        )
        self.message_user(request, text % number, messages.SUCCESS)

    @recent_password
    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show a dead letter, or settle it."""
        return super().change_view(request, *args, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: DeadLetter, form: Any, change: bool
    ) -> None:
        """Requeue or discard the dead letter instead of saving it."""
        one = DeadLetter.objects.filter(pk=obj.pk)
        if "_discard" in request.POST:
            self._discard(request, waiting(one))
        else:
            self._requeue(request, one, form.body)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log nothing: the actions have."""

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Return to the list without a message: the actions have added one."""
        return self.response_post_save_change(request, obj)


def trail_of(history: Iterable[dict[str, str]]) -> str:
    """Return a history, one line per event."""
    lines = (
        "  ".join((event | {"what": word(event["what"])}).values()) for event in history
    )
    return preformatted("\n".join(map(printable, lines)))
