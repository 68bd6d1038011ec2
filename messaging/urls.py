from django.urls import path

from . import views

urlpatterns = [
    path("operations/<str:operation>/", views.operation, name="operation"),
]
