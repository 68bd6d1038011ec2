from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from messaging import Message
from messaging.admin import SUPERUSER, MessageForm, PublishingAdmin, orders

from .commands import UserCreate, UserDelete, UserUpdate
from .models import EDITABLE, User

#: Fields that nobody writes in the admin.
COUNTED: dict[str, str | None] = {
    "calificacion": SUPERUSER,
    "numero_reportes": SUPERUSER,
}
orders(UserCreate, "users.add_user", fecha_creacion="users.add_user", **COUNTED)
# To another address go the e-mails about a user's reports.
orders(UserUpdate, "users.change_user", email="users.change_user", **COUNTED)
orders(UserDelete, "users.delete_user")


class UserForm(MessageForm):
    """Publishes `user.create` or `user.update`."""

    url_foto_perfil = forms.URLField(
        label=_("Foto de perfil"), required=False, max_length=500, assume_scheme="https"
    )

    class Meta:
        model = User
        fields = EDITABLE

    def make_message(self, changes: dict[str, Any]) -> Message:
        """Build the command for the form: a creation, or a change of the instance."""
        if self.instance.pk is None:
            return UserCreate.parse(changes | {"fecha_creacion": timezone.now()})
        return UserUpdate.parse(changes | {"user_id": self.instance.pk})


class RatingFilter(admin.SimpleListFilter):
    """Filter users by ranges of their rating."""

    title = _("calificación")
    parameter_name = "calificacion"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("5", _("la mejor")), ("3", _("de 3 a 5")), ("0", _("menos de 3"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[User]
    ) -> QuerySet[User]:
        """Return the users in the chosen range."""
        match self.value():
            case "5":
                return queryset.filter(calificacion=5)
            case "3":
                return queryset.filter(calificacion__gte=3, calificacion__lt=5)
            case "0":
                return queryset.filter(calificacion__lt=3)
        return queryset


@admin.register(User)
class UserAdmin(PublishingAdmin):
    """Users; saving and deleting publish commands."""

    form = UserForm
    list_display = (
        "user_id",
        "nombre",
        "apellido",
        "email",
        "calificacion",
        "numero_reportes",
        "fecha_creacion",
    )
    list_display_links = ("user_id", "email")
    # The columns with an index; each more would cost every creation of a user.
    sortable_by = (
        "user_id",
        "apellido",
        "email",
        "calificacion",
        "numero_reportes",
        "fecha_creacion",
    )
    list_filter = (RatingFilter, "fecha_creacion")
    search_fields = (
        "email__istartswith",
        "apellido__istartswith",
        "nombre__istartswith",
    )
    search_help_text = _("Comienzo del e-mail, del apellido o del nombre")
    ordering = ("-user_id",)
    readonly_fields = ("calificacion", "numero_reportes", "fecha_creacion")

    class Media:
        css = {"all": ["users/admin.css"]}

    def get_fields(
        self, request: HttpRequest, obj: User | None = None
    ) -> tuple[str, ...]:
        """Add the read-only fields to the form of an existing user."""
        return (*EDITABLE, *(self.readonly_fields if obj else ()))

    def get_search_fields(self, request: HttpRequest) -> Any:
        """Return all of them, or the e-mail alone, whose index finds an address."""
        term = request.GET.get(SEARCH_VAR, "").strip()
        is_address = "@" in term and " " not in term
        return self.search_fields[:1] if is_address else self.search_fields

    def make_delete(self, instance: User) -> Message:
        """Build `user.delete`."""
        return UserDelete(user_id=instance.pk)
