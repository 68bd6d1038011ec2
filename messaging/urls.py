from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from . import views
from .asyncapi.views import asyncapi, page

urlpatterns = [
    path("operations/<str:operation>/", csrf_exempt(views.operation), name="operation"),
    path("api/messages/", page, name="messages"),
    path("api/messages/asyncapi.json", asyncapi, name="asyncapi"),
]
