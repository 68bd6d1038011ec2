from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from messaging import Message
from messaging.admin import (
    MessageForm,
    PublishingAdmin,
    ReadOnlyAdmin,
    badge,
    orders,
    state_column,
)

from .commands import ReportCreate, ReportDelete, ReportUpdateVisibility
from .models import Notification, Report, ReportFile

orders(
    ReportCreate,
    "reports.add_report",
    # In whose name, since when, and who sees it.
    id_usuario="reports.add_report",
    fecha_creacion="reports.add_report",
    visibilidad="reports.change_report",
)
orders(
    ReportUpdateVisibility,
    "reports.change_report",
    visibilidad="reports.change_report",
    penalize_author="reports.change_report",
)
orders(ReportDelete, "reports.delete_report")


class ReportCreateForm(MessageForm):
    """Publishes `report.create`."""

    class Meta:
        model = Report
        fields = ["id_usuario", "tipo_reporte", "descripcion", "ubicacion"]

    def make_message(self, changes: dict[str, Any]) -> Message:
        """Build the command with a new id, as the API does."""
        self.instance.id_reporte = str(uuid.uuid4())
        made = {
            "id_reporte": self.instance.id_reporte,
            "fecha_creacion": timezone.now(),
        }
        return ReportCreate.parse(changes | made)


class ReportVisibilityForm(MessageForm):
    """Publishes `report.update_visibility`."""

    penalize_author = forms.BooleanField(label=_("Penalizar al autor"), required=False)

    class Meta:
        model = Report
        fields = ["visibilidad"]

    def make_message(self, changes: dict[str, Any]) -> Message:
        """Build the command; with a penalty alone the visibility stays the same."""
        return ReportUpdateVisibility.parse(
            {
                "id_reporte": self.instance.pk,
                "visibilidad": self.cleaned_data["visibilidad"],
                "penalize_author": self.cleaned_data["penalize_author"],
            }
        )


#: Kinds of visibility.
VISIBILITIES = {
    "hidden": _("oculto"),
    "normal": _("normal"),
    "boosted": _("destacado"),
}


class VisibilityFilter(admin.SimpleListFilter):
    """Filter hidden, normal and boosted reports."""

    title = _("visibilidad")
    parameter_name = "visibilidad"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return list(VISIBILITIES.items())

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Report]
    ) -> QuerySet[Report]:
        """Return the reports of the chosen kind."""
        match self.value():
            case "hidden":
                return queryset.filter(visibilidad=0)
            case "normal":
                return queryset.filter(visibilidad__gt=0, visibilidad__lte=1)
            case "boosted":
                return queryset.filter(visibilidad__gt=1)
        return queryset


@admin.register(Report)
class ReportAdmin(PublishingAdmin):
    """Reports; saving, deleting and the actions publish commands."""

    form = ReportVisibilityForm
    list_display = (
        "id_reporte",
        "id_usuario",
        "tipo_reporte",
        "descripcion_corta",
        "visibility",
        "fecha_creacion",
    )
    # The columns with an index.
    sortable_by = ("id_reporte", "visibility", "fecha_creacion")
    list_filter = (VisibilityFilter, "fecha_creacion")
    search_fields = ("id_reporte__exact", "descripcion", "ubicacion")
    ordering = ("-fecha_creacion",)
    readonly_fields = (
        "id_reporte",
        "id_usuario",
        "tipo_reporte",
        "descripcion",
        "ubicacion",
        "fecha_creacion",
        "archivo",
    )
    actions = ("hide", "hide_and_penalise", "delete_selected")

    @admin.display(description=_("descripción"))
    def descripcion_corta(self, report: Report) -> str:
        """Return the beginning of the description."""
        return Truncator(report.descripcion).chars(40)

    @admin.display(description=_("visibilidad"), ordering="visibilidad")
    def visibility(self, report: Report) -> str:
        """Return the number, with a badge unless it is normal."""
        shown = localize(report.visibilidad)
        if 0 < report.visibilidad <= 1:
            return shown
        kind = "boosted" if report.visibilidad else "hidden"
        return format_html("{} {}", shown, badge(kind, str(VISIBILITIES[kind])))

    @admin.display(description=_("archivo"))
    def archivo(self, report: Report) -> str:
        """Return a link to the file, if it exists."""
        if not ReportFile.objects.filter(pk=report.pk).exists():
            return gettext("Todavía no está disponible.")
        return format_html(
            '<a href="{}">{}</a>',
            reverse("report-file", args=[report.pk]),
            gettext("Descargar PDF"),
        )

    def get_form(
        self,
        request: HttpRequest,
        obj: Report | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Use the full form only for a new report."""
        if obj is None:
            kwargs["form"] = ReportCreateForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(
        self, request: HttpRequest, obj: Report | None = None
    ) -> tuple[str, ...]:
        """Return the fields of the form and, of an existing report, the others."""
        if obj is None:
            return tuple(ReportCreateForm.Meta.fields)
        return (*self.readonly_fields, "visibilidad", "penalize_author")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Report | None = None
    ) -> tuple[str, ...]:
        """Return no read-only fields for a new report."""
        return () if obj is None else self.readonly_fields

    def make_delete(self, instance: Report) -> Message:
        """Build `report.delete`."""
        return ReportDelete(id_reporte=instance.pk)

    @admin.action(description=_("Ocultar"), permissions=["change"])
    def hide(self, request: HttpRequest, queryset: QuerySet[Report]) -> None:
        """Set the visibility of the selected reports to 0."""
        self.queue(
            request,
            queryset,
            lambda report: ReportUpdateVisibility(id_reporte=report.pk, visibilidad=0),
            change=gettext("Ocultado"),
        )

    @admin.action(description=_("Ocultar y penalizar al autor"), permissions=["change"])
    def hide_and_penalise(
        self, request: HttpRequest, queryset: QuerySet[Report]
    ) -> None:
        """Set the visibility to 0 and lower the rating of each author."""
        self.queue(
            request,
            queryset,
            lambda report: ReportUpdateVisibility(
                id_reporte=report.pk, visibilidad=0, penalize_author=True
            ),
            change=gettext("Ocultado, con penalización del autor"),
        )


STATUS = state_column("status", _("estado"))


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    """The state of the e-mails to authors."""

    list_display = ("id_reporte", "recipient", STATUS, "doubts", "changed_at")
    fields: ClassVar[Any] = (
        "id_reporte",
        "recipient",
        "message_id",
        STATUS,
        "doubts",
        "problem",
        "changed_at",
    )
    # The columns with an index.
    sortable_by = ("id_reporte", "recipient", "changed_at")
    list_filter = ("status",)
    search_fields = ("id_reporte__exact", "recipient__exact")
    ordering = ("-changed_at",)
