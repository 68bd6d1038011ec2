from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from messaging import Message
from messaging.admin import MessageForm, PublishingAdmin

from .messages import UserCreate, UserDelete, UserUpdate
from .models import User
from .serializers import EDITABLE


class UserForm(MessageForm):
    """Publishes `user.create` or `user.update`."""

    url_foto_perfil = forms.URLField(
        label="Foto de perfil", required=False, max_length=500, assume_scheme="https"
    )

    class Meta:
        model = User
        fields = EDITABLE

    def make_message(self, changes: dict[str, Any]) -> Message:
        """Make a creation of a new user, a change of one that is there."""
        if self.instance.pk is None:
            return UserCreate.parse(changes | {"fecha_creacion": timezone.now()})
        return UserUpdate.parse(changes | {"user_id": self.instance.pk})


class RatingFilter(admin.SimpleListFilter):
    """Good and bad ratings."""

    title = "calificación"
    parameter_name = "calificacion"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Name the choices."""
        return [("5", "la mejor"), ("3", "de 3 a 5"), ("0", "menos de 3")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[User]
    ) -> QuerySet[User]:
        """Filter by the choice."""
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
    """Users; every change goes through the queue."""

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
    list_filter = (RatingFilter, "fecha_creacion")
    search_fields = (
        "email__istartswith",
        "apellido__istartswith",
        "nombre__istartswith",
    )
    search_help_text = "Comienzo del e-mail, del apellido o del nombre"
    ordering = ("-user_id",)
    readonly_fields = ("calificacion", "numero_reportes", "fecha_creacion")
    show_full_result_count = False

    class Media:
        css = {"all": ["users/admin.css"]}

    def get_fields(
        self, request: HttpRequest, obj: User | None = None
    ) -> tuple[str, ...]:
        """Show what nobody can give only of users who are there."""
        return (*EDITABLE, *(self.readonly_fields if obj else ()))

    def make_delete(self, instance: User) -> Message:
        """Publish `user.delete`."""
        return UserDelete(user_id=instance.pk)
