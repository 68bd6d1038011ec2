"""
Reports in two stores: the ledger in MySQL is authoritative, reads come from MongoDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db import models, router
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from messaging.database import insert
from messaging.models import Ledger, PrunableQuerySet

from .mongodb import django_errors
from .queries import ReportQuery


class ReportQuerySet(models.QuerySet["Report"]):
    """
    Queries of the documents, which raise Django's errors until the last batch is read.

    Django's engine for MongoDB translates the errors of the first batch only.
    """

    def __init__(self, model: Any = None, query: Any = None, **options: Any) -> None:
        super().__init__(model, query or ReportQuery(model), **options)

    def count(self) -> int:
        """Return the number of results; those of a slice are read, in limited time."""
        return len(self.values_list("pk")) if self.query.is_sliced else super().count()

    def _fetch_all(self) -> None:
        with django_errors():
            super()._fetch_all()

    def iterator(self, chunk_size: int | None = None) -> Iterator[Any]:
        """Yield the results without keeping them."""
        with django_errors():
            yield from super().iterator(chunk_size)


class Reports(models.Manager.from_queryset(ReportQuerySet)):  # type: ignore[misc]
    """The reports without the tombstones of deleted ones."""

    def get_queryset(self) -> ReportQuerySet:
        """Exclude tombstones."""
        found: ReportQuerySet = super().get_queryset().filter(deleted=False)
        return found


class Report(models.Model):
    """
    A report in MongoDB, written only by `reports.documents`.

    A deleted report leaves a tombstone with its id, version, `deleted` and the time,
    so that a late write finds a newer version and changes nothing.
    """

    id_reporte = models.CharField(
        _("id del reporte"), max_length=36, primary_key=True, db_column="_id"
    )
    id_usuario = models.BigIntegerField(_("id del usuario"))
    tipo_reporte = models.IntegerField(_("tipo de reporte"))
    descripcion = models.TextField(_("descripción"))
    ubicacion = models.CharField(_("ubicación"), max_length=255, blank=True)
    visibilidad = models.FloatField(_("visibilidad"), default=1.0)
    fecha_creacion = models.DateTimeField(_("fecha de creación"))
    version = models.IntegerField(_("versión"), editable=False)
    # In every document, because the index serves `false` but not a missing value.
    deleted = models.BooleanField(_("eliminado"), default=False, editable=False)

    objects = Reports()
    with_tombstones = ReportQuerySet.as_manager()

    class Meta:
        db_table = "reports"
        verbose_name = _("reporte")
        verbose_name_plural = _("reportes")
        # `deleted` first, because every query filters on it; `_id` last, to break ties
        # in pagination.
        indexes = (
            models.Index(
                fields=["deleted", "-fecha_creacion", "-id_reporte"],
                name="report_fecha",
            ),
            models.Index(
                fields=["deleted", "id_usuario", "-fecha_creacion", "-id_reporte"],
                name="report_usuario",
            ),
            models.Index(
                fields=["deleted", "tipo_reporte", "-fecha_creacion", "-id_reporte"],
                name="report_tipo",
            ),
            models.Index(
                fields=["deleted", "-visibilidad", "-id_reporte"],
                name="report_visibilidad",
            ),
        )

    def __str__(self) -> str:
        return f"{capfirst(self._meta.verbose_name)} {self.id_reporte}"


class ReportLedger(Ledger):
    """The permanent record of a report in MySQL, kept after the report is deleted."""

    # Case-sensitive, like ids in MongoDB.
    id_reporte = models.CharField(
        max_length=36, primary_key=True, db_collation="utf8mb4_bin"
    )
    id_usuario = models.BigIntegerField(db_index=True)
    visibilidad = models.FloatField()
    fecha_creacion = models.DateTimeField()
    #: Whether the author was removed from the document.
    anonymous = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"report {self.id_reporte} v{self.version}"


class NotificationQuerySet(PrunableQuerySet):
    """The state of e-mails."""

    moment = "changed_at"


class Notification(models.Model):
    """
    The e-mail to the author of a new report, and its state.

    SENDING is committed before the mail server is contacted. A row that is still in
    that state belongs to an attempt with an unknown outcome, which `doubts` counts.
    OMITTED is one that exceeded NOTIFICATIONS_PER_DAY: it is never sent.
    """

    class Status(models.TextChoices):
        """State of the e-mail."""

        SENDING = "sending", _("enviándose")
        WAITING = "waiting", _("en espera")
        SENT = "sent", _("enviado")
        REFUSED = "refused", _("rechazado")
        OMITTED = "omitted", _("omitido")

    id_reporte = models.CharField(
        _("id del reporte"), max_length=36, primary_key=True, db_collation="utf8mb4_bin"
    )
    recipient = models.EmailField(_("destinatario"), max_length=254)
    #: The header of that name, the same in every attempt, which identifies duplicates.
    message_id = models.CharField("Message-ID", max_length=255)
    status = models.CharField(_("estado"), max_length=10, choices=Status)
    doubts = models.PositiveSmallIntegerField(_("dudas"), default=0)
    #: The last error of the mail server or of the connection to it.
    problem = models.CharField(_("problema"), max_length=1000, default="")
    changed_at = models.DateTimeField(_("último cambio"), db_index=True)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(fields=["status", "changed_at"], name="notification_status"),
            models.Index(fields=["recipient"], name="notification_recipient"),
        )
        verbose_name = _("notificación")
        verbose_name_plural = _("notificaciones")

    def __str__(self) -> str:
        return self.id_reporte


class ReportFileQuerySet(PrunableQuerySet):
    """The files of reports."""

    moment = "created_at"


class ReportFile(models.Model):
    """The name of a report's file in the storage, committed once the file exists."""

    id_reporte = models.CharField(
        max_length=36, primary_key=True, db_collation="utf8mb4_bin"
    )
    name = models.CharField(max_length=255)
    created_at = models.DateTimeField()

    objects = ReportFileQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class DailyCountQuerySet(PrunableQuerySet):
    """What was counted on each day."""

    moment = "day"

    def add(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """
        Add to the counts of today, in UTC, and return what they were before.

        Others that count the same wait until this transaction ends.
        """
        today = timezone.now().date()
        # In one order, so that two transactions cannot deadlock.
        keys = {f"{name} {today}": name for name in sorted(numbers)}
        rows = [(key, today, numbers[name]) for key, name in keys.items()]
        using, names = router.db_for_write(DailyCount), ("key", "day", "number")
        insert(using, DailyCount, names, rows, adding=["number"])
        found = self.using(using).filter(pk__in=keys).values_list("pk", "number")
        return {keys[key]: number - numbers[keys[key]] for key, number in found}


class DailyCount(models.Model):
    """How often something that is limited was asked for on one day."""

    key = models.CharField(max_length=100, primary_key=True, db_collation="utf8mb4_bin")
    day = models.DateField(db_index=True)
    number = models.PositiveIntegerField()

    objects = DailyCountQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.key}: {self.number}"
