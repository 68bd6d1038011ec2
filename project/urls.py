"""Every address of the project."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import DefaultRouter
from rest_framework_simplejwt.views import TokenViewBase

from project import health
from project.access import TokenSerializer
from reports.views import ReportViewSet
from users.views import UserViewSet

router = DefaultRouter()
router.register("users", UserViewSet)
router.register("reports", ReportViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("", include("messaging.urls")),
    path("token/", TokenViewBase.as_view(serializer_class=TokenSerializer)),
    path("admin/", admin.site.urls),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]
