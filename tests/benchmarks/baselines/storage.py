"""The table of users with SQLAlchemy, for consumers that commit each message."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

#: Of the body; the rest are defaults.
FIELDS = ("nombre", "apellido", "email", "url_foto_perfil", "biografia")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users_user"

    user_id: Mapped[int] = mapped_column(primary_key=True)
    nombre: Mapped[str] = mapped_column(String(100))
    apellido: Mapped[str] = mapped_column(String(100))
    email: Mapped[str] = mapped_column(String(254))
    fecha_nacimiento: Mapped[datetime | None]
    fecha_creacion: Mapped[datetime]
    calificacion: Mapped[float] = mapped_column(default=5.0)
    numero_reportes: Mapped[int] = mapped_column(default=0)
    url_foto_perfil: Mapped[str] = mapped_column(String(500), default="")
    biografia: Mapped[str] = mapped_column(default="")


address = os.environ["DATABASE_URL"].replace("mysql://", "mysql+mysqldb://")
engine = create_engine(address)


def save_user(body: dict[str, Any]) -> None:
    """Insert a user, and commit."""
    with Session(engine) as session:
        born = body.get("fecha_nacimiento")
        session.add(
            User(
                **{name: body[name] for name in FIELDS if name in body},
                fecha_nacimiento=born and datetime.fromisoformat(born),
                fecha_creacion=datetime.now(UTC),
            )
        )
        session.commit()
