from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from . import views

urlpatterns = [
    path("operations/<str:operation>/", csrf_exempt(views.operation), name="operation"),
]
