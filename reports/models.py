"""
Reports in two stores: the ledger in MySQL decides, the documents in MongoDB are read.
"""

from __future__ import annotations

from django.db import models

from messaging.models import Ledger, PrunableQuerySet


class Reports(models.Manager["Report"]):
    """The reports themselves, without what deleted ones left behind."""

    def get_queryset(self) -> models.QuerySet[Report]:
        """Leave out tombstones."""
        return super().get_queryset().filter(deleted=False)


class Report(models.Model):
    """
    A report, written only by `reports.documents`.

    Deleted, it leaves a tombstone of id, version, `deleted` and the moment, so that a
    write which comes late finds a newer version there and changes nothing.
    """

    id_reporte = models.CharField(
        "id del reporte", max_length=36, primary_key=True, db_column="_id"
    )
    id_usuario = models.BigIntegerField("id del usuario")
    tipo_reporte = models.IntegerField("tipo de reporte")
    descripcion = models.TextField("descripción")
    ubicacion = models.CharField("ubicación", max_length=255, blank=True)
    visibilidad = models.FloatField("visibilidad", default=1.0)
    fecha_creacion = models.DateTimeField("fecha de creación")
    version = models.IntegerField("versión", editable=False)
    # A value in every document: MongoDB finds `false` by index, but not "missing".
    deleted = models.BooleanField("eliminado", default=False, editable=False)

    objects = Reports()
    with_tombstones: models.Manager[Report] = models.Manager()

    class Meta:
        db_table = "reports"
        verbose_name = "reporte"
        verbose_name_plural = "reportes"
        # `deleted` first, for every query names it; `_id` last, for it breaks the ties
        # of pages.
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
        return f"Reporte {self.id_reporte}"


class ReportLedger(Ledger):
    """What MySQL knows of a report for good, whatever becomes of its document."""

    # MongoDB regards case in ids, so MySQL must as well.
    id_reporte = models.CharField(
        max_length=36, primary_key=True, db_collation="utf8mb4_bin"
    )
    id_usuario = models.BigIntegerField(db_index=True)
    visibilidad = models.FloatField()
    fecha_creacion = models.DateTimeField()
    #: Whether the document no longer says who the author was.
    anonymous = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"report {self.id_reporte} v{self.version}"


class NotificationQuerySet(PrunableQuerySet):
    """What became of e-mails."""

    moment = "changed_at"


class Notification(models.Model):
    """
    The e-mail that tells an author of a new report, and how far it has come.

    "Sending" is committed before the mail server is asked, so a row in which that is
    found is of a try that ended without anybody knowing how: that is a doubt.
    """

    class Status(models.TextChoices):
        """How far it has come."""

        SENDING = "sending", "enviándose"
        WAITING = "waiting", "en espera"
        SENT = "sent", "enviado"
        REFUSED = "refused", "rechazado"

    id_reporte = models.CharField(
        "id del reporte", max_length=36, primary_key=True, db_collation="utf8mb4_bin"
    )
    recipient = models.EmailField("destinatario", max_length=254)
    #: The header of that name: the same in every try, so that a double can be told.
    message_id = models.CharField("Message-ID", max_length=255)
    status = models.CharField("estado", max_length=10, choices=Status)
    doubts = models.PositiveSmallIntegerField("dudas", default=0)
    #: What the mail server, or the way to it, last complained of.
    problem = models.CharField("problema", max_length=1000, default="")
    changed_at = models.DateTimeField("último cambio", db_index=True)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        verbose_name = "notificación"
        verbose_name_plural = "notificaciones"

    def __str__(self) -> str:
        return f"{self.id_reporte} {self.status}"


class ReportFile(models.Model):
    """Where in the storage the file of a report is; the row commits once it is."""

    id_reporte = models.CharField(
        max_length=36, primary_key=True, db_collation="utf8mb4_bin"
    )
    name = models.CharField(max_length=255)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
