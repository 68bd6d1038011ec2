"""The API with Django REST framework and a connection of pika for each thread."""

from __future__ import annotations

import os
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import django
from django.conf import settings

QUEUE = os.environ.get("QUEUE", "drf_users")

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={},
    INSTALLED_APPS=["rest_framework"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

import pika
from django.core.wsgi import get_wsgi_application
from django.db import models
from django.urls import path
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class User(models.Model):
    nombre = models.CharField(max_length=100)
    apellido = models.CharField(max_length=100)
    # Not unique: the serializer would ask the database at each request.
    email = models.EmailField(max_length=254)
    fecha_nacimiento = models.DateTimeField(null=True, blank=True)
    url_foto_perfil = models.URLField(max_length=500, blank=True)
    biografia = models.TextField(max_length=5000, blank=True)

    class Meta:
        app_label = "drf_users"

    def __str__(self) -> str:
        return self.email


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        exclude = ["id"]


of_thread = threading.local()


def channel() -> Any:
    """Return the channel of this thread, with confirms."""
    if not hasattr(of_thread, "channel"):
        parameters = pika.URLParameters(os.environ["RABBITMQ_URL"])
        of_thread.connection = pika.BlockingConnection(parameters)
        of_thread.channel = of_thread.connection.channel()
        of_thread.channel.confirm_delivery()
    return of_thread.channel


class Users(APIView):
    def post(self, request: Request) -> Response:
        serializer = UserSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        now = datetime.now(UTC)
        body = {"event_type": "user.create", **serializer.data}
        email = serializer.data["email"]
        channel().basic_publish(
            "",
            QUEUE,
            JSONRenderer().render(body | {"fecha_creacion": now.isoformat()}),
            pika.BasicProperties(
                message_id=str(uuid.uuid4()),
                type="user.create",
                content_type="application/json",
                timestamp=int(now.timestamp()),
                app_id="users",
                headers={"partition_key": f"email:{email.lower()}"},
                delivery_mode=2,
            ),
            mandatory=True,
        )
        text = "Usuario enviado a cola para procesamiento"
        answer = {"status": "queued", "message": text, "email": email}
        return Response(answer, status=202)


urlpatterns = [path("users/", Users.as_view())]
application = get_wsgi_application()
