"""The API with FastAPI and aio-pika: one channel a process, publisher confirms."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import aio_pika
from fastapi import FastAPI
from pydantic import BaseModel, StringConstraints

QUEUE = os.environ.get("QUEUE", "fastapi_users")

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
Url = Annotated[str, StringConstraints(max_length=500, pattern=r"^https?://")]


class UserIn(BaseModel):
    nombre: Name
    apellido: Name
    email: Email
    fecha_nacimiento: datetime | None = None
    url_foto_perfil: Url | None = None
    biografia: Annotated[str, StringConstraints(max_length=5000)] | None = None


class UserCreate(UserIn):
    event_type: str = "user.create"
    fecha_creacion: datetime


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    connection = await aio_pika.connect_robust(os.environ["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        app.state.exchange = channel.default_exchange
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/users/", status_code=202)
async def create_user(user: UserIn) -> dict[str, str]:
    now = datetime.now(UTC)
    message = UserCreate(**user.model_dump(), fecha_creacion=now)
    await app.state.exchange.publish(
        aio_pika.Message(
            message.model_dump_json(exclude_none=True).encode(),
            message_id=str(uuid.uuid4()),
            type=message.event_type,
            content_type="application/json",
            timestamp=now,
            app_id="users",
            headers={"partition_key": f"email:{user.email.lower()}"},
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        ),
        routing_key=QUEUE,
    )
    return {
        "status": "queued",
        "message": "Usuario enviado a cola para procesamiento",
        "email": user.email,
    }
