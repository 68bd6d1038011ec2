"""All URLs of the project."""

from django.conf import settings
from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.request import Request
from rest_framework.routers import APIRootView, DefaultRouter
from rest_framework.views import APIView
from rest_framework_simplejwt.views import TokenViewBase

from messaging.monitoring.metrics import metrics
from project import health
from project.logins import RefreshSerializer, TokenSerializer
from project.missing import missing
from reports.views import ReportViewSet
from users.views import UserViewSet

handler400 = "project.missing.bad_request"
handler404 = "project.missing.not_found"
handler500 = "project.missing.server_error"

admin.site.site_header = admin.site.site_title = "Usuarios y reportes"
admin.site.index_title = "Administración"
# Lists need the width, and the start page links to everything.
admin.site.enable_nav_sidebar = False


class Root(APIRootView):
    """Las lecturas van a la base de datos; las escrituras se encolan."""

    name = "Usuarios y reportes"
    resource = "root"


class Metrics(APIView):
    """Los números del sistema, para Prometheus."""

    resource = "metrics"

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Return all metrics."""
        return metrics(request._request)


router = DefaultRouter()
router.APIRootView = Root
router.register("users", UserViewSet)
router.register("reports", ReportViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("", include("messaging.urls")),
    path("token/", TokenViewBase.as_view(serializer_class=TokenSerializer)),
    path("token/refresh/", TokenViewBase.as_view(serializer_class=RefreshSerializer)),
    path("admin/", admin.site.urls),
    path("health/live", csrf_exempt(health.live)),
    path("health/ready", csrf_exempt(health.ready)),
    path("metrics", Metrics.as_view()),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    # With open access there is no login.
    *(
        []
        if settings.OPEN_ACCESS
        else [path("session/", include("rest_framework.urls"))]
    ),
    re_path(r"(?P<path>[\s\S]*)", missing),
]
