"""An admin that publishes where others save, and a look at inbox and outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as confirm_deletion
from django.contrib.admin.utils import model_ngettext
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from .api import publish
from .exceptions import InvalidMessage, PublishError
from .message import Message
from .models import Inbox, Outbox


class MessageForm(forms.ModelForm):
    """A form checked by the message it becomes; it saves nothing itself."""

    #: What saving will publish; None when nothing was changed.
    to_publish: Message | None = None

    def make_message(self, changes: dict[str, Any]) -> Message:
        """Give the message for the changed fields; raises `InvalidMessage`."""
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        """Make the message and show its errors beside the fields."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        changes = {name: cleaned[name] for name in self.changed_data if name in cleaned}
        if changes and not self.errors:
            try:
                self.to_publish = self.make_message(changes)
            except InvalidMessage as error:
                for field, texts in error.errors.items():
                    self.add_error(field if field in self.fields else None, texts)
        return cleaned


class PublishingAdmin(admin.ModelAdmin):
    """Adds, changes and deletes by publishing messages; consumers do the writing."""

    form: type[MessageForm]
    actions: Sequence[str] = ("delete_selected",)

    def make_delete(self, instance: Any) -> Message:
        """Give the message that deletes an instance."""
        raise NotImplementedError

    def save_model(
        self, request: HttpRequest, obj: Model, form: Any, change: bool
    ) -> None:
        """Publish in place of saving."""
        if form.to_publish is not None:
            publish(form.to_publish)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Publish in place of deleting."""
        publish(self.make_delete(obj))

    @admin.action(description="Eliminar %(verbose_name_plural)s seleccionados/as")
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        """Publish the deletions once they are confirmed."""
        if not request.POST.get("post"):
            return confirm_deletion(self, request, queryset)
        if not self.has_delete_permission(request):
            return None
        self.log_deletions(request, queryset)
        self.queue(request, queryset, self.make_delete)
        return None

    def queue(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        make: Callable[[Any], Message],
    ) -> None:
        """Publish one message for each selected instance, and say so."""
        chosen = list(queryset)
        publish(*(make(instance) for instance in chosen))
        name = model_ngettext(self.opts, len(chosen))
        self._say_queued(request, f"{len(chosen)} {name}")

    def response_add(self, request: HttpRequest, obj: Model, *_: Any) -> HttpResponse:
        """Say that it was queued; there is nothing to show yet."""
        self._say_queued(request, str(obj))
        return self._to_list()

    def response_change(self, request: HttpRequest, obj: Model) -> HttpResponse:
        """Say that it was queued; what is stored is still as it was."""
        self._say_queued(request, str(obj))
        return self._to_list()

    def response_delete(
        self, request: HttpRequest, obj_display: str, obj_id: Any
    ) -> HttpResponse:
        """Say that it was queued; it is still there."""
        self._say_queued(request, obj_display)
        return self._to_list()

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Add or change; when the broker is away, say so."""
        return self._or_say_why(super().changeform_view, request, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """List and run actions; when the broker is away, say so."""
        return self._or_say_why(super().changelist_view, request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Delete; when the broker is away, say so."""
        return self._or_say_why(super().delete_view, request, *args, **kwargs)

    def _or_say_why(
        self, view: Callable[..., Any], request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return view(request, *args, **kwargs)
        except PublishError as error:
            self.message_user(
                request, f"No se ha encolado: {error}", level=messages.ERROR
            )
            return HttpResponseRedirect(request.get_full_path())

    def _say_queued(self, request: HttpRequest, what: str) -> None:
        text = f"Enviado a cola para procesamiento: {what}"
        self.message_user(request, text, level=messages.SUCCESS)

    def _to_list(self) -> HttpResponse:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
        return HttpResponseRedirect(reverse(name, current_app=self.admin_site.name))


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows that only programs write."""

    def has_add_permission(self, *_: Any) -> bool:
        """Nobody adds."""
        return False

    def has_change_permission(self, *_: Any) -> bool:
        """Nobody changes."""
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        """Nobody deletes."""
        return False


@admin.register(Inbox)
class InboxAdmin(ReadOnlyAdmin):
    """What was handled."""

    list_display = ("message_id", "event_type", "status", "reason", "processed_at")
    list_filter = ("status",)
    search_fields = ("message_id__exact",)
    ordering = ("-processed_at",)
    show_full_result_count = False


@admin.register(Outbox)
class OutboxAdmin(ReadOnlyAdmin):
    """What waits to be published."""

    list_display = ("id", "type", "message_id", "routing_key", "created_at")
    exclude = ("body",)
    show_full_result_count = False


# Django finds the admin of an app here alone.
from .dead_letters import admin as dead_letters_admin  # noqa: E402, F401
