"""An admin that publishes messages instead of saving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as confirm_deletion
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import model_ngettext
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_protect

from messaging.exceptions import InvalidMessage, PublishError
from messaging.logs.repetition import RepeatingLogger
from messaging.message import Message
from messaging.publish import publish

from .lists import ListAdmin
from .passwords import recent_password

repeating = RepeatingLogger(__name__)

#: Messages that are confirmed together, small enough not to delay the API's clients.
PORTION = 200
#: Rows that one action may delete: the page that asks for confirmation lists each, and
#: sends a field for each, of which Django accepts 1,000 by default.
MAX_DELETED = 500


class MessageForm(forms.ModelForm):
    """A form that is validated by the message it makes, and saves nothing."""

    #: What saving will publish; None if nothing was changed.
    to_publish: Message | None = None
    #: Why publishing has just failed.
    problem: str | None = None

    def make_message(self, changes: dict[str, Any]) -> Message:
        """Return the message for the changed fields; raises `InvalidMessage`."""
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        """Make the message, and show its errors beside the fields."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.problem:
            raise forms.ValidationError(self.problem)
        changes = {name: cleaned[name] for name in self.changed_data if name in cleaned}
        if changes and not self.errors:
            try:
                self.to_publish = self.make_message(changes)
            except InvalidMessage as error:
                for field, texts in error.errors.items():
                    self.add_error(field if field in self.fields else None, texts)
        return cleaned


class PublishingAdmin(ListAdmin):
    """
    Adds, changes and deletes by publishing messages, which consumers apply.

    Unlike Django's, its views open no transaction: inside one a message would wait in
    the outbox, and the user would not learn that the broker is unavailable.
    """

    form: type[MessageForm]
    actions: Sequence[str] = ("delete_selected",)

    def make_delete(self, instance: Any) -> Message:
        """Return the message that deletes an instance."""
        raise NotImplementedError

    @method_decorator(csrf_protect)
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Add or change; if the broker is unavailable, show the form again."""
        view: Any = self._changeform_view  # type: ignore[attr-defined]
        # There is no object to continue with before a consumer has written it.
        extra_context = {"show_save_and_continue": False} | (extra_context or {})
        extra_context["show_save_and_add_another"] = False
        try:
            return view(request, object_id, form_url, extra_context)
        except PublishError as error:
            request.publish_problem = explained(error)  # type: ignore[attr-defined]
            return view(request, object_id, form_url, extra_context)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return a form that shows why publishing has failed."""
        form: Any = super().get_form(request, *args, **kwargs)
        form.problem = getattr(request, "publish_problem", None)
        return form

    @method_decorator(csrf_protect)
    @recent_password
    def delete_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Delete; if the broker is unavailable, show an error."""
        view = self._delete_view  # type: ignore[attr-defined]
        return self._or_show_error(view, request, object_id, extra_context)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """List and run actions; if the broker is unavailable, show an error."""
        return self._or_show_error(super().changelist_view, request, *args, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: Model, form: Any, change: bool
    ) -> None:
        """Publish instead of saving."""
        if form.to_publish is None:
            self.message_user(request, _("Nothing was changed."), messages.WARNING)
            return
        publish(form.to_publish)
        self._show_queued(request, str(obj))

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Publish instead of deleting."""
        publish(self.make_delete(obj))
        log(request, [obj], DELETION)
        self._show_queued(request, str(obj))

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Log nothing: Django calls this before anything is published."""

    @admin.action(
        description=gettext_lazy("Delete selected %(verbose_name_plural)s"),
        permissions=["delete"],
    )
    @recent_password
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        """Publish the deletions, after a page that asks for confirmation."""
        if self.has_too_many(request, queryset, MAX_DELETED):
            return None
        if not request.POST.get("post"):
            return confirm_deletion(self, request, queryset)
        self._publish_all(request, queryset, self.make_delete, DELETION)
        return None

    def queue(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        make: Callable[[Any], Message],
        change: str,
    ) -> None:
        """Publish one message for each selected instance, and log `change`."""
        self._publish_all(request, queryset, make, CHANGE, change)

    def _publish_all(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        make: Callable[[Any], Message],
        flag: int,
        change: str = "",
    ) -> None:
        """Publish in portions, and log each as soon as it is confirmed."""
        chosen = list(queryset)
        done = 0
        try:
            for start in range(0, len(chosen), PORTION):
                portion = chosen[start : start + PORTION]
                publish(*(make(instance) for instance in portion))
                log(request, portion, flag, change)
                done += len(portion)
        finally:
            if done:
                name = model_ngettext(self.opts, done)
                self._show_queued(request, f"{done} {name}")

    def response_add(self, request: HttpRequest, obj: Model, *_: Any) -> HttpResponse:
        """Go to the list; nothing is stored yet."""
        return self._to_list()

    def response_change(self, request: HttpRequest, obj: Model) -> HttpResponse:
        """Go to the list; the stored object is still unchanged."""
        return self._to_list()

    def response_delete(
        self, request: HttpRequest, obj_display: str, obj_id: Any
    ) -> HttpResponse:
        """Go to the list; the object is still stored."""
        return self._to_list()

    def _or_show_error(
        self, view: Callable[..., Any], request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return view(request, *args, **kwargs)
        except PublishError as error:
            self.message_user(request, explained(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def _show_queued(self, request: HttpRequest, what: str) -> None:
        text = _("Sent to the queue for processing: %(what)s") % {"what": what}
        self.message_user(request, text, messages.SUCCESS)

    def _to_list(self) -> HttpResponse:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
        return HttpResponseRedirect(reverse(name, current_app=self.admin_site.name))


def log(request: HttpRequest, chosen: Any, flag: int, change: str = "") -> None:
    """Add entries to the admin's log of changes."""
    assert request.user.pk is not None  # the admin requires a login
    LogEntry.objects.log_actions(request.user.pk, chosen, flag, change)


def explained(error: PublishError) -> str:
    """Return the text to show for an error, and log the error itself."""
    text = "A change in the admin was not queued: %s"
    repeating.error(text, error, about=type(error))
    return _("The queue did not confirm in time. Try again later.")
