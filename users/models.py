"""Users, and the permanent record of their versions, in MySQL."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from messaging.models import Ledger

from .messages import normalised

#: Rating of a new user, and the highest there is.
BEST_RATING = 5.0


class UserQuerySet(models.QuerySet["User"]):
    """Users by what identifies them, and with what is told of them."""

    def with_version(self) -> UserQuerySet:
        """Add the version, as of the same moment."""
        ledger = UserLedger.objects.filter(pk=models.OuterRef("pk"))
        return self.annotate(version=models.Subquery(ledger.values("version")))

    def ids_by_email(self, emails: Iterable[str]) -> dict[str, int]:
        """Give who has these addresses, by the normalised address."""
        rows = self.filter(email__in=set(emails)).values_list("email", "pk")
        return {normalised(email): pk for email, pk in rows}


class User(models.Model):
    """A person who writes reports."""

    user_id = models.BigAutoField(primary_key=True)
    nombre = models.CharField(max_length=100)
    apellido = models.CharField(max_length=100, db_index=True)
    # A collation that MySQL and MariaDB share and that does not regard case.
    email = models.EmailField(
        "e-mail", max_length=254, unique=True, db_collation="utf8mb4_general_ci"
    )
    fecha_nacimiento = models.DateTimeField(
        "fecha de nacimiento", null=True, blank=True
    )
    fecha_creacion = models.DateTimeField("fecha de creación", db_index=True)
    calificacion = models.FloatField(
        "calificación",
        default=BEST_RATING,
        db_index=True,
        validators=[MinValueValidator(0), MaxValueValidator(BEST_RATING)],
    )
    numero_reportes = models.PositiveIntegerField(
        "número de reportes", default=0, db_index=True
    )
    url_foto_perfil = models.URLField(
        "foto de perfil", max_length=500, blank=True, default=""
    )
    biografia = models.TextField("biografía", blank=True, default="")

    objects = UserQuerySet.as_manager()

    class Meta:
        verbose_name = "usuario"

    def __str__(self) -> str:
        return f"{self.nombre} {self.apellido} <{self.email}>"


class UserLedger(Ledger):
    """Version of each user there is or was."""

    user_id = models.BigIntegerField(primary_key=True)

    def __str__(self) -> str:
        return f"user {self.user_id} v{self.version}"
