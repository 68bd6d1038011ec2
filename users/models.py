"""Users, and the permanent ledger of their versions, in MySQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from messaging.database import insert
from messaging.models import Ledger

from .commands import normalise_email

#: Rating of a new user, and the highest possible one.
BEST_RATING = 5.0

#: The fields that requests and forms may set.
EDITABLE = [
    "nombre",
    "apellido",
    "email",
    "fecha_nacimiento",
    "url_foto_perfil",
    "biografia",
]


class UserQuerySet(models.QuerySet["User"]):
    """Lookups that the consumers and the API share."""

    def with_version(self) -> UserQuerySet:
        """Annotate each user with `version`, read in the same query."""
        ledger = UserLedger.objects.filter(pk=models.OuterRef("pk"))
        return self.annotate(version=models.Subquery(ledger.values("version")))

    def ids_by_email(self, emails: Iterable[str]) -> dict[str, int]:
        """Return the ids of the users with these e-mails, by normalised e-mail."""
        rows = self.filter(email__in=set(emails)).values_list("email", "pk")
        return {normalise_email(email): pk for email, pk in rows}

    def locked(self, ids: Iterable[int]) -> list[tuple[User, int]]:
        """Lock users, in the order of their ids; return them with their versions."""
        # Joined, as a subquery could return a version from before the lock.
        ledger = UserLedger._meta.db_table
        users = self.select_for_update().filter(pk__in=set(ids)).order_by("pk")
        rows = users.extra(  # noqa: S610 only names
            select={"version": f"{ledger}.version"},
            tables=[ledger],
            where=[f"{ledger}.user_id = {User._meta.db_table}.user_id"],
        )
        return [(user, user.version) for user in rows]

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> list[int]:
        """Insert rows with the values of `User.COLUMNS`, and return their ids."""
        names = ("email", "user_id")
        found = insert(
            router.db_for_write(User), User, User.COLUMNS, rows, returning=names
        )
        place = User.COLUMNS.index("email")
        ids = {normalise_email(email): pk for email, pk in found}
        # MySQL, unlike MariaDB, does not return them.
        ids = ids or self.ids_by_email(row[place] for row in rows)
        return [ids[normalise_email(row[place])] for row in rows]


class User(models.Model):
    """An author of reports."""

    user_id = models.BigAutoField(_("id"), primary_key=True)
    nombre = models.CharField(_("nombre"), max_length=100)
    apellido = models.CharField(_("apellido"), max_length=100, db_index=True)
    # A case-insensitive collation that both MySQL and MariaDB have.
    email = models.EmailField(
        _("e-mail"), max_length=254, unique=True, db_collation="utf8mb4_general_ci"
    )
    fecha_nacimiento = models.DateTimeField(
        _("fecha de nacimiento"), null=True, blank=True
    )
    fecha_creacion = models.DateTimeField(_("fecha de creación"), db_index=True)
    calificacion = models.FloatField(
        _("calificación"),
        default=BEST_RATING,
        db_index=True,
        validators=[MinValueValidator(0), MaxValueValidator(BEST_RATING)],
    )
    numero_reportes = models.PositiveIntegerField(
        _("número de reportes"), default=0, db_index=True
    )
    url_foto_perfil = models.URLField(
        _("foto de perfil"), max_length=500, blank=True, default=""
    )
    biografia = models.TextField(_("biografía"), blank=True, default="")

    COLUMNS = (
        "nombre",
        "apellido",
        "email",
        "fecha_nacimiento",
        "fecha_creacion",
        "calificacion",
        "numero_reportes",
        "url_foto_perfil",
        "biografia",
    )

    objects = UserQuerySet.as_manager()

    class Meta:
        verbose_name = _("usuario")

    def __str__(self) -> str:
        return f"{self.nombre} {self.apellido} <{self.email}>"


class UserLedgerQuerySet(models.QuerySet["UserLedger"]):
    """Rows of the ledger."""

    def begin(self, ids: Iterable[int], actors: Iterable[str]) -> None:
        """Insert rows at version 1, with those who have ordered the new users."""
        names, now = ("user_id", *UserLedger.CHANGED, "deleted"), timezone.now()
        rows = [(pk, 1, by, now, False) for pk, by in zip(ids, actors, strict=True)]
        insert(router.db_for_write(UserLedger), UserLedger, names, rows)


class UserLedger(Ledger):
    """The version of every user, kept after the user is deleted."""

    user_id = models.BigIntegerField(primary_key=True)

    objects = UserLedgerQuerySet.as_manager()

    def __str__(self) -> str:
        return f"user {self.user_id} v{self.version}"
